"""`fleet devices …` and `fleet quarantine`: the database of this machine, or of FLEET_DATABASE_URL."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from cli import enrolment_commands
from cli.database import DataOption, with_database
from cli.enrolment_commands import moment
from cli.output import JsonOption, data, fail, print_json, print_rows

if TYPE_CHECKING:
    from sqlalchemy import Connection

app = typer.Typer(help="List, show, enrol and revoke devices.", no_args_is_help=True)

app.command("enrol")(enrolment_commands.enrol)
app.command("waiting")(enrolment_commands.waiting)
app.command("approve")(enrolment_commands.approve)
app.command("reject")(enrolment_commands.reject)
app.command("revoke")(enrolment_commands.revoke)
app.command("retire")(enrolment_commands.retire)
app.command("certificates")(enrolment_commands.certificates)


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
                device.c.revoked_at,
                device.c.retired_at,
            )
            .select_from(device.outerjoin(twin, device.c.device_id == twin.c.device_id))
            .order_by(device.c.device_id)
        )
        return [dict(row) for row in tx.execute(query.where(device.c.kind == kind) if kind else query).mappings()]

    rows = with_database(data_directory, read)
    for row in rows:
        row["online"] = bool(row["online"])
        if not as_json:
            row["last_heard_at"] = moment(row["last_heard_at"])
            row["revoked_at"] = moment(row["revoked_at"])
            row["retired_at"] = moment(row["retired_at"])
    columns = ("device_id", "kind", "name", "online", "last_heard_at", "revoked_at", "retired_at")
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

    found = with_database(data_directory, read)
    if found is None:
        raise fail(f"no device {device_id!r}; list them: fleet devices list")
    if as_json:
        print_json(found)
        return
    for name, value in found.items():
        shown = moment(value) if name.endswith("_at") else value
        shown = json.dumps(shown, ensure_ascii=False) if isinstance(shown, dict | list) else shown
        data.print(f"[bold]{name.replace('_', ' ')}[/bold]: {escape('' if shown is None else str(shown))}")


def quarantine(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Newest first.")] = 50,
    data_directory: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Messages that could not be used: when, from where, why, and their bytes (hex in JSON).

    Example: [bold]fleet quarantine --limit 10 --json[/bold]
    """
    from cloud.devices.repository import quarantined

    rows = with_database(data_directory, lambda tx: [row._asdict() for row in quarantined(tx, None, limit)])
    for row in rows:
        payload = bytes(row.pop("payload"))
        row["bytes"] = len(payload)
        if as_json:
            row["payload_hex"] = payload.hex()
        else:
            row["received_at"] = moment(row["received_at"])
    columns = ("id", "received_at", "device_id", "topic", "reason", "bytes")
    print_rows(rows, columns, as_json=as_json, empty="Quarantine is empty: every message could be used.")
