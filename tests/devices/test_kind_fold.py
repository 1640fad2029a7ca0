"""State and rules of every kind are total: any message that the models admit is folded without an exception."""

import msgspec
import pytest
from device_line import condition_holds
from device_strategies import instances
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import devices
from fleet.kind import DeviceState, Need

KIND_NAMES = sorted(devices.kinds())
NOW_MS = 1_800_000_000_000
moments = st.integers(0, 253_402_300_799_000)


def messages(kind_name):
    kind = devices.kind_named(kind_name)
    event = st.one_of(*(instances(model) for model in kind.events))
    return st.lists(st.tuples(st.one_of(instances(kind.reading), event), moments), max_size=12)


@pytest.mark.parametrize("kind_name", KIND_NAMES)
def test_any_sequence_of_messages_is_folded(kind_name):
    state_role = devices.role(kind_name, "state")
    rules = devices.role(kind_name, "rules")
    kind = devices.kind_named(kind_name)

    @settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
    @given(sequence=messages(kind_name), now_ms=moments)
    def check(sequence, now_ms):
        state = state_role.initial("any-001")
        for message, occurred_at in [(None, 0), *sequence]:
            if isinstance(message, kind.reading):
                state = state_role.apply_reading(state, message)
                assert state.reading == message
            elif message is not None:
                before = state
                state = state_role.apply_event(state, message, occurred_at)
                assert state.reading == before.reading
            assert isinstance(state, state_role.State)
            assert state.device_id == "any-001"
            for alarm in rules.ALARMS:
                assert condition_holds(alarm.condition, state) in (True, False)
            wanted = rules.needs(state, now_ms)
            assert all(isinstance(need, Need) for need in wanted)
            causes = [need.cause for need in wanted]
            assert len(causes) == len(set(causes)), "one order per cause"

    check()


@pytest.mark.parametrize("kind_name", KIND_NAMES)
def test_an_initial_device_has_no_alarm_and_is_stored_as_json(kind_name):
    state_role = devices.role(kind_name, "state")
    state = state_role.initial("any-001")
    assert isinstance(state, DeviceState)
    assert [
        alarm.key for alarm in devices.role(kind_name, "rules").ALARMS if condition_holds(alarm.condition, state)
    ] == []
    assert msgspec.json.decode(msgspec.json.encode(state), type=state_role.State) == state


@pytest.mark.parametrize("kind_name", KIND_NAMES)
def test_a_repeated_reading_changes_nothing(kind_name):
    state_role = devices.role(kind_name, "state")

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(reading=instances(devices.kind_named(kind_name).reading))
    def check(reading):
        once = state_role.apply_reading(state_role.initial("any-001"), reading)
        assert state_role.apply_reading(once, reading) == once

    check()
