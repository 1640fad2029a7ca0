"""`fleet calls …`: emergency calls and their buttons, on the database of this machine or of FLEET_DATABASE_URL.

Accepting, testing and recording enter the room's lane: the process that ingests carries them out within a second.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

from cli.database import DataOption, Installation, command_line, new_id, with_database, with_services
from cli.kinds import KindFolderOption
from cli.output import FAILURE, UNHEALTHY, USAGE, JsonOption, data, fail, print_json, print_rows, usage_errors, words

if TYPE_CHECKING:
    from cloud.calls.service import CallService
    from cloud.supervision.service import SupervisionService

T = TypeVar("T")

app = typer.Typer(help="Emergency calls: see, accept, test buttons, prove what ends a call.", no_args_is_help=True)

_COLUMNS: Final = (
    "id",
    "device_id",
    "device_name",
    "state",
    "purpose",
    "pressed_at",
    "acknowledged_by_name",
    "escalation",
)
_BUTTONS: Final = ("device_id", "name", "faults", "test_overdue", "substitute_due", "proven_at", "measure")
HOUR_MS: Final = 3_600_000


def _with_services(
    data_directory: Path | None,
    kind_folder: list[Path] | None,
    work: "Callable[[CallService, SupervisionService], Awaitable[T]]",
) -> T:
    async def act(here: Installation) -> T:
        from cloud.api.changes import Changes
        from cloud.calls.service import CallService
        from cloud.intents import IntentDesk
        from cloud.supervision.service import SupervisionService

        intents = IntentDesk(here.database, here.clock, new_id)
        return await work(
            CallService(here.database, here.clock, intents),
            SupervisionService(here.database, here.clock, intents, Changes(), new_id),
        )

    return with_services(data_directory, act, kind_folder)


@app.command("list")
def list_calls(
    open_only: Annotated[bool, typer.Option("--open", help="Only those that are not cleared.")] = False,
    room: Annotated[str, typer.Option(help="Only this room's.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=200, help="At most so many.")] = 50,
    data_directory: DataOption = None,
    kind_folder: KindFolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Calls, newest first.

    Example: [bold]fleet calls list --open --json[/bold]
    """

    async def read(calls: "CallService", _: Any) -> list[dict[str, Any]]:
        found = await calls.calls(
            command_line(), is_open=True if open_only else None, device_id=room or None, before=None, limit=limit
        )
        return [call.model_dump(mode="json", exclude={"attempts"}) for call in found.calls]

    rows = _with_services(data_directory, kind_folder, read)
    print_rows(rows, _COLUMNS, as_json=as_json, empty="No such call.")


