"""The cloud of the week: the real stages, tables and services in one process, fed with what the drivers say.

The order of `cloud.pipeline` without its wire: twin, rules, dispatch, one SQL commit, then whoever is woken.
"""

import asyncio
import hashlib
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, RowMapping

import devices
from cli.simulate.clocks import MachineClock
from cloud.adapters.notify.inbox import InboxChannel
from cloud.adapters.sql.database import SqlDatabase
from cloud.adapters.sql.migrate import upgrade
from cloud.alarms.service import AlarmService
from cloud.api.changes import Changes
from cloud.calls.service import CallService
from cloud.dispatch.outbox import Outbox
from cloud.dispatch.personal import PersonalNotices
from cloud.dispatch.planner import Dispatch
from cloud.ingest import repository as ingest_rows
from cloud.intents import IntentDesk
from cloud.lane_book import LaneBook
from cloud.model import Accepted, Decisions, DeviceLane, Intent
from cloud.planning.model import Plan, Problem
from cloud.planning.service import PlanningService
from cloud.planning.solve import LIMIT_S, solve
from cloud.ports import IntentRefusedError, PersonalChannel
from cloud.rules.supervised import SupervisedRules
from cloud.twin import repository as twin_rows
from cloud.twin.stage import Twin
from cloud.work_orders.evidence import EvidenceService
from cloud.work_orders.service import WorkOrderService
from cloud.work_orders.upkeep import OrderKeeper
from fleet.envelope import Status
from fleet.kind import DriverOutput
from fleet.messages import Command
from fleet.topics import SHARD_COUNT

POLL_S: Final = 600.0
"""Everything is woken; the outbox looks by itself this rarely."""
PLAN_EVERY_MS: Final = 600_000
"""The product plans within seconds of a change; ten minutes cost a week a tenth of that."""


class InlineSolver:
    """The product's solver on this thread instead of in a process of its own, where virtual time would not wait."""

    async def solve(self, problem: Problem, *, limit_s: float = LIMIT_S, grace_s: float = 0.0) -> Plan:
        """See cloud.planning.process.SolverProcess."""
        del grace_s
        return solve(problem, lambda: 0.0, limit_s=limit_s)

    async def close(self) -> None:
        """Nothing to end."""


class _Listening(Changes):
    """Pages are not open in this week; somebody only wants to know that orders changed."""

    orders_changed = False

    def publish(self, topic: str, facts: dict[str, Any]) -> None:
        """See Changes."""
        self.orders_changed = self.orders_changed or topic == "order"
        super().publish(topic, facts)


@dataclass(frozen=True, slots=True)
class _When:
    """As much of an envelope as the rules read."""

    occurred_at: int


