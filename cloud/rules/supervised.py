"""The rules with the supervision of emergency buttons around them, and with the deployment's own room kept apart.

`Rules` decides about alarms and calls from what devices say. What is added here is time and people: proof tests and
substitute measures (`proof_tests`), test mode (`calls.begin_test`). And a synthetic room has its call and nothing
else: no alarms, no silence, no work, no escalation.
"""

from collections.abc import Callable, Mapping
from typing import Any

import devices
from cloud.model import Accepted, Decisions, DeviceLane, Intent
from cloud.rules import calls, proof_tests
from cloud.rules.conditions import link_alarms
from cloud.rules.identities import Answer
from cloud.rules.stage import Rules
from cloud.rules.timed_alarms import timed_alarms
from cloud.synthetic import is_synthetic
from fleet.envelope import Hello
from fleet.kind import AlarmDefinition, Kind

Proof = Callable[[Any], str]


class SupervisedRules(Rules):
    """What the pipeline runs."""

    def __init__(self, kinds: Mapping[str, Kind], speed: float = 1.0) -> None:
        super().__init__(kinds, speed)
        self._timed: dict[str, Mapping[str, AlarmDefinition]] = {}
        self._proofs: dict[str, Mapping[str, Proof]] = {}
        self._call_faults: dict[str, tuple[str, ...]] = {}
        for name, kind in kinds.items():
            if not timed_alarms(kind):
                continue
            module = devices.role(name, "rules")
            self._timed[name] = {one.key: one for one in link_alarms(kind)}
            self._proofs[name] = getattr(module, "PROOFS", {})
            self._call_faults[name] = tuple(getattr(module, "CALL_FAULTS", ()))

    def on_event(self, accepted: Accepted, now_ms: int, decisions: Decisions) -> None:
        """See Rules."""
        lane = accepted.lane
        proof = self._proofs.get(lane.kind, {}).get(accepted.event.type)
        if proof is not None and not proof(accepted.event):
            proof_tests.on_proof(lane, now_ms)
        super().on_event(accepted, now_ms, decisions)
        self._supervise(lane, now_ms, decisions)

    def on_reading(self, lane: DeviceLane, at: int, now_ms: int, decisions: Decisions) -> bool:
        """See Rules. Supervision follows only where a condition changed: this is the hot path."""
        changed = Rules.on_reading(self, lane, at, now_ms, decisions)  # `super()` costs as much as a condition
        if changed or (lane.kind in self._timed and not lane.desk.button.watched_since):
            self._supervise(lane, now_ms, decisions)
        return changed

    def on_hello(self, lane: DeviceLane, hello: Hello, now_ms: int, decisions: Decisions) -> Answer:
        """See Rules. The deployment's own room has a new storage at each start."""
        if is_synthetic(lane.device_id):
            return Answer.WELCOME if hello.storage_id == lane.storage_id else Answer.GRANT
        return super().on_hello(lane, hello, now_ms, decisions)

    def on_dropped(self, lane: DeviceLane, now_ms: int, decisions: Decisions) -> None:
        """See Rules."""
        if not is_synthetic(lane.device_id):
            super().on_dropped(lane, now_ms, decisions)

    def on_heard(self, lane: DeviceLane, now_ms: int, decisions: Decisions) -> None:
        """See Rules."""
        super().on_heard(lane, now_ms, decisions)
        if lane.desk.button.faulty_since:
            self._supervise(lane, now_ms, decisions)

    def on_timer(self, lane: DeviceLane, now_ms: int, listening_since_ms: int | None, decisions: Decisions) -> None:
        """See Rules."""
        if is_synthetic(lane.device_id):
            return
        super().on_timer(lane, now_ms, listening_since_ms, decisions)
        if not lane.retired:
            self._supervise(lane, now_ms, decisions)

    def next_due(self, lane: DeviceLane, listening_since_ms: int | None) -> int | None:
        """See Rules."""
        if is_synthetic(lane.device_id):
            return None
        due = super().next_due(lane, listening_since_ms)
        if lane.retired or lane.kind not in self._timed:
            return due
        found = [*proof_tests.next_due(lane), *([] if due is None else [due])]
        return min(found, default=None)

    def on_intent(self, lane: DeviceLane, intent: Intent, now_ms: int, decisions: Decisions) -> dict[str, Any]:
        """See Rules."""
        if lane.kind in self._timed and intent.name in {"begin_button_test", "record_substitute"}:
            if intent.name == "begin_button_test":
                return calls.begin_test(lane, intent, now_ms)
            answer = proof_tests.record_measure(lane, intent, now_ms)
        else:
            answer = super().on_intent(lane, intent, now_ms, decisions)
        if not lane.retired:
            self._supervise(lane, now_ms, decisions)
        return answer

    @staticmethod
    def clock_set(lane: DeviceLane, now_ms: int) -> None:
        """See Rules."""
        Rules.clock_set(lane, now_ms)
        proof_tests.clock_set(lane.desk, now_ms)

    def _supervise(self, lane: DeviceLane, now_ms: int, decisions: Decisions) -> None:
        definitions = self._timed.get(lane.kind)
        if definitions is None or is_synthetic(lane.device_id):
            return
        if not lane.desk.button.watched_since:
            proof_tests.watch_from(lane, now_ms)
            decisions.attention.add(lane.device_id)
        proof_tests.on_change(lane, definitions, self._call_faults[lane.kind], now_ms, decisions)
