"""What the bench of several ingesters believes, and what it refuses to believe; and the journals that feed it."""

import subprocess
import sys
import time

import pytest

from cli.bench import ingester_faults, ingesters
from cli.bench.cpu_share import CpuShare
from cli.bench.ingester_faults import COUNTED, compare_series, plan
from cli.bench.journals import ANSWER_S_MAX, EVENT_EVERY, WINDOW, Fleet, Journal, odometer
from cli.bench.load import bench_device
from cli.bench.rig import BenchError
from cli.processes import cpu_seconds
from fleet.envelope import Acknowledgement, Lane, encode


def point(seq, at_ns=None, content=None):
    return f'{at_ns or 1_000 * seq} {{"odometer_metres":{content or odometer(seq)}}}'


def series(*seqs):
    return {"a": {seq: [point(seq)] for seq in seqs}}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (series(1, 2, 3), (0, 0, 0)),
        (series(1, 3), (1, 0, 0)),
        ({}, (3, 0, 0)),
        (series(1, 2, 3, 4), (0, 1, 0)),
        ({"a": {1: [point(1), point(1)], 2: [point(2)], 3: [point(3)]}}, (0, 0, 1)),
        ({"a": {1: [point(1), point(1, at_ns=7)], 2: [point(2)], 3: [point(3)]}}, (0, 1, 0)),
    ],
    ids=["all", "one lost", "all lost", "one too many", "twice the same point", "twice at other moments"],
)
def test_lost_and_doubled_are_seen(found, expected):
    assert compare_series({"a": [3, 0]}, found) == expected


def test_a_number_with_another_messages_content_is_seen():
    with pytest.raises(BenchError, match="another one's content"):
        compare_series({"a": [1, 0]}, {"a": {1: [point(1, content=2.0)]}})


@pytest.mark.parametrize("faults", [1, 6, 100])
def test_a_plan_has_as_many_faults_as_asked_for_of_every_kind_and_is_the_seeds(faults):
    planned = plan(faults, 5)
    assert sum(one in COUNTED for one in planned) == faults
    assert planned == plan(faults, 5)
    if faults >= 6:
        assert set(planned) == set(ingester_faults.FAULTS)
        assert planned != plan(faults, 6)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"broker_cpu_percent": 97.0}, "broker"),
        ({"ingester_cpu_percent": [9.9, 9.8]}, "CPU share"),
        ({"machine_busy_percent": 99.0}, "this machine"),
        ({"commit_wait_percent": 60.0}, "SQL"),
        ({}, "no faster"),
    ],
)
def test_the_limit_is_what_was_used_up(changed, expected):
    idle = {"broker_cpu_percent": 5.0, "ingester_cpu_percent": [2.0, 1.0], "machine_busy_percent": 30.0,
            "commit_wait_percent": 1.0}  # fmt: skip
    assert expected in ingesters.limit_of({**idle, **changed}, 10)


# --- journals -----------------------------------------------------------------------------------------------------


def test_a_journal_sends_no_more_than_its_window_and_again_when_nobody_answers():
    journal = Journal(0, Lane.TELEMETRY, made=WINDOW + 10)
    assert len(journal.packets(0, 1.0)) == WINDOW
    assert journal.packets(0, 1.1) == []
    assert journal.acknowledged(10, 1.2, resend=False)
    assert len(journal.packets(0, 1.3)) == 10
    assert journal.packets(0, 1.2 + ANSWER_S_MAX) == []
    assert len(journal.packets(0, 1.3 + ANSWER_S_MAX)) == WINDOW


def test_a_journal_goes_back_when_it_is_asked_to_and_never_believes_in_messages_it_did_not_make():
    journal = Journal(0, Lane.EVENT, made=5)
    journal.packets(0, 1.0)
    assert journal.acknowledged(2, 1.1, resend=False)
    assert journal.acknowledged(2, 1.2, resend=True)
    assert len(journal.packets(0, 1.3)) == 3
    assert not journal.acknowledged(6, 1.4, resend=False)


def test_a_fleet_makes_both_lanes_and_counts_acknowledgements_that_come_late():
    lanes = (Lane.TELEMETRY, Lane.EVENT)
    fleet = Fleet({(bench_device(number), lane): Journal(number, lane) for number in range(3) for lane in lanes})
    fleet.make(3 * EVENT_EVERY)
    assert [journal.made for journal in fleet.journals.values()] == [EVENT_EVERY - 1, 1] * 3
    device = bench_device(1)
    for mark in (5, 3):
        answer = encode(Acknowledgement(generation=1, marks={Lane.TELEMETRY: mark}))
        fleet.hear(f"f/0/{device}/down/ack", answer, 1.0)
    assert fleet.acknowledged == 5
    assert fleet.late_acknowledgements == 1
    with pytest.raises(RuntimeError, match="was told of message"):
        fleet.hear(f"f/0/{device}/down/ack", encode(Acknowledgement(generation=1, marks={Lane.EVENT: 9})), 1.0)


# --- the bound of CPU ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("means", ["whatever is there", "pauses"])
def test_a_process_gets_no_more_than_its_share(means, monkeypatch):
    if means == "pauses":
        monkeypatch.setattr(CpuShare, "_put", lambda *_: False)
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        with CpuShare(20, "test") as share:
            share.bound(busy.pid)
            assert share.how
            assert ("paused" in share.how) or means != "pauses"
            began_s, used_s = time.monotonic(), cpu_seconds(busy.pid)
            while time.monotonic() - began_s < 1:
                time.sleep(0.1)
            used_s = cpu_seconds(busy.pid) - used_s
            assert 0 < used_s <= 0.3 * (time.monotonic() - began_s)
    finally:
        busy.kill()
        busy.wait()
