"""Rows of the transition tables become points, as `fleet.series` describes them.

What a row does not hold is looked up beside it when it is read. Values that stand in a tag are kept with the batch
(`history_mark.pending`), so that a batch written twice is the same points, whatever changed meanwhile.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Row, Select, Table, func, select

from cloud.rides.lifecycle import RideState
from cloud.synthetic import ROOM
from cloud.tables import (
    alarm,
    alarm_transition,
    call,
    call_transition,
    command_step,
    history_sample,
    purchase,
    purchase_step,
    ride,
    ride_step,
    work_order,
    work_order_transition,
)
from cloud.timeseries.points import NANOSECONDS_PER_MILLISECOND, Point
from fleet import series
from fleet.incident import AlarmEvent, OrderEvent, ViewEvent

SYNTHETIC: Final = "synthetic"
_VIEW_EVENTS: Final = frozenset(event.value for event in ViewEvent)
_RETURNS: Final = frozenset({AlarmEvent.RETURN.value, AlarmEvent.RETURN_LATCHED.value})
_WENT_WRONG: Final = frozenset(
    {"refuse_payment", "cancel", "fail", "lose", "ask_refund", "refund", "refuse_refund", "hand_over"}
)
_RIDE_ENDS: Final = {"jam": "jammed", "expired": "expired", "bike_revoked": "revoked"}

encode_points: Final[Callable[[Sequence[Point]], bytes]] = msgspec.json.Encoder().encode
decode_points: Final[Callable[[bytes], list[Point]]] = msgspec.json.Decoder(list[Point]).decode


@dataclass(frozen=True, slots=True)
class Source:
    """One followed table: how its rows are read (`id` first), and what one of them says."""

    table: Table
    query: Select[Any]
    points: Callable[[Row[Any]], Sequence[Point]]

    @property
    def name(self) -> str:
        """Of its mark."""
        return self.table.name

    def read(self, tx: Connection, after: int, until: int, limit: int) -> list[Row[Any]]:
        """Rows with ids in (after, until], in order."""
        mine = self.table.c.id
        return list(tx.execute(self.query.where(mine > after, mine <= until).order_by(mine).limit(limit)))


def at_ns(at_ms: int, row_id: int) -> int:
    """The time of a step: the same for the same row, different for rows of one millisecond."""
    return at_ms * NANOSECONDS_PER_MILLISECOND + row_id % NANOSECONDS_PER_MILLISECOND


def point(
    measurement: series.Measurement, row_id: int, at_ms: int, tags: Mapping[str, str], fields: Mapping[str, Any]
) -> Point:
    """One step, or with `row_id` 0 a sample; see `fleet.series`. Tags without a value and None are left out.

    A value that is not on the closed list of its tag becomes `other`: no text in a table can make a tag grow.

    Raises:
        KeyError: a field that the vocabulary does not have.
    """
    device_id = tags.get("device_id", "")
    rest = tuple((name, _bounded(measurement, name, tags[name])) for name in measurement.tags if _is_told(name, tags))
    types = _types(measurement.name)
    present = {name: types[name](value) for name, value in fields.items() if value is not None}
    return Point(measurement.name, device_id, at_ns(at_ms, row_id), present, rest)


def _is_told(name: str, tags: Mapping[str, str]) -> bool:
    return name != "device_id" and tags[name] != ""


def _bounded(measurement: series.Measurement, name: str, value: str) -> str:
    known = measurement.values.get(name)
    return value if known is None or value in known else series.OTHER


@lru_cache
def _types(measurement: str) -> Mapping[str, Callable[[Any], Any]]:
    return {one.name: one.value_type for one in series.measurement_named(measurement).fields}


# --- calls -----------------------------------------------------------------------------------------------------

_earlier_call = call_transition.alias()
_CALLS: Final = select(
    call_transition,
    call.c.device_id,
    call.c.purpose,
    call.c.pressed_at,
    select(func.count())
    .where(
        _earlier_call.c.call_id == call_transition.c.call_id,
        _earlier_call.c.step == "escalate",
        _earlier_call.c.id <= call_transition.c.id,
    )
    .scalar_subquery()
    .label("escalation"),
).select_from(call_transition.outerjoin(call, call.c.id == call_transition.c.call_id))


def _call_points(row: Row[Any]) -> Sequence[Point]:
    """Nothing for the deployment's own calls, and for what was deleted with its call."""
    if row.device_id is None or row.purpose == SYNTHETIC or row.device_id == ROOM:
        return ()
    tags = {"device_id": row.device_id, "step": row.step, "purpose": row.purpose}
    fields = {
        "call_id": row.call_id,
        "state": row.after,
        "since_press_ms": row.at - row.pressed_at,
        "escalation": row.escalation,
    }
    return (point(series.CALL_STEP, row.id, row.at, tags, fields),)


