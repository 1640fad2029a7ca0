"""`fleet simulate`."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from cli.output import FAILURE, JsonOption, data, print_json, usage_errors, words

_PROFILES: Final = ("storm", "day")


def simulate(
    seed: Annotated[int, typer.Option(help="The first (or only) seed.")] = 1,
    seeds: Annotated[str | None, typer.Option(help="Several: A..B.")] = None,
    profile: Annotated[
        str,
        typer.Option(
            help="storm: few devices, many faults, 20 minutes; squall: 4 dense minutes; day: all devices, no faults."
        ),
    ] = "storm",
    days: Annotated[float | None, typer.Option(min=0.0001, help="Virtual days; default: of the profile.")] = None,
    devices: Annotated[list[str] | None, typer.Option(help="KIND=NUMBER; repeatable. Default: of the profile.")] = None,
    fault_every_s: Annotated[
        float | None, typer.Option(min=0, help="Virtual seconds between faults on average; 0: none.")
    ] = None,
    bug: Annotated[str | None, typer.Option(help="Plant this bug and say whether it was noticed; see --bugs.")] = None,
    bugs: Annotated[
        bool, typer.Option("--bugs", help="Plant every bug, one after the other, over these seeds.")
    ] = False,
    found_min: Annotated[
        int | None, typer.Option(min=0, help="With --bugs: how many must be noticed. Default: all.")
    ] = None,
    trace: Annotated[Path | None, typer.Option(help="Write the last lines of the (last) run to this file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Run the real code on virtual time with faults from a seed, and check every promise.

    The same seed gives the same digest, byte for byte, on every machine with the same release. Exit code 1 if a
    promise was broken (with --bugs: if fewer bugs than --found-min were noticed).

    Example: [bold]fleet simulate --seeds 1..20 --json[/bold]
    """
    from cli.simulate.bugs import BUGS
    from cli.simulate.plan import DAY_S, plan_named

    with usage_errors(ValueError):
        chosen = plan_named(profile)
        numbers = _seeds(seeds, seed)
        if bug is not None and bug not in BUGS:
            raise ValueError(f"--bug: unknown bug {bug!r}; known: {', '.join(BUGS)}")
        if devices:
            chosen = replace(chosen, counts=_counts(devices))
    if days is not None:
        chosen = replace(chosen, duration_s=days * DAY_S)
    if fault_every_s is not None:
        chosen = replace(chosen, fault_every_s=fault_every_s)
    if bugs:
        _hunt(list(BUGS), numbers, chosen, found_min, as_json=as_json)
        return
    results = _run(numbers, chosen, bug, trace)
    failed = [result for result in results if not result["passed"]]
    if as_json:
        print_json({"profile": profile, "bug": bug, "seeds": len(results), "failed": len(failed), "runs": results})
    else:
        for result in results:
            verdict = "[green]kept[/green]" if result["passed"] else "[red]broken[/red]"
            data.print(f"seed {result['seed']}: {verdict}  {result['digest']}  {result['seconds']} s")
            for violation in result["violations"]:
                data.print(f"  {violation}", markup=False)
    if bool(failed) != (bug is not None):
        raise typer.Exit(FAILURE)


def _seeds(text: str | None, seed: int) -> list[int]:
    if text is None:
        return [seed]
    first, dots, last = text.partition("..")
    if not (dots and first.isdigit() and last.isdigit() and int(first) <= int(last)):
        raise ValueError(f"--seeds {text!r}: write A..B, for example 1..20")
    return list(range(int(first), int(last) + 1))


def _counts(texts: list[str]) -> dict[str, int]:
    from cli.sim import parse_counts, refuse_unknown_kinds

    counts = parse_counts(texts)
    refuse_unknown_kinds(counts)
    return counts


def _run(numbers: list[int], plan: Any, bug: str | None, trace: Path | None) -> list[dict[str, Any]]:
    results = []
    for number in numbers:
        with words.status(f"seed {number} …"):
            result, seconds = _timed(lambda number=number: _one(number, plan, bug, keep_tail=trace is not None))  # type: ignore[misc]
        if trace is not None:
            trace.write_text("".join(result.tail))
        results.append(
            {
                "seed": number, "passed": result.passed, "digest": result.digest, "violations": result.violations,
                "seconds": seconds, "virtual_s": round(result.virtual_s), "counts": result.counts,
                "milestones": result.milestones,
            }
        )  # fmt: skip
    return results


def _one(seed: int, plan: Any, bug: str | None, *, keep_tail: bool = False) -> Any:
    from cli.simulate.bugs import BUGS
    from cli.simulate.simulation import simulate as run

    return run(seed, plan, bug=None if bug is None else BUGS[bug](), keep_tail=keep_tail)


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    began_s = time.perf_counter()
    return work(), round(time.perf_counter() - began_s, 1)


def _hunt(names: list[str], numbers: list[int], plan: Any, found_min: int | None, *, as_json: bool) -> None:
    """Each bug until a seed notices it."""
    found = []
    for name in names:
        row: dict[str, Any] = {"bug": name, "found_by_seed": None, "seeds": 0, "seconds": 0.0, "violation": None}
        for number in numbers:
            with words.status(f"{name}, seed {number} …"):
                result, seconds = _timed(lambda name=name, number=number: _one(number, plan, name))  # type: ignore[misc]
            row["seeds"] += 1
            row["seconds"] = round(row["seconds"] + seconds, 1)
            if not result.passed:
                row |= {"found_by_seed": number, "violation": result.violations[0]}
                break
        found.append(row)
        if not as_json:
            data.print(json.dumps(row), markup=False)
    missed = [row["bug"] for row in found if row["found_by_seed"] is None]
    if as_json:
        print_json({"bugs": len(found), "found": len(found) - len(missed), "missed": missed, "rows": found})
    if len(found) - len(missed) < (len(names) if found_min is None else found_min):
        raise typer.Exit(FAILURE)
