"""Preventive plans: work that is due by time, made once per device and period, area by area, spread, never bunching.

The next period of a device counts from its last completion (from its enrolment, or the plan's begin, before that).
Its order is made when the last part of the period begins. The first ones are spread over a period by where the devices
stand, so that neighbours are due together and one round serves them. Per plan and day no more than half as much again
as an even share is made, area by area: what once came together all at once comes apart so.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, Row, func, select

from cloud.dispatch import orders
from cloud.dispatch.rows import insert_new
from cloud.dispatch.states import OrderMove
from cloud.synthetic import is_real
from cloud.tables import device, preventive_plan, work_order
from cloud.work_orders import areas
from fleet.incident import OrderState

DAY_MS: Final = 86_400_000
LEAD: Final = 0.25
"""Orders are made when this last part of the period begins."""
CREST: Final = 1.5
"""Orders of a plan on one day, at most, over an even share."""
ZONE: Final = ZoneInfo("Asia/Shanghai")
_ENDED: Final = (OrderState.DONE.value, OrderState.CANCELLED.value)

DEFAULTS: Final[tuple[dict[str, Any], ...]] = (
    {
        "id": "room-button-test", "kind": "nursing_room", "skill": "inspection", "priority": "medium",
        "period_days": 7, "proves": "test_overdue", "title_zh": "每周呼叫按钮测试", "title_en": "Weekly button test",
        "instructions_zh": "按下按钮并拉绳，确认室内两盏灯、声音和网页上的呼叫，然后在室内清除。",
        "instructions_en": "Press the button and pull the cord; see both lights, hear the sound, find the call on the "
        "page; then clear it in the room.",
    },
    {
        "id": "room-fridge-check", "kind": "nursing_room", "skill": "inspection", "priority": "low",
        "period_days": 30, "proves": "", "title_zh": "每月冰箱检查", "title_en": "Monthly fridge check",
        "instructions_zh": "核对温度计，清洁，检查门封。",
        "instructions_en": "Compare the thermometer, clean it, look at the door seal.",
    },
)  # fmt: skip


def seed(tx: Connection, at: int) -> None:
    """The defaults, as far as there are none; what somebody changed stays."""
    rows = [{**plan, "created_at": at, "changed_at": at} for plan in DEFAULTS]
    insert_new(tx, preventive_plan, rows, [preventive_plan.c.id])


def cause_of(plan_id: str, device_id: str, period: int) -> str:
    """`period`: business ms from which it counts."""
    return f"plan:{plan_id}:{device_id}:{period}"


def make_due(tx: Connection, at: int) -> list[OrderMove]:
    """Make the orders that are due now. The same moment again makes none."""
    moves: list[OrderMove] = []
    for plan in tx.execute(select(preventive_plan).where(preventive_plan.c.enabled == 1)).all():
        moves += _make_due(tx, plan, at)
    return moves


def due_times(plan: Row[Any], share: float, enrolled_at: int, last_ended: int | None) -> tuple[int, int, int]:
    """(from when the period counts, when its order is made, when it is due), business ms.

    `share`: where the device stands on the way through all areas, in [0, 1).
    """
    period_ms = plan.period_days * DAY_MS
    if last_ended is None:
        begin = max(plan.created_at, enrolled_at)
        made = begin + round(period_ms * share)
        return begin, made, made + round(period_ms * LEAD)
    return last_ended, last_ended + round(period_ms * (1 - LEAD)), last_ended + period_ms


def _make_due(tx: Connection, plan: Row[Any], at: int) -> list[OrderMove]:
    columns, prefix = work_order.c, f"plan:{plan.id}:"
    of_plan = (columns.subject == plan.id) & columns.cause.startswith(prefix)
    latest = select(columns.device_id, func.max(func.coalesce(columns.done_at, columns.due_at)).label("at"))
    ended = {
        row.device_id: row.at
        for row in tx.execute(latest.where(of_plan, columns.state.in_(_ENDED)).group_by(columns.device_id))
    }
    open_now = set(tx.scalars(select(columns.device_id).where(of_plan, columns.state.not_in(_ENDED))))
    found = tx.execute(
        select(device.c.device_id, device.c.enrolled_at, device.c.latitude, device.c.longitude).where(
            device.c.kind == plan.kind, device.c.retired_at.is_(None), is_real(device.c.device_id)
        )
    ).all()
    shares = areas.shares_along((row.device_id, row.latitude, row.longitude) for row in found)
    wanted: list[tuple[int, int, str]] = []
    for row in found:
        if row.device_id not in open_now:
            begin, made_at, due_at = due_times(plan, shares[row.device_id], row.enrolled_at, ended.get(row.device_id))
            if made_at <= at:
                wanted.append((due_at, begin, row.device_id))
    today = _day_begin(at)
    made_today = (
        tx.scalar(select(func.count()).select_from(work_order).where(of_plan, columns.created_at >= today)) or 0
    )
    room = max(0, math.ceil(len(found) / plan.period_days * CREST) - made_today)
    return orders.make(tx, _rows(plan, _first(wanted, shares, room), at)) if wanted and room else []


def _first(wanted: list[tuple[int, int, str]], shares: Mapping[str, float], room: int) -> list[tuple[int, int, str]]:
    """The most pressing; of one day's, those that stand together."""
    return sorted(wanted, key=lambda one: (one[0] // DAY_MS, shares[one[2]], one))[:room]


def _rows(plan: Row[Any], wanted: Sequence[tuple[int, int, str]], at: int) -> list[dict[str, Any]]:
    return [
        {
            "cause": cause_of(plan.id, device_id, begin), "device_id": device_id, "kind": plan.kind,
            "skill": plan.skill, "subject": plan.id, "title_zh": plan.title_zh, "title_en": plan.title_en,
            "instructions_zh": plan.instructions_zh, "instructions_en": plan.instructions_en, "items": "{}",
            "priority": plan.priority, "created_at": at, "limit_ms": max(due_at - at, DAY_MS),
        }
        for due_at, begin, device_id in wanted
    ]  # fmt: skip


def _day_begin(at: int) -> int:
    local = datetime.fromtimestamp(at / 1000, tz=UTC).astimezone(ZONE)
    return round(local.replace(hour=0, minute=0, second=0, microsecond=0).timestamp() * 1000)
