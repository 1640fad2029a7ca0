"""`fleet scale`: what a fleet of a given size needs, by arithmetic on measured costs."""

from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cli.output import JsonOption, data, fail, print_json, usage_errors, words
from cli.places import why_not

if TYPE_CHECKING:
    from cli.bench.wire import Day
    from cli.scale_model import Costs

SIZES: Final = (400, 40_000, 4_000_000)
DEVICES_MAX: Final = 100_000_000
_MARKS: Final = "there is no such page to write into; make it, with the marks that docs/scale.md has"


def scale(
    devices: Annotated[
        list[int] | None, typer.Option(min=1, max=DEVICES_MAX, help="How many; may be repeated.")
    ] = None,
    assume: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=NUMBER", help="Another cost or price; `--assumptions` lists them. May be repeated."),
    ] = None,
    assumptions: Annotated[bool, typer.Option(help="Only list costs and prices, and where each was measured.")] = False,
    page: Annotated[
        Path | None, typer.Option(help="Write the tables into this page, between its marks, and the plot beside it.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Messages, bytes, rows, processes, CPUs and money of a fleet of any size, in the real fleet's proportions.

    Examples: [bold]fleet scale --devices 40000 --json[/bold]
    [bold]fleet scale --assume ingester_us=5 --assume price_core=80[/bold]
    """
    from cli.scale_model import described
    from cli.scale_page import assumption_rows, rows_of, write

    with usage_errors(ValueError):
        costs = _costs(assume or [])
    if assumptions:
        _show_assumptions(described(costs), assumption_rows(costs), as_json=as_json)
        return
    found = [figures(size, costs) for size in devices or SIZES]
    if page is not None:
        try:
            written = write(page, found, costs)
        except FileNotFoundError as error:
            raise fail(f"--page {page}: {_MARKS}") from error
        except OSError as error:
            raise fail(f"--page {page}: {why_not(error)}") from error
        except ValueError as error:
            raise fail(f"--page {page}: {error}") from error
        for path in written:
            words.print(str(path))
    if as_json:
        print_json({"sizes": found, "assumptions": described(costs)})
    elif page is None:
        from cli.output import print_rows

        names = ["what", *(f"{size:,}" for size in devices or SIZES)]
        rows = [dict(zip(names, row, strict=True)) for row in rows_of(found)]
        print_rows(rows, names, as_json=False, empty="")
        data.print("\nWhat this assumes: fleet scale --assumptions")


@cache
def _average_day() -> "Day":
    """Of a bike: the same for every size."""
    from cli.bench.wire import average_day

    return average_day()


def figures(size: int, costs: "Costs") -> dict[str, Any]:
    """The model's figures of `size` devices of the kinds that are installed."""
    import devices as kinds
    from cli.scale_model import fleet_of, model
    from devices.bike.controller import RIDING_INTERVAL_MS
    from firmware_sim.demand import RIDES
    from firmware_sim.scenario import VIRTUAL

    day = _average_day()
    extra, rides = {"bike": day.readings_while_riding}, {"bike": day.rides}
    fleet = fleet_of(size, kinds.kinds(), extra, rides, frozenset({"bike"}))
    # Only rides have an hour of their own: everything else keeps its rhythm.
    per_message = kinds.kind_named("bike").readings_per_message
    bikes = sum(one.devices for one in fleet if one.name == "bike")
    riding_s = bikes * VIRTUAL.peaks_per_hour["rides"] * max(RIDES.by_hour) * day.ride_s
    riding = riding_s / (RIDING_INTERVAL_MS / 1000) / per_message / 3_600
    mean = sum(one.devices * one.messages for one in fleet) / 86_400
    usual = bikes * day.readings_while_riding / per_message / 86_400
    return model(fleet, costs, 1 + max(0.0, riding - usual) / mean)


def _costs(assumed: list[str]) -> "Costs":
    from cli.scale_model import Costs

    known = {one.name for one in fields(Costs)}
    changed: dict[str, float] = {}
    for text in assumed:
        name, equals, number = text.partition("=")
        if not equals or name not in known:
            raise ValueError(f"--assume {text}: write NAME=NUMBER with one of {', '.join(sorted(known))}")
        try:
            changed[name] = float(number)
        except ValueError:
            raise ValueError(f"--assume {text}: {number!r} is no number") from None
        if not 0 <= changed[name] < float("inf") or (name in _POSITIVE and changed[name] == 0):
            raise ValueError(f"--assume {text}: must be a positive number")
    return replace(Costs(), **changed)


_POSITIVE: Final = frozenset({"use_percent", "broker_cores", "sql_cores"})
"""What is divided by."""


def _show_assumptions(document: dict[str, Any], rows: list[dict[str, Any]], *, as_json: bool) -> None:
    from cli.output import print_rows

    if as_json:
        print_json(document)
        return
    print_rows(rows, ["name", "value", "unit", "source"], as_json=False, empty="")
