"""InfluxQL as Grafana sends it: query texts, and the data query that the SDK has no builder for.

A measurement is named after the kind, its one tag is `device_id`, its fields are those of the reading.
InfluxQL is understood by InfluxDB 1.8, 2.x and 3.x alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models.dashboard import DataSourceRef

DATASOURCE: Final = DataSourceRef(type_val="influxdb", uid="${datasource}")
DEVICE_TAG: Final = "device_id"
IN_RANGE: Final = "$timeFilter"
CHOSEN: Final = f'{IN_RANGE} AND "{DEVICE_TAG}" =~ /^${{device:regex}}$/'
"""Only the devices chosen at the top of the board."""

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


def identifier(name: str) -> str:
    """A measurement, field or column as InfluxQL quotes it."""
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def over_time(
    kind: str, fields: Sequence[tuple[str, str]], aggregate: str, *, per_device: bool, condition: str = CHOSEN
) -> str:
    """(field, column) pairs joined per time step, for all devices together or one series each."""
    columns = ", ".join(f"{aggregate}({identifier(field)}) AS {identifier(column)}" for field, column in fields)
    by = f"time($__interval), {identifier(DEVICE_TAG)}" if per_device else "time($__interval)"
    return f"SELECT {columns} FROM {identifier(kind)} WHERE {condition} GROUP BY {by} fill(none)"


def now_per_device(kind: str, fields: Sequence[tuple[str, str]], aggregate: str, condition: str = CHOSEN) -> str:
    """One row per device: (field, column) pairs joined over the time shown."""
    columns = ", ".join(f"{aggregate}({identifier(field)}) AS {identifier(column)}" for field, column in fields)
    return f"SELECT {columns} FROM {identifier(kind)} WHERE {condition} GROUP BY {identifier(DEVICE_TAG)}"


def now_of_all(kind: str, field: str, column: str, aggregate: str, condition: str = CHOSEN) -> str:
    """One number: each device's latest value, joined over the devices."""
    latest = (
        f"SELECT last({identifier(field)}) AS {identifier('value')} FROM {identifier(kind)} "
        f"WHERE {condition} GROUP BY {identifier(DEVICE_TAG)}"
    )
    return f"SELECT {aggregate}({identifier('value')}) AS {identifier(column)} FROM ({latest})"


def extreme_devices(kind: str, field: str, column: str, aggregate: str, *, count: int, condition: str = CHOSEN) -> str:
    """The `count` devices with the highest values (the lowest for `min`), one row each."""
    pick = "bottom" if aggregate == "min" else "top"
    inner = now_per_device(kind, [(field, "value")], aggregate, condition)
    chosen = f"{pick}({identifier('value')}, {identifier(DEVICE_TAG)}, {count})"
    return f"SELECT {chosen} AS {identifier(column)} FROM ({inner})"


def readings_over_time(kind: str, field: str, column: str) -> str:
    """How many readings arrived per time step."""
    return (
        f"SELECT count({identifier(field)}) AS {identifier(column)} FROM {identifier(kind)} "
        f"WHERE {IN_RANGE} GROUP BY time($__interval) fill(0)"
    )


def devices_of(kind: str) -> str:
    """The devices that ever reported: the choices at the top of a board."""
    return f"SHOW TAG VALUES FROM {identifier(kind)} WITH KEY = {identifier(DEVICE_TAG)}"
