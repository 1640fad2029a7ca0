"""What happens to work orders by themselves, as time passes: one look, and the task that looks.

Everything is remembered in the rows, so a restart goes on where it was, and several processes that look at once do
each thing once.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, func, select, update

from cloud import audit
from cloud.api.changes import Changes
from cloud.dispatch import assignment, latches, orders, service_levels
from cloud.dispatch.notices import INBOX
from cloud.dispatch.states import DISPATCHER, OPEN_STATES, OrderMove
from cloud.ports import Database
from cloud.roster.duty import crew_on_duty
from cloud.tables import alarm, device, work_order, work_order_transition
from cloud.work_orders import preventive, told, verification
from fleet.clock import Clock
from fleet.incident import OrderEvent, OrderState

LOOK_S: Final = 1.0
"""Real seconds between looks."""
PLANS_EVERY_MS: Final = 600_000
ROWS_MAX: Final = 500
TOPIC: Final = "order"

_c = work_order.c
_NOBODY_COMMITTED: Final = (OrderState.DISPATCHABLE.value, OrderState.ASSIGNED.value)
_NOT_YET_THERE: Final = (*_NOBODY_COMMITTED, OrderState.ACCEPTED.value, OrderState.TRAVELLING.value)
_given_up = (_c.state == OrderState.CANNOT_COMPLETE.value) & (_c.told_nobody == 0)
_STAGE_STATES: Final = {"acknowledge": _NOBODY_COMMITTED, "on_site": _NOT_YET_THERE, "fixed": OPEN_STATES}
_STAGE_LIMIT: Final[dict[str, ColumnElement[Any]]] = {
    "acknowledge": _c.acknowledge_by, "on_site": _c.on_site_by, "fixed": _c.due_at,
}  # fmt: skip


@dataclass(slots=True)
class Looked:
    """What one look changed."""

    moves: list[OrderMove] = field(default_factory=list)
    told: int = 0


def look(tx: Connection, at: int, channels: Sequence[str], *, plans: bool) -> Looked:
    """Once over everything that time moves, inside the caller's transaction."""
    found = Looked()
    _cancel_for_retired(tx, at, found)
    _cancel_returned(tx, at, found)
    _verify(tx, at, channels, found)
    if plans:
        found.moves += preventive.make_due(tx, at)
    found.moves += assignment.take_over(tx, at)
    found.moves += assignment.assign(tx, at)
    _tell_of_nobody(tx, at, channels, found)
    _tell_of_given_up(tx, at, channels, found)
    _tell_of_overdue(tx, at, channels, found)
    return found


def _cancel_for_retired(tx: Connection, at: int, found: Looked) -> None:
    retired = device.c.retired_at.is_not(None)
    joined = select(work_order).join(device, device.c.device_id == _c.device_id)
    for order in tx.execute(joined.where(_c.state.in_(OPEN_STATES), retired).limit(ROWS_MAX)).all():
        found.moves.append(
            orders.move(
                tx, order, OrderEvent.CANCEL, DISPATCHER, at, note="the device was retired", reason="device_retired"
            )
        )
        audit.record(tx, at, DISPATCHER, "work_order.cancel", order.id, {"reason": "device_retired"})


def _cancel_returned(tx: Connection, at: int, found: Looked) -> None:
    """Nobody need go where the alarm is over, was seen, and nobody has accepted the work; inspections are wanted."""
    over = select(alarm.c.id).where(alarm.c.id == func.substr(_c.cause, 7), alarm.c.state == "normal").exists()
    waiting = select(work_order).where(
        _c.state.in_(_NOBODY_COMMITTED), _c.skill != "inspection", _c.cause.startswith("alarm:"), over
    )
    for order in tx.execute(waiting.limit(ROWS_MAX)).all():
        found.moves.append(
            orders.move(tx, order, OrderEvent.CANCEL, DISPATCHER, at, note="the alarm is over", reason="not_needed")
        )


def _verify(tx: Connection, at: int, channels: Sequence[str], found: Looked) -> None:
    done = select(work_order).where(_c.state == OrderState.DONE.value, _c.verify_by.is_not(None))
    for order in tx.execute(done.where(_c.verified_at.is_(None)).order_by(_c.verify_by).limit(ROWS_MAX)).all():
        if verification.is_normal(tx, order):
            tx.execute(update(work_order).where(_c.id == order.id).values(verified_at=at, verify_by=None))
            latches.ask_reset(tx, order, at)
            found.moves.append(OrderMove(order.id, order.device_id, order.state, order.state, order.assigned_to))
        elif at >= order.verify_by:
            note = "the device is not back to normal"
            found.moves.append(
                orders.move(tx, order, OrderEvent.REOPEN, DISPATCHER, at, note=note, reason="not_normal")
            )
            told.not_normal(tx, order, channels, at)
            found.told += 1


