"""`fleet edge install`: decides what a box needs for one device, then writes it; a second run changes nothing."""

import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cli import edge_unit

if TYPE_CHECKING:
    from edge.settings import EdgeSettings

COMMAND_TIMEOUT_S: Final = 60
_HOMES: Final = (("home",), ("root",))
"""Folders that `ProtectHome` hides."""


class InstallError(Exception):
    """One line: what is wrong and what to do."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Files, folders and commands, in this order."""

    service: str
    files: Mapping[Path, str]
    folders: Sequence[Path]
    commands: Sequence[Sequence[str]]

    @property
    def next_command(self) -> str:
        """What starts the agent, now and at every boot."""
        return f"systemctl enable --now {self.service}"

    def carry_out(self) -> None:
        """Write and run all of it; raises InstallError."""
        try:
            for folder in self.folders:
                folder.mkdir(parents=True, exist_ok=True)
            for path, text in self.files.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                fresh = path.with_name(path.name + ".new")
                fresh.write_text(text, encoding="utf-8")
                fresh.chmod(0o644)
                fresh.replace(path)
        except OSError as error:
            raise InstallError(
                f"{error.filename}: {error.strerror}; run it as root, or try --dry-run or --root DIR"
            ) from error
        for command in self.commands:
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False)
            except (OSError, subprocess.TimeoutExpired) as error:
                raise InstallError(f"{' '.join(command)}: {error}; run it by hand, then this again") from error
            if done.returncode:
                reason = (done.stderr or done.stdout).strip().replace("\n", "; ")
                raise InstallError(f"{' '.join(command)}: {reason}; mend it, then run this again")

    def document(self, *, done: bool) -> dict[str, Any]:
        """For `--json`."""
        return {
            "done": done,
            "service": self.service,
            "files": {str(path): text for path, text in self.files.items()},
            "folders": [str(folder) for folder in self.folders],
            "commands": [list(command) for command in self.commands],
            "next": self.next_command,
        }


def service_name(settings: "EdgeSettings") -> str:
    """Instance of the template for this device."""
    return f"fleet-edge@{settings.device_id}.service"


def plan(settings: "EdgeSettings", config: Path, *, user: str, root: Path) -> Plan:
    """What is needed; the settings have been checked, keys and kind are checked here.

    Raises:
        InstallError: the file would not start an agent, or its paths fit no unit.
    """
    _check(settings, user)
    config, root = config.resolve(), root.resolve()
    program = _program()
    state = Path(edge_unit.STATE_FOLDER) / settings.device_id
    outside = sorted({str(folder) for folder in _written(settings) if folder not in (state, *state.parents)})
    home = any(Path(path).parts[1:2] in _HOMES for path in (*program, str(config)))
    units = root / "etc/systemd/system"
    files = {
        units / edge_unit.TEMPLATE_NAME: edge_unit.template(program, user),
        units / f"{service_name(settings)}.d/device.conf": edge_unit.drop_in(
            program, settings.device_id, str(config), devices=settings.device_files, writable=outside, home_is_read=home
        ),
        root / "etc/sysusers.d/fleet-edge.conf": edge_unit.system_users(user),
        root / f"etc/systemd/journald@{edge_unit.LOG_NAMESPACE}.conf": edge_unit.journal_bounds(),
    }
    here = root == Path("/")
    commands = _commands(settings, config, user, outside) if here else []
    return Plan(service_name(settings), files, [Path(folder) for folder in outside] if here else [], commands)


def _check(settings: "EdgeSettings", user: str) -> None:
    import devices
    from edge.identity import IdentityError
    from edge.run import add_kind_folders
    from edge.settings import SettingsError

    if not user.replace("-", "").replace("_", "").isalnum() or user[0].isdigit():
        raise InstallError(f"user {user!r}: use letters, digits, hyphen and underscore")
    try:
        add_kind_folders(settings.kind_folders)
        devices.kind_named(settings.kind)
        settings.identity()
    except (SettingsError, IdentityError) as error:
        raise InstallError(str(error)) from error
    except devices.UnknownKindError as error:
        raise InstallError(f"kind: {error}; correct it or add its folder to kind_folders") from error


def _written(settings: "EdgeSettings") -> Iterator[Path]:
    """Folders the agent writes."""
    yield settings.data_directory.resolve()
    if settings.log.file is not None:
        yield settings.log.file.parent.resolve()
    broker = settings.broker
    if broker.certificate is not None and broker.certificate == broker.private_key:  # then it is renewed in its place
        yield broker.certificate.parent.resolve()


def _program() -> list[str]:
    """How this very installation is started."""
    script = Path(sys.executable).parent / "fleet"
    return [str(script)] if script.is_file() else [sys.executable, "-m", "cli.main"]


def _commands(settings: "EdgeSettings", config: Path, user: str, outside: Sequence[str]) -> list[list[str]]:
    if shutil.which("systemd-sysusers"):
        commands = [["systemd-sysusers", "/etc/sysusers.d/fleet-edge.conf"]]
    else:
        commands = [["useradd", "--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin", user]]
    secret = [config, *(path.resolve() for path in (settings.broker.private_key,) if path is not None)]
    commands += [["chgrp", user, *map(str, secret)], ["chmod", "0640", *map(str, secret)]]
    if outside:
        commands.append(["chown", f"{user}:{user}", *outside])
        if (private_key := settings.broker.private_key) is not None and str(private_key.parent.resolve()) in outside:
            commands.append(["chown", f"{user}:{user}", str(private_key.resolve())])
    if Path("/run/systemd/system").is_dir():
        commands.append(["systemctl", "daemon-reload"])
    return commands