# --- alarms ----------------------------------------------------------------------------------------------------

_earlier_alarm = alarm_transition.alias()
_ALARMS: Final = select(
    alarm_transition,
    alarm.c.device_id,
    alarm.c.kind,
    alarm.c.key,
    alarm.c.priority,
    alarm.c.state,
    alarm.c.view,
    select(func.max(_earlier_alarm.c.at))
    .where(
        _earlier_alarm.c.alarm_id == alarm_transition.c.alarm_id,
        _earlier_alarm.c.event == AlarmEvent.ACTIVATE.value,
        _earlier_alarm.c.id <= alarm_transition.c.id,
    )
    .scalar_subquery()
    .label("began_at"),
).select_from(alarm_transition.outerjoin(alarm, alarm.c.id == alarm_transition.c.alarm_id))


def _alarm_points(row: Row[Any]) -> Sequence[Point]:
    """A step of the alarm says its state, one of its view what people see of it; the other part is the row's."""
    if row.device_id is None:
        return ()
    of_view = row.event in _VIEW_EVENTS
    tags = {
        "device_id": row.device_id, "kind": row.kind, "key": row.key, "priority": row.priority, "step": row.event,
    }  # fmt: skip
    returned = row.event in _RETURNS and row.began_at is not None
    fields = {
        "alarm_id": row.alarm_id,
        "state": row.state if of_view else row.after,
        "view": row.after if of_view else row.view,
        "active_ms": max(0, row.at - row.began_at) if returned else None,
    }
    return (point(series.ALARM_STEP, row.id, row.at, tags, fields),)


# --- work orders -----------------------------------------------------------------------------------------------

_ORDERS: Final = select(
    work_order_transition,
    work_order.c.device_id,
    work_order.c.kind,
    work_order.c.skill,
    work_order.c.priority,
    work_order.c.created_at,
    work_order.c.due_at,
).select_from(work_order_transition.outerjoin(work_order, work_order.c.id == work_order_transition.c.order_id))


def _order_points(row: Row[Any]) -> Sequence[Point]:
    if row.device_id is None:
        return ()
    tags = {"device_id": row.device_id, "kind": row.kind, "skill": row.skill, "step": row.event}
    fields = {
        "order_id": row.order_id,
        "priority": row.priority,
        "state": row.after,
        "since_made_ms": row.at - row.created_at,
        "reason": row.reason,
        "late": row.at > row.due_at if row.event == OrderEvent.COMPLETE.value else None,
    }
    return (point(series.ORDER_STEP, row.id, row.at, tags, fields),)


# --- rides, purchases, commands --------------------------------------------------------------------------------

_RIDES: Final = select(
    ride_step, ride.c.device_id, ride.c.asked_at, ride.c.started_at, ride.c.ended_at, ride.c.fee_fen
).select_from(ride_step.outerjoin(ride, ride.c.id == ride_step.c.ride_id))


