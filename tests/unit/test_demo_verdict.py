"""The demo's comparison can fail: losses, doubles and presses nobody was told of are found when they are planted."""

import pytest

from cli.demo import verdict

ROOM, BIKE = "room-001", "bike-001"


def happened(event_id, what="lock_opened", *, at_ms=1_000, real_s=10.0, device_id=BIKE):
    return {"at_ms": at_ms, "device_id": device_id, "what": what, "event_id": event_id, "facts": {}, "real_s": real_s}


def stored(*event_ids):
    return [{"event_id": event_id, "device_id": BIKE, "type": "lock_opened"} for event_id in event_ids]


def told(event_id, accepted_s, state="calling"):
    return {
        "accepted_s": accepted_s,
        "notification": {"kind_of": "call", "device_id": ROOM, "facts": {"event_id": event_id, "state": state}},
    }


TRUTH = [
    happened("e1"),
    happened("e2"),
    happened("p1", "pressed", real_s=20.0, device_id=ROOM),
    happened("p2", "pressed", real_s=30.0, device_id=ROOM),
    happened(None, "rider_arrived"),
]
IDS = {"e1", "e2", "p1", "p2"}
GOOD = {
    "devices_online": 2, "calls_pressed": 2, "calls_notified": 2, "series_behind": False,
    **dict.fromkeys(verdict._FAULTS, 0),
}  # fmt: skip


def truths(until_ms=2_000):
    return verdict.truths_of(TRUTH, until_ms)


def test_only_what_the_hardware_reports_counts_and_only_up_to_the_end():
    assert set(truths().by_event_id) == IDS
    assert set(truths().presses) == {"p1", "p2"}
    assert truths(until_ms=999).by_event_id == {}


def test_a_complete_cloud_has_lost_and_doubled_nothing():
    assert verdict.missing_events(truths(), stored(*IDS)) == set()
    assert verdict.doubled_events(IDS, stored(*IDS)) == []


@pytest.mark.parametrize("gone", sorted(IDS))
def test_any_missing_event_is_lost(gone):
    assert verdict.missing_events(truths(), stored(*(IDS - {gone}))) == {gone}


def test_an_event_that_is_there_twice_is_doubled():
    assert verdict.doubled_events(IDS, stored(*IDS, "e2")) == ["e2"]


def test_an_event_that_never_happened_counts_as_doubled():
    assert verdict.doubled_events(IDS, stored(*IDS, "invented")) == ["invented"]


def test_a_late_event_of_the_truth_is_no_double():
    late = [*TRUTH, happened("e9", at_ms=9_000)]
    assert verdict.doubled_events({line["event_id"] for line in late}, stored(*IDS, "e9")) == []
    assert verdict.missing_events(verdict.truths_of(late, 2_000), stored(*IDS)) == set()


def test_latency_is_from_the_buttons_edge_to_the_first_acceptance():
    notices = [told("p1", 20.05), told("p1", 21.0, "acknowledged"), told("p2", 30.2)]
    assert verdict.notified_presses(truths(), notices) == {"p1": pytest.approx(50), "p2": pytest.approx(200)}


def test_a_press_without_acceptance_and_notices_about_something_else_do_not_count():
    alarm = {"accepted_s": 31.0, "notification": {"kind_of": "alarm", "facts": {"alarm_id": "p2"}}}
    assert set(verdict.notified_presses(truths(), [told("p1", 20.1), alarm, told("e1", 12.0)])) == {"p1"}
    assert verdict.notified_presses(truths(), []) == {}


def test_a_good_run_has_no_complaints():
    assert verdict.complaints(GOOD, devices=2) == []


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"devices_online": 1}, "1 of 2 devices"),
        ({"calls_notified": 0}, "2 presses were not notified"),
        ({"lost_events": 3}, "3 events were lost"),
        ({"doubled_events": 1}, "twice"),
        ({"series_behind": True}, "catch up"),
        *(({name: 4}, f"4 {words}") for name, words in verdict._FAULTS.items()),
    ],
)
def test_each_fault_alone_is_a_complaint(change, word):
    (complaint,) = verdict.complaints({**GOOD, **change}, devices=2)
    assert word in complaint


def test_a_long_run_without_a_press_proves_nothing():
    quiet = {**GOOD, "calls_pressed": 0, "calls_notified": 0}
    assert verdict.complaints(quiet, devices=2) == []
    (complaint,) = verdict.complaints(quiet, devices=2, presses_due=True)
    assert "nothing was proven" in complaint


def test_percentiles_are_values_that_were_measured():
    values = [float(number) for number in range(1, 101)]
    assert verdict.percentiles(values) == {"p50": 50.0, "p99": 99.0, "max": 100.0}
    assert verdict.percentiles([7.0]) == {"p50": 7.0, "p99": 7.0, "max": 7.0}
    assert verdict.percentiles([]) == {"p50": None, "p99": None, "max": None}
