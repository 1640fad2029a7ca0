"""`fleet notifications …`: what was sent to whom, and how people are reached, on the database of this machine.

A test is a row of the outbox; the process that delivers picks it up within a second.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.markup import escape

from cli.database import DataOption, Installation, command_line, new_id, with_services
from cli.output import FAILURE, USAGE, JsonOption, fail, print_json, print_rows, words

if TYPE_CHECKING:
    from cloud.adapters.sql.database import SqlDatabase
    from cloud.api.access import Person
    from cloud.notifications.service import NotificationService

T = TypeVar("T")

app = typer.Typer(help="See what was sent to whom, and how people are reached.", no_args_is_help=True)
contacts_app = typer.Typer(help="How people are reached.", no_args_is_help=True)
app.add_typer(contacts_app, name="contacts")

_ATTEMPTS = ("at", "channel", "recipient_name", "kind_of", "reference", "attempt", "outcome", "duration_ms", "error")
_CONTACTS = ("id", "person_id", "channel", "address", "label", "verified_at", "failing_since", "failure")
_LOOK_S = 0.2

LoginArgument = Annotated[str, typer.Argument(help="Login of the person.")]


def _with_notifications(
    data_directory: Path | None, work: "Callable[[NotificationService, SqlDatabase], Awaitable[T]]"
) -> T:
    async def act(here: Installation) -> T:
        from cloud.bootstrap.channels import personal_names
        from cloud.notifications.service import NotificationService

        service = NotificationService(here.database, here.clock, new_id)
        service.channels = personal_names(here.settings)
        return await work(service, here.database)

    return with_services(data_directory, act)


async def _person(database: "SqlDatabase", login: str) -> "Person":
    from cloud.api.access import Person, Role
    from cloud.notifications import repository

    found = await database.read(lambda tx: repository.people(tx, [login]))
    if login not in found:
        raise fail(f"there is no person with the login {login!r}: see `fleet people list`")
    return Person(found[login], login, login, Role.CREW, "en")


@app.command("list")
def list_deliveries(
    reference: Annotated[str, typer.Option(help="Only about this call, alarm or order.")] = "",
    channel: Annotated[str, typer.Option(help="Only this channel.")] = "",
    login: Annotated[str, typer.Option("--person", help="Only to this person (login).")] = "",
    outcome: Annotated[str, typer.Option(help="Only those that ended so: delivered, failed, refused …")] = "",
    limit: Annotated[int, typer.Option(min=1, max=500, help="At most so many.")] = 50,
    data_directory: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Every attempt to tell somebody, newest first.

    Example: [bold]fleet notifications list --outcome failed --json[/bold]
    """
    from cloud.dispatch.attempts import RESULTS

    if outcome and outcome not in RESULTS:
        raise fail(f"outcome {outcome!r}: one of {', '.join(RESULTS)}", USAGE)

    async def read(service: "NotificationService", database: "SqlDatabase") -> list[dict[str, Any]]:
        recipient = (await _person(database, login)).id if login else ""
        wanted = {"reference": reference, "channel": channel, "recipient": recipient, "outcome": outcome}
        found = await service.deliveries({name: value for name, value in wanted.items() if value}, None, limit)
        return [line.model_dump() for line in found.deliveries]

    rows = _with_notifications(data_directory, read)
    print_rows(rows, _ATTEMPTS, as_json=as_json, empty="Nothing was sent yet that fits.")


