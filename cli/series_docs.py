"""`docs/series.md`, made from `fleet.series` and the kinds: measurements, tags, fields, and the bound on series.

The budget is the bound: every device does everything that can be done with it, and every alarm has every one of its
steps. What a real deployment has is a small part of it; what matters is that the bound follows from the vocabulary
and the devices, and from nothing that grows with time.
"""

from collections.abc import Mapping
from typing import Final

from cloud.history.groups import counted_groups
from cloud.rules.conditions import link_alarms
from cloud.timeseries.points import SEQ_FIELD
from devices import kinds, role
from fleet import series
from fleet.kind import Kind, literal_of
from fleet.series import Measurement, SeriesField
from fleet.units import label_of, unit_of

TYPICAL: Final[Mapping[str, int]] = {"bike": 180, "meal_machine": 20, "nursing_room": 190}
"""Devices of the deployment this is made for."""
LARGE: Final = 40_000
BUDGETS: Final = (sum(TYPICAL.values()), LARGE)
UNIT_TEXTS: Final = {"none": "–", "text": "text", "bool": "true/false"}
_BOUND_TEXTS: Final[Mapping[series.TagBound, str]] = {
    "devices": "devices in service",
    "kinds": "kinds of devices",
    "groups": "groups of the kind's boards",
    "alarms": "alarms of the device's kind",
    "actions": "commands of the device's kind",
    "processes": f"roles of processes, up to {series.INSTANCES_MAX} of each",
}


def population(count: int) -> dict[str, int]:
    """Devices by kind, in the proportions of the typical deployment; a further kind has as many as the smallest."""
    shares = {name: TYPICAL.get(name, min(TYPICAL.values())) for name in kinds()}
    if count == sum(TYPICAL.values()) and set(shares) == set(TYPICAL):
        return dict(TYPICAL)
    total = sum(shares.values())
    return {name: round(count * share / total) for name, share in shares.items()}


def series_count(measurement: Measurement, devices_by_kind: Mapping[str, int]) -> int:
    """The most series this measurement can have. A device's kind is fixed, and an alarm's priority with its key."""
    bounds = {tag: measurement.bound_of(tag) for tag in measurement.tags}
    closed = 1
    for tag, bound in bounds.items():
        if bound == "values" and not (tag == "priority" and "alarms" in bounds.values()):
            # A tag that only some steps have is absent on the others: one value more
            closed *= len(measurement.values[tag]) + (tag == "reason")
    if "processes" in bounds.values():
        return closed * len(series.ROLES) * series.INSTANCES_MAX
    if "groups" in bounds.values():
        return closed * sum(len(counted_groups(name)) for name in devices_by_kind)
    if "devices" not in bounds.values():
        return closed * len(devices_by_kind)
    return closed * sum(
        count * _per_device(kinds()[name], set(bounds.values()))
        for name, count in devices_by_kind.items()
        if concerns(measurement, kinds()[name])
    )


def concerns(measurement: Measurement, kind: Kind) -> bool:
    """Whether a device of this kind can have such points at all."""
    if measurement is series.CALL_STEP:
        return kind.emergency
    owner = {
        series.RIDE_STEP.name: "bike", series.PURCHASE_STEP.name: "meal_machine",
        series.WASTE_STEP.name: "meal_machine",
        series.MACHINE_FORECAST.name: "meal_machine",
    }.get(measurement.name)  # fmt: skip
    return owner is None or owner == kind.name


def _per_device(kind: Kind, bounds: set[series.TagBound]) -> int:
    alarms = len({one.key for one in (*role(kind.name, "rules").ALARMS, *link_alarms(kind))})
    actions = len({literal_of(command, "action") for command in kind.commands})
    return (alarms if "alarms" in bounds else 1) * (actions if "actions" in bounds else 1)


