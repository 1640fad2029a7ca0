"""When machines are expected to be sold out, from their twins: boxes that can be sold against what is ahead.

The hours are those by which restocks are ordered (`devices.meal_machine.forecast`), with their noon rush and weekends;
the rate is the mean of the day ahead. A machine that is not heard, or sells nothing, has no forecast.
"""

import bisect
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
from pydantic import ValidationError
from sqlalchemy import Connection, exists, select

from cloud.meals.repository import KIND
from cloud.tables import alarm, device, twin
from devices.meal_machine.forecast import FORECAST_HOURS_MAX, HOURS_PER_DAY, Habit
from devices.meal_machine.messages import MealMachineReading
from devices.meal_machine.restock import sellable_by_sku, shares
from devices.meal_machine.state import State
from fleet.incident import ALARM_TRUE
from fleet.kind import NOT_HEARD


@dataclass(frozen=True, slots=True)
class Forecast:
    """One machine. `first_meal_hours` is 0 while a meal on its menu is sold out."""

    device_id: str
    sellable: int
    sales_per_hour: float
    stock_out_hours: float | None
    first_meal_hours: float | None


def forecasts(tx: Connection, now_ms: int) -> Iterator[Forecast]:
    """Machines in service whose link is up and whose readings come."""
    open_now = alarm.c.state.in_([state.value for state in ALARM_TRUE])
    not_heard = exists().where(alarm.c.device_id == device.c.device_id, alarm.c.key.in_(NOT_HEARD), open_now)
    rows = tx.execute(
        select(device.c.device_id, twin.c.state)
        .join(twin, twin.c.device_id == device.c.device_id)
        .where(device.c.kind == KIND, device.c.retired_at.is_(None), twin.c.online == 1, ~not_heard)
        .order_by(device.c.device_id)
    )
    for device_id, text in rows:
        state = _state_of(text)
        if state is not None:
            yield forecast_of(device_id, state, now_ms)


def forecast_of(device_id: str, state: State, now_ms: int) -> Forecast:
    """Of one machine that has a reading."""
    stock = sellable_by_sku(state.reading)
    sellable, rate = sum(stock.values()), state.habit.expected(now_ms, HOURS_PER_DAY) / HOURS_PER_DAY
    by_share = shares(state, now_ms).items()
    by_meal = [_hours(state.habit, stock.get(sku, 0), share, now_ms) for sku, share in sorted(by_share)]
    return Forecast(
        device_id,
        sellable,
        rate,
        _hours(state.habit, sellable, 1.0, now_ms),
        min((hours for hours in by_meal if hours is not None), default=None),
    )


def _hours(habit: Habit, boxes: int, share: float, now_ms: int) -> float | None:
    """Until `share` of the sales ahead has taken the boxes, in half hours; None: not within the forecast."""
    steps = range(2 * FORECAST_HOURS_MAX + 1)
    first = bisect.bisect_left(steps, x=True, key=lambda step: habit.expected(now_ms, step / 2) * share >= boxes)
    return first / 2 if first in steps else None


def _state_of(text: str) -> State | None:
    try:
        state = msgspec.json.decode(text, type=State)
        if state.reading is None:
            return None
        reading = MealMachineReading.model_validate_json(msgspec.json.encode(state.reading))
    except (msgspec.ValidationError, ValidationError):  # an older release's twin: the next reading replaces it
        return None
    return msgspec.structs.replace(state, reading=reading) if reading.slots else None
