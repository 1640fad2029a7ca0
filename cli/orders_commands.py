"""`fleet orders …`: work orders, rounds, preventive plans and figures, on the database of this machine.

Acts are rows: the running processes see them within a second.
"""

import secrets
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.markup import escape

from cli.database import DataOption, command_line
from cli.orders_desk import Desk, full_id, person_id_of, with_desk
from cli.output import USAGE, JsonOption, data, fail, print_json, print_rows, usage_errors, words

app = typer.Typer(help="Work orders of the crews: see, make, give, move; rounds, plans, figures.", no_args_is_help=True)

_COLUMNS = ("id", "title", "device_id", "skill", "priority", "state", "assigned_to", "due", "overdue")
OrderArgument = Annotated[str, typer.Argument(help="Its id, or how it begins.")]
Note = Annotated[str, typer.Option(help="A few words.")]


@app.command("list")
def list_orders(
    state: Annotated[str, typer.Option(help="Only this state; also of those that are over.")] = "",
    skill: Annotated[str, typer.Option(help="Only this skill.")] = "",
    device: Annotated[str, typer.Option(help="Only this device.")] = "",
    overdue: Annotated[bool, typer.Option("--overdue", help="Only those that are overdue.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=500, help="At most so many.")] = 100,
    data_directory: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Open orders, the most pressing first.

    Example: [bold]fleet orders list --overdue --json[/bold]
    """
    from fleet.incident import OrderState

    with usage_errors(ValueError):
        wanted = {"state": OrderState(state).value if state else "", "skill": skill, "device_id": device}
    chosen = {name: value for name, value in wanted.items() if value}

    async def read(desk: Desk) -> list[dict[str, Any]]:
        found = await desk.orders.orders(command_line(), chosen, is_open=not state, limit=limit)
        return [one.model_dump(mode="json") for one in found.orders if one.overdue or not overdue]

    rows = with_desk(data_directory, read)
    print_rows(rows if as_json else [_readable(row) for row in rows], _COLUMNS, as_json=as_json, empty="No such order.")


@app.command("show")
def show(order_id: OrderArgument, data_directory: DataOption = None, as_json: JsonOption = False) -> None:
    """One order with its history, notes and photos.

    Example: [bold]fleet orders show 3fa9 --json[/bold]
    """

    async def read(desk: Desk) -> dict[str, Any]:
        return (await desk.orders.order(await full_id(desk, order_id), command_line())).model_dump(mode="json")

    _print(with_desk(data_directory, read), as_json=as_json)


@app.command("make")
def make(
    device_id: Annotated[str, typer.Argument(help="Where.")],
    title: Annotated[str, typer.Argument(help="What is to be done.")],
    skill: Annotated[
        Literal["repair", "restock", "battery", "rebalance", "inspection"], typer.Option(help="Who can do it.")
    ] = "repair",
    priority: Annotated[Literal["high", "medium", "low"], typer.Option(help="How urgent it is.")] = "medium",
    item: Annotated[list[str] | None, typer.Option("--item", help="ARTICLE=COUNT to bring.")] = None,
    key: Annotated[str, typer.Option(help="The same key again makes no second order.")] = "",
    data_directory: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make an order by hand; it is given out at once. Refused for a device that is retired.

    Example: [bold]fleet orders make bike-017 "Replace the saddle" --item saddle=1[/bold]
    """
    from pydantic import ValidationError

    from cloud.work_orders.schemas import MakeBody

    pairs = [text.partition("=") for text in item or ()]
    if any(not name or not count.isdecimal() for name, _, count in pairs):
        raise fail("--item: write ARTICLE=COUNT", USAGE)
    items = {name: int(count) for name, _, count in pairs}
    try:
        body = MakeBody(device_id=device_id, skill=skill, title=title, priority=priority, items=items, key=key)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        raise fail(f"{problem['loc'][0]}: {problem['msg']}", USAGE) from None

    async def act(desk: Desk) -> dict[str, Any]:
        return (await desk.orders.make(body, command_line(), secrets.token_hex(16))).model_dump(mode="json")

    _print(with_desk(data_directory, act), as_json=as_json)


@app.command("assign")
def assign(
    order_id: OrderArgument,
    login: Annotated[str, typer.Argument(help="To whom.")],
    data_directory: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give an order that nobody accepted yet to a member of the crew.

    Example: [bold]fleet orders assign 3fa9 li[/bold]
    """

    async def act(desk: Desk) -> dict[str, Any]:
        person_id = await person_id_of(desk, login)
        return (await desk.orders.assign(await full_id(desk, order_id), person_id, command_line())).model_dump(
            mode="json"
        )

    _print(with_desk(data_directory, act), as_json=as_json)


@app.command("priority")
def priority(
    order_id: OrderArgument,
    priority: Annotated[Literal["high", "medium", "low"], typer.Argument(help="The new one.")],
    note: Annotated[str, typer.Option(help="Why.")],
    data_directory: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change an order's priority, and its service level with it; the clock runs on.

    Example: [bold]fleet orders priority 3fa9 high --note "a visit of the press"[/bold]
    """

    async def act(desk: Desk) -> dict[str, Any]:
        full = await full_id(desk, order_id)
        return (await desk.orders.set_priority(full, priority, command_line(), note)).model_dump(mode="json")

    _print(with_desk(data_directory, act), as_json=as_json)


@app.command("note")
def note(
    order_id: OrderArgument,
    text: Annotated[str, typer.Argument(help="For whoever comes next.")],
    data_directory: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write something down.

    Example: [bold]fleet orders note 3fa9 "key at the front desk"[/bold]
    """

    async def act(desk: Desk) -> dict[str, Any]:
        return (await desk.orders.note(await full_id(desk, order_id), text, command_line())).model_dump(mode="json")

    _print(with_desk(data_directory, act), as_json=as_json)


@app.command("code")
def code(
    device_id: Annotated[str, typer.Argument(help="On which device it is to stick.")],
    svg: Annotated[Path | None, typer.Option(help="Write the QR code to this file.")] = None,
    data_directory: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """The code that is scanned on site, and the link in its QR code (FLEET_PUBLIC_URL should be set).

    Example: [bold]fleet orders code bike-017 --svg bike-017.svg[/bold]
    """
    from cloud.work_orders.proof import picture

    found, link = with_desk(data_directory, lambda desk: desk.evidence.code(device_id, command_line()))
    if svg is not None:
        svg.write_bytes(picture(link))
    _print({"device_id": device_id, "code": found, "link": link}, as_json=as_json)


@app.command("plan")
def plan(
    now: Annotated[bool, typer.Option("--now", help="Plan anew at once.")] = False,
    data_directory: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Everybody's rounds, and why an order stands in none. They are planned anew by themselves when the work changes.

    Example: [bold]fleet orders plan --now --json[/bold]
    """

    async def read(desk: Desk) -> dict[str, Any]:
        found = await (desk.planning.plan_now(command_line()) if now else desk.planning.plan())
        return found.model_dump(mode="json")

    found = with_desk(data_directory, read)
    if as_json:
        print_json(found)
        return
    from cli.enrolment_commands import moment

    for one in found["rounds"]:
        name = escape(one["person_name"] or one["person_id"])
        kilometres, back = one["distance_m"] / 1000, moment(one["ends_at"])
        data.print(f"[bold]{name}[/bold]: {len(one['stops'])} stops, {kilometres:.1f} km, back {back}")
        for stop in one["stops"]:
            late = " [red]late[/red]" if stop["late"] else ""
            what = escape(f"{stop['act']} {stop['place']}: {stop['title']['en']}")
            data.print(f"  {moment(stop['arrives_at'])}  {what}{late}")
    for order_id, why in found["unassigned"].items():
        data.print(f"in no round: {order_id[:8]} {why}")
    if not found["rounds"]:
        words.print("No rounds yet: there is no open work, or nobody is on duty. Plan with: fleet orders plan --now")


@app.command("pick-list")
def pick_list(
    login: Annotated[str, typer.Argument(help="Whose round.")],
    data_directory: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """What to load for a round: by article, and by stop.

    Example: [bold]fleet orders pick-list li --json[/bold]
    """

    async def read(desk: Desk) -> dict[str, Any]:
        return (await desk.planning.pick_list(await person_id_of(desk, login))).model_dump(mode="json")

    found = with_desk(data_directory, read)
    rows = [{"article": article, "count": count} for article, count in found["total"].items()]
    if as_json:
        print_json(found)
    else:
        print_rows(rows, ("article", "count"), as_json=False, empty="Nothing to load.")


@app.command("kpi")
def kpi(
    days: Annotated[int, typer.Option(min=1, max=400, help="Over orders made in so many last days.")] = 28,
    data_directory: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """How fast and how well work is done: by week, skill and kind. Times are median / 90 % in minutes.

    Example: [bold]fleet orders kpi --days 7 --json[/bold]
    """

    async def read(desk: Desk) -> dict[str, Any]:
        last = await desk.orders.kpi(None, None)
        found = await desk.orders.kpi(max(0, last.until_ms - days * 86_400_000), last.until_ms)
        return found.model_dump(mode="json")

    found = with_desk(data_directory, read)
    if as_json:
        print_json(found)
        return
    stages = ("acknowledged", "on_site", "fixed")
    rows = [
        {**line, **{name: f"{line[name]['median_minutes']} / {line[name]['p90_minutes']}" for name in stages}}
        for line in (*found["lines"], found["total"])
    ]
    columns = ("week", "skill", "kind", "made", "done", *stages, "first_time_fix", "repeat_faults", "sla_kept")
    print_rows(rows, columns, as_json=False, empty="No orders.")


@app.command("preventive")
def preventive(
    plan_id: Annotated[str, typer.Argument(help="Which one to change; none lists them.")] = "",
    every_days: Annotated[int, typer.Option(min=0, max=730, help="A new period.")] = 0,
    switch: Annotated[Literal["on", "off", ""], typer.Option(help="Switch it on or off.")] = "",
    data_directory: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Preventive plans: work that is due by time, once per device and period.

    Example: [bold]fleet orders preventive room-fridge-check --every-days 14[/bold]
    """
    from cloud.work_orders.schemas import PlanChangeBody

    async def act(desk: Desk) -> list[dict[str, Any]]:
        if plan_id:
            body = PlanChangeBody(period_days=every_days or None, enabled=switch == "on" if switch else None)
            return [(await desk.orders.change_plan(plan_id, body, command_line())).model_dump(mode="json")]
        return [one.model_dump(mode="json") for one in await desk.orders.plans()]

    columns = ("id", "kind", "skill", "title_en", "period_days", "priority", "enabled")
    empty = "No plans yet: `fleet serve` brings the first ones."
    print_rows(with_desk(data_directory, act), columns, as_json=as_json, empty=empty)


def _add_act(name: str, what: str, example: str) -> None:
    @app.command(name.replace("_", "-"), help=f"{what}\n\nExample: [bold]fleet orders {example}[/bold]")
    def act(
        order_id: OrderArgument,
        note: Note = "",
        reason: Annotated[str, typer.Option(help="Why: a code, see `docs/work-orders.md`.")] = "",
        data_directory: DataOption = None,
        as_json: JsonOption = False,
    ) -> None:
        from cloud.work_orders.schemas import OrderAct

        async def move(desk: Desk) -> dict[str, Any]:
            full = await full_id(desk, order_id)
            return (await desk.orders.act(full, OrderAct(name), command_line(), note, reason)).model_dump(mode="json")

        _print(with_desk(data_directory, move), as_json=as_json)


for _name, _what, _example in (
    ("accept", "Accept it for who it is assigned to.", "accept 3fa9"),
    ("travel", "They set off.", "travel 3fa9"),
    ("start", "They are there and begin.", "start 3fa9"),
    ("complete", "It is done; its code must have been scanned on site.", "complete 3fa9"),
    ("hold", "It has to wait, and why.", 'hold 3fa9 --reason waiting_part --note "saddle ordered"'),
    ("resume", "It can go on.", "resume 3fa9"),
    ("give_up", "It cannot be done, and why.", 'give-up 3fa9 --reason no_access --note "closed"'),
    ("release", "Give out again what could not be done.", "release 3fa9"),
    ("reopen", "It is not done after all, and why.", 'reopen 3fa9 --reason not_fixed --note "still rattles"'),
    ("cancel", "Nobody need do it, and why.", 'cancel 3fa9 --reason duplicate --note "see 81c0"'),
):
    _add_act(_name, _what, _example)


def _print(answer: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(answer)
        return
    for name, value in _readable(answer).items():
        data.print(f"[bold]{name.replace('_', ' ')}[/bold]: {escape(str(value))}")


def _readable(answer: dict[str, Any]) -> dict[str, Any]:
    from cli.enrolment_commands import moment

    found = {**answer}
    for name in ("created_at", "due_at", "changed_at", "verified_at"):
        if found.get(name):
            found[name] = moment(found[name])
    if "title" in found:
        found.update(title=answer["title"]["en"], due=found["due_at"])
    return found
