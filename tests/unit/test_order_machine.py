"""The life of work orders as a stateful test: whatever people and time do, in whatever order."""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import create_engine, select, update

from cloud.dispatch import orders, reasons, service_levels
from cloud.dispatch.orders import NotProvenError
from cloud.dispatch.planner import Dispatch
from cloud.tables import metadata, outbox, work_order, work_order_transition
from cloud.work_orders.upkeep import look
from fleet.incident import ORDER, AlarmEvent, AlarmState, OrderEvent, OrderState
from fleet.lifecycle import IllegalTransitionError
from tests.unit.dispatch_cases import NOW, add_people, alarm_change, decided, definition

REPAIR = definition("fallen", skill="repair")
MINUTE = 60_000


class Orders(RuleBasedStateMachine):
    """One alarm, its order, two people of the crew, a clock."""

    def __init__(self):
        super().__init__()
        self.engine = create_engine("sqlite://")
        with self.engine.begin() as tx:
            metadata.create_all(tx)
            add_people(tx, ("p1", "crew"), ("p2", "crew"), ("boss", "admin"))
        self.now = NOW
        self.alarm = AlarmState.NORMAL
        self.told = []
        self.activated = 0

    def teardown(self):
        self.engine.dispose()

    def plan(self, *changes, now=None):
        with self.engine.begin() as tx:
            Dispatch().plan(tx, decided(*changes), now or self.now)

    def row(self):
        with self.engine.begin() as tx:
            return tx.execute(select(work_order)).one()

    @initialize()
    def begins(self):
        self.change = alarm_change(of=REPAIR, at=self.now)
        self.plan(self.change)
        self.alarm = AlarmState.UNACKNOWLEDGED

    @rule()
    def replayed(self):
        before = self.row()
        self.plan(self.change)
        assert self.row() == before

    @rule(minutes=st.integers(0, 90))
    def time_passes(self, minutes):
        self.now += minutes * MINUTE
        with self.engine.begin() as tx:
            before = tx.execute(select(work_order)).one()
            look(tx, self.now, ("inbox",), plans=False)
            after = tx.execute(select(work_order)).one()
        assert after.told_overdue & before.told_overdue == before.told_overdue or after.clock_from != before.clock_from
        for bit, (limit, states) in enumerate(
            ((after.acknowledge_by, ("assigned", "dispatchable")), (after.due_at, orders.OPEN_STATES))
        ):
            late = after.state in states and limit <= self.now and after.paused_at is None
            if late:
                assert after.told_overdue & (1 << (0 if bit == 0 else 2)), "overdue is announced"
        if after.state == "done" and after.verified_at is None:
            assert self.now < after.verify_by, "what is not normal in time is opened again"
        with self.engine.begin() as tx:
            look(tx, self.now, ("inbox",), plans=False)
            again = tx.execute(select(work_order)).one()
        assert again == after, "a second look at the same moment changes nothing"

    @rule(event=st.sampled_from(sorted(OrderEvent)), data=st.data())
    def somebody_acts(self, event, data):
        row = self.row()
        reason = data.draw(st.sampled_from(reasons.REASONS.get(event, ("",))))
        allowed = ORDER.allows(OrderState(row.state), event)
        proven = event is not OrderEvent.COMPLETE or row.scanned_at is not None
        with self.engine.begin() as tx:
            try:
                moved = orders.move(tx, row, event, "p1", self.now, reason=reason, note="x")
            except IllegalTransitionError:
                assert not allowed
                return
            except NotProvenError:
                assert not proven
                return
        assert allowed
        assert proven
        assert moved.after == ORDER.next(OrderState(row.state), event).value == self.row().state

    @rule()
    def scanned(self):
        with self.engine.begin() as tx:
            tx.execute(
                update(work_order)
                .where(work_order.c.state.in_(("in_progress", "travelling", "accepted")))
                .values(scanned_at=self.now, scanned_by="p1")
            )

    @rule(priority=st.sampled_from(("high", "medium", "low")))
    def priority_changes(self, priority):
        row = self.row()
        with self.engine.begin() as tx:
            orders.set_priority(tx, row, priority, self.now)
        after = self.row()
        level = service_levels.limits(service_levels.Priority(priority))
        assert after.due_at == row.clock_from + row.paused_ms + level.fixed_ms

    @precondition(lambda self: self.alarm is AlarmState.UNACKNOWLEDGED)
    @rule()
    def alarm_returns(self):
        self.plan(alarm_change(1, AlarmEvent.RETURN, AlarmState.UNACKNOWLEDGED, of=REPAIR, at=self.now))
        self.alarm = AlarmState.RETURNED_UNACKNOWLEDGED

    @precondition(lambda self: self.alarm is AlarmState.RETURNED_UNACKNOWLEDGED)
    @rule()
    def alarm_comes_back(self):
        self.now += 1
        state = self.row().state
        self.plan(alarm_change(1, AlarmEvent.ACTIVATE, AlarmState.RETURNED_UNACKNOWLEDGED, of=REPAIR, at=self.now))
        self.alarm = AlarmState.UNACKNOWLEDGED
        if state in {"done", "cannot_complete"}:
            assert self.row().state == "assigned", "the same order is open again"

    @invariant()
    def history_is_whole(self):
        with self.engine.begin() as tx:
            rows = tx.execute(select(work_order)).all()
            steps = tx.execute(select(work_order_transition).order_by(work_order_transition.c.id)).all()
            told = tx.scalars(select(outbox.c.delivery_id)).all()
        if not rows:
            return
        (row,) = rows  # exactly one order for the one cause, whatever happened
        state = OrderState.DRAFT.value
        for step in steps:
            assert step.before == state
            assert ORDER.next(OrderState(step.before), OrderEvent(step.event)).value == step.after
            state = step.after
        assert row.state == state
        assert (row.state == "assigned") <= (row.assigned_to is not None)
        assert (row.paused_at is not None) <= (row.state == "on_hold")
        assert (row.state == "done") <= (row.done_at is not None and row.scanned_at is not None)
        assert len(told) == len(set(told))


TestOrders = Orders.TestCase
TestOrders.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)  # fmt: skip
