"""The oracle finds each thing that is lost, doubled or invented; a judge that can't convict proves nothing."""

import copy
from dataclasses import replace

import pytest

from cli.chaos import oracle, promises
from cli.chaos.oracle import Stored
from cli.chaos.promises import Window
from cloud.rules.moves import identity
from fleet.envelope import READINGS_PER_MESSAGE_MAX

PRESS = "a" * 32
ATTENDED = "b" * 32
ORDER = "c" * 32


def truth_line(what, event_id=None, at_ms=1_000, **facts):
    kind = "bike" if what == "lock_opened" else "nursing_room"
    return {
        "at_ms": at_ms, "real_s": at_ms / 1000, "device_id": "room-001", "kind": kind, "what": what,
        "event_id": event_id, "facts": facts, "line": "intact",
    }  # fmt: skip


def notice(event_id=PRESS, delivery_id="d1", accepted_s=1.5, reference="call-1"):
    facts = {"event_id": event_id, "step": "press"}
    return {
        "accepted_s": accepted_s, "delivery_id": delivery_id,
        "notification": {"kind_of": "call", "reference": reference, "facts": facts},
    }  # fmt: skip


@pytest.fixture
def world():
    """A run in which nothing is wrong."""
    return {
        "truth": [
            truth_line("pressed", PRESS),
            truth_line("attended", ATTENDED, 2_000),
            truth_line("reading", at_ms=1_200, at=1_200, fridge_celsius=4.0),
            truth_line("lock_opened", at_ms=1_300, command_id=ORDER),
        ],
        "stored": Stored(
            events=[{"event_id": one, "device_id": "room-001", "type": "x", "late": 0} for one in (PRESS, ATTENDED)],
            press_transitions=[PRESS], quarantined={}, commands={ORDER: "succeeded"}, undelivered=0, given_up=[],
            withdrawn=frozenset(), accepted=frozenset(), gaps=0, series_behind=False,
        ),
        "notices": [notice()],
        "readings": {"room-001": {1_200: [{"fridge_celsius": 4.0}]}},
        "windows": [],
        "until_ms": 10_000,
        "ordered": [ORDER],
    }  # fmt: skip


def judge(world):
    findings, latencies = oracle.judge(
        world["truth"], world["stored"], world["notices"], world["readings"], windows=world["windows"],
        full_until_s=world.get("full_until_s", 0.0), until_ms=world["until_ms"], ordered=world["ordered"],
    )  # fmt: skip
    return {name: (len(one.lost), len(one.doubled)) for name, one in findings.items() if one.lost or one.doubled}, (
        latencies
    )


def test_a_good_run_is_good(world):
    assert judge(world) == ({}, {PRESS: 500.0})
    assert oracle.arrived(world["truth"], world["stored"], world["notices"])


def in_stored(**changes):
    """A change of what the database holds; each value is made from what it held."""

    def spoil(world):
        stored = world["stored"]
        world["stored"] = replace(stored, **{name: change(stored) for name, change in changes.items()})

    return spoil


def without_orders(world):
    in_stored(commands=lambda _: {})(world)
    world["ordered"] = []


SPOILERS = {
    "a press nobody was told of": (lambda world: world["notices"].clear(), "presses", (1, 0)),
    "a press that made no call": (in_stored(press_transitions=lambda _: []), "presses", (1, 0)),
    "a press taken twice": (in_stored(press_transitions=lambda _: [PRESS, PRESS]), "presses", (0, 1)),
    "a call nobody pressed": (in_stored(press_transitions=lambda _: [PRESS, "e" * 32]), "presses", (0, 1)),
    "an event missing": (in_stored(events=lambda stored: stored.events[:1]), "events", (1, 0)),
    "an event twice": (in_stored(events=lambda stored: [*stored.events, stored.events[0]]), "events", (0, 1)),
    "a phone that rings twice": (lambda world: world["notices"].append(notice(delivery_id="d2")), "notices", (0, 1)),
    "a reading missing": (lambda world: world["readings"].clear(), "telemetry", (1, 0)),
    "a reading with another value": (
        lambda world: world["readings"]["room-001"][1_200][0].update(fridge_celsius=9.0), "telemetry", (1, 0),
    ),
    "a reading twice": (
        lambda world: world["readings"]["room-001"][1_200].append({"fridge_celsius": 4.0}), "telemetry", (0, 1),
    ),
    "a reading that was never made": (
        lambda world: world["readings"]["room-001"].update({1_201: [{"fridge_celsius": 4.0}]}), "telemetry", (0, 1),
    ),
    "a lock that opened twice": (
        lambda world: world["truth"].append(copy.deepcopy(world["truth"][-1])), "commands", (0, 1),
    ),
    "a lock that opened unordered": (without_orders, "commands", (0, 1)),
    "an order that vanished": (lambda world: world["ordered"].append("f" * 32), "commands", (1, 0)),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(SPOILERS))