@app.command("test")
def send_test(
    login: LoginArgument,
    channel: Annotated[str, typer.Option(help="Only this channel; else every one of the person.")] = "",
    wait_s: Annotated[float, typer.Option(min=0, max=60, help="Wait so many seconds for the outcome.")] = 10.0,
    data_directory: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send a test through somebody's channels and see whether it got through (exit code 1: not all of it).

    Example: [bold]fleet notifications test wang --channel sms --json[/bold]
    """

    async def send(service: "NotificationService", database: "SqlDatabase") -> list[dict[str, Any]]:
        person = await _person(database, login)
        listed = (await service.contacts(person.id)).contacts
        chosen = [one for one in listed if one.verified_at is not None and channel in {"", one.channel}]
        if not chosen:
            raise fail(f"{login} has no such contact point: add one with `fleet notifications contacts add`")
        sent = {await service.test(one.id, person): one for one in chosen}
        ended: dict[str, dict[str, Any]] = {}
        loop = asyncio.get_running_loop()
        until_s = loop.time() + wait_s
        while len(ended) < len(sent) and loop.time() < until_s:
            await asyncio.sleep(_LOOK_S)
            for delivery_id in sent:
                found = await service.deliveries({"delivery_id": delivery_id}, None, 1)
                for line in found.deliveries:
                    ended[delivery_id] = line.model_dump()
        return [
            {
                "delivery_id": delivery_id,
                "contact_id": contact.id,
                "channel": contact.channel,
                "outcome": ended.get(delivery_id, {}).get("outcome", "waiting"),
                "error": ended.get(delivery_id, {}).get("error", "no process delivered it yet: is `fleet serve` up?"),
            }
            for delivery_id, contact in sent.items()
        ]

    rows = _with_notifications(data_directory, send)
    print_rows(rows, ("channel", "contact_id", "outcome", "error"), as_json=as_json, empty="")
    if any(row["outcome"] != "delivered" for row in rows):
        raise typer.Exit(FAILURE)


@contacts_app.command("list")
def list_contacts(
    login: Annotated[str, typer.Argument(help="Login of the person; without it everybody's.")] = "",
    failing: Annotated[bool, typer.Option("--failing", help="Only those that do not get through.")] = False,
    data_directory: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Contact points, whether they are verified, and since when they fail.

    Example: [bold]fleet notifications contacts list --failing --json[/bold]
    """

    async def read(service: "NotificationService", database: "SqlDatabase") -> list[dict[str, Any]]:
        person_id = (await _person(database, login)).id if login else None
        found = await service.contacts(person_id, to_owner=False)
        return [one.model_dump() for one in found.contacts if not failing or one.failing_since is not None]

    print_rows(
        _with_notifications(data_directory, read), _CONTACTS, as_json=as_json,
        empty="No such contact point. Add one: fleet notifications contacts add LOGIN CHANNEL ADDRESS",
    )  # fmt: skip


@contacts_app.command("add")
def add_contact(
    login: LoginArgument,
    channel: Annotated[str, typer.Argument(help="chat, mail, sms or voice.")],
    address: Annotated[str, typer.Argument(help="Number, mail address, or URL of a bot.")],
    label: Annotated[str, typer.Option(help="What to call it.")] = "",
    data_directory: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add a way to somebody. You vouch for it: no code is sent. The audit remembers.

    Example: [bold]fleet notifications contacts add wang sms +8613800000000[/bold]
    """
    from pydantic import ValidationError

    from cloud.notifications.schemas import ContactBody

    async def add(service: "NotificationService", database: "SqlDatabase") -> dict[str, Any]:
        person = await _person(database, login)
        try:
            body = ContactBody.model_validate({"channel": channel, "address": address, "label": label})
        except ValidationError:
            raise fail(f"channel {channel!r}: one of {', '.join(service.channels)}", USAGE) from None
        return (await service.add_contact(body, person, vouched=True)).model_dump()

    made = _with_notifications(data_directory, add)
    if as_json:
        print_json(made)
    else:
        words.print(f"{escape(login)} is reached by {escape(made['channel'])}: {escape(made['id'])}")


@contacts_app.command("remove")
def remove_contact(
    contact_id: Annotated[str, typer.Argument(help="Its id, from `contacts list`.")],
    data_directory: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Forget a way to somebody.

    Example: [bold]fleet notifications contacts remove 0a1b…[/bold]
    """

    async def remove(service: "NotificationService", _database: "SqlDatabase") -> None:
        await service.remove(contact_id, command_line())

    _with_notifications(data_directory, remove)
    if as_json:
        print_json({"id": contact_id, "removed": True})
    else:
        words.print(f"{escape(contact_id)} is forgotten.")