def page() -> str:
    """The whole page."""
    lines = [
        "# Time series", "", "<!-- Made by `make docs` from the tables in the code; do not edit. -->", "",
        ("What stands in InfluxDB (or in the embedded series), for boards and exports. Readings come from the spool; "
        "everything else from the SQL tables, which stay the truth "
        "([ADR 0027](adr/0027-the-history-follows-the-tables.md))."), "",
        "- A point is identified by measurement, tags and time in ns: writing it again changes nothing.",
        "- Times are business time. Below the millisecond stands the number of the message or row: no meaning.",
        ("- A number is written as its device wrote it (`-71`, `-71.0`): a whole number with `i` is an integer, "
        "else a float."),
        ("- Tags are bounded; ids that grow with use are fields. A tag without a value is left out (`reason = ''`); "
        "a value that is on no list below would be `other`."),
        ("- A field keeps its type for ever: counts, ms, fen and bytes are integers; means and quantiles (`…_ms_mean`, "
        "`…_ms_p95`), percent, hours and seconds are floats."),
        "- Fields marked *optional* are not in every point: a query says `last()` or `fill()`.", "",
        "## How many series", "", *_budget(), "", "## Readings", "", *_readings(),
    ]  # fmt: skip
    for measurement in series.MEASUREMENTS:
        lines += _measurement(measurement)
    return "\n".join(lines)


def _budget() -> list[str]:
    columns = [f"{count:,} devices" for count in BUDGETS]
    lines = [
        "The most there can be, if every device had done everything: computed from the lists below.", "",
        f"| measurement | bounded by | {' | '.join(columns)} |", "|---|---|" + "---:|" * len(columns),
    ]  # fmt: skip
    populations = [population(count) for count in BUDGETS]
    lines.append(f"| readings | devices | {' | '.join(f'{sum(one.values()):,}' for one in populations)} |")
    totals = [sum(one.values()) for one in populations]
    for measurement in series.MEASUREMENTS:
        counts = [series_count(measurement, one) for one in populations]
        totals = [total + count for total, count in zip(totals, counts, strict=True)]
        tags = " × ".join(measurement.tags)
        lines.append(f"| `{measurement.name}` | {tags} | {' | '.join(f'{count:,}' for count in counts)} |")
    lines.append(f"| **all** | | {' | '.join(f'**{total:,}**' for total in totals)} |")
    return [
        *lines, "",
        ("An alarm's priority follows from its key and multiplies nothing: it is a tag, because boards group by it. "
        "That of a work order does not follow from its skill: it is a field."), "",
        ("InfluxDB 1.8 takes a million series by default (`max-series-per-database`); InfluxDB 2 has no such limit. "
        "The long retentions hold the same series again."),
    ]  # fmt: skip


def _readings() -> list[str]:
    lines = [f"Measurement: the kind. Tag: `device_id`. Beside the fields: `{SEQ_FIELD}`, the message's number.", ""]
    for kind in kinds().values():
        lines += [f"### `{kind.name}` {kind.title.en} {kind.title.zh}", "", "| field | unit | |", "|---|---|---|"]
        for name, field in kind.reading.model_fields.items():
            if name != "at":
                unit, zh, en = unit_of(field), label_of(field, "zh"), label_of(field, "en")
                lines.append(f"| `{name}` | {UNIT_TEXTS.get(unit, unit)} | {en}<br>{zh} |")
        lines.append("")
    return [*lines, "Of a list (slots, sensors) the series hold its length, as `<field>_count`.", ""]


def _measurement(measurement: Measurement) -> list[str]:
    rhythm = "when it happens" if measurement.every_s is None else f"every {measurement.every_s:g} s"
    text = measurement.description
    lines = [f"## `{measurement.name}`", "", f"{text.en}<br>{text.zh}", "", f"Written {rhythm}.", ""]
    lines += ["| tag | values |", "|---|---|"]
    for tag in measurement.tags:
        bound = measurement.bound_of(tag)
        values = ", ".join(f"`{value}`" for value in measurement.values.get(tag, ())) or _BOUND_TEXTS[bound]
        lines.append(f"| `{tag}` | {values} |")
    lines += ["", "| field | unit | type | |", "|---|---|---|---|", *map(_field, measurement.fields), ""]
    return lines


def _field(field: SeriesField) -> str:
    values = f" ({', '.join(f'`{value}`' for value in field.values)})" if field.values else ""
    optional = "; optional" if field.optional else ""
    words = f"{field.description.en}{values}{optional}<br>{field.description.zh}"
    unit = UNIT_TEXTS.get(field.unit, field.unit)
    return f"| `{field.name}` | {unit} | {field.value_type.__name__} | {words} |"
