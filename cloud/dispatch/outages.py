"""Tells people through the other channels that one of them does not deliver, and through all that it does again.

What was told last about a channel stands in the outbox itself, so every process and every restart knows whether
its outage was announced.
"""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, exists, select

from cloud.dispatch import attempts, audience, notices
from cloud.dispatch.leases import Outcome
from cloud.dispatch.letters import EMERGENCY
from cloud.model import Notification
from cloud.synthetic import PROBE_CHANNEL
from cloud.tables import delivery_attempt, outbox
from fleet.clock import MILLISECONDS_PER_SECOND
from fleet.incident import Priority

URGENT_ATTEMPTS: Final = 3
URGENT_WITHIN_S: Final = 10.0
"""Real seconds. An emergency that failed so often, or was not delivered for so long, is announced; it is tried on."""


def announce(tx: Connection, outcomes: Sequence[Outcome], channels: Sequence[str], speed: float) -> None:
    """Put a notice for each outage that these outcomes show to have begun or ended; once per channel and outage.

    A channel to single people is only out of order when nobody is reached through it.

    `channels` are all there are; `speed` is that of business time.
    """
    is_dead: dict[str, bool] = {}
    for outcome in outcomes:
        channel = outcome.leased.channel
        if channel == PROBE_CHANNEL:
            continue  # the watchdog says by itself, on ways of its own, what of it is dead
        works = outcome.error is None
        if not works and not _is_outage(outcome, speed):
            continue
        if not works and outcome.leased.recipient is not None and _reached_others(tx, outcome):
            continue
        if channel not in is_dead:
            is_dead[channel] = _was_announced(tx, channel)
        if works is is_dead[channel]:
            notice = _recovered(outcome) if works else _dead(outcome)
            told = [name for name in channels if name != PROBE_CHANNEL and (works or name != channel)]
            step = f"{'recovered' if works else 'dead'}:{outcome.at}"
            notices.put(tx, audience.system_rows(tx, notice, step, told, urgent=not works))
            is_dead[channel] = not works


def _is_outage(outcome: Outcome, speed: float) -> bool:
    if outcome.available_at is None:
        return True  # given up
    waited_s = (outcome.at - outcome.leased.created_at) / MILLISECONDS_PER_SECOND / speed
    return outcome.leased.urgent == EMERGENCY and (
        outcome.leased.attempt >= URGENT_ATTEMPTS or waited_s >= URGENT_WITHIN_S
    )


def _reached_others(tx: Connection, outcome: Outcome) -> bool:
    """One person's number or browser is no outage as long as the channel brings something to anybody."""
    c, leased = delivery_attempt.c, outcome.leased
    if outcome.result == attempts.REFUSED:
        return True
    got_through = (c.channel == leased.channel) & (c.at >= leased.created_at) & (c.outcome == attempts.DELIVERED)
    return bool(tx.scalar(select(exists(select(c.id).where(got_through)))))


def _was_announced(tx: Connection, channel: str) -> bool:
    latest = select(outbox.c.notification).where(outbox.c.reference == _reference(channel))
    text = tx.scalar(latest.order_by(outbox.c.id.desc()).limit(1))
    return text is not None and not notices.decode(text).facts.get("delivers", False)


def _reference(channel: str) -> str:
    return f"channel:{channel}"


def _dead(outcome: Outcome) -> Notification:
    channel, lost = outcome.leased.channel, outcome.leased.notification()
    facts = {"error": outcome.error, "reference": lost.reference, "title": lost.title_en, "delivers": False}
    titles = f"通知渠道 {channel} 无法送达", f"Notification channel {channel} does not deliver"
    return _notice(outcome, Priority.HIGH, titles, facts)


def _recovered(outcome: Outcome) -> Notification:
    channel = outcome.leased.channel
    titles = f"通知渠道 {channel} 已恢复送达", f"Notification channel {channel} delivers again"
    return _notice(outcome, Priority.MEDIUM, titles, {"delivers": True})


def _notice(outcome: Outcome, priority: Priority, titles: tuple[str, str], facts: dict[str, Any]) -> Notification:
    channel = outcome.leased.channel
    facts = {"channel": channel, **facts}
    return Notification("system", _reference(channel), priority.value, "", *titles, facts, outcome.at)
