"""Pages made from tables: `docs/lifecycles.md` from every Lifecycle, `docs/alarms/<kind>.md` from a kind's alarms.

`docs/series.md` is made beside them, by `cli.series_docs`.
"""

import importlib
import pkgutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import cloud
import devices
import fleet
from cli import series_docs
from cloud.rules.conditions import IDENTITY_TWICE, LINK_ALARMS, link_alarms
from cloud.rules.hiding import SHELVE_S_MAX
from cloud.rules.timed_alarms import SUBSTITUTE_DUE, TEST_OVERDUE
from devices import kinds, role
from fleet.incident import Priority
from fleet.kind import AlarmDefinition, CallStep, Flag, Kind, Threshold
from fleet.lifecycle import Lifecycle

DOCS: Final = Path(__file__).resolve().parent.parent / "docs"
LANGUAGES: Final = ("zh", "en")
NOTICE: Final = "<!-- Made by `make docs` from the tables in the code; do not edit. -->"
LINK_KEYS: Final = frozenset({*LINK_ALARMS, IDENTITY_TWICE, TEST_OVERDUE, SUBSTITUTE_DUE})
SEARCHED: Final = (fleet, devices, cloud)
"""Packages whose modules may hold lifecycles; a module counts if its file mentions the class."""


def pages() -> dict[str, str]:
    """Every generated page: path under `docs/` → text."""
    made = {"lifecycles.md": lifecycles_page(find_lifecycles()), "alarms/README.md": alarms_index(kinds().values())}
    for kind in kinds().values():
        made[f"alarms/{kind.name}.md"] = alarms_page(kind, role(kind.name, "rules"))
    made["series.md"] = series_docs.page()
    return made


def write(folder: Path = DOCS) -> list[Path]:
    """Write the pages, remove alarm pages of kinds that are gone; returns what was written."""
    written = []
    for name, text in pages().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        written.append(path)
    for stale in set((folder / "alarms").glob("*.md")) - set(written):
        stale.unlink()
    return written


def find_lifecycles() -> list[tuple[str, Lifecycle[Any, Any]]]:
    """(module, table) of every Lifecycle in the product, each once, by name."""
    found: dict[int, tuple[str, Lifecycle[Any, Any]]] = {}
    for package in SEARCHED:
        for module_name in _modules_with_lifecycles(package):
            module = importlib.import_module(module_name)
            for value in vars(module).values():
                if isinstance(value, Lifecycle):
                    found.setdefault(id(value), (module_name, value))
    return sorted(found.values(), key=lambda pair: pair[1].name)


def _modules_with_lifecycles(package: Any) -> Iterable[str]:
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        spec = module.module_finder.find_spec(module.name, None)
        origin = spec.origin if spec else None
        if origin and "Lifecycle[" in Path(origin).read_text(encoding="utf-8"):
            yield module.name


def lifecycles_page(lifecycles: Sequence[tuple[str, Lifecycle[Any, Any]]]) -> str:
    """The diagrams and tables of all lifecycles."""
    lines = ["# Lifecycles", "", NOTICE, ""]
    lines += ["What is not in a table is illegal: the event is refused and nothing changes.", ""]
    for module, lifecycle in lifecycles:
        lines += [f"## {lifecycle.name.capitalize()}", "", f"From `{module.replace('.', '/')}.py`.", ""]
        lines += ["```mermaid", lifecycle.mermaid(), "```", ""]
        lines += ["| state | event | next state |", "|---|---|---|"]
        lines += [f"| {origin.value} | {event.value} | {to.value} |" for (origin, event), to in lifecycle.table.items()]
        lines.append("")
    return "\n".join(lines)


def alarms_index(all_kinds: Iterable[Kind]) -> str:
    """Where each kind's alarms are."""
    lines = ["# Alarms", "", NOTICE, ""]
    lines += ["An alarm without an action for a person is no alarm. Emergency calls are not alarms.", ""]
    lines += [f"- [{kind.title.en} {kind.title.zh}]({kind.name}.md)" for kind in all_kinds]
    return "\n".join([*lines, ""])


def alarms_page(kind: Kind, rules: Any) -> str:
    """One kind's alarms, most urgent first, in both languages; then what its events mean for a call."""
    lines = [f"# {kind.title.en} {kind.title.zh}", "", NOTICE, ""]
    urgency = list(Priority)
    table = (*rules.ALARMS, *link_alarms(kind))
    more = "How they live: [lifecycles](../lifecycles.md); how people work with them: [alarm desk](../alarm-desk.md)."
    lines += [f"{len(table)} alarms, those of its link included. {more}", ""]
    for alarm in sorted(table, key=lambda alarm: urgency.index(alarm.priority)):
        lines += _alarm(alarm)
    steps = rules.call_steps()
    if steps:
        lines += ["## Emergency call", "", "| event | step |", "|---|---|"]
        lines += [f"| {event} | {CallStep(step).value} |" for event, step in steps.items()]
        lines.append("")
    return "\n".join(lines)


def _alarm(alarm: AlarmDefinition) -> list[str]:
    facts = [
        ("key", f"`{alarm.key}`"),
        ("priority", alarm.priority.value),
        ("true when", condition_text(alarm) if alarm.key not in LINK_KEYS else "time and its link say so (see cause)"),
        ("on delay, off delay", f"{_duration(alarm.on_delay_s)}, {_duration(alarm.off_delay_s)}"),
        ("respond within", _duration(alarm.respond_within_s)),
        ("told again after", _duration(alarm.realarm_s) if alarm.realarm_s else "never"),
        ("latches", "yes: stays until somebody inspected it on site" if alarm.latching else "no"),
        ("hidden behind", ", ".join(f"`{key}`" for key in alarm.suppressed_by) or "nothing"),
        ("shelved for at most", _duration(SHELVE_S_MAX[alarm.priority])),
        ("work order", alarm.skill or "none, people are told"),
    ]
    lines = [f"## {alarm.title.en} {alarm.title.zh}", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in facts]
    for name, text in (("cause", alarm.cause), ("consequence", alarm.consequence), ("action", alarm.action)):
        lines.append(f"| {name} | {text.en}<br>{text.zh} |")
    return [*lines, ""]


def condition_text(alarm: AlarmDefinition) -> str:
    """The condition in words; a predicate over the state is described by the alarm's cause."""
    condition = alarm.condition
    if isinstance(condition, Threshold):
        limit = f"above {condition.above:g}" if condition.above is not None else f"below {condition.below:g}"
        back = f", until {condition.deadband:g} back" if condition.deadband else ""
        return f"`{condition.field}` {limit}{back}"
    if isinstance(condition, Flag):
        return f"`{condition.field}` is {condition.value}"
    return "the state says so (see cause)"


def _duration(seconds: float) -> str:
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


def main() -> int:
    for path in write():
        print(path.relative_to(DOCS.parent), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