class WeekCloud:
    """The cloud's side of a week.

    `heard_until(device id)`: up to when its heartbeats are certain, 0 if they are not. `order(device id, command)`:
    sends what a decision asks for.
    """

    def __init__(
        self,
        folder: Path,
        clock: MachineClock,
        randomness: Any,
        telephones: Iterable[PersonalChannel],
        *,
        heard_until: Callable[[str], int],
        order: Callable[[str, Command], Any],
    ) -> None:
        path = folder / "state.db"
        path.write_bytes(_schema())
        self.clock = clock
        self.database = SqlDatabase(f"sqlite:///{path}")
        kinds = devices.kinds()
        self.twin, self.rules = Twin(kinds), SupervisedRules(kinds)
        self.book = LaneBook(self.twin, self.rules, clock)
        numbers = iter(range(1 << 40))
        self.changes = _Listening()
        self.intents = IntentDesk(self.database, clock, lambda: f"{next(numbers):032x}")
        inbox, personal = InboxChannel(self.database, self.changes), list(telephones)
        self.router = PersonalNotices(self.database, clock, [channel.name for channel in personal])
        personal.append(self.router)
        names = [inbox.name, *(channel.name for channel in personal)]
        self.dispatch = Dispatch(names)
        self.outbox = Outbox(
            self.database, clock, [inbox], personal=personal, real_now_ms=clock.now_ms, randomness=randomness,
            owner="week", sole_owner=True, poll_s=POLL_S,
        )  # fmt: skip
        self.router.wake_outbox = self.outbox.wake
        self.keeper = OrderKeeper(self.database, clock, self.changes)
        self.keeper.channels, self.keeper.wake_outbox = tuple(names), self.outbox.wake
        self.alarms = AlarmService(self.database, clock, self.intents)
        self.calls = CallService(self.database, clock, self.intents)
        self.orders = WorkOrderService(self.database, clock, self.changes)
        self.evidence = EvidenceService(
            self.database, clock, self.orders, folder=None, random_bytes=randomness.randbytes
        )
        self.planning = PlanningService(self.database, clock, self.changes, InlineSolver())  # type: ignore[arg-type]
        self.plans = True
        """Whether rounds are planned by the product."""
        self.counts: Counter[str] = Counter()
        self._planned_ms = 0
        self.digest = hashlib.blake2b(digest_size=16)
        self.commits = 0
        self._heard_until = heard_until
        self._order = order
        self._decisions = Decisions()
        self._dirty: dict[str, DeviceLane] = {}
        self._answers: list[tuple[Intent, str | None, str | None]] = []
        self._submitted = asyncio.Event()
        self.intents.on_submitted = self._submitted.set

    @property
    def lanes(self) -> dict[str, DeviceLane]:
        """Every device's lane."""
        return self.book.lanes

    def load(self) -> None:
        """Take the enrolled devices, and listen from now on."""
        self.book.own(range(SHARD_COUNT))
        rows: list[RowMapping] = list(self.database.read_here(twin_rows.lane_rows))
        self.book.load(rows)
        self.book.listening_since_ms = self.clock.now_ms()
        for lane in self.lanes.values():
            self.book.reschedule(lane)

    async def run(self) -> None:
        """Deliver notifications and take people's acts until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.outbox.run())
            while True:
                await self._submitted.wait()
                self._submitted.clear()
                await self._obey()

    # --- what devices say --------------------------------------------------------------------------------------

    def hear(self, device_id: str, output: DriverOutput) -> None:
        """Readings and events of one device, in its order."""
        lane, now_ms = self.lanes[device_id], self.clock.now_ms()
        for reading in output.readings:
            self.twin.on_reading(lane, reading, now_ms)
            self.rules.on_reading(lane, reading.at, now_ms, self._decisions)
        for occurred_at, event in output.events:
            accepted = Accepted(lane, _When(occurred_at), b"", event=event)
            self.twin.on_event(accepted, now_ms)
            self.rules.on_event(accepted, now_ms, self._decisions)
        self.rules.on_heard(lane, now_ms, self._decisions)
        if output.events or hasattr(lane.state.reading, "latitude"):
            self._dirty[device_id] = lane
        if lane.next_due_at is None:
            self.book.reschedule(lane)

    def on_status(self, status: Status) -> None:
        """A link went up or down."""
        lane, now_ms = self.lanes[status.device_id], self.clock.now_ms()
        before = lane.online
        if status.online:
            lane.last_heard_at = now_ms
        self.twin.on_status(lane, status, now_ms)
        if before and not lane.online:
            self.rules.on_dropped(lane, now_ms, self._decisions)
        if status.online:
            self.rules.on_heard(lane, now_ms, self._decisions)
        self.book.reschedule(lane)

    def on_beat(self, device_id: str, at_ms: int) -> None:
        """The latest heartbeat, or the one that is certain to come unless the link is lost before."""
        lane = self.lanes[device_id]
        lane.last_heard_at = lane.data_at = at_ms

    def on_time(self) -> None:
        """Timers that are due."""
        now_ms = self.clock.now_ms()
        for device_id in self.book.schedule.due(now_ms):
            lane = self.lanes[device_id]
            lane.next_due_at = None
            until_ms = self._heard_until(device_id)
            if until_ms:
                self.on_beat(device_id, until_ms)
                due_ms = self.rules.next_due(lane, self.book.listening_since_ms)
                if due_ms is not None and due_ms > now_ms:  # only its silence was due, and it was heard
                    self.book.reschedule(lane)
                    continue
            self.rules.on_timer(lane, now_ms, self.book.listening_since_ms, self._decisions)
            self._decisions.attention.add(device_id)
        for device_id in self._decisions.attention:
            self.book.reschedule(self.lanes[device_id])

    # --- what people do ----------------------------------------------------------------------------------------

    async def _obey(self) -> None:
        for item in await self.database.read(ingest_rows.waiting_intents):
            lane = self.lanes.get(item.device_id)
            try:
                if lane is None:
                    raise IntentRefusedError(f"no device {item.device_id!r} in service")
                answer = self.rules.on_intent(lane, item, self.clock.now_ms(), self._decisions)
            except IntentRefusedError as refusal:
                self._answers.append((item, None, str(refusal)))
                continue
            self._answers.append((item, msgspec.json.encode(answer).decode(), None))
            self._decisions.attention.add(lane.device_id)
        await self.commit()

    async def keep(self) -> None:
        """What time does to orders and plans; the product looks every second, the week every minute."""
        if self._dirty:
            dirty, self._dirty = self._dirty, {}
            await self.database.write(
                lambda tx: twin_rows.save(tx, dirty.values(), self.twin.encode_state, self.rules.encode_desk)
            )
        looked = await self.keeper.look()
        if self.plans and self.clock.now_ms() - self._planned_ms >= PLAN_EVERY_MS:
            self._planned_ms = self.clock.now_ms()
            self.counts["plans"] += await self.planning.plan_if_changed()
        for move in looked.moves:
            self.digest.update(f"{self.clock.now_ms()} {move}\n".encode())

    # --- the commit --------------------------------------------------------------------------------------------

    @property
    def undecided(self) -> bool:
        """Whether something waits for its commit."""
        return bool(self._decisions or self._answers or self._decisions.attention)

    async def commit(self) -> None:
        """One transaction with everything that was decided; then tell whoever waits."""
        decisions, self._decisions = self._decisions, Decisions()
        answers, self._answers = self._answers, []
        now_ms = self.clock.now_ms()
        for device_id in sorted(decisions.attention):
            self.book.reschedule(self.lanes[device_id])
        if not (decisions or answers or decisions.feedback):
            return
        dirty, self._dirty = self._dirty, {}
        changed = {*decisions.attention, *(change.device_id for change in decisions.needs)}
        dirty |= {device_id: self.lanes[device_id] for device_id in sorted(changed)}
        notices: list[dict[str, Any]] = []

        def work(tx: Connection) -> None:
            twin_rows.save(tx, dirty.values(), self.twin.encode_state, self.rules.encode_desk)
            notices.extend(self.dispatch.plan(tx, decisions, now_ms))
            ingest_rows.answer_intents(tx, answers, now_ms)

        await self.database.write(work)
        self.commits += 1
        self.outbox.wake()
        for notice in notices:
            self.digest.update(f"{now_ms} {sorted(notice.items())}\n".encode())
            self.changes.publish(str(notice["topic"]), notice)
        for device_id, command in decisions.feedback:
            self._order(device_id, command)
        self.intents.settled(answers)


@cache
def _schema() -> bytes:
    """An empty database; migrations take longer than a day of a few devices."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.db"
        upgrade(f"sqlite:///{path}")
        return path.read_bytes()