def _tell_of_nobody(tx: Connection, at: int, channels: Sequence[str], found: Looked) -> None:
    left = select(work_order).where(_c.state == OrderState.DISPATCHABLE.value, _c.told_nobody == 0)
    waiting = tx.execute(left.order_by(_c.due_at, _c.id).limit(ROWS_MAX)).all()
    on_duty = crew_on_duty(tx, at) if waiting else []
    for order in waiting:
        if not any(order.skill in one.skills for one in on_duty):
            tx.execute(update(work_order).where(_c.id == order.id).values(told_nobody=1))
            told.nobody(tx, order, channels, at)
            found.told += 1


def _tell_of_given_up(tx: Connection, at: int, channels: Sequence[str], found: Looked) -> None:
    for order in tx.execute(select(work_order).where(_given_up).order_by(_c.due_at, _c.id).limit(ROWS_MAX)).all():
        tx.execute(update(work_order).where(_c.id == order.id).values(told_nobody=1))
        steps = work_order_transition.c
        mine = (steps.order_id == order.id) & (steps.event == OrderEvent.GIVE_UP.value)
        reason = tx.scalar(select(steps.reason).where(mine).order_by(steps.id.desc()).limit(1))
        told.given_up(tx, order, reason or "", channels, at)
        found.told += 1


def _tell_of_overdue(tx: Connection, at: int, channels: Sequence[str], found: Looked) -> None:
    for bit, stage in enumerate(service_levels.STAGES):
        mark = 1 << bit
        late = select(work_order).where(
            _c.state.in_(_STAGE_STATES[stage]), _STAGE_LIMIT[stage] <= at, _c.paused_at.is_(None),
            _c.told_overdue.op("&")(mark) == 0,
        )  # fmt: skip
        rows: Sequence[Row[Any]] = tx.execute(late.order_by(_c.due_at, _c.id).limit(ROWS_MAX)).all()
        if not rows:
            continue
        for order in rows:
            tx.execute(update(work_order).where(_c.id == order.id).values(told_overdue=_c.told_overdue + mark))
            found.moves.append(OrderMove(order.id, order.device_id, order.state, order.state, order.assigned_to))
        told.overdue(tx, stage, rows, channels, at)
        found.told += 1


class OrderKeeper:
    """Looks every second; one per process that dispatches. `changed` hears of every look that moved something."""

    def __init__(
        self, database: Database, clock: Clock, changes: Changes, changed: Callable[[], None] = lambda: None
    ) -> None:
        self._database = database
        self._clock = clock
        self._changes = changes
        self._plans_at = 0
        self._seeded = False
        self.changed = changed
        self.channels: tuple[str, ...] = (INBOX,)
        self.wake_outbox: Callable[[], None] = lambda: None

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_S)

    async def look(self) -> Looked:
        """Look once, and tell whoever looks at a page."""
        at = self._clock.now_ms()
        if not self._seeded:
            await self._database.write(lambda tx: preventive.seed(tx, at))
            self._seeded = True
        plans = abs(at - self._plans_at) >= PLANS_EVERY_MS
        found = Looked()
        if plans or await self._database.read(lambda tx: something_to_do(tx, at)):
            found = await self._database.write(lambda tx: look(tx, at, self.channels, plans=plans))
            self._plans_at = at if plans else self._plans_at
        for move in {move.id: move for move in found.moves}.values():
            facts = {"id": move.id, "device_id": move.device_id, "state": move.after, "assigned_to": move.assigned_to}
            self._changes.publish(TOPIC, facts)
        if found.told:
            self.wake_outbox()
        if found.moves:
            self.changed()
        return found


def something_to_do(tx: Connection, at: int) -> bool:
    """Whether a look could change anything: it costs reading only, so that an idle fleet is never written to."""
    late = [
        _c.state.in_(_STAGE_STATES[stage])
        & (_STAGE_LIMIT[stage] <= at)
        & _c.paused_at.is_(None)
        & (_c.told_overdue.op("&")(1 << bit) == 0)
        for bit, stage in enumerate(service_levels.STAGES)
    ]
    waiting = _c.state.in_(_NOBODY_COMMITTED)
    unproven = (_c.state == OrderState.DONE.value) & _c.verify_by.is_not(None) & _c.verified_at.is_(None)
    for condition in (waiting, unproven, _given_up, *late):
        if tx.scalar(select(_c.id).where(condition).limit(1)) is not None:
            return True
    retired = select(_c.id).join(device, device.c.device_id == _c.device_id)
    found = retired.where(_c.state.in_(OPEN_STATES), device.c.retired_at.is_not(None)).limit(1)
    return tx.scalar(found) is not None
