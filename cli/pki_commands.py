"""`fleet pki`: the two domains of certificates, their online keys, the revocation list, and what ends when."""

import datetime as dt
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape

from cli.output import UNHEALTHY, USAGE, JsonOption, data, fail, print_json, print_rows, words

if TYPE_CHECKING:
    from cloud.identity.authority import IssuedCertificate, Revoked
    from cloud.identity.pki_folder import PkiFolder
    from cloud.settings import CloudSettings

app = typer.Typer(help="Keys and certificates of devices, broker and cloud.", no_args_is_help=True)

DirectoryOption = Annotated[
    Path, typer.Option("--directory", envvar="FLEET_PKI_DIRECTORY", help="The folder of keys and certificates.")
]
ReplaceOption = Annotated[bool, typer.Option("--replace", help="Issue another one in place of what is there.")]
PassphraseFile = Annotated[
    Path | None, typer.Option(help="File with the passphrase of the offline keys; `-` asks on the terminal.")
]


@app.command()
def init(
    directory: DirectoryOption = Path("pki"), passphrase_file: PassphraseFile = None, as_json: JsonOption = False
) -> None:
    """Make both domains: offline roots, online intermediates, trust files and an empty revocation list. Once.

    Example: [bold]fleet pki init --directory pki --passphrase-file -[/bold]
    """
    with _one_line_errors():
        folder = _folder(directory)
        folder.initialise(_now(), _passphrase(passphrase_file, twice=True))
    if as_json:
        print_json({
            "directory": str(directory), "offline": str(directory / "offline"),
            "devices_root": str(folder.root_file("devices")), "services_root": str(folder.root_file("services")),
            "revocation_list": str(folder.revocation_file),
        })  # fmt: skip
        return
    data.print(f"made {escape(str(directory))}")
    words.print(
        f"Carry [bold]{escape(str(directory / 'offline'))}[/bold] away now, on two media, and remove it here: "
        "it is needed only to renew an intermediate.\nNext: fleet pki server --host …, fleet pki service fleet.ingester"
    )


