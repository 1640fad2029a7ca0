"""Settings of the cloud, from `FLEET_…` variables or arguments; nothing else reads the environment."""

from pathlib import Path
from typing import Annotated, Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from fleet.series import INSTANCES_MAX
from fleet.topics import SHARD_COUNT

SHARE: Final = "share"
"""Value of `shards`: an equal share of them."""


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

    broker_pid_file: Path | None = None
    """The broker's process id, for the signal that makes it read a new revocation list."""
    broker_reload_command: str = ""
    """What does the same where the broker is another user's or another machine's; run without a shell."""

    devices_broker_host: str = ""
    """Under which name boxes reach the broker; they are told at their enrolment. Empty: the host of `public_url`."""
    devices_broker_port: Annotated[int, Field(ge=1, le=65535)] = 8883

    pki_directory: Path | None = None
    """Folder of `fleet pki`. Set where devices' certificates are signed and revoked: role `api` (or `all`)."""

    command_key_file: Path | None = None
    """PEM of the Ed25519 key that signs commands. Empty: made in the data directory at the first start."""

    series: Literal["sqlite", "influxdb", "off"] = "sqlite"
    """`off`: no series; telemetry moves the twins and is then forgotten (benches)."""
    series_days: Annotated[int, Field(ge=0)] = 30
    """How long the embedded series keeps points, business days; 0 = for ever. An InfluxDB has its own retention."""
    history_days: Annotated[int, Field(ge=31)] = 400
    """How long events and ended commands are kept, business days. Money, audit, calls, alarms and orders stay."""
    queue_days: Annotated[int, Field(ge=7)] = 30
    """How long what queues delivered stays behind: outbox, inbox, people's acts, answers to repeated requests."""
    influxdb_url: str = "http://127.0.0.1:8086"
    influxdb_token: SecretStr = SecretStr("")
    influxdb_org: str = "fleet"
    influxdb_bucket: str = "fleet"
    influxdb_rollup: bool = True
    """Roll the series up by the minute and by the hour; `fleet influx init` makes the levels for it."""
    influxdb_reader_token: SecretStr = SecretStr("")
    """What Grafana reads with; `fleet doctor` asks whether it reads, and whether it may do no more than that."""

    grafana_url: str = ""
    """Where boards are published and looked at. Empty: there is no Grafana, or nobody of ours looks after it."""
    grafana_token: SecretStr = SecretStr("")

    platform_alert_secret: SecretStr = SecretStr("")
    """What Grafana shows when it tells us of the platform (deploy/grafana/alerting). Empty: nothing is taken."""

    backup_directory: Path | None = None
    """Where `fleet backup` keeps its archives; `fleet doctor` tells when the newest is too old."""

    http_host: str = "127.0.0.1"
    http_port: Annotated[int, Field(ge=0, le=65535)] = 8000
    public_url: str = ""
    """How browsers reach us; `https://…` switches cookies to Secure and `__Host-`."""

    forwarded_allow_ips: str = "127.0.0.1"
    """Proxies whose `X-Forwarded-…` headers are believed: addresses and networks, comma-separated; `*` for any."""

    roster_time_zone: str = "Asia/Shanghai"
    """Time zone of rosters: what times mean in a file that names none, and in which messages are written."""

    map_tiles_url: str = ""
    """Tile server of the maps (`https://…/{z}/{x}/{y}.png`, WGS-84). Empty: our own schematic."""
    map_tiles_attribution: str = ""

    webhook_url: str = ""
    webhook_secret: SecretStr = SecretStr("")
    webhook_allow_private: bool = False
    """Webhooks, gateways and push services may stand in our own network: loopback, private, link-local addresses."""
    apprise_urls: tuple[str, ...] = ()

    personal_chat: bool = True
    """People may name a chat bot of their own (WeCom, DingTalk, Feishu)."""
    web_push: bool = True
    """Browsers may be told even while no page is open; needs HTTPS (or localhost) and a way to the push services."""
    web_push_key_file: Path | None = None
    """PEM of the P-256 key that browsers subscribe to; the same for every role. Empty: made in the data directory."""
    web_push_contact: str = "mailto:fleet@localhost"
    """Whom a push service may write to when we are a burden to it (`mailto:` or `https:`)."""
    smtp_url: SecretStr = SecretStr("")
    """`smtps://user:password@host:465?from=fleet@example.org`; `smtp://…` takes STARTTLS where it is offered."""
    sms_url: SecretStr = SecretStr("")
    """An HTTP gateway (`https://…`), or an apprise URL with `{address}` in it. Empty: no SMS."""
    sms_body: str = '{"to": "{address}", "text": "{text}", "id": "{delivery_id}"}'
    """What the gateway is sent: JSON in which the names in braces are filled in."""
    sms_headers: SecretStr = SecretStr("{}")
    """JSON object of further headers, such as `Authorization`."""
    sms_method: Literal["POST", "PUT"] = "POST"
    voice_url: SecretStr = SecretStr("")
    voice_method: Literal["POST", "PUT"] = "POST"
    voice_body: str = '{"to": "{address}", "text": "{text}", "language": "{language}", "id": "{delivery_id}"}'
    voice_headers: SecretStr = SecretStr("{}")
    delivery_days: Annotated[int, Field(ge=7)] = 90
    """How long the log of delivery attempts is kept, business days."""

    probe_url: str = ""
    """Where `fleet watchdog` listens, for example `http://127.0.0.1:8090`: it calls for help through the whole product
    all day, and deliveries of those calls come back there. Empty: nobody watches the way of the calls."""
    watchdog_urls: tuple[str, ...] = ()
    """Whom the watchdog tells that calls would not arrive: `http(s)://…` gets JSON, else an apprise address."""
    deadman_url: str = ""
    """Asked for by the watchdog while calls arrive: an external dead man's switch, which tells people when it stops."""

    kind_folders: tuple[Path, ...] = ()
    """Folders of kinds that live outside this package."""

    clock_speed: Annotated[float, Field(gt=0, le=3600)] = 1.0
    clock_origin_ms: int = 0
    """Business time runs `clock_speed` times as fast as real time since this real moment; 0 = since the start."""
    clock_shift_ms: int = 0
    """Business minus real time at that moment: a demo may begin at noon whatever the clock says."""

    shards: str = f"0-{SHARD_COUNT - 1}"
    """Which devices an ingester takes, as numbers and ranges (`0-31,40`); it waits until all of them are free.

    `share`: as many as fall to it among the ingesters that say so, and others whenever one comes or goes.
    """
    lease_s: Annotated[float, Field(ge=2, le=300)] = 15.0
    """How long shards wait for an ingester that died; the same for all of them."""
    batch_messages_max: Annotated[int, Field(ge=1, le=10_000)] = 2000
    batch_linger_ms: Annotated[int, Field(ge=0, le=1000)] = 50
    twin_flush_ms: Annotated[int, Field(ge=0, le=60_000)] = 500
    spool_bytes_max: Annotated[int, Field(ge=1_000_000)] = 4_000_000_000

    instance: Annotated[int, Field(ge=0, lt=INSTANCES_MAX)] = 0
    """Number of this process among those of its role, so that boards tell them apart; 0: it is the only one."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("shards")
    @classmethod
    def _shards_are_numbers(cls, text: str) -> str:
        if text != SHARE:
            parse_shards(text)
        return text

    @field_validator("roster_time_zone")
    @classmethod
    def _zone_is_known(cls, name: str) -> str:
        try:
            return ZoneInfo(name).key
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("write a name of the time zone database, for example Asia/Shanghai") from None

    def sql_url(self) -> str:
        """The database's URL with the embedded default filled in."""
        return self.database_url or f"sqlite:///{self.data_directory.resolve() / 'state.db'}"

    def shard_numbers(self) -> frozenset[int]:
        """`shards`, one by one; all of them where each ingester takes its share."""
        return frozenset(range(SHARD_COUNT)) if self.shards == SHARE else parse_shards(self.shards)


def parse_shards(text: str) -> frozenset[int]:
    """`0-3,7` → 0, 1, 2, 3, 7. Raises ValueError."""
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ValueError(f"write `share`, or numbers and ranges from 0 to {SHARD_COUNT - 1}, for example 0-31,40")
        numbers = range(int(first), int(last or first) + 1)
        if not numbers or numbers[-1] >= SHARD_COUNT:
            raise ValueError(f"{part.strip()!r} is no range within 0-{SHARD_COUNT - 1}")
        found.update(numbers)
    return frozenset(found)
