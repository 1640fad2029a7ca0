"""What the crew and the admins are told about work orders; each at most once."""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, Row

from cloud.dispatch import audience, notices
from cloud.model import Notification
from cloud.roster import duty
from fleet.incident import Priority
from fleet.kind import Text

STAGE_WORDS: Final = {
    "acknowledge": Text("超时未接单", "not accepted in time"),
    "on_site": Text("超时未到场", "nobody on site in time"),
    "fixed": Text("超时未修好", "not done in time"),
}
LISTED_MAX: Final = 50


def overdue(tx: Connection, stage: str, orders: Sequence[Row[Any]], channels: Sequence[str], at: int) -> None:
    """One notice per stage and look, however many orders it is about."""
    words, first = STAGE_WORDS[stage], orders[0]
    place = notices.places(tx, [first.device_id])[first.device_id].name
    more_zh, more_en = (f"等 {len(orders)} 单", f" and {len(orders) - 1} more") if len(orders) > 1 else ("", "")
    people = sorted({order.assigned_to for order in orders if order.assigned_to})
    _put(
        tx, first, f"overdue:{stage}:{at}", f"工单{words.zh}：{place}{more_zh}",
        f"Work order {words.en}: {place}{more_en}",
        {"stage": stage, "count": len(orders), "orders": [order.id for order in orders[:LISTED_MAX]]},
        channels, at, people,
    )  # fmt: skip


def nobody(tx: Connection, order: Row[Any], channels: Sequence[str], at: int) -> None:
    """Nobody on duty can take it; it is given out as soon as somebody can."""
    place = notices.places(tx, [order.device_id])[order.device_id].name
    _put(
        tx, order, f"nobody:{at}", f"当班无人能接此工单（{order.title_zh}）：{place}",
        f"Nobody on duty can take this ({order.title_en}): {place}", {"skill": order.skill}, channels, at, (),
    )  # fmt: skip


def not_normal(tx: Connection, order: Row[Any], channels: Sequence[str], at: int) -> None:
    """It was said to be done, and the device says otherwise."""
    place = notices.places(tx, [order.device_id])[order.device_id].name
    _put(
        tx, order, f"not_normal:{at}", f"未恢复正常，工单重新打开：{place}",
        f"Not back to normal, opened again: {place}", {"reason": "not_normal"}, channels, at,
        [order.assigned_to] if order.assigned_to else [],
    )  # fmt: skip


def given_up(tx: Connection, order: Row[Any], reason: str, channels: Sequence[str], at: int) -> None:
    """Who was there can't do it: what becomes of it is the duty manager's to decide."""
    place = notices.places(tx, [order.device_id])[order.device_id].name
    managers = [one.person_id for one in duty.on_duty(tx, duty.DUTY_MANAGER, at)]
    _put(
        tx, order, f"given_up:{at}", f"工单无法完成（{order.title_zh}）：{place}",
        f"Cannot be done ({order.title_en}): {place}", {"reason": reason}, channels, at, managers,
    )  # fmt: skip


def _put(
    tx: Connection, order: Row[Any], step: str, title_zh: str, title_en: str, facts: dict[str, Any],
    channels: Sequence[str], at: int, people: Sequence[str],
) -> None:  # fmt: skip
    facts = {"order_id": order.id, "device_id": order.device_id, "kind": order.kind, "skill": order.skill, **facts}
    priority = max(Priority(order.priority), Priority.HIGH, key=list(Priority).index).value
    told = Notification("order", order.id, priority, order.device_id, title_zh, title_en, facts, at)
    here = {one.person_id for tier in duty.TIERS for one in duty.on_duty(tx, tier, at)}
    recipients = list(people)
    if not people or not here.issuperset(people):  # who went home with it is told, and somebody who can do something
        recipients += [one for one in audience.recipients(tx, told, at) if one not in people]
    notices.put(tx, notices.outbox_rows(told, step, channels, urgent=0, available_at=at, recipients=recipients))
