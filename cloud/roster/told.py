"""What people are told about their own shifts when somebody else changed them."""

from collections.abc import Sequence
from typing import Any, Final
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, Row

from cloud.dispatch import notices
from cloud.dispatch.letters import INBOX, ORDINARY, PERSON
from cloud.model import Notification
from cloud.roster import calendars
from cloud.roster.drafts import TIER_TEXTS
from fleet.incident import Priority

_CHANNELS: Final = frozenset({INBOX, PERSON})
"""The application, and the one person: a swap is nobody else's business."""


def swap(
    tx: Connection,
    giver: Row[Any],
    taker: Row[Any],
    actor_id: str,
    tiers: Sequence[str],
    times: tuple[int, int],
    now_ms: int,
    zone: ZoneInfo,
    channels: Sequence[str],
) -> int:
    """Tell who gave a shift and who got it, except the one who made the swap; how many rows of the outbox are new."""
    begin, end = (f"{calendars.moment_of(at, zone):%m-%d %H:%M}" for at in times)
    which_zh = "、".join(TIER_TEXTS[tier].zh for tier in tiers)
    which_en = ", ".join(TIER_TEXTS[tier].en for tier in tiers)
    words = {
        giver.id: (
            f"{taker.name} 接替了您的班次（{which_zh}）：{begin} – {end}",
            f"{taker.name} took over your shift ({which_en}): {begin} – {end}",
        ),
        taker.id: (
            f"您接替 {giver.name} 值班（{which_zh}）：{begin} – {end}",
            f"You do {giver.name}'s shift ({which_en}): {begin} – {end}",
        ),
    }
    facts = {
        "key": "roster_swap", "from_person": giver.id, "to_person": taker.id, "tiers": list(tiers), "from": times[0],
        "until": times[1],
    }  # fmt: skip
    own = [name for name in channels if name in _CHANNELS]
    told = 0
    for person_id, (zh, en) in words.items():
        if person_id == actor_id:
            continue
        reference = f"roster_swap:{person_id}:{times[0]}:{now_ms}"
        notice = Notification("system", reference, Priority.HIGH.value, "", zh, en, facts, now_ms)
        told += notices.put(
            tx,
            notices.outbox_rows(notice, "swap", own, urgent=ORDINARY, available_at=now_ms, recipients=[person_id]),
        )
    return told
