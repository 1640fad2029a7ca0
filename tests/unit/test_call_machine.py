"""The call machine through rules and dispatch on SQLite, driven at random and held against a model of a few lines.

What it may meet: presses, early ones and their turn, repeats of a commit, arrivals, the clear key, people who accept,
tests of the button, time, clocks that jump, restarts. What must hold after each step stands in the invariants.
"""

import shutil
import tempfile
from pathlib import Path

from button_bench import Room
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import select

from cloud import tables
from cloud.dispatch.letters import EMERGENCY
from cloud.ports import IntentRefusedError
from cloud.rules.calls import ESCALATION_STEPS_S, TEST_CLEARED_WITHIN_S
from cloud.rules.moves import identity
from fleet.incident import CALL, CallEvent, CallState

SLACK_S = 1.0
STEP_S = ESCALATION_STEPS_S[0]
"""From each step of the ladder to the next one: every minute."""


class CallMachine(RuleBasedStateMachine):
    early = Bundle("early")

    @initialize()
    def begin(self):
        self.folder = Path(tempfile.mkdtemp())
        self.room = Room(self.folder)
        self.room.reading()
        self.open: str | None = None
        self.newest = 0
        """The number of the last press of the open call."""
        self.state = CallState.IDLE
        self.test = False
        self.test_until = 0
        self.cleared: set[str] = set()
        self.presses: dict[str, str] = {}
        self.silent_since = 0
        """Since when nobody was paged although nobody accepted; business ms."""
        self.ladder_since: int | None = None
        """When the ladder began or was climbed last; None: not known to the model, because a clock jumped."""

    def teardown(self):
        if hasattr(self, "room"):
            self.room.database.close()
            shutil.rmtree(self.folder)

    def _pressed(self, press, *, again=False):
        event_id = identity("again", press) if again else press
        if self.state is not CallState.CALLING or self.test:
            self.ladder_since = self.room.now  # a further press while it rings pushes nothing back
        if self.open is None:
            self.open, self.state, self.newest = event_id, CallState.IDLE, 0
            self.test = self.room.now <= self.test_until
            self.test_until = 0
        else:
            self.test = False
        self.state = CALL.next(self.state, CallEvent.PRESS)
        self.presses[event_id] = self.open
        self.newest = max(self.newest, self.room.place(press))
        self.silent_since = self.room.now
        about_it = [
            row for row in self._pages()
            if row.step == f"press:{event_id}" and row.reference == self.room.lane.desk.call.call_id
        ]  # fmt: skip
        assert len(about_it) == (0 if self.test else 1), "each press for help is paged once, at once, and a test never"

    def _pages(self):
        return [row for row in self.room.pages() if row.urgent == EMERGENCY]

    @rule()
    def press(self):
        self._pressed(self.room.event("pressed"))

    @rule(target=early)
    def early_press(self):
        event_id = self.room.event("pressed", early=True)
        self._pressed(event_id)
        return event_id

    @rule(event_id=early)
    def turn_of_an_early_press(self, event_id):
        known = event_id in self.room.lane.desk.early
        ended = self.presses[event_id] != self.open
        self.room.again("pressed", event_id)
        if known and ended:  # that end came before the press: it asks again
            self._pressed(event_id, again=True)

    @rule()
    def attend(self):
        before_a_press = self.room.place(self.room.event("attended")) < self.newest
        if self.open is not None and not before_a_press and CALL.allows(self.state, CallEvent.ATTEND):
            self.state = CALL.next(self.state, CallEvent.ATTEND)

    @rule()
    def clear_key(self):
        self.room.event("cleared_at_origin")
        if self.open is not None:
            self.cleared.add(self.open)
            self.open, self.state, self.test = None, CallState.IDLE, False

    @rule(right=st.booleans())
    def accept(self, right):
        possible = right and self.open is not None and self.state is CallState.CALLING
        try:
            self.room.intent("acknowledge_call", call_id=self.open if right else "another")
            assert possible
            self.state = CallState.ACKNOWLEDGED
        except IntentRefusedError:
            assert not possible

    @precondition(lambda self: self.open is None)
    @rule()
    def begin_test(self):
        self.test_until = self.room.intent("begin_button_test", seconds=120)["test_until"]

    @precondition(lambda self: self.open is None)
    @rule(presses=st.sampled_from([1, 2]))
    def tested_and_left_alone(self, presses):
        """What `begin_test` and `press` seldom draw one after the other."""
        self.begin_test()
        for _ in range(presses):
            self.press()
        self.time_passes(31)

    @precondition(lambda self: self.state is CallState.CALLING)
    @rule()
    def pressed_on_and_on(self):
        for _ in range(3):
            self.time_passes(31)
            self.press()

    @rule(seconds=st.sampled_from([1, 5, 29, 31, 59, 61, 200]))
    def time_passes(self, seconds):
        end = self.room.now + seconds * 1000
        while self.room.now < end:
            before = len(self._pages())
            self.room.pass_time(min(1.0, (end - self.room.now) / 1000))
            new = len(self._pages()) - before
            assert new <= 1, "a step of the ladder was taken twice"
            if new:
                assert self.state is CallState.CALLING, "a page although somebody accepted, or nobody calls"
                if self.ladder_since is not None:
                    due_at = self.ladder_since + 1000 * (TEST_CLEARED_WITHIN_S if self.test else STEP_S)
                    assert self.room.now >= due_at, "a step of the ladder came before its time"
                self.test, self.silent_since, self.ladder_since = False, self.room.now, self.room.now
            elif self.state is CallState.CALLING:
                limit_s = TEST_CLEARED_WITHIN_S if self.test else STEP_S
                since = self.silent_since if self.ladder_since is None else self.ladder_since
                assert self.room.now - since <= (limit_s + SLACK_S) * 1000, "nobody is paged any more, or too late"

    @rule(seconds=st.sampled_from([-86_400, -60, 60, 86_400, 10 * 365 * 86_400, -10 * 365 * 86_400]))
    def the_clock_jumps(self, seconds):
        self.room.clock.jump(seconds=seconds)
        self.room.rules.clock_set(self.room.lane, self.room.now)
        self.room.listening_since = self.room.now
        before = len(self._pages())
        self.room.fire()
        new = len(self._pages()) - before
        assert new <= int(self.state is CallState.CALLING), "a clock that jumps takes one step, of an open call"
        if new:
            self.test = False
        self.ladder_since = None
        self.test_until = self.silent_since = 0
        if self.state is CallState.CALLING:
            self.silent_since = self.room.now

    @rule()
    def restart(self):
        before = len(self._pages())
        self.room.restart()
        self.room.fire()
        assert len(self._pages()) == before, "a restart is no reason to page anybody again"

    # --- what must hold ---

    @invariant()
    def the_lane_is_what_the_model_says(self):
        if not hasattr(self, "room"):
            return
        held = self.room.lane.desk.call
        assert (held is None) is (self.open is None)
        if held is not None:
            assert held.state is self.state
            assert held.test is self.test

    @invariant()
    def the_rows_are_what_the_model_says(self):
        if not hasattr(self, "room"):
            return
        rows = {row.id: row for row in self.room.rows(tables.call)}
        assert {key for key, row in rows.items() if row.state == "cleared"} == self.cleared, "cleared in its room only"
        still_open = [row for row in rows.values() if row.state != "cleared"]
        assert len(still_open) == (0 if self.open is None else 1)
        for row in still_open:
            assert (row.id, row.state) == (self.room.lane.desk.call.call_id, self.state.value)
            assert (row.purpose == "test") is self.test

    @invariant()
    def every_press_for_help_has_its_page_and_each_step_comes_once(self):
        if not hasattr(self, "room"):
            return
        steps = self.room.rows(tables.call_transition)
        keys = [(one.call_id, one.step, one.event_id, one.at) for one in steps]
        assert len(set(keys)) == len(keys)
        names = [row.delivery_id for row in self.room.rows(tables.outbox)]
        assert len(set(names)) == len(names)
        if self.state is not CallState.CALLING:
            waiting = select(tables.outbox).where(
                tables.outbox.c.urgent == 1,
                tables.outbox.c.delivered_at.is_(None),
                tables.outbox.c.given_up_at.is_(None),
            )
            left = self.room.database.read_here(lambda tx: tx.execute(waiting).all())
            assert left == [], "a page is still on its way although somebody took over"
        elif not self.test:
            about_it = [row for row in self._pages() if row.reference == self.room.lane.desk.call.call_id]
            assert about_it, "somebody calls, and nobody was paged"


CallMachine.TestCase.settings = settings(
    max_examples=15, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
TestCallMachine = CallMachine.TestCase
