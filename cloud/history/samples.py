"""Samples of what the SQL tables say now: the state of the fleet each business minute, and forecasts.

A sample is a row of `history_sample` first and goes the way of every step from there: an outage of the series loses
none, and a sample taken twice is the same point, because its time is the beginning of its minute.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection, case, exists, func, insert, select

import devices
from cloud.history.found import firmware_changes, waste
from cloud.history.groups import group_state
from cloud.history.steps import encode_points, point
from cloud.meals.forecast import forecasts
from cloud.ports import Database
from cloud.synthetic import is_real
from cloud.tables import alarm, call, device, hiding, history_sample, twin, work_order
from cloud.timeseries.points import Point
from fleet import series
from fleet.clock import MILLISECONDS_PER_SECOND, Clock
from fleet.incident import ALARM_TRUE, ALARM_UNSEEN, AlarmView, CallState, OrderState, Priority
from fleet.kind import NOT_HEARD

SAMPLE_S_MIN: Final = 1.0
"""Real seconds between samples, however fast business time runs."""
LOOK_EVERY_S: Final = 300.0
"""Business seconds between looks for steps that are found, not written by somebody."""
WAITING_MAX: Final = 100_000
"""Rows of `history_sample`: two months of outage at one a minute; then the oldest give way, and are counted."""

Sampler = Callable[[Connection, int], Sequence[Point]]
"""(transaction, business ms) → points; reads only."""

_TRUE: Final = tuple(state.value for state in ALARM_TRUE)
_UNSEEN: Final = tuple(state.value for state in ALARM_UNSEEN)
_CALL_OVER: Final = (CallState.IDLE.value, CallState.CLEARED.value)
_ORDER_OVER: Final = (OrderState.DONE.value, OrderState.CANCELLED.value, OrderState.CANNOT_COMPLETE.value)


def fleet_state(tx: Connection, now_ms: int) -> list[Point]:
    """One point per kind that exists here, also for one without devices."""
    found: dict[str, dict[str, Any]] = {
        name: dict.fromkeys((one.name for one in series.FLEET_STATE.fields if one.unit == "count"), 0)
        for name in devices.kinds()
    }
    for count in (_devices, _alarms, _calls, _orders):
        for kind, numbers in count(tx, now_ms):
            found.setdefault(kind, {}).update(numbers)
    for fields in found.values():
        total = fields.get("devices", 0)
        available = fields.pop("available", 0)
        fields["availability_percent"] = round(100.0 * available / total, 3) if total else None
    return [point(series.FLEET_STATE, 0, now_ms, {"kind": kind}, found[kind]) for kind in sorted(found)]


def _devices(tx: Connection, now_ms: int) -> list[tuple[str, dict[str, int]]]:
    def has(*conditions: Any) -> Any:
        return exists().where(alarm.c.device_id == device.c.device_id, alarm.c.state.in_(_TRUE), *conditions)

    taken_out = exists().where(
        hiding.c.device_id == device.c.device_id, hiding.c.form == "out_of_service", hiding.c.key == "",
        hiding.c.ended_at.is_(None), hiding.c.from_at <= now_ms,
    )  # fmt: skip
    online = func.coalesce(twin.c.online, 0) == 1
    reporting = online & ~has(alarm.c.key.in_(NOT_HEARD)) & (func.coalesce(twin.c.last_reading_at, 0) > 0)
    available = reporting & ~has(alarm.c.priority == Priority.HIGH.value) & ~taken_out
    wanted = {
        "online": online,
        "silent": has(alarm.c.key == "silent"),
        "reporting": reporting,
        "out_of_service": taken_out,
        "available": available,
    }
    sums = [func.sum(case((condition, 1), else_=0)).label(name) for name, condition in wanted.items()]
    rows = tx.execute(
        select(device.c.kind, func.count().label("devices"), *sums)
        .select_from(device.outerjoin(twin, twin.c.device_id == device.c.device_id))
        .where(device.c.retired_at.is_(None), is_real(device.c.device_id))
        .group_by(device.c.kind)
    )
    return [(row.kind, {"devices": row.devices, **{name: int(getattr(row, name)) for name in wanted}}) for row in rows]


def _alarms(tx: Connection, _now_ms: int) -> list[tuple[str, dict[str, int]]]:
    shown = alarm.c.view == AlarmView.SHOWN.value
    wanted = {
        "alarms_open": alarm.c.state.in_(_TRUE),
        "alarms_unacknowledged": alarm.c.state.in_(_UNSEEN) & shown,
        "alarms_hidden": alarm.c.state.in_(_TRUE) & ~shown,
    }
    sums = [func.sum(case((condition, 1), else_=0)).label(name) for name, condition in wanted.items()]
    rows = tx.execute(
        select(alarm.c.kind, *sums).where(alarm.c.state.in_(sorted({*_TRUE, *_UNSEEN}))).group_by(alarm.c.kind)
    )
    return [(row.kind, {name: int(getattr(row, name)) for name in wanted}) for row in rows]


def _calls(tx: Connection, _now_ms: int) -> list[tuple[str, dict[str, int]]]:
    open_ = (call.c.state.not_in(_CALL_OVER)) & (call.c.purpose == "help") & is_real(call.c.device_id)
    rows = tx.execute(select(call.c.kind, func.count()).where(open_).group_by(call.c.kind))
    return [(kind, {"calls_open": count}) for kind, count in rows]


def _orders(tx: Connection, now_ms: int) -> list[tuple[str, dict[str, int]]]:
    late = func.sum(case((work_order.c.due_at < now_ms, 1), else_=0))
    query = select(work_order.c.kind, func.count(), late).where(work_order.c.state.not_in(_ORDER_OVER))
    rows = tx.execute(query.group_by(work_order.c.kind))
    return [(kind, {"orders_open": count, "orders_overdue": int(overdue)}) for kind, count, overdue in rows]


@dataclass(slots=True)
class Samples:
    """One task (`run`) beside the feed; takes samples only while `mine` says that this process holds the feed."""

    database: Database
    clock: Clock
    samplers: Mapping[str, Sampler]
    """Measurement → what samples it, as often as its `every_s` in `fleet.series` says."""
    mine: Callable[[], bool] = lambda: True
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    lost: int = 0
    _taken: dict[str, int] = field(default_factory=dict)

    async def run(self) -> None:
        """Sample until cancelled."""
        while True:
            if self.mine():
                await self.take(self.clock.now_ms())
            await self.sleep(self._wait_s(self.clock.now_ms()))

    def _wait_s(self, now_ms: int) -> float:
        next_ms = min(_slot(name, now_ms) + _every_ms(name) for name in self.samplers)
        return max(SAMPLE_S_MIN, (next_ms - now_ms) / MILLISECONDS_PER_SECOND / self.clock.speed)

    async def take(self, now_ms: int) -> int:
        """Take what is due in this minute and was not taken yet; returns the points."""
        due = {name: _slot(name, now_ms) for name in self.samplers if self._taken.get(name) != _slot(name, now_ms)}
        if not due:
            return 0

        def read(tx: Connection) -> list[Point]:
            return [one for name, at_ms in due.items() for one in self.samplers[name](tx, at_ms)]

        points = await self.database.read(read)
        if points:
            row = {"at": max(due.values()), "points": encode_points(points)}
            self.lost += await self.database.write(lambda tx: _keep(tx, row))
        self._taken |= due
        return len(points)


def _every_ms(name: str) -> int:
    every_s = series.measurement_named(name).every_s or LOOK_EVERY_S
    return round(every_s * MILLISECONDS_PER_SECOND)


def _slot(name: str, now_ms: int) -> int:
    """The beginning of the interval that `now_ms` lies in."""
    return now_ms - now_ms % _every_ms(name)


def _keep(tx: Connection, row: Mapping[str, Any]) -> int:
    """Add the row; returns how many old ones gave way at the bound."""
    tx.execute(insert(history_sample).values(**row))
    columns = history_sample.c
    count = int(tx.scalar(select(func.count()).select_from(history_sample)) or 0)
    if count <= WAITING_MAX:
        return 0
    oldest = select(columns.id).order_by(columns.id).limit(count - WAITING_MAX)
    return tx.execute(history_sample.delete().where(columns.id.in_(oldest))).rowcount


def machine_forecast(tx: Connection, now_ms: int) -> list[Point]:
    """One point per machine of which the meal service can say something."""
    return [
        point(
            series.MACHINE_FORECAST,
            0,
            now_ms,
            {"device_id": one.device_id},
            {
                "sellable": one.sellable,
                "sales_per_hour": round(one.sales_per_hour, 4),
                "stock_out_hours": None if one.stock_out_hours is None else round(one.stock_out_hours, 3),
                "first_meal_out_hours": None if one.first_meal_hours is None else round(one.first_meal_hours, 3),
            },
        )
        for one in forecasts(tx, now_ms)
    ]


SAMPLERS: Final[Mapping[str, Sampler]] = {
    series.FLEET_STATE.name: fleet_state,
    series.GROUP_STATE.name: group_state,
    series.MACHINE_FORECAST.name: machine_forecast,
    series.FIRMWARE_STEP.name: firmware_changes,
    series.WASTE_STEP.name: waste,
}
