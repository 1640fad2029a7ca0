"""`fleet week`."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from cli.output import FAILURE, JsonOption, data, print_json, usage_errors, words

PER_10_MIN_MAX: Final = 1.0
PER_DAY_MAX: Final = 120.0
SAVED_MIN: Final = 0.30
SAVED_FROM_DAYS: Final = 5.0
"""A part of a week has not the rooms' whole round in it; the saving is judged from so many days on."""


def week(
    seed: Annotated[int, typer.Option(help="The same seed gives the same week, byte for byte.")] = 1,
    days: Annotated[float, typer.Option(min=0.01, max=28.0, help="From Monday midnight on.")] = 7.0,
    devices: Annotated[list[str] | None, typer.Option(help="KIND=NUMBER; repeatable. Default: the real fleet.")] = None,
    rounds: Annotated[
        bool, typer.Option("--rounds/--no-rounds", help="Also the same week with fixed rounds, to compare ways.")
    ] = True,
    fault_factor: Annotated[float, typer.Option(min=0.0, max=100.0, help="Scales how often something breaks.")] = 1.0,
    without_on_delays: Annotated[
        bool, typer.Option(help="Plant noise: no alarm waits before it sounds. The limits must then break.")
    ] = False,
    html: Annotated[Path | None, typer.Option(help="Draw the week into this file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Simulate a normal week: the real rules, dispatch, orders and planning, simulated devices and people.

    Says how many alarms rang on whose telephone, what came of them, whether orders were done in time, and how far
    the crew drove, compared with fixed rounds. Exit code 1 if more than one alarm per person and ten minutes (on
    average) or more than 120 alarms a day rang, or if the plan saved less than 30 % of the way.

    Example: [bold]fleet week --seed 1 --json[/bold]
    """
    from cli.week.figures import figures
    from cli.week.page import draw, drawing
    from cli.week.plan import WeekPlan
    from cli.week.run import run_week

    plan = WeekPlan(seed=seed, days=days, fault_factor=fault_factor, without_on_delays=without_on_delays)
    if devices:
        with usage_errors(ValueError):
            from cli.sim import parse_counts, refuse_unknown_kinds

            counts = parse_counts(devices)
            refuse_unknown_kinds(counts)
            plan = replace(plan, counts=counts)

    def look(run: Any, cpu_s: float) -> tuple[dict[str, Any], Any]:
        return figures(run, cpu_s), drawing(run) if html is not None else None

    with words.status("the planned week …"):
        planned, picture = run_week(plan, look)
    document: dict[str, Any] = {"planned": planned, "rounds": None, "saved": None}
    if rounds:
        with words.status("the same week with fixed rounds …"):
            document["rounds"], _ = run_week(replace(plan, policy="rounds"), look)
        document["saved"] = _saved(planned, document["rounds"])
    document["limits"] = judged(planned, document["saved"])
    if html is not None:
        html.write_text(draw(picture, document), encoding="utf-8")
        words.print(f"drawn: {html}")
    if as_json:
        print_json(document)
    else:
        _say(document)
    if not all(document["limits"].values()):
        raise typer.Exit(FAILURE)


def _saved(planned: dict[str, Any], fixed: dict[str, Any]) -> float | None:
    before = fixed["crew"]["kilometres"]
    return round(1 - planned["crew"]["kilometres"] / before, 4) if before else None


def judged(planned: dict[str, Any], saved: float | None) -> dict[str, bool]:
    """What a control room may ask of its people, and what the plan is for."""
    telephones = planned["telephones"]
    limits = {
        "alarms_per_person_10_min": telephones["alarms_per_person_10_min"]["mean"] <= PER_10_MIN_MAX,
        "alarms_per_day": planned["alarms"]["per_day"] <= PER_DAY_MAX,
    }
    if saved is not None and planned["days"] >= SAVED_FROM_DAYS:
        limits["kilometres_saved"] = saved >= SAVED_MIN
    return limits


def _say(document: dict[str, Any]) -> None:
    planned, fixed = document["planned"], document["rounds"]
    telephones, alarms = planned["telephones"], planned["alarms"]
    per_person = telephones["alarms_per_person_10_min"]
    data.print(f"alarms a day: {alarms['per_day']}; led to action: {_percent(alarms['led_to_action'])}")
    data.print(
        f"per person and 10 min: mean {per_person['mean']}, p99 {per_person['p99']}, most {per_person['max']}; "
        f"a day: mean {telephones['alarms_per_person_day']['mean']}, most {telephones['alarms_per_person_day']['max']}"
    )
    orders, calls = planned["orders"], planned["calls"]
    data.print(
        f"orders: {orders['orders']}, in time {_percent(orders['service_level_kept'])}, "
        f"first-time fix {_percent(orders['first_time_fix'])}"
    )
    data.print(f"calls: {calls['calls']}, accepted within {calls['acknowledged_in_s']['max']} s")
    line = f"kilometres: {planned['crew']['kilometres']}"
    if fixed is not None:
        line += f", with fixed rounds {fixed['crew']['kilometres']}: {_percent(document['saved'])} saved"
    data.print(line)
    for actor in alarms["bad_actors"]:
        data.print(
            f"  {actor['kind']} {actor['key']}: {actor['per_day']} a day, action {_percent(actor['led_to_action'])}",
            markup=False,
        )
    for name, kept in document["limits"].items():
        data.print(f"{name}: {'[green]kept[/green]' if kept else '[red]broken[/red]'}")
    data.print(f"{planned['cpu_s']} s of processor time; digest {planned['digest']}")


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.0%}"