@app.command()
def server(
    host: Annotated[list[str], typer.Option(help="Name or address under which the broker is reached; repeat it.")],
    directory: DirectoryOption = Path("pki"),
    replace: ReplaceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Key and certificate of the broker, 90 days.

    Example: [bold]fleet pki server --host fleet.example.org --host broker[/bold]
    """
    with _one_line_errors():
        folder = _folder(directory)
        issued = folder.issue_server(host, _now(), replace=replace)
    _told("broker", *folder.issued_files("broker"), issued, as_json=as_json)


@app.command()
def service(
    name: Annotated[str, typer.Argument(help="fleet.ingester, or another name with `fleet.` before it.")],
    directory: DirectoryOption = Path("pki"),
    replace: ReplaceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Key and certificate of a process of ours, 90 days.

    Example: [bold]fleet pki service fleet.ingester[/bold]
    """
    with _one_line_errors():
        folder = _folder(directory)
        issued = folder.issue_service(name, _now(), replace=replace)
    _told(name, *folder.issued_files(name), issued, as_json=as_json)


@app.command()
def device(
    device_id: Annotated[str, typer.Argument(help="1 to 32 of a-z, 0-9 and hyphen.")],
    csr: Annotated[Path | None, typer.Option(help="The device's own request; its key then never leaves it.")] = None,
    directory: DirectoryOption = Path("pki"),
    replace: ReplaceOption = False,
    as_json: JsonOption = False,
) -> None:
    """A device's certificate, for preparing many at a desk; in the field use `fleet devices enrol`.

    Example: [bold]fleet pki device bike-001 --csr bike-001.csr[/bold]
    """
    with _one_line_errors():
        folder = _folder(directory)
        if csr is not None:
            issued, path = folder.sign_device(device_id, csr.read_bytes(), _now(), replace=replace)
            _told(device_id, path, None, issued, as_json=as_json)
            return
        issued = folder.issue_device(device_id, _now(), replace=replace)
    _told(device_id, *folder.issued_files(device_id), issued, as_json=as_json)


@app.command("renew-intermediate")
def renew_intermediate(
    domain: Annotated[Literal["devices", "services"], typer.Argument(help="Whose online key is renewed.")],
    offline: Annotated[Path | None, typer.Option(help="Where the offline keys are now.")] = None,
    directory: DirectoryOption = Path("pki"),
    passphrase_file: PassphraseFile = None,
    as_json: JsonOption = False,
) -> None:
    """A new online key, signed by the offline root; certificates of the old one stay valid to their own end.

    Example: [bold]fleet pki renew-intermediate devices --offline /media/key/offline --passphrase-file -[/bold]
    """
    with _one_line_errors():
        folder = _folder(directory)
        passphrase = _passphrase(passphrase_file, twice=False)
        made = folder.renew_intermediate(domain, _now(), offline=offline, passphrase=passphrase)
    path = folder.online_files(domain)[0]
    if as_json:
        print_json({"domain": domain, "certificate": str(path), "not_after": made.not_valid_after_utc.isoformat()})
        return
    data.print(f"{escape(str(path))} until {made.not_valid_after_utc:%Y-%m-%d}")
    words.print("Carry the offline keys away again, and restart the processes that sign (role api).")


@app.command()
def crl(directory: DirectoryOption = Path("pki"), as_json: JsonOption = False) -> None:
    """Write the revocation list again, valid for 7 days, with the entries it has; then tell the broker.

    What the database of `fleet serve` holds as revoked is added, where it can be reached (FLEET_DATA_DIRECTORY or
    FLEET_DATABASE_URL). Exit code 3: the former list was lost, and there was no database to restore it from.

    The broker is told if FLEET_BROKER_PID_FILE or FLEET_BROKER_RELOAD_COMMAND says how; a broker started by
    deploy/mosquitto/run.sh sees it by itself.

    Example: [bold]fleet pki crl --directory pki[/bold]
    """
    import asyncio

    from cli.settings_errors import SettingsError, cloud_settings
    from cloud.bootstrap.identity import reload_of

    with _log_on_stderr(), _one_line_errors(SettingsError):
        folder, settings = _folder(directory), cloud_settings()
        known = _known_as_revoked(settings)
        complete = known is not None or _can_be_read(folder.revocation_file)
        state = folder.refresh_list(_now(), known or ())
        asyncio.run(reload_of(settings)())
    if as_json:
        print_json({
            "file": str(folder.revocation_file), "entries": len(state.revoked), "number": state.number,
            "this_update": state.this_update.isoformat(), "next_update": state.next_update.isoformat(),
            "complete": complete,
        })  # fmt: skip
    else:
        until = _day(state.next_update)
        data.print(f"{escape(str(folder.revocation_file))}: {len(state.revoked)} entries, until {until}")
    if not complete:
        words.print(
            "[red]Revoked devices get in:[/red] the former list was lost, and no database here knows them. "
            "Run this again with FLEET_DATA_DIRECTORY or FLEET_DATABASE_URL, or restart `fleet serve` (role api)."
        )
        raise typer.Exit(UNHEALTHY)


@contextmanager
def _log_on_stderr() -> Iterator[None]:
    """What the list's writer logs: stdout is for the document."""
    import structlog

    before = structlog.get_config()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    try:
        yield
    finally:
        structlog.configure(**before)


def _known_as_revoked(settings: "CloudSettings") -> "list[Revoked] | None":
    """What the database holds as revoked; None if there is none here, or it does not answer."""
    from sqlalchemy.exc import SQLAlchemyError

    from cloud.adapters.sql.database import SqlDatabase
    from cloud.bootstrap.identity import revoked_certificates

    if not settings.database_url and not (settings.data_directory / "state.db").exists():
        return None
    database = SqlDatabase(settings.sql_url())
    try:
        return database.read_here(revoked_certificates)
    except (SQLAlchemyError, OSError):
        return None
    finally:
        database.close()


def _can_be_read(revocation_list: Path) -> bool:
    from cloud.identity.revocation_list import RevocationListError, read_list

    try:
        read_list(revocation_list.read_bytes())
    except (OSError, RevocationListError):
        return False
    return True


@app.command()
def status(directory: DirectoryOption = Path("pki"), as_json: JsonOption = False) -> None:
    """Everything that ends, with the days left; exit code 3 when somebody has to act.

    Example: [bold]fleet pki status --json[/bold]
    """
    with _one_line_errors():
        folder, now = _folder(directory), _now()
        found = [(one, one.days_left(now)) for one in folder.expiries()]
        offline = [str(file) for file in sorted((directory / "offline").glob("*.key"))]
    rows: list[dict[str, Any]] = [
        {
            **asdict(one), "ends_at": one.ends_at.isoformat(), "days_left": round(left, 1),
            "act": left < one.action_days, "fix": one.fix if left < one.action_days else "",
        }
        for one, left in found
    ]  # fmt: skip
    healthy = not any(row["act"] for row in rows)
    if as_json:
        print_json({"healthy": healthy, "offline_keys_here": offline, "expiries": rows})
    else:
        print_rows(rows, ["what", "path", "days_left", "fix"], as_json=False, empty="")
        if offline:
            words.print(f"[yellow]warning:[/yellow] the offline keys are still here: carry {offline[0]} … away")
    if not healthy:
        words.print("Somebody has to act; see the column fix.")
        raise typer.Exit(UNHEALTHY)


def _folder(directory: Path) -> "PkiFolder":
    from cloud.identity.pki_folder import PkiFolder

    return PkiFolder(directory)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _day(moment: dt.datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _passphrase(file: Path | None, *, twice: bool) -> bytes | None:
    """None without a file. Raises PkiError for one that is too short to protect anything."""
    from cloud.identity.pki_folder import PASSPHRASE_CHARACTERS_MIN, PkiError

    if file is None:
        return None
    if str(file) == "-":
        text = typer.prompt("Passphrase of the offline keys", hide_input=True, confirmation_prompt=twice, err=True)
    else:
        text = file.read_text().rstrip("\n")
    if len(text) < PASSPHRASE_CHARACTERS_MIN:
        raise PkiError(f"the passphrase has fewer than {PASSPHRASE_CHARACTERS_MIN} characters; choose a longer one")
    return str(text).encode()


def _told(name: str, certificate: Path, key: Path | None, issued: "IssuedCertificate", *, as_json: bool) -> None:
    if as_json:
        print_json({
            "name": name, "certificate": str(certificate), "key": None if key is None else str(key),
            "serial": issued.serial, "not_after": issued.not_after.isoformat(),
        })  # fmt: skip
        return
    data.print(f"{escape(str(certificate))}: {name}, serial {issued.serial}, until {_day(issued.not_after)}")


@contextmanager
def _one_line_errors(*more: type[Exception]) -> Iterator[None]:
    from cloud.identity.authority import RequestRefusedError
    from cloud.identity.pki_folder import PkiError
    from cloud.identity.revocation_list import RevocationListError

    try:
        yield
    except more as error:
        raise fail(str(error), USAGE) from error
    except (PkiError, RequestRefusedError, RevocationListError) as error:
        raise fail(str(error)) from error
    except OSError as error:
        raise fail(
            f"{error.filename}: {error.strerror}; name a file that can be read, a folder that can be written"
        ) from error