def _ride_step(row: Row[Any]) -> tuple[str, int]:
    """(step, its business ms): the evidence's own time where the ride holds it."""
    if row.before == row.after:
        return "flagged", row.at
    if row.after == RideState.UNLOCKING.value:
        return "asked", row.asked_at
    if row.after == RideState.RIDING.value:
        return "opened", row.at if row.started_at is None else row.started_at
    if row.after == RideState.ENDED.value:
        return _RIDE_ENDS.get(row.reason, "closed"), row.at if row.ended_at is None else row.ended_at
    return _RIDE_ENDS.get(row.reason, "failed"), row.at


def _ride_points(row: Row[Any]) -> Sequence[Point]:
    if row.device_id is None:
        return ()
    step, at_ms = _ride_step(row)
    ended = row.after == RideState.ENDED.value and row.before != row.after
    fields = {
        "ride_id": row.ride_id,
        "state": row.after,
        "reason": row.reason,
        "flagged": row.flagged,
        "since_asked_ms": at_ms - row.asked_at,
        "duration_ms": row.ended_at - row.started_at if ended and row.ended_at and row.started_at else None,
        "fee_fen": row.fee_fen if ended else None,
    }
    return (point(series.RIDE_STEP, row.id, at_ms, {"device_id": row.device_id, "step": step}, fields),)


_PURCHASES: Final = select(
    purchase_step,
    purchase.c.device_id,
    purchase.c.sku,
    purchase.c.price_fen,
    purchase.c.asked_at,
    purchase.c.paid_at,
    purchase.c.reason,
).select_from(purchase_step.outerjoin(purchase, purchase.c.id == purchase_step.c.purchase_id))


def _purchase_points(row: Row[Any]) -> Sequence[Point]:
    if row.device_id is None:
        return ()
    paid = row.paid_at is not None and row.at >= row.paid_at and row.event not in {"ask_payment", "pay"}
    went_wrong = row.event in _WENT_WRONG or row.before == row.after  # the latter: delivered although it was refunded
    tags = {"device_id": row.device_id, "step": row.event, "reason": row.reason if went_wrong else ""}
    fields = {
        "purchase_id": row.purchase_id,
        "state": row.after,
        "meal": row.sku,
        "fen": row.price_fen,
        "refunded_fen": row.price_fen if row.event == "refund" else None,
        "since_asked_ms": row.at - row.asked_at,
        "since_paid_ms": row.at - row.paid_at if paid else None,
    }
    return (point(series.PURCHASE_STEP, row.id, row.at, tags, fields),)


def _command_points(row: Row[Any]) -> Sequence[Point]:
    tags = {"device_id": row.device_id, "action": row.action, "step": row.status}
    fields = {"command_id": row.command_id, "reason": row.reason, "duration_ms": row.at - row.issued_at}
    return (point(series.COMMAND_STEP, row.id, row.at, tags, fields),)


def _sample_points(row: Row[Any]) -> Sequence[Point]:
    return decode_points(row.points)


SOURCES: Final[tuple[Source, ...]] = (
    Source(call_transition, _CALLS, _call_points),
    Source(alarm_transition, _ALARMS, _alarm_points),
    Source(work_order_transition, _ORDERS, _order_points),
    Source(ride_step, _RIDES, _ride_points),
    Source(purchase_step, _PURCHASES, _purchase_points),
    Source(command_step, select(command_step), _command_points),
    Source(history_sample, select(history_sample), _sample_points),
)


def first_position(tx: Connection, source: Source, until: int, since_ms: int) -> int:
    """Where to begin on a table that was never followed and is final up to `until`: before its first younger row."""
    columns = source.table.c
    first = tx.scalar(select(func.min(columns.id)).where(columns.at >= since_ms, columns.id <= until))
    return until if first is None else int(first) - 1


def oldest_waiting(tx: Connection, source: Source, position: int) -> int | None:
    """Business ms of the oldest row that is not followed yet."""
    columns = source.table.c
    return tx.scalar(select(columns.at).where(columns.id > position).order_by(columns.id).limit(1))
