"""Says whether the run kept its promises, from what happened outside the code under test.

Truth are the hardware's own log, what journals said was durable, what the receiver was told, and what the series
and the database hold at the end. A promise that was broken becomes one line of `violations`.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from cli.simulate.series import value_of
from cloud.model import Notification
from edge.records import Row
from firmware_sim.truth import TruthLine
from fleet.envelope import Lane
from fleet.signing import CommandOrder

if TYPE_CHECKING:
    from cli.simulate.machines import EdgeBox
    from cli.simulate.simulation import Simulation

_VIOLATIONS_MAX: Final = 50
_payload_decoder: Final = msgspec.json.Decoder(dict[str, Any])
ACTUATION_SLACK_S: Final = 2.0
ESCALATE_S_MAX: Final = 100.0
"""The longest wait between two steps is 60 s; the rest is for messages on their way."""


class Oracle:
    """One per run; everything is called on the loop's thread."""

    def __init__(self, simulation: "Simulation") -> None:
        self.violations: list[str] = []
        self.counts: Counter[str] = Counter()
        self.events: dict[str, TruthLine] = {}
        """What hardware reported, by event id."""
        self.presses: dict[str, float] = {}
        self.told: dict[str, list[float]] = defaultdict(list)
        """Delivery id → when the receiver accepted it."""
        self.pages: dict[str, set[str]] = defaultdict(set)
        """Press → delivery ids of its pages."""
        self.page_s: dict[str, float] = {}
        self.readings: dict[str, dict[tuple[int, int], int]] = defaultdict(dict)
        """Device → (time, value) → how often it was journalled."""
        self.corrected: dict[str, dict[tuple[int, int], set[tuple[int, int]]]] = defaultdict(dict)
        """Device → (time, value) as journalled → as it was sent, with its time corrected (ADR 0025)."""
        self.evicted: dict[tuple[str, Lane], int] = Counter()
        self.evicted_readings: set[tuple[str, int, int]] = set()
        self.evicted_events: set[str] = set()
        self.orders: dict[str, tuple[float, CommandOrder]] = {}
        self.actuations: Counter[str] = Counter()
        self.rolled_back: set[str] = set()
        """Devices whose journal was set back or damaged: it may repeat what it had delivered."""
        self.touched: set[str] = set()
        """Devices that lost messages with their disk; their events may have no end."""
        self._written: dict[tuple[str, bytes], list[tuple[int, int]]] = {}
        self._calling: dict[str, tuple[tuple[int, int], float]] = {}
        self._simulation = simulation

    def broken(self, promise: str) -> None:
        """A promise was not kept."""
        self.counts["violations"] += 1
        if len(self.violations) < _VIOLATIONS_MAX:
            self.violations.append(f"{self._simulation.loop.time():.1f} s: {promise}")
            self._simulation.trace.note("violation", promise)

    # --- while it runs -------------------------------------------------------------------------------------------

    def died(self, name: str, error: BaseException | None) -> None:
        """A process ended that nobody killed."""
        self.broken(f"{name} ended by itself: {_causes(error)}")

    def happened(self, line: TruthLine) -> None:
        """The hardware's log."""
        if line.event_id is None:
            return
        self.events.setdefault(line.event_id, line)
        if line.what == "pressed":
            self.presses.setdefault(line.event_id, self._simulation.loop.time())

    def written(self, device_id: str, row: Row) -> None:
        """A box writes this; it may become durable without anybody hearing of it, if it is killed just then."""
        if row.lane is Lane.TELEMETRY:
            self._written[device_id, row.payload] = _keys_of(row.payload)

    def journalled(self, device_id: str, row: Row) -> None:
        """A box said that this is durable."""
        self.counts[f"journalled_{row.lane.value}"] += 1
        if row.lane is not Lane.TELEMETRY:
            return
        readings = self.readings[device_id]
        for key in self._written.pop((device_id, row.payload), None) or _keys_of(row.payload):
            readings[key] = readings.get(key, 0) + 1
            self.counts["readings"] += 1

    def corrects(self, device_id: str, journalled: bytes, sent: bytes) -> None:
        """A box sends a telemetry message with other times than it was journalled with."""
        for key, other in zip(_keys_of(journalled), _keys_of(sent), strict=True):
            self.corrected[device_id].setdefault(key, set()).add(other)

    def known_as(self, device_id: str, key: tuple[int, int]) -> set[tuple[int, int]]:
        """A journalled reading as it may arrive."""
        return {key} | self.corrected[device_id].get(key, set())

    def invented(self, device_id: str, keys: Iterable[tuple[int, int]]) -> int:
        """How many of these no box ever wrote, durably or not."""
        known = self.readings.get(device_id, {})
        maybe = {key for (owner, _), written in self._written.items() if owner == device_id for key in written}
        maybe.update(*self.corrected[device_id].values())
        return sum(1 for key in keys if key not in known and key not in maybe)

    def evicting(self, device_id: str, lane: Lane, payload: bytes, event_id: str | None) -> None:
        """A box is about to let this go for want of room (or because nobody ever takes it)."""
        self.evicted[device_id, lane] += 1
        self.counts["evicted"] += 1
        if lane is Lane.TELEMETRY:
            self.evicted_readings.update((device_id, *key) for key in _keys_of(payload))
        elif event_id is not None:
            self.evicted_events.add(event_id)
            if lane is Lane.EMERGENCY and self._simulation.plan.bounds.emergency_rows_max >= 4_096:
                self.broken(f"{device_id} evicted an emergency while there was room")

    def gone_with(self, box: "EdgeBox") -> None:
        """What a journal holds just now goes with its disk; nobody can promise to keep that."""
        self.touched.update(box.device_ids)
        store = _store_of(box)
        if store is None:
            return
        for device_id, lane, payload, event_id in store.execute(
            "SELECT device_id, lane, payload, event_id FROM message"
        ):
            self._gone(device_id, Lane(lane), payload, event_id)
        for row in _reserved_of(box):
            self._gone(row.device_id, row.lane, row.payload, row.event_id)

    def _gone(self, device_id: str, lane: Lane, payload: bytes, event_id: str | None) -> None:
        self.counts["gone_with_disks"] += 1
        if lane is Lane.TELEMETRY:
            self.evicted_readings.update((device_id, *key) for key in _keys_of(payload))
        elif event_id is not None:
            self.evicted_events.add(event_id)

    def ordered(self, device_id: str, order: CommandOrder) -> None:
        """The cloud sent a command (perhaps not for the first time)."""
        del device_id
        self.orders.setdefault(order.id, (self._simulation.loop.time(), order))

    def actuated(self, device_id: str, command_id: str) -> None:
        """An agent lets a driver move something."""
        now_s = self._simulation.loop.time()
        self.actuations[command_id] += 1
        self.counts["actuations"] += 1
        self._simulation.trace.note("actuated", device_id, command_id)
        if self.actuations[command_id] > 1 and device_id not in self.rolled_back:
            self.broken(f"{device_id} carried out {command_id} {self.actuations[command_id]} times")
        found = self.orders.get(command_id)
        if found is None:
            self.broken(f"{device_id} carried out {command_id}, which the cloud never sent")
            return
        ordered_s, order = found
        if order.device_id != device_id:
            self.broken(f"{device_id} carried out {command_id}, which is for {order.device_id}")
        lifetime_s = (order.not_after - order.issued_at) / 1000
        slack_s = ACTUATION_SLACK_S + self._simulation.cloud_clock_off_s
        if now_s > ordered_s + lifetime_s + slack_s:
            self.broken(f"{device_id} carried out {command_id} {now_s - ordered_s - lifetime_s:.1f} s too late")

    def notified(self, notification: Notification, delivery_id: str) -> None:
        """The receiver accepted."""
        now_s = self._simulation.loop.time()
        self._simulation.trace.note("notified", notification.kind_of, delivery_id)
        self.counts["notifications"] += 1
        times = self.told[delivery_id]
        times.append(now_s)
        if len(times) > 1 and not self._simulation.cloud_was_disturbed(times[-2] - 1.0, now_s):
            self.broken(f"{delivery_id} was delivered again although nothing had failed")
        facts = notification.facts
        if notification.kind_of == "call" and facts.get("step") == "press":
            event_id = str(facts["event_id"])
            self.pages[event_id].add(delivery_id)
            self.page_s.setdefault(event_id, now_s)
        elif notification.kind_of == "call" and facts.get("step") == "escalate":
            self.counts["escalations"] += 1
        self._simulation.people_told(notification)

    # --- unanswered calls ------------------------------------------------------------------------------------------

    @property
    def unanswered_calls(self) -> int:
        """As of the last look."""
        return len(self._calling)

    def calling(self, calls: Mapping[str, tuple[int, int]]) -> None:
        """Calls that nobody has accepted now: id → (escalation, when it changed)."""
        now_s = self._simulation.loop.time()
        for call_id, state in calls.items():
            known = self._calling.get(call_id)
            if known is None or known[0] != state:
                self._calling[call_id] = state, now_s
            elif now_s - max(known[1], self._simulation.disturbed_until_s) > ESCALATE_S_MAX:
                self.broken(f"call {call_id} is unanswered for {now_s - known[1]:.0f} s at escalation {state[0]}")
                self._calling[call_id] = state, math.inf
        for call_id in list(self._calling):
            if call_id not in calls:
                del self._calling[call_id]


def _keys_of(payload: bytes) -> list[tuple[int, int]]:
    return [(reading["at"], value_of(reading)) for reading in _payload_decoder.decode(payload)["readings"]]


def _store_of(box: "EdgeBox") -> Any:
    agents = box.host.agents if box.host is not None else {}
    return next((agent._journal.store._connection for agent in agents.values()), None)  # noqa: SLF001


def _reserved_of(box: "EdgeBox") -> Sequence[Any]:
    agents = box.host.agents if box.host is not None else {}
    return next((agent._journal.reserved_rows for agent in agents.values()), [])  # noqa: SLF001


def _causes(error: BaseException | None) -> str:
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(_causes(one) for one in error.exceptions)
    return f"{type(error).__name__}: {error}"[:300]
