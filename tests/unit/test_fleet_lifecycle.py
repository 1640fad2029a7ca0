"""Every lifecycle in the code, wherever it is declared: what the table allows happens, everything else raises."""

import pytest

from cli.lifecycle_docs import find_lifecycles
from fleet import incident
from fleet.lifecycle import IllegalTransitionError


def described(lifecycle):
    """(lifecycle, all its states, all its events), from the enumerations that its table uses."""
    return lifecycle, type(lifecycle.initial), type(next(event for _, event in lifecycle.table))


LIFECYCLES = {lifecycle.name: described(lifecycle) for _, lifecycle in find_lifecycles()}
PAIRS = [
    pytest.param(lifecycle, state, event, id=f"{name}-{state}-{event}")
    for name, (lifecycle, states, events) in LIFECYCLES.items()
    for state in states
    for event in events
]


def test_the_lifecycles_of_the_vocabulary_and_of_the_products_are_found():
    assert {"alarm", "call", "work order", "ride"} <= set(LIFECYCLES)


@pytest.mark.parametrize(("lifecycle", "state", "event"), PAIRS)
def test_a_transition_is_in_the_table_or_raises(lifecycle, state, event):
    if (state, event) in lifecycle.table:
        assert lifecycle.allows(state, event)
        assert lifecycle.next(state, event) is lifecycle.table[state, event]
    else:
        assert not lifecycle.allows(state, event)
        with pytest.raises(IllegalTransitionError, match=event.value):
            lifecycle.next(state, event)


@pytest.mark.parametrize("name", LIFECYCLES)
def test_tables_are_closed_and_every_state_is_reachable(name):
    lifecycle, states, events = LIFECYCLES[name]
    assert {state for state, _ in lifecycle.table} | set(lifecycle.table.values()) <= set(states)
    assert {event for _, event in lifecycle.table} == set(events), "an event that never happens"
    assert lifecycle.reachable() == set(states)


@pytest.mark.parametrize("name", LIFECYCLES)
def test_final_states_have_no_way_out(name):
    lifecycle, states, _ = LIFECYCLES[name]
    leaving = {state for state, _ in lifecycle.table}
    assert not leaving & lifecycle.final
    assert set(states) - leaving == lifecycle.final, "a state without a way out is declared final"


@pytest.mark.parametrize("name", LIFECYCLES)
def test_the_diagram_has_every_transition(name):
    lifecycle = LIFECYCLES[name][0]
    diagram = lifecycle.mermaid()
    assert diagram.startswith("stateDiagram-v2")
    for (state, event), following in lifecycle.table.items():
        assert f"{state.value} --> {following.value}: {event.value}" in diagram


def test_a_call_is_cleared_only_at_its_origin():
    into_cleared = {
        event for (_, event), following in incident.CALL.table.items() if following is incident.CallState.CLEARED
    }
    assert into_cleared == {incident.CallEvent.CLEAR_AT_ORIGIN}
    assert incident.CALL.final == {incident.CallState.CLEARED}


def test_a_person_in_need_is_never_refused():
    for state in set(incident.CallState) - {incident.CallState.CLEARED}:
        assert incident.CALL.next(state, incident.CallEvent.PRESS) is incident.CallState.CALLING
