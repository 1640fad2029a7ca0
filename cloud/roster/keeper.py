"""Keeps shifts unrolled ahead, and says when a roster has holes.

Once when one is found, again a day before it begins, and urgently when it has begun. What people were
told stands in `duty_finding`, so a restart neither repeats nor forgets.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol
from zoneinfo import ZoneInfo

import structlog
from sqlalchemy import Connection, Row, and_, bindparam, delete, insert, select, update

from cloud.ports import Database
from cloud.roster import calendars, rows
from cloud.roster.check import DAYS, Check, Finding, What, check
from cloud.roster.drafts import TIER_TEXTS
from cloud.tables import duty_finding
from fleet.clock import Clock
from fleet.kind import Text

_log = structlog.get_logger(__name__)

REMIND_MS: Final = rows.DAY_MS
TICK_S: Final = 60.0
TICK_REAL_S_MIN: Final = 1.0
LISTED_MAX: Final = 10


class Tell(Protocol):
    """`Dispatch.system`: a notice to people, inside the caller's transaction."""

    def __call__(
        self,
        tx: Connection,
        key: str,
        title_zh: str,
        title_en: str,
        facts: Mapping[str, Any],
        now_ms: int,
        *,
        urgent: bool = True,
    ) -> int: ...


class RosterKeeper:
    """One task where effects leave; more of them do no harm."""

    def __init__(
        self, database: Database, clock: Clock, tell: Tell, wake_outbox: Callable[[], None], zone: ZoneInfo
    ) -> None:
        self._database = database
        self._clock = clock
        self._tell = tell
        self._wake_outbox = wake_outbox
        self._zone = zone
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """For ever; a failing tick is the caller's to repeat."""
        while True:
            self._changed.clear()
            await self.tick()
            with suppress(TimeoutError):
                async with asyncio.timeout(max(TICK_S / self._clock.speed, TICK_REAL_S_MIN)):
                    await self._changed.wait()

    def wake(self) -> None:
        """The roster changed in this process."""
        self._changed.set()

    async def tick(self) -> None:
        """Unroll, check, tell: what is due now."""
        now_ms = self._clock.now_ms()
        written = await rows.keep_ahead(self._database, now_ms)
        if written:
            _log.info("shifts written ahead", shifts=written)
        until_ms = now_ms + DAYS * rows.DAY_MS
        found = await self._database.read(lambda tx: check(tx, now_ms, until_ms))
        if not await self._database.read(lambda tx: bool(_due(tx, found, now_ms))):
            return
        told = await self._database.write(lambda tx: self._announce(tx, found, now_ms))
        if told:
            self._wake_outbox()

    def _announce(self, tx: Connection, found: Check, now_ms: int) -> int:
        """Tell what is due, in the same transaction that remembers it."""
        due = _due(tx, found, now_ms)
        for gone in due.over:
            tx.execute(_this(gone).values(ended_at=now_ms))
        for finding, row in due.known:
            tx.execute(_this(row).values(until_at=finding.until_ms))
        told = 0
        for stage, urgent in (("begun", True), ("soon", False), ("found", False)):
            those = [one for one in due.to_tell if one[0] == stage]
            _remember(tx, [(finding, row) for _, finding, row in those], stage, now_ms)
            if those:
                told += self._notice(tx, stage, [finding for _, finding, _ in those], now_ms, urgent=urgent)
        return told

    def _notice(self, tx: Connection, stage: str, findings: Sequence[Finding], now_ms: int, *, urgent: bool) -> int:
        first = findings[0]
        lines = [self._line(one) for one in findings[:LISTED_MAX]]
        more = len(findings) - 1
        zh, en = lines[0].zh, lines[0].en
        titles = _TITLES[stage, first.is_hole]
        facts = {
            "key": f"roster_{stage}",
            "stage": stage,
            "error": "; ".join(line.en for line in lines),
            "holes": [
                {"what": one.what.value, "tier": one.tier, "from": one.from_ms, "until": one.until_ms,
                 "person_id": one.person_id}
                for one in findings[:LISTED_MAX]
            ],
            "count": len(findings),
        }  # fmt: skip
        return self._tell(
            tx,
            f"roster_{stage}:{first.what.value}:{first.tier}:{first.person_id}:{first.from_ms}:{now_ms}",
            f"{titles.zh}：{zh}" + (f"（另有 {more} 项）" if more else ""),
            f"{titles.en}: {en}" + (f" (and {more} more)" if more else ""),
            facts,
            now_ms,
            urgent=urgent,
        )

    def _line(self, finding: Finding) -> Text:
        begin = calendars.moment_of(finding.from_ms, self._zone)
        end = calendars.moment_of(finding.until_ms, self._zone)
        time = f"{begin:%m-%d %H:%M} – {end:%m-%d %H:%M}"
        tier, what = TIER_TEXTS[finding.tier], WHATS[finding.what]
        who = f"{finding.name} " if finding.name else ""
        reason_zh = f"（{finding.reason.zh}）" if finding.reason else ""
        reason_en = f" ({finding.reason.en})" if finding.reason else ""
        return Text(f"{tier.zh} {who}{what.zh}{reason_zh} {time}", f"{tier.en}: {who}{what.en}{reason_en}, {time}")


