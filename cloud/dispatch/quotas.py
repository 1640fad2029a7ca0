"""How much one person is told: at most `NOTICES_MAX` in any `WINDOW_S`; what is more waits for one digest.

Only what is no emergency counts. The inbox holds all of it at once, so a digest may be short. Everything stands in
one row per person, so a restart neither repeats nor forgets.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection, select

from cloud.dispatch.rows import insert_into
from cloud.model import Notification
from cloud.tables import personal_quota
from fleet.clock import MILLISECONDS_PER_SECOND

NOTICES_MAX: Final = 3
WINDOW_S: Final = 600.0
REMEMBERED_MAX: Final = 200
"""Notices that one digest remembers one by one; the count goes on."""
WAIT_MS_MAX: Final = 26 * 3_600_000
"""A digest that is due later than that was written before the clock was set back: it counts as due."""

_WINDOW_MS: Final = round(WINDOW_S * MILLISECONDS_PER_SECOND)
_c = personal_quota.c


@dataclass(slots=True)
class Quota:
    """One person's row. `digest` entries: reference, priority, Chinese title, English title."""

    told_at: list[int] = field(default_factory=list)
    digest_due_at: int | None = None
    digest_count: int = 0
    digest: list[list[str]] = field(default_factory=list)

    def free_at(self, now_ms: int) -> int:
        """When the next notice may go; at or before `now_ms`: now."""
        latest = [at for at in self.told_at if now_ms - _WINDOW_MS < at <= now_ms]  # also after a clock set back
        return now_ms if len(latest) < NOTICES_MAX else latest[-NOTICES_MAX] + _WINDOW_MS

    def tell(self, now_ms: int) -> None:
        """One notice goes now."""
        self.told_at = [*(at for at in self.told_at if at <= now_ms), now_ms][-NOTICES_MAX:]

    def tell_late(self, routed_at: int, at: int) -> None:
        """What was to be said at `routed_at` was said now; once more if another channel had brought it before."""
        others = list(self.told_at)
        if routed_at in others:
            others.remove(routed_at)
        self.told_at = sorted([*others, at])[-NOTICES_MAX:]

    def collect(self, notification: Notification, due_at: int) -> None:
        """This one waits with the others."""
        self.digest_count += 1
        if len(self.digest) < REMEMBERED_MAX:
            self.digest.append([
                notification.reference, notification.priority, notification.title_zh, notification.title_en,
            ])  # fmt: skip
        self.digest_due_at = due_at if self.digest_due_at is None else min(self.digest_due_at, due_at)

    def collect_again(self, entries: Sequence[list[str]], count: int, due_at: int) -> None:
        """What was on its way and did not arrive waits before all that came later."""
        self.digest_count += count
        self.digest = [*entries, *self.digest][:REMEMBERED_MAX]
        self.digest_due_at = due_at if self.digest_due_at is None else min(self.digest_due_at, due_at)

    def drop(self, references: set[str]) -> None:
        """What is over is not told any more."""
        kept = [entry for entry in self.digest if entry[0] not in references]
        self.digest_count -= len(self.digest) - len(kept)
        self.digest = kept
        if self.digest_count <= 0:
            self.empty()

    def empty(self) -> None:
        """The digest is on its way."""
        self.digest_due_at, self.digest_count, self.digest = None, 0, []


def load(tx: Connection, person_id: str) -> Quota:
    """The person's row, or a fresh one."""
    row = tx.execute(select(personal_quota).where(_c.person_id == person_id).with_for_update()).one_or_none()
    if row is None:
        return Quota()
    return Quota(json.loads(row.told_at), row.digest_due_at, row.digest_count, json.loads(row.digest))


def store(tx: Connection, person_id: str, quota: Quota) -> None:
    """Write the person's row."""
    values = {
        "told_at": json.dumps(quota.told_at),
        "digest_due_at": quota.digest_due_at,
        "digest_count": quota.digest_count,
        "digest": json.dumps(quota.digest, ensure_ascii=False),
    }
    statement = insert_into(tx, personal_quota).values(person_id=person_id, **values)
    tx.execute(statement.on_conflict_do_update(index_elements=[_c.person_id], set_=values))


def due(tx: Connection, now_ms: int) -> Sequence[str]:
    """Whose digest is to go, by person id."""
    is_due = (_c.digest_due_at <= now_ms) | (_c.digest_due_at > now_ms + WAIT_MS_MAX)
    return tx.scalars(select(_c.person_id).where(is_due).order_by(_c.person_id)).all()


def forget(tx: Connection, references: Iterable[str]) -> None:
    """Take these alarms out of every digest that waits: somebody has seen them."""
    over = set(references)
    waiting = select(_c.person_id).where(_c.digest_due_at.is_not(None)).order_by(_c.person_id)
    for person_id in tx.scalars(waiting).all():
        quota = load(tx, person_id)
        before = quota.digest_count
        quota.drop(over)
        if quota.digest_count != before:
            store(tx, person_id, quota)
