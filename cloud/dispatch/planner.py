"""Turns what the rules decided into rows of the same commit: incidents, work orders and the outbox."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection

from cloud.dispatch import alarms, calls, drills, floods, incidents, notices, orders
from cloud.dispatch.floods import Notice
from cloud.dispatch.notices import INBOX, Place
from cloud.dispatch.orders import OrderMove
from cloud.model import AlarmChange, CallChange, Decisions, HidingChange, NeedChange, Notification, ViewChange
from fleet.incident import AlarmEvent, AlarmState, AlarmView
from fleet.kind import Text

CHANNELS_MAX: Final = 16


class Dispatch:
    """The stage; stateless apart from the names of the channels people are told through."""

    def __init__(self, channels: Sequence[str] = (INBOX,)) -> None:
        """`channels`: names of the configured notification channels; the inbox is always one of them.

        Raises:
            ValueError: a name twice, or more than `CHANNELS_MAX`.
        """
        self.channels = (INBOX, *(name for name in channels if name != INBOX))
        if len(set(self.channels)) != len(self.channels) or len(self.channels) > CHANNELS_MAX:
            raise ValueError(f"channels must be different and at most {CHANNELS_MAX}: {', '.join(self.channels)}")

    def plan(self, tx: Connection, decisions: Decisions, now_ms: int) -> list[dict[str, Any]]:
        """Write the decisions' consequences inside the caller's transaction.

        The same decisions again change nothing. Returns what changed, to be published after the commit:
        dicts with `topic` (`call`, `alarm`, `order`), `id`, `device_id`, `state` and what else a page shows.
        The outbox is to be woken whenever the list is not empty.
        """
        if not decisions:
            return []
        new_calls = calls.record(tx, decisions.calls) if decisions.calls else []
        new_alarms = alarms.record(tx, decisions.alarms) if decisions.alarms else []
        new_views = alarms.record_views(tx, decisions.views) if decisions.views else []
        alarms.record_hidings(tx, decisions.hidings)
        shown = [change for change in new_views if alarms.is_shown_again(change)]
        made, moves = self._work(tx, new_alarms, shown, decisions.needs, now_ms)
        news = [change for change in new_alarms if alarms.is_news(change)]
        where = notices.places(tx, _devices_to_tell(new_calls, [*news, *shown], made))
        if new_calls:
            drills.note(tx, new_calls, now_ms)
            calls.announce(tx, drills.for_people(new_calls), where, self.channels, now_ms=now_ms)
        self._tell(tx, news, shown, made, where, now_ms)
        _call_off(tx, new_alarms, new_views, now_ms)
        moved = incidents.on_alarms(tx, new_alarms, now_ms) if new_alarms else {}
        for incident_id in (incident_id for incident_id, has_ended in moved.items() if has_ended):
            floods.over(tx, incident_id, now_ms)
        return [
            *map(_call_fact, drills.for_pages(new_calls)),
            *(_alarm_fact(change, change.after, change.view) for change in new_alarms),
            *(_alarm_fact(change, change.state, change.after) for change in new_views),
            *map(_hiding_fact, decisions.hidings), *map(_incident_fact, moved), *map(_order_fact, moves),
        ]  # fmt: skip

    def system(
        self,
        tx: Connection,
        key: str,
        title_zh: str,
        title_en: str,
        facts: Mapping[str, Any],
        now_ms: int,
        *,
        urgent: bool = True,
    ) -> int:
        """Tell people on all channels that the system itself needs them: see `notices.system`.

        Inside the caller's transaction, once per `key` for ever; returns how many rows are new. The outbox is to be
        woken after the commit.
        """
        return notices.system(tx, key, title_zh, title_en, facts, now_ms, channels=self.channels, urgent=urgent)

    @staticmethod
    def _work(
        tx: Connection,
        new_alarms: Sequence[AlarmChange],
        shown: Sequence[ViewChange],
        needs: Sequence[NeedChange],
        now_ms: int,
    ) -> tuple[list[tuple[NeedChange, OrderMove]], list[OrderMove]]:
        """Make, cancel, re-open and give out orders: the needs that got one, and the last move of each order."""
        # What is hidden asks nobody for work; it does once it is shown and still true.
        active = [
            change for change in new_alarms if change.event is AlarmEvent.ACTIVATE and change.view is AlarmView.SHOWN
        ]
        again = [change for change in active if change.before is not AlarmState.NORMAL]
        moves = orders.cancel_unwanted(tx, needs, now_ms) if needs else []
        active += [alarms.as_activation(change) for change in shown]
        moves += orders.revive(tx, again, now_ms)
        moves += orders.for_alarms(tx, active) if active else []
        made = orders.for_needs(tx, needs) if needs else []
        moves += [move for _, move in made]
        if moves:
            moves += orders.assign(tx, now_ms)
        return made, list({move.id: move for move in moves}.values())

    def _tell(
        self,
        tx: Connection,
        new: Sequence[AlarmChange],
        shown: Sequence[ViewChange],
        made: Sequence[tuple[NeedChange, OrderMove]],
        where: dict[str, Place],
        now_ms: int,
    ) -> None:
        """Alarms and work that may wait for their window."""
        news = [
            alarms.notice(change, where[change.device_id], orders.order_id_of_alarm(change), now_ms) for change in new
        ]
        for change in shown:
            order_id = orders.order_id_of_alarm(alarms.as_activation(change))
            place = where[change.device_id]
            news.append(alarms.notice(alarms.as_activation(change), place, order_id, now_ms, change.activated_at))
        news += [_order_notice(change, move.id, where[change.device_id], now_ms) for change, move in made]
        if news:
            floods.tell(tx, news, self.channels, now_ms)


def _call_off(tx: Connection, new_alarms: Sequence[AlarmChange], new_views: Sequence[ViewChange], now_ms: int) -> None:
    """What is over, what somebody has seen meanwhile, or what follows from another alarm is not told any more.

    An alarm that is over before its notice left (a link that came back within the hold) needs no telephone: it stands
    on the desk until somebody acknowledges it. If it comes back before that, it is told. One that latches is told in
    any case, for somebody must look.
    """
    last = {change.alarm_id: change for change in new_alarms}
    notices.tell_after_all(tx, [one for one, change in last.items() if alarms.is_back(change)])
    notices.hold_back(tx, [one for one, change in last.items() if change.event is AlarmEvent.RETURN], now_ms)
    seen = [change.alarm_id for change in new_alarms if change.event is AlarmEvent.ACKNOWLEDGE]
    notices.withdraw(tx, seen, "acknowledged", now_ms, urgent=False)
    hidden = [change.alarm_id for change in new_views if change.after is not AlarmView.SHOWN]
    notices.withdraw(tx, hidden, "hidden", now_ms, urgent=False)


def _devices_to_tell(
    new_calls: Sequence[CallChange],
    alarms_to_tell: Sequence[AlarmChange | ViewChange],
    made: Sequence[tuple[NeedChange, OrderMove]],
) -> list[str]:
    return [
        *(change.device_id for change in new_calls),
        *(change.device_id for change in alarms_to_tell),
        *(change.device_id for change, _ in made),
    ]


def _order_notice(change: NeedChange, order_id: str, place: Place, now_ms: int) -> Notice:
    need = change.need
    assert need is not None, "only wanted needs get orders"
    facts = {
        "order_id": order_id,
        "key": f"order:{need.skill}",
        "device_id": change.device_id,
        "kind": change.kind,
        "skill": need.skill,
        "items": dict(need.items),
        "due_within_s": need.due_within_s,
        **place.facts(),
    }
    notification = Notification(
        "order",
        order_id,
        need.priority.value,
        change.device_id,
        f"{need.title.zh}：{place.name}",
        f"{need.title.en}: {place.name}",
        facts,
        now_ms,
    )
    title = Text(f"新工单（{need.title.zh}）", f"New work ({need.title.en})")
    return Notice(floods.tier_of(notification), f"order:{need.skill}", title, notification)


def _call_fact(change: CallChange) -> dict[str, Any]:
    return {
        "topic": "call",
        "id": change.call_id,
        "device_id": change.device_id,
        "kind": change.kind,
        "state": change.after.value,
        "step": calls.step_of(change),
        "escalation": change.escalation,
        "at": change.at,
        "actor": change.actor,
    }


def _alarm_fact(change: AlarmChange | ViewChange, state: AlarmState, view: AlarmView) -> dict[str, Any]:
    return {
        "topic": "alarm",
        "id": change.alarm_id,
        "device_id": change.device_id,
        "kind": change.kind,
        "key": change.definition.key,
        "priority": change.definition.priority.value,
        "state": state.value,
        "view": view.value,
        "at": change.at,
        "actor": change.actor,
    }


def _hiding_fact(change: HidingChange) -> dict[str, Any]:
    return {
        "topic": "hiding",
        "id": change.id,
        "device_id": change.device_id,
        "key": change.key,
        "form": change.form,
        "ended_at": change.ended_at,
        "at": change.at,
    }


def _incident_fact(incident_id: str) -> dict[str, Any]:
    return {"topic": "incident", "id": incident_id}


def _order_fact(move: OrderMove) -> dict[str, Any]:
    return {
        "topic": "order",
        "id": move.id,
        "device_id": move.device_id,
        "state": move.after,
        "assigned_to": move.assigned_to,
    }
