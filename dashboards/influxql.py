"""InfluxQL as Grafana sends it: small query texts, and the data query that the SDK has no builder for.

A measurement of readings is named after its kind, with the one tag `device_id`; all others stand in `fleet.series`.
Every query names its retention policy by the board's variable `resolution`, is bounded in time by `$timeFilter`, and
groups by tags of bounded number only. InfluxQL as InfluxDB 1.6, 1.8 and 2.x understand it: no Flux, no functions that
came later.

In the levels that are rolled up, a field is its mean, and `<field>_min` and `<field>_max` stand beside it. So the
lowest and the highest are taken from both: in raw data only the first exists, above it the second is the truth.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models.dashboard import DataSourceRef

from fleet.panel import Value, Where
from fleet.units import FEN_PER_YUAN

DATASOURCE: Final = DataSourceRef(type_val="influxdb", uid="${datasource}")
DEVICE_TAG: Final = "device_id"
IN_RANGE: Final = "$timeFilter"
CHOSEN: Final = f'{IN_RANGE} AND "{DEVICE_TAG}" =~ /^${{device:regex}}$/'
"""Only the devices chosen at the top of the board."""
STEP: Final = "time($__interval)"
ROWS_MAX: Final = 200
"""Longest list: more cannot be read, and a browser has to draw it."""
PERCENTILES: Final = {"p50": 50, "p95": 95, "p99": 99}

ResultFormat = Literal["time_series", "table"]


@dataclass(frozen=True, slots=True)
class Query(Dataquery):
    """One target of a panel."""

    ref_id: str
    text: str
    result_format: ResultFormat = "time_series"
    alias: str = ""

    def to_json(self) -> dict[str, object]:
        """Grafana's model of a raw InfluxQL query."""
        payload: dict[str, object] = {
            "refId": self.ref_id,
            "datasource": DATASOURCE,
            "query": self.text,
            "rawQuery": True,
            "resultFormat": self.result_format,
        }
        if self.alias:
            payload["alias"] = self.alias
        return payload


@dataclass(frozen=True, slots=True)
class QueryBuilder(Builder[Dataquery]):
    """Gives a finished query to a panel's builder."""

    query: Query

    def build(self) -> Dataquery:
        """The query itself."""
        return self.query


class Column(NamedTuple):
    """One column of a query: a field, how its values are joined, and the column's name."""

    field: str
    aggregate: str
    name: str


def identifier(name: str) -> str:
    """A measurement, field or column as InfluxQL quotes it."""
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def literal(value: Value) -> str:
    """A value to compare with, as InfluxQL writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"'{escaped}'"
    return f"{value:g}"


def source(measurement: str) -> str:
    """The measurement at the resolution chosen at the top of the board."""
    return f'"${{resolution}}".{identifier(measurement)}'


def condition_of(wheres: Sequence[Where], base: str = "") -> str:
    """`base` and every one of the conditions."""
    parts = [base] if base else []
    for where in wheres:
        values = where.value if isinstance(where.value, tuple) else (where.value,)
        compared = [f"{identifier(where.name)} {where.operator} {literal(value)}" for value in values]
        parts.append(compared[0] if len(compared) == 1 else f"({' OR '.join(compared)})")
    return " AND ".join(parts)


def joined(aggregate: str, field: str) -> str:
    """The call that joins a field's values: `max("x")`, `percentile("x", 95)`; `sum/100` divides what came out."""
    aggregate, slash, divisor = aggregate.partition("/")
    if slash:
        return f"{joined(aggregate, field)} / {divisor}"
    if aggregate in PERCENTILES:
        return f"percentile({identifier(field)}, {PERCENTILES[aggregate]})"
    return f"{aggregate}({identifier(field)})"


def select(
    measurement: str, columns: Sequence[Column], *, condition: str, by: Sequence[str] = (), sampled: bool = False
) -> str:
    """The columns, grouped by tags and time steps (`time(…)`); empty steps are left out.

    `sampled`: the measurement is rolled up, so lowest and highest values stand in fields of their own there.
    """
    groups = _group(by)
    plain = ", ".join(f"{joined(one.aggregate, one.field)} AS {identifier(one.name)}" for one in columns)
    text = f"SELECT {plain} FROM {source(measurement)} WHERE {condition}{groups}"
    extremes = [one for one in columns if one.aggregate in {"min", "max"}]
    if not sampled or not extremes:
        return text
    rolled_up = ", ".join(
        f"{one.aggregate}({identifier(f'{one.field}_{one.aggregate}')}) AS {identifier(one.name)}" for one in extremes
    )
    outer = ", ".join(f"{_again(one.aggregate)}({identifier(one.name)}) AS {identifier(one.name)}" for one in columns)
    beside = f"SELECT {rolled_up} FROM {source(measurement)} WHERE {condition}{groups}"
    return f"SELECT {outer} FROM ({text}), ({beside}) WHERE {IN_RANGE}{groups}"


def _group(by: Sequence[str]) -> str:
    if not by:
        return ""
    names = ", ".join(one if one.startswith("time(") else identifier(one) for one in by)
    return f" GROUP BY {names}" + (" fill(none)" if any(one.startswith("time(") for one in by) else "")


def _again(aggregate: str) -> str:
    """How values that are joined already are joined once more."""
    return {"count": "sum", **dict.fromkeys(PERCENTILES, "max")}.get(aggregate, aggregate)


