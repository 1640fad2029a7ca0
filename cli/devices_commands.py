"""`fleet devices …` and `fleet quarantine`: the database of this machine, or of FLEET_DATABASE_URL."""

import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.markup import escape

from cli.kinds import KindFolderOption, add_kinds
from cli.output import USAGE, JsonOption, data, fail, print_json, print_rows, usage_errors, words

if TYPE_CHECKING:
    from sqlalchemy import Connection

T = TypeVar("T")

app = typer.Typer(help="List, show and enrol devices.", no_args_is_help=True)

DataOption = Annotated[Path | None, typer.Option("--data-directory", help="Where `fleet serve` keeps its data.")]


def _with_database(data_directory: Path | None, work: "Callable[[Connection], T]", *, write: bool = False) -> T:
    from cli.settings_errors import SettingsError, cloud_settings
    from cloud.adapters.sql.database import SqlDatabase

    with usage_errors(SettingsError):
        settings = cloud_settings(data_directory=data_directory)
    file = settings.data_directory / "state.db"
    if not settings.database_url and not file.exists():
        raise fail(f"no database at {file}: start `fleet serve` once, or name its folder with --data-directory", USAGE)
    database = SqlDatabase(settings.sql_url())
    try:
        return database.write_here(work) if write else database.read_here(work)
    finally:
        database.close()


@app.command("list")
def list_devices(
    kind: Annotated[str, typer.Option(help="Only this kind.")] = "",
    data_directory: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """All devices: what they are, whether they are connected, when they were last heard.

    Example: [bold]fleet devices list --kind bike --json[/bold]
    """
    from sqlalchemy import select

    from cloud.tables import device, twin

    def read(tx: "Connection") -> list[dict[str, Any]]:
        query = (
            select(
                device.c.device_id,
                device.c.kind,
                device.c.name,
                twin.c.online,
                twin.c.last_heard_at,
                device.c.retired_at,
            )
            .select_from(device.outerjoin(twin, device.c.device_id == twin.c.device_id))
            .order_by(device.c.device_id)
        )
        return [dict(row) for row in tx.execute(query.where(device.c.kind == kind) if kind else query).mappings()]

    rows = _with_database(data_directory, read)
    for row in rows:
        row["online"] = bool(row["online"])
        if not as_json:
            row["last_heard_at"] = _moment(row["last_heard_at"])
            row["retired_at"] = _moment(row["retired_at"])
    columns = ("device_id", "kind", "name", "online", "last_heard_at", "retired_at")
    print_rows(
        rows, columns, as_json=as_json, empty="No devices yet. Enrol one: fleet devices enrol bike-001 --kind bike"
    )


@app.command("show")
def show(
    device_id: Annotated[str, typer.Argument(help="Its id.")],
    data_directory: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """One device: where it is, what the cloud believes about it, and what waits for people.

    Example: [bold]fleet devices show room-007 --json[/bold]
    """
    from sqlalchemy import select

    from cloud.devices import repository
    from cloud.tables import twin

    def read(tx: "Connection") -> dict[str, Any] | None:
        row = repository.device_row(tx, device_id)
        if row is None:
            return None
        now = tx.execute(select(twin).where(twin.c.device_id == device_id)).mappings().one_or_none()
        return {
            **row._asdict(),
            "online": bool(now and now["online"]),
            "last_heard_at": now["last_heard_at"] if now else None,
            "state": json.loads(now["state"]) if now else None,
            "open_calls": [found.id for found in repository.open_calls(tx, device_id)],
            "open_alarms": [found.key for found in repository.open_alarms(tx, device_id)],
            "open_orders": [found.id for found in repository.open_orders(tx, device_id)],
        }

    found = _with_database(data_directory, read)
    if found is None:
        raise fail(f"no device {device_id!r}; list them: fleet devices list")
    if as_json:
        print_json(found)
        return
    for name, value in found.items():
        shown = _moment(value) if name.endswith("_at") else value
        shown = json.dumps(shown, ensure_ascii=False) if isinstance(shown, dict | list) else shown
        data.print(f"[bold]{name.replace('_', ' ')}[/bold]: {escape('' if shown is None else str(shown))}")


@app.command("enrol")
def enrol(
    device_id: Annotated[str, typer.Argument(help="1 to 32 of a-z, 0-9 and hyphen.")],
    kind: Annotated[str, typer.Option(help="Its kind.")],
    name: Annotated[str, typer.Option(help="Where it is, for people.")] = "",
    latitude: Annotated[float | None, typer.Option(min=-90, max=90, help="WGS-84.")] = None,
    longitude: Annotated[float | None, typer.Option(min=-180, max=180, help="WGS-84.")] = None,
    data_directory: DataOption = None,
    kind_folder: KindFolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a device known; from then on its messages are taken.

    Example: [bold]fleet devices enrol room-007 --kind nursing_room --name "Tower B, floor 7"[/bold]
    """
    from sqlalchemy.exc import IntegrityError

    import devices
    from cli.clock import real_now_ms
    from cloud.devices.repository import add_device
    from fleet.topics import is_device_id

    if not is_device_id(device_id):
        raise fail(f"{device_id!r} is no device id: use 1 to 32 of a-z, 0-9 and hyphen", USAGE)
    with usage_errors(devices.UnknownKindError, ValueError):
        add_kinds(kind_folder)
        devices.kind_named(kind)
    row: dict[str, Any] = {"device_id": device_id, "kind": kind, "name": name, "latitude": latitude,
                           "longitude": longitude, "enrolled_at": real_now_ms()}  # fmt: skip
    try:
        _with_database(data_directory, lambda tx: add_device(tx, **row), write=True)
    except IntegrityError as error:
        raise fail(f"a device {device_id!r} exists already; choose another id or retire that one") from error
    if as_json:
        print_json(row)
    words.print(f"enrolled {device_id} as {kind}")


def quarantine(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Newest first.")] = 50,
    data_directory: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Messages that could not be used: when, from where, why, and their bytes (hex in JSON).

    Example: [bold]fleet quarantine --limit 10 --json[/bold]
    """
    from cloud.devices.repository import quarantined

    rows = _with_database(data_directory, lambda tx: [row._asdict() for row in quarantined(tx, None, limit)])
    for row in rows:
        payload = bytes(row.pop("payload"))
        row["bytes"] = len(payload)
        if as_json:
            row["payload_hex"] = payload.hex()
        else:
            row["received_at"] = _moment(row["received_at"])
    columns = ("id", "received_at", "device_id", "topic", "reason", "bytes")
    print_rows(rows, columns, as_json=as_json, empty="Quarantine is empty: every message could be used.")


def _moment(ms: int | None) -> str:
    return "" if not ms else dt.datetime.fromtimestamp(ms / 1000, dt.UTC).strftime("%Y-%m-%d %H:%M:%SZ")