def test_each_fault_is_found_in_its_class(world, name):
    spoil, place, counts = SPOILERS[name]
    spoil(world)
    assert judge(world)[0] == {place: counts}


def test_a_repeated_delivery_with_the_same_id_rings_once(world):
    world["notices"].append(notice(accepted_s=3.0))
    assert judge(world) == ({}, {PRESS: 500.0})


def test_readings_of_an_agent_that_was_killed_were_never_promised(world):
    world["readings"] = {}
    world["windows"] = [Window(["room-001"], 1.0, 1.3)]
    assert judge(world)[0] == {}
    world["windows"] = [Window(["room-002"], 1.0, 1.3), Window(["room-001"], 1.3, 2.0)]
    assert judge(world)[0] == {"telemetry": (1, 0)}


def test_a_reading_in_such_a_window_may_still_not_come_twice(world):
    world["windows"] = [Window(["room-001"], 1.0, 1.3)]
    world["readings"]["room-001"][1_200] *= 2
    assert judge(world)[0] == {"telemetry": (0, 1)}


def test_a_withdrawn_page_counts_only_if_somebody_really_came(world):
    world["notices"] = []
    world["stored"] = replace(world["stored"], withdrawn=frozenset({PRESS}))
    assert judge(world)[0] == {}
    assert oracle.arrived(world["truth"], world["stored"], world["notices"])
    world["truth"] = [line for line in world["truth"] if line["what"] != "attended"]
    assert judge(world)[0]["presses"] == (1, 0)
    world["stored"] = replace(world["stored"], accepted=frozenset({PRESS}))
    assert judge(world)[0] == {"events": (0, 1)}


def test_waiting_goes_on_while_anything_is_under_way(world):
    for change in ({"undelivered": 1}, {"series_behind": True}, {"events": []}):
        assert not oracle.arrived(world["truth"], replace(world["stored"], **change), world["notices"])
    assert not oracle.arrived(world["truth"], world["stored"], [])


def test_a_reading_stamped_by_a_wrong_clock_is_found_under_that_time(world):
    hour_ms = 3_600_000
    clock = promises.WrongClock(["room-001"], 1.0, 1.5, hour_ms)
    world["readings"] = {"room-001": {1_200 + hour_ms + 300: [{"fridge_celsius": 4.0}]}}
    assert judge(world)[0] == {"telemetry": (1, 1)}
    truth = promises.restamped(world["truth"], world["readings"], [clock])
    assert judge({**world, "truth": truth, "until_ms": 2 * hour_ms})[0] == {}
    other = {"room-001": {1_200 + hour_ms + 300: [{"fridge_celsius": 5.0}]}}
    truth = promises.restamped(world["truth"], other, [clock])
    assert judge({**world, "truth": truth, "readings": other, "until_ms": 2 * hour_ms})[0] == {"telemetry": (1, 1)}


def test_a_point_proves_one_reading_of_a_wrong_clock(world):
    clock = promises.WrongClock(["room-001"], 1.0, 1.5, 3_600_000)
    world["truth"].append(truth_line("reading", at_ms=1_250, at=1_250, fridge_celsius=4.0))
    readings = {"room-001": {3_601_500: [{"fridge_celsius": 4.0}]}}
    truth = promises.restamped(world["truth"], readings, [clock])
    assert judge({**world, "truth": truth, "readings": readings})[0] == {"telemetry": (1, 0)}


def test_a_point_of_a_wrong_clock_proves_what_was_promised_before_what_nobody_heard(world):
    clock = promises.WrongClock(["room-001"], 1.0, 1.5, 3_600_000)
    unheard = truth_line("reading", at_ms=1_150, at=1_150, fridge_celsius=4.0)
    world["truth"].insert(0, {**unheard, "line": "unattached"})
    readings = {"room-001": {3_601_500: [{"fridge_celsius": 4.0}]}}
    truth = promises.restamped(world["truth"], readings, [clock])
    assert [line["facts"]["at"] for line in truth if line["what"] == "reading"] == [1_150, 3_601_500]
    assert judge({**world, "truth": truth, "readings": readings})[0] == {}


