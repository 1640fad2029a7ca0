"""Settings of an edge box: one TOML file.

    device_id = "bike-001"
    kind = "bike"
    transport = "serial:/dev/ttyUSB0?baud=115200"
    data_directory = "/var/lib/fleet-edge"

    [broker]
    host = "fleet.example.org"
    port = 8883
    authority = "authority.pem"
    certificate = "device.pem"
    private_key = "device.key"

    [command_keys]
    main = "command-main.pem"

    [log]                         # optional: files instead of standard error
    file = "/var/log/fleet-edge/bike-001.log"
    bytes_max = 1000000
    files_max = 3

    [bounds]                      # optional: what the agent may take on the disk
    journal_mb = 32
    damaged_journals_max = 2

Relative paths start at the file's folder.
"""

import re
import tomllib
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edge.credentials import credentials_of
from edge.disk import BoundSettings
from edge.identity import Identity, load_tls_context, load_verifiers
from edge.logs import LogSettings
from edge.status import SOCKET_NAME
from edge.transports import Line, line_from
from fleet.clock import Clock
from fleet.topics import DEVICE_ID_PATTERN

_DEVICE_FILE: Final = re.compile(r"/dev/[\w./-]+")
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_FIXES: Final = {
    "missing": "add it",
    "extra_forbidden": "remove it or correct its spelling",
    "string_pattern_mismatch": "use 1 to 32 of a-z, 0-9 and hyphen",
}


class SettingsError(ValueError):
    """One line: which key, in which file, what is wrong, what to do."""


class BrokerSettings(BaseModel):
    """How to reach the broker and prove who we are."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = Field(min_length=1)
    port: int = Field(default=8883, ge=1, le=65_535)
    authority: Path | None = None
    certificate: Path | None = None
    private_key: Path | None = None
    plain: bool = False
    compact: bool = True
    """Telemetry is packed on the wire: half the bytes of a parked bike's messages."""

    @model_validator(mode="after")
    def _encrypted(self) -> "BrokerSettings":
        if self.plain:
            if self.host not in _LOOPBACK:
                raise ValueError(
                    "plain = true is only for a broker on this host; set authority, certificate and private_key"
                )
            return self
        missing = [name for name in ("authority", "certificate", "private_key") if getattr(self, name) is None]
        if missing:
            raise ValueError(f"{', '.join(missing)} missing; name the PEM files of this device")
        return self


class EdgeSettings(BaseModel):
    """See the module."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    device_id: str = Field(pattern=DEVICE_ID_PATTERN)
    kind: str = Field(min_length=1)
    transport: str
    hardware: dict[str, Any] = Field(default_factory=dict)
    """Table `[hardware]`: passed to the bridge that `transport` names."""
    data_directory: Path
    broker: BrokerSettings
    command_keys: dict[str, Path] = Field(min_length=1)
    kind_folders: tuple[Path, ...] = ()
    firmware: str = Field(default="", max_length=64)
    log: LogSettings = LogSettings()
    bounds: BoundSettings = BoundSettings()

    @model_validator(mode="after")
    def _names_a_line(self) -> "EdgeSettings":
        try:
            self.line()
        except ValueError as error:
            raise ValueError(f"transport: {error}") from error
        return self

    def line(self, clock: Clock | None = None) -> Line:
        """The line to the hardware, not opened; without a clock it only shows that there is one. Raises ValueError."""
        return line_from(self.transport, self.hardware, clock)

    @property
    def device_files(self) -> list[str]:
        """Device files the line needs: its port, and what the hardware table names below /dev."""
        found = (
            [self.transport.removeprefix("serial:").partition("?")[0]] if self.transport.startswith("serial:") else []
        )
        return sorted({*found, *_DEVICE_FILE.findall(str(self.hardware))})

    @property
    def journal_path(self) -> Path:
        """Where the journal lies."""
        return self.data_directory / "journal.sqlite"

    @property
    def disk_bytes_max(self) -> int:
        """What journals, reserve and log files may take together."""
        return self.bounds.disk_bytes_max + self.log.disk_bytes_max

    @property
    def status_path(self) -> Path:
        """Where the running agent answers `fleet edge status`."""
        return self.data_directory / SOCKET_NAME

    def identity(self, clock: Clock | None = None) -> Identity:
        """Keys and certificates from their files; raises IdentityError.

        With key and certificate in one file the certificate is renewed, on `clock`'s monotonic time.
        """
        broker = self.broker
        tls = credentials = None
        if not broker.plain:
            assert broker.authority
            assert broker.certificate
            assert broker.private_key
            tls = load_tls_context(broker.authority, broker.certificate, broker.private_key)
            if clock is not None:
                credentials = credentials_of(
                    self.device_id, broker.authority, broker.certificate, broker.private_key, clock
                )
        return Identity(tls, load_verifiers(self.command_keys), credentials)


def load_settings(path: Path) -> EdgeSettings:
    """Read and check the file.

    Raises:
        SettingsError: with one line that names the key, its source and the fix.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(
            f"{path}: cannot be read ({error.strerror}); name an existing file with --config"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: is no TOML file ({error}); correct the syntax") from error
    try:
        settings = EdgeSettings.model_validate(content)
    except ValidationError as error:
        raise SettingsError(_one_line(path, error)) from None
    return _anchored(settings, path.parent)


def _one_line(path: Path, error: ValidationError) -> str:
    first: Any = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"]) or "file"
    value = first.get("input")
    got = f" (got {value!r})" if isinstance(value, str | int | float) else ""
    fix = _FIXES.get(first["type"], "correct the value")
    more = f"; {error.error_count() - 1} more after this" if error.error_count() > 1 else ""
    return f"{path}: {key}: {first['msg'].removeprefix('Value error, ')}{got}; {fix}{more}"


def _anchored(settings: EdgeSettings, folder: Path) -> EdgeSettings:
    broker = settings.broker
    files = {
        name: folder / value
        for name in ("authority", "certificate", "private_key")
        if (value := getattr(broker, name)) is not None
    }
    return settings.model_copy(
        update={
            "broker": broker.model_copy(update=files),
            "data_directory": folder / settings.data_directory,
            "log": settings.log.model_copy(update={"file": settings.log.file and folder / settings.log.file}),
            "command_keys": {key_id: folder / key for key_id, key in settings.command_keys.items()},
            "kind_folders": tuple(folder / kind_folder for kind_folder in settings.kind_folders),
        }
    )