def totals(
    measurement: str, columns: Sequence[Column], *, latest_by: str, condition: str, aggregate: str = "sum"
) -> str:
    """One row: the latest value of every `latest_by` (a device, a kind, a process), joined over them."""
    latest = [Column(one.field, "last", one.field) for one in columns]
    inner = select(measurement, latest, condition=condition, by=[latest_by])
    outer = ", ".join(
        f"{one.aggregate or aggregate}({identifier(one.field)}) AS {identifier(one.name)}" for one in columns
    )
    return f"SELECT {outer} FROM ({inner})"


def totals_over_time(
    measurement: str, columns: Sequence[Column], *, latest_by: str, condition: str, step: str = STEP
) -> str:
    """Per time step: the latest value of every `latest_by`, joined over them."""
    latest = [Column(one.field, "last", one.field) for one in columns]
    inner = select(measurement, latest, condition=condition, by=[step, latest_by])
    outer = ", ".join(f"{one.aggregate}({identifier(one.field)}) AS {identifier(one.name)}" for one in columns)
    return f"SELECT {outer} FROM ({inner}) WHERE {IN_RANGE}{_group([step])}"


def extreme_devices(
    measurement: str,
    column: Column,
    *,
    count: int,
    condition: str = CHOSEN,
    lowest: bool = False,
    sampled: bool = False,
) -> str:
    """The `count` devices with the highest values (or the lowest), one row each."""
    inner = select(
        measurement, [Column(column.field, column.aggregate, "value")], condition=condition, by=[DEVICE_TAG],
        sampled=sampled,
    )  # fmt: skip
    pick = f"{'bottom' if lowest else 'top'}({identifier('value')}, {identifier(DEVICE_TAG)}, {count})"
    return f"SELECT {pick} AS {identifier(column.name)} FROM ({inner})"


def devices_that(measurement: str, wheres: Sequence[Where], column: str) -> str:
    """How many devices say in their latest reading what `wheres` asks for."""
    fields = list(dict.fromkeys(where.name for where in wheres))
    inner = select(measurement, [Column(field, "last", field) for field in fields], condition=CHOSEN, by=[DEVICE_TAG])
    text = f"SELECT count({identifier(fields[0])}) AS {identifier(column)} FROM ({inner})"
    return f"{text} WHERE {condition_of(wheres)}"


def rates(
    measurement: str,
    columns: Sequence[Column],
    *,
    tag: str,
    condition: str = IN_RANGE,
    per: str = "1s",
    by_tag: bool = False,
) -> str:
    """Counters as rates, summed over the values of `tag`; a counter that starts again at 0 makes no negative rate.

    With several columns the subquery runs once for each: ask for one at a time where there are many steps.
    """
    inner = ", ".join(
        f"non_negative_derivative(last({identifier(one.field)}), {per}) AS {identifier(one.field)}" for one in columns
    )
    text = f"SELECT {inner} FROM {source(measurement)} WHERE {condition}{_group([STEP, tag])}"
    outer = ", ".join(f"sum({identifier(one.field)}) AS {identifier(one.name)}" for one in columns)
    return f"SELECT {outer} FROM ({text}) WHERE {IN_RANGE}{_group([STEP, tag] if by_tag else [STEP])}"


def increases(measurement: str, fields: Sequence[str], expression: str, column: str, *, tag: str) -> str:
    """One number from how much counters grew in the time shown: `expression` over columns named as the fields."""
    inner = ", ".join(f"non_negative_difference(last({identifier(one)})) AS {identifier(one)}" for one in fields)
    text = f"SELECT {inner} FROM {source(measurement)} WHERE {IN_RANGE}{_group([STEP, tag])}"
    return f"SELECT {expression} AS {identifier(column)} FROM ({text})"


def still(
    measurement: str,
    state: str,
    columns: Sequence[str],
    tags: Sequence[str],
    *,
    ended: Sequence[str],
    condition: str,
    also: Sequence[Where] = (),
) -> str:
    """One row for each combination of tags whose last step left it in a state that is not an end.

    `condition` chooses by tags, `also` looks at the columns of that last step.
    """
    inner = ", ".join([f"last({identifier(state)}) AS {identifier(state)}", *map(identifier, columns)])
    text = f"SELECT {inner} FROM {source(measurement)} WHERE {condition}{_group(tags)}"
    shown = ", ".join(map(identifier, [*tags, state, *columns]))
    open_states = condition_of([*(Where(state, one, "!=") for one in ended), *also], IN_RANGE)
    return f"SELECT {shown} FROM ({text}) WHERE {open_states}"


def recent(
    measurement: str,
    columns: Sequence[str],
    *,
    condition: str,
    rows_max: int = ROWS_MAX,
    in_yuan: Collection[str] = (),
) -> str:
    """The newest points as they are, newest first; the columns `in_yuan` are held in fen."""
    shown = ", ".join(
        f"{identifier(one)} / {FEN_PER_YUAN} AS {identifier(one)}" if one in in_yuan else identifier(one)
        for one in columns
    )
    return f"SELECT {shown} FROM {source(measurement)} WHERE {condition} ORDER BY time DESC LIMIT {rows_max}"


def devices_of(kind: str) -> str:
    """The devices that ever reported: the choices at the top of a board."""
    return f"SHOW TAG VALUES FROM {source(kind)} WITH KEY = {identifier(DEVICE_TAG)}"