def test_a_corrected_point_at_the_very_moment_of_another_reading_is_found_by_its_values(world):
    clock = promises.WrongClock(["room-001"], 1.0, 1.24, 3_600_000)
    world["truth"].append({**truth_line("reading", at_ms=3_601_500, at=3_601_500, fridge_celsius=5.0), "real_s": 9.0})
    both = {"room-001": {3_601_500: [{"fridge_celsius": 4.0}, {"fridge_celsius": 5.0}]}}
    truth = promises.restamped(world["truth"], both, [clock])
    assert judge({**world, "truth": truth, "readings": both, "until_ms": 9_000_000})[0] == {}
    thrice = {"room-001": {3_601_500: [{"fridge_celsius": 4.0}, {"fridge_celsius": 5.0}, {"fridge_celsius": 5.0}]}}
    truth = promises.restamped(world["truth"], thrice, [clock])
    assert judge({**world, "truth": truth, "readings": thrice, "until_ms": 9_000_000})[0] == {"telemetry": (0, 1)}


def test_readings_of_other_kinds_are_logged_without_values_and_not_compared(world):
    world["truth"].append({**truth_line("reading", at_ms=1_210), "kind": "bike", "device_id": "bike-001"})
    assert judge(world)[0] == {}


def test_a_refused_reading_is_excused_only_by_itself_in_the_quarantine(world):
    world["readings"] = {}
    world["truth"].append(truth_line("reading", at_ms=1_250, at=1_250, fridge_celsius=4.0))
    refused = {"at": 90_000_000, "fridge_celsius": 4.0, "message_seq": 7}
    world["stored"] = replace(world["stored"], refused_readings={"room-001": [refused, {**refused, "at": 1}]})
    assert judge(world)[0] == {}
    world["stored"] = replace(world["stored"], refused_readings={"room-001": [refused]})
    assert judge(world)[0] == {"telemetry": (1, 0)}
    world["stored"] = replace(world["stored"], refused_readings={"room-001": [{"fridge_celsius": 5.0}] * 3})
    assert judge(world)[0] == {"telemetry": (2, 0)}


def test_a_refused_reading_under_its_own_stamp_is_not_used_up_by_an_earlier_one_of_the_same_values(world):
    world["readings"] = {}
    world["truth"].insert(0, {**truth_line("reading", at_ms=1_100, at=1_100, fridge_celsius=4.0), "line": "unattached"})
    world["truth"].append(truth_line("reading", at_ms=1_250, at=1_250, fridge_celsius=4.0))
    stamps = [line["facts"]["at"] for line in world["truth"] if line["what"] == "reading"]
    refused = [{"at": at, "fridge_celsius": 4.0} for at in stamps]
    world["stored"] = replace(world["stored"], refused_readings={"room-001": refused[1:]})
    assert judge(world)[0] == {}
    world["stored"] = replace(world["stored"], refused_readings={"room-001": refused[:2]})
    assert judge(world)[0] == {"telemetry": (1, 0)}


def test_a_press_that_is_told_again_under_another_id_rings_twice_unless_its_call_was_ended(world):
    again = identity("again", PRESS)
    world["notices"].append(notice(again, "d2", reference="call-2"))
    world["stored"] = replace(world["stored"], press_transitions=[PRESS, again])
    assert judge(world)[0] == {"notices": (0, 1)}
    world["stored"] = replace(world["stored"], cleared=frozenset({"call-1"}))
    assert judge(world)[0] == {}
    world["notices"][-1]["notification"]["reference"] = "call-1"
    assert judge(world)[0] == {"notices": (0, 1)}


def test_a_press_that_is_told_in_two_calls_rings_twice(world):
    world["notices"].append(notice(PRESS, "d2", reference="call-2"))
    assert judge(world)[0] == {"notices": (0, 1)}


def test_a_press_that_was_told_when_it_asked_again_is_not_lost(world):
    again = identity("again", PRESS)
    world["notices"] = [notice(again, accepted_s=4.0)]
    world["stored"] = replace(world["stored"], press_transitions=[PRESS, again], withdrawn=frozenset({PRESS}))
    assert judge(world) == ({}, {PRESS: 3_000.0})


def test_what_a_full_disk_evicted_is_excused_only_as_far_as_the_device_declared_it(world):
    world["readings"] = {}
    count = READINGS_PER_MESSAGE_MAX + 2
    world["truth"] += [truth_line("reading", at_ms=1_300 + one, at=1_300 + one) for one in range(count - 1)]
    assert judge(world)[0] == {"telemetry": (count, 0)}
    world["stored"] = replace(world["stored"], evicted={"room-001": 1})
    assert judge(world)[0] == {"telemetry": (count, 0)}, "no disk was full"
    assert judge({**world, "full_until_s": 2.0})[0] == {"telemetry": (2, 0)}
    assert judge({**world, "full_until_s": 1.0})[0] == {"telemetry": (count, 0)}, "they were made after it"
