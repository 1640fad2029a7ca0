"""Settings of the cloud, from `FLEET_…` variables or arguments; nothing else reads the environment."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class CloudSettings(BaseSettings):
    """All settings of `fleet serve`. Every default suits one machine with embedded stores."""

    model_config = SettingsConfigDict(env_prefix="FLEET_", extra="ignore", frozen=True)

    data_directory: Path = Path("data")
    database_url: str = ""
    """Empty: SQLite in the data directory. Production: `postgresql+psycopg://…`."""

    broker_host: str = "127.0.0.1"
    broker_port: Annotated[int, Field(ge=1, le=65535)] = 1883
    broker_ca_file: Path | None = None
    """Set: TLS towards the broker, with `broker_certificate_file` and `broker_key_file` as our identity."""
    broker_certificate_file: Path | None = None
    broker_key_file: Path | None = None

    command_key_file: Path | None = None
    """PEM of the Ed25519 key that signs commands. Empty: made in the data directory at the first start."""

    series: Literal["sqlite", "influxdb", "off"] = "sqlite"
    """`off`: telemetry stays in the spool until it is switched on again (maintenance, benches)."""
    influxdb_url: str = "http://127.0.0.1:8086"
    influxdb_token: SecretStr = SecretStr("")
    influxdb_org: str = "fleet"
    influxdb_bucket: str = "fleet"

    http_host: str = "127.0.0.1"
    http_port: Annotated[int, Field(ge=0, le=65535)] = 8000
    public_url: str = ""
    """How browsers reach us; `https://…` switches cookies to Secure and `__Host-`."""

    map_tiles_url: str = ""
    """Tile server of the maps (`https://…/{z}/{x}/{y}.png`, WGS-84). Empty: our own schematic."""
    map_tiles_attribution: str = ""

    webhook_url: str = ""
    webhook_secret: SecretStr = SecretStr("")
    apprise_urls: tuple[str, ...] = ()

    kind_folders: tuple[Path, ...] = ()
    """Folders of kinds that live outside this package."""

    clock_speed: Annotated[float, Field(gt=0, le=3600)] = 1.0
    clock_origin_ms: int = 0
    """Business time runs `clock_speed` times as fast as real time since this real moment; 0 = since the start."""
    clock_shift_ms: int = 0
    """Business minus real time at that moment: a demo may begin at noon whatever the clock says."""

    batch_messages_max: Annotated[int, Field(ge=1, le=10_000)] = 2000
    batch_linger_ms: Annotated[int, Field(ge=0, le=1000)] = 50
    twin_flush_ms: Annotated[int, Field(ge=0, le=60_000)] = 500
    spool_bytes_max: Annotated[int, Field(ge=1_000_000)] = 4_000_000_000

    log_level: Literal["debug", "info", "warning", "error"] = "info"

    def sql_url(self) -> str:
        """The database's URL with the embedded default filled in."""
        return self.database_url or f"sqlite:///{self.data_directory.resolve() / 'state.db'}"