WHATS: Final = {
    What.UNCOVERED: Text("无人值班", "nobody is on duty"),
    What.UNREACHED: Text("值班人员均无法联系", "nobody on duty can be reached"),
    What.UNREACHABLE: Text("无法联系", "can't be reached"),
    What.DISABLED: Text("账号已停用", "is planned although disabled"),
    What.OVERLAPPING: Text("班次重叠", "is planned twice at once"),
}
_TITLES: Final = {
    ("begun", True): Text("现在无人值班", "Nobody is on duty now"),
    ("soon", True): Text("值班表空档即将开始", "A hole in the roster begins soon"),
    ("found", True): Text("值班表有空档", "The roster has a hole"),
    ("begun", False): Text("值班表有问题", "The roster needs a look"),
    ("soon", False): Text("值班表有问题", "The roster needs a look"),
    ("found", False): Text("值班表有问题", "The roster needs a look"),
}


class _Due:
    """What has to be written: `to_tell` (stage, finding, its row or None), `known` with a new end, `over`."""

    def __init__(self) -> None:
        self.to_tell: list[tuple[str, Finding, Row[Any] | None]] = []
        self.known: list[tuple[Finding, Row[Any]]] = []
        self.over: list[Row[Any]] = []

    def __bool__(self) -> bool:
        return bool(self.to_tell or self.known or self.over)


def _due(tx: Connection, found: Check, now_ms: int) -> _Due:
    """What of `found` people were not told yet. A finding is the same one as long as its time overlaps."""
    due = _Due()
    told = tx.execute(select(duty_finding).where(duty_finding.c.ended_at.is_(None))).all()
    seen: set[tuple[str, ...]] = set()
    for finding in found.findings:
        row = next((one for one in told if _is_same(one, finding)), None)
        if row is not None:
            is_first = _key(row) not in seen
            seen.add(_key(row))
            if is_first and row.until_at != finding.until_ms:
                due.known.append((finding, row))
        stage = _stage(finding, row, now_ms)
        if stage:
            due.to_tell.append((stage, finding, row))
    due.over = [row for row in told if _key(row) not in seen]
    return due


def _stage(finding: Finding, row: Row[Any] | None, now_ms: int) -> str:
    if not finding.is_hole:
        return "" if row is not None else "found"
    if finding.from_ms <= now_ms:
        return "" if row is not None and row.begun_at is not None else "begun"
    if finding.from_ms - now_ms <= REMIND_MS:
        return "" if row is not None and row.reminded_at is not None else "soon"
    return "" if row is not None else "found"


def _is_same(row: Row[Any], finding: Finding) -> bool:
    same = (row.what, row.tier, row.person_id) == (finding.what.value, finding.tier, finding.person_id)
    return same and (not finding.is_hole or (row.from_at < finding.until_ms and finding.from_ms < row.until_at))


_KEY: Final = ("what", "tier", "person_id", "from_at")


def _key(row: Row[Any]) -> tuple[str, ...]:
    return row.what, row.tier, row.person_id, str(row.from_at)


def _this(row: Row[Any]) -> Any:
    columns = duty_finding.c
    return update(duty_finding).where(
        columns.what == row.what,
        columns.tier == row.tier,
        columns.person_id == row.person_id,
        columns.from_at == row.from_at,
    )


def _remember(tx: Connection, those: Sequence[tuple[Finding, Row[Any] | None]], stage: str, now_ms: int) -> None:
    reminded = now_ms if stage in {"soon", "begun"} else None
    begun = now_ms if stage == "begun" else None
    for finding, row in those:
        if row is not None:
            values = {"until_at": finding.until_ms, "reminded_at": reminded or row.reminded_at, "begun_at": begun}
            tx.execute(_this(row).values(values))
    new = [
        {
            "what": finding.what.value, "tier": finding.tier, "person_id": finding.person_id,
            "from_at": finding.from_ms, "until_at": finding.until_ms, "announced_at": now_ms,
            "reminded_at": reminded, "begun_at": begun, "ended_at": None,
        }
        for finding, row in those
        if row is None
    ]  # fmt: skip
    if new:
        key = and_(*(duty_finding.c[name] == bindparam(f"b_{name}") for name in _KEY))
        old = [{f"b_{name}": one[name] for name in _KEY} for one in new]
        tx.execute(delete(duty_finding).where(key), old)  # it was mended, and is back
        tx.execute(insert(duty_finding), new)