@app.command("show")
def show(
    call_id: Annotated[str, typer.Argument(help="Its id.")],
    data_directory: DataOption = None,
    kind_folder: KindFolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Each second of one call: what the room did, who did what, every attempt to tell somebody.

    Example: [bold]fleet calls show 0a1b…[/bold]
    """
    from cloud.calls.timeline import timeline

    async def read(calls: "CallService", _: Any) -> Any:
        return await calls.call(call_id, command_line())

    call = _with_services(data_directory, kind_folder, read)
    if as_json:
        print_json(call.model_dump(mode="json"))
        return
    data.print(f"{call.device_name} ({call.device_id}): {call.state.value}, {call.purpose}")
    print_rows(
        [
            {
                "after_s": f"+{moment.seconds:.1f}", "what": moment.name, "who": moment.who, "outcome": moment.outcome,
                "detail": moment.detail,
            }
            for moment in timeline(call)
        ],
        ("after_s", "what", "who", "outcome", "detail"), as_json=False, empty="",
    )  # fmt: skip


@app.command("acknowledge")
def acknowledge(
    call_id: Annotated[str, typer.Argument(help="Its id.")],
    person: Annotated[str, typer.Option(help="Login of the person who goes there: the room shows that help comes.")],
    data_directory: DataOption = None,
    kind_folder: KindFolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Accept a call in the name of somebody who is going there. It ends only in the room.

    Example: [bold]fleet calls acknowledge 0a1b… --person crew[/bold]
    """
    from sqlalchemy import select

    from cloud.api.access import Person, Role
    from cloud.tables import person as people

    row = with_database(
        data_directory, lambda tx: tx.execute(select(people).where(people.c.login == person)).one_or_none()
    )
    if row is None or row.disabled_at is not None or row.role not in {Role.CREW, Role.ADMIN}:
        raise fail(f"nobody on duty has the login {person!r}: see `fleet people list`", USAGE)
    somebody = Person(row.id, row.login, row.name, Role(row.role), row.language)

    async def act(calls: "CallService", _: Any) -> Any:
        return await calls.acknowledge(call_id, somebody)

    call = _with_services(data_directory, kind_folder, act)
    _told(call.model_dump(mode="json"), f"{somebody.name} goes to {call.device_name}", as_json=as_json)


@app.command("buttons")
def buttons(
    all_rooms: Annotated[bool, typer.Option("--all", help="Also those with which all is well.")] = False,
    data_directory: DataOption = None,
    kind_folder: KindFolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Emergency buttons that need somebody: faults, proof tests overdue, substitute measures. Exit code 3 if any does.

    Example: [bold]fleet calls buttons --json[/bold]
    """

    async def read(_: Any, supervision: "SupervisionService") -> tuple[list[Any], int]:
        needing = await supervision.needing_somebody()
        return (await supervision.overview("", 5_000)).buttons if all_rooms else needing, len(needing)

    found, needing = _with_services(data_directory, kind_folder, read)
    rows = [one.model_dump(mode="json") for one in found]
    print_rows(rows, _BUTTONS, as_json=as_json, empty="Every button is connected and was tested within seven days.")
    if needing:
        raise typer.Exit(UNHEALTHY)


@app.command("test")
def begin_test(
    room: Annotated[str, typer.Argument(help="Whose button.")],
    seconds: Annotated[float, typer.Option(min=10, max=300, help="The press must come within so many.")] = 120.0,
    data_directory: DataOption = None,
    kind_folder: KindFolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take the next press in a room for a proof test: it walks the whole way to the room's light and pages nobody.

    A second press, or one that is not cleared in the room within 30 s, is a call for help as ever.

    Example: [bold]fleet calls test room-001[/bold]
    """
    from cloud.supervision.schemas import BeginTest

    async def act(_: Any, supervision: "SupervisionService") -> Any:
        return await supervision.begin_test(room, BeginTest(seconds=seconds), command_line())

    answer = _with_services(data_directory, kind_folder, act)
    _told(
        answer.model_dump(), f"press the button in {room} once within {seconds:.0f} s, then clear it", as_json=as_json
    )


@app.command("tests")
def proof_tests(
    room: Annotated[str, typer.Argument(help="Whose button.")],
    data_directory: DataOption = None,
    kind_folder: KindFolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """When a button was shown to work, newest first.

    Example: [bold]fleet calls tests room-001 --json[/bold]
    """

    async def read(_: Any, supervision: "SupervisionService") -> list[dict[str, Any]]:
        found = await supervision.proof_tests(room, command_line())
        return [one.model_dump() for one in found.tests]

    rows = _with_services(data_directory, kind_folder, read)
    print_rows(
        rows, ("received_at", "how", "passed", "failure"), as_json=as_json, empty=f"{room} was never tested."
    )  # fmt: skip


@app.command("substitute")
def substitute(
    room: Annotated[str, typer.Argument(help="Which room has no way to call.")],
    measure: Annotated[str, typer.Option(help="What is done instead.")],
    responsible: Annotated[str, typer.Option(help="Who does it.")],
    hours: Annotated[int, typer.Option(min=1, max=168, help="For how long.")] = 8,
    data_directory: DataOption = None,
    kind_folder: KindFolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Record who watches over a room while its button is out of order.

    Example: [bold]fleet calls substitute room-001 --measure "front desk looks in" --responsible Li --hours 4[/bold]
    """
    from cloud.supervision.schemas import RecordMeasure

    async def act(_: Any, supervision: "SupervisionService") -> Any:
        until_at = supervision.now_ms() + hours * HOUR_MS
        body = RecordMeasure(measure=measure, responsible=responsible, until_at=until_at)
        return await supervision.record_measure(room, body, command_line())

    with usage_errors(ValueError):
        answer = _with_services(data_directory, kind_folder, act)
    _told(answer.model_dump(), f"recorded: {responsible} for {hours} h", as_json=as_json)


@app.command("prove-clearing")
def prove_clearing(as_json: JsonOption = False) -> None:
    """Prove that an open call ends only in its room: try every door of the running code, on a database of its own.

    Lists all HTTP routes, commands, acts, events, timers, chores and SQL statements by itself; exit code 1 if one of
    them ends a call.

    Example: [bold]fleet calls prove-clearing --json[/bold]
    """
    from cli.clearing.proof import prove

    with words.status("trying every door …"):
        found = prove()
    if as_json:
        print_json(found)
    else:
        for kind, count in found["doors"].items():
            data.print(f"{kind}: {count} doors, tried {found['tried'][kind]} times")
        data.print("holds" if found["holds"] else "does not hold")
    for violation in found["violations"]:
        words.print(f"[red]not good:[/red] {violation}")
    if not found["holds"]:
        raise typer.Exit(FAILURE)


def _told(document: dict[str, Any], sentence: str, *, as_json: bool) -> None:
    if as_json:
        print_json(document)
    else:
        words.print(sentence)
