"""The heap of due times does what a plain dictionary would."""

from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.schedule import Schedule

IDS = st.sampled_from(["a", "b", "c", "d"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), IDS, st.one_of(st.none(), st.integers(0, 30))),
        st.tuples(st.just("due"), st.integers(0, 30), st.none()),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(steps=STEPS)
def test_it_agrees_with_a_dictionary(steps):
    schedule, model = Schedule(), {}
    for step, first, second in steps:
        if step == "put":
            schedule.put(first, second)
            model.pop(first, None)
            if second is not None:
                model[first] = second
        else:
            due = schedule.due(first)
            assert sorted(due) == sorted(device_id for device_id, at in model.items() if at <= first)
            assert [model[device_id] for device_id in due] == sorted(model[device_id] for device_id in due)
            model = {device_id: at for device_id, at in model.items() if at > first}
        assert schedule.next_due == min(model.values(), default=None)


def test_a_due_time_that_moves_on_leaves_nothing_behind():
    schedule = Schedule()
    for at in range(10_000):
        schedule.put("a", at)
        assert schedule.due(at - 1) == []
    assert schedule.next_due == 9_999
    assert len(schedule._heap) == 1


def test_many_that_are_due_are_served_a_few_at_a_time_the_earliest_first():
    schedule = Schedule()
    for number in range(10):
        schedule.put(f"bike-{number:03}", 100 - number)
    assert schedule.due(100, 4) == [f"bike-{number:03}" for number in (9, 8, 7, 6)]
    assert schedule.next_due == 95
    assert len(schedule.due(100, 100)) == 6
    assert schedule.due(100, 4) == []
