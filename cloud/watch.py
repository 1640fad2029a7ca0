"""Looks at the queues of this process: numbers for `/metrics`, and one notice when a bound is near or a way is cut.

A condition is announced once through the outbox and its end once; what was told last stands in the outbox, so a
restart does not tell it again.
"""

import asyncio
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric
from sqlalchemy import Connection, func, select

from cloud.dispatch import audience, notices
from cloud.model import Notification
from cloud.ports import Database, Wake
from cloud.tables import outbox
from fleet.clock import Clock
from fleet.incident import Priority

LOOK_S: Final = 5.0
BROKER_AWAY_S_MAX: Final = 30.0
SPOOL_FILL_MAX: Final = 0.8


@dataclass(frozen=True, slots=True)
class Condition:
    """Something that people are to know while it holds.

    `holds` must be true for `after_s` real seconds without a break.
    """

    name: str
    holds: Callable[[], bool]
    title_zh: str
    title_en: str
    after_s: float = 0.0


@dataclass(slots=True, eq=False)
class Numbers:
    """Names of metrics, what they mean, and who knows them now; a label's values are the keys of the mapping."""

    single: dict[str, tuple[str, Callable[[], float]]] = field(default_factory=dict)
    devices: Callable[[], dict[tuple[str, str], int]] | None = None
    outbox: dict[str, int] = field(default_factory=dict)

    def describe(self) -> Collection[Metric]:
        """Nothing in advance: which numbers there are depends on the role."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Called by the registry at each scrape."""
        for name, (meaning, read) in self.single.items():
            yield GaugeMetricFamily(name, meaning, value=read())
        depth = GaugeMetricFamily("fleet_outbox_waiting", "Notifications not delivered yet", labels=["urgency"])
        for urgency, count in self.outbox.items():
            depth.add_metric([urgency], count)
        yield depth
        if self.devices is not None:
            family = GaugeMetricFamily("fleet_devices", "Devices in service", labels=["kind", "state"])
            for labels, count in sorted(self.devices().items()):
                family.add_metric(list(labels), count)
            yield family


class Watch:
    """One per process. `name` tells this process's conditions from those of others, also after a restart."""

    def __init__(self, database: Database, clock: Clock, name: str, channels: Sequence[str], wake_outbox: Wake) -> None:
        self.numbers = Numbers()
        self.conditions: list[Condition] = []
        self._database = database
        self._clock = clock
        self._name = name
        self._channels = list(channels)
        self._wake_outbox = wake_outbox
        self._since_s: dict[str, float] = {}
        self._told: dict[str, bool] = {}

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Look once."""
        self.numbers.outbox = await self._database.read(_depth)
        for condition in self.conditions:
            holds = self._holds(condition)
            if holds is None or self._told.get(condition.name) is holds:
                continue
            tell = partial(self._tell, condition=condition, holds=holds, now_ms=self._clock.now_ms())
            if await self._database.write(tell):
                self._wake_outbox()
            self._told[condition.name] = holds

    def _holds(self, condition: Condition) -> bool | None:
        """None: it began, and has not lasted long enough to be told."""
        if not condition.holds():
            self._since_s.pop(condition.name, None)
            return False
        real_s = self._clock.monotonic_s()
        lasted_s = real_s - self._since_s.setdefault(condition.name, real_s)
        return True if lasted_s >= condition.after_s else None

    def _tell(self, tx: Connection, *, condition: Condition, holds: bool, now_ms: int) -> int:
        reference = f"condition:{self._name}:{condition.name}"
        latest = select(outbox.c.notification).where(outbox.c.reference == reference).order_by(outbox.c.id.desc())
        text = tx.scalar(latest.limit(1))
        before = text is not None and bool(notices.decode(text).facts.get("holds"))
        if before is holds:
            return 0
        titles = (condition.title_zh, condition.title_en)
        if not holds:
            titles = f"已恢复:{condition.title_zh}", f"Over: {condition.title_en}"
        priority = Priority.HIGH if holds else Priority.LOW
        facts = {"process": self._name, "condition": condition.name, "holds": holds}
        notice = Notification("system", reference, priority.value, "", *titles, facts, now_ms)
        step = f"{'begins' if holds else 'ends'}:{now_ms}"
        return notices.put(tx, audience.system_rows(tx, notice, step, self._channels, urgent=False))


def _depth(tx: Connection) -> dict[str, int]:
    waiting = (outbox.c.delivered_at.is_(None)) & (outbox.c.given_up_at.is_(None))
    rows = tx.execute(select(outbox.c.urgent, func.count()).where(waiting).group_by(outbox.c.urgent)).all()
    return {"urgent": 0, "other": 0} | {("urgent" if urgent else "other"): count for urgent, count in rows}
