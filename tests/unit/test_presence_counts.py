"""What the intake counts per device: repeats, holes, evictions, late and refused messages; one number each."""

import msgspec
import pytest
from ingest_cases import BIKE, ROOM, arrived, in_lane, ingest, lanes, one

from cloud import presence
from cloud.presence import STABLE_AFTER_MS, Presence
from fleet.envelope import Lane
from tests.device_messages import NOW_MS

__all__ = ["ingest", "lanes"]

OLD_MS = 3_600_000


def counts(lanes, speaker=BIKE):
    memory = lanes[speaker.device_id].presence
    return {
        "duplicates": memory.duplicates, "holes": memory.holes, "evicted": memory.evicted, "late": memory.late,
        "quarantined": memory.quarantined,
    }  # fmt: skip


NOTHING = {"duplicates": 0, "holes": 0, "evicted": 0, "late": 0, "quarantined": 0}


@pytest.mark.parametrize("lane", [Lane.TELEMETRY, Lane.EVENT])
def test_each_count_is_of_its_own_cause_and_of_its_own_device(ingest, lanes, lane):
    ingest.accept(arrived(in_lane(lane, 1), in_lane(lane, 2)), NOW_MS)
    assert counts(lanes) == NOTHING
    one(ingest, in_lane(lane, 2))
    assert counts(lanes) == {**NOTHING, "duplicates": 1}
    one(ingest, in_lane(lane, 6))
    assert counts(lanes) == {**NOTHING, "duplicates": 1, "holes": 1}
    one(ingest, in_lane(lane, 6, evicted_from=3))
    assert counts(lanes) == {**NOTHING, "duplicates": 1, "holes": 1, "evicted": 3}
    assert counts(lanes, ROOM) == NOTHING


def test_late_is_what_waited_on_the_device_on_the_fast_and_on_the_slow_way(ingest, lanes):
    assert one(ingest, BIKE.telemetry(2, at=NOW_MS - OLD_MS)).telemetry
    assert counts(lanes)["late"] == 1
    assert one(ingest, in_lane(Lane.EVENT, 1)).events
    assert counts(lanes)["late"] == 1
    assert ingest.accept(arrived(in_lane(Lane.EVENT, 2)), NOW_MS + OLD_MS).events[0].late
    assert counts(lanes)["late"] == 2
    one(ingest, BIKE.telemetry(2, at=NOW_MS - OLD_MS))
    assert counts(lanes)["late"] == 2, "a repeat is no late message"


def test_what_is_replayed_from_our_own_spool_was_not_late(ingest, lanes):
    one(ingest, BIKE.telemetry(2, at=NOW_MS - OLD_MS), replayed=True)
    assert counts(lanes) == NOTHING


def test_a_refused_message_counts_for_who_sent_it(ingest, lanes):
    one(ingest, (BIKE.topic(Lane.EVENT), b"rubbish"))
    assert counts(lanes)["quarantined"] == 1
    assert counts(lanes, ROOM)["quarantined"] == 0


def test_a_flood_of_repeats_keeps_one_number(ingest, lanes):
    before = len(presence.encode(lanes[BIKE.device_id].presence))
    ingest.accept(arrived(*[BIKE.telemetry(1)] * 5_000), NOW_MS)
    assert counts(lanes)["duplicates"] == 5_000
    assert len(presence.encode(lanes[BIKE.device_id].presence)) < before + 40


def test_a_new_storage_begins_new_counts_and_keeps_the_links_history():
    memory = Presence(duplicates=1, holes=2, evicted=3, late=4, quarantined=5, drops=6, run_drops=2, lost={"gnss": 1})
    memory.renewed()
    assert memory == Presence(drops=6, run_drops=2, lost={"gnss": 1})


def test_a_run_of_losses_ends_after_its_time_and_with_a_clock_that_was_set_back():
    memory = Presence()
    for second in range(10):
        memory.dropped(NOW_MS + second * 10_000)
    assert memory.is_unstable()
    assert (memory.run_drops, memory.dropped_at - memory.run_began_at) == (10, 90_000)
    later = msgspec.structs.replace(memory)
    later.dropped(memory.dropped_at + STABLE_AFTER_MS)
    assert (later.run_drops, later.is_unstable()) == (1, False)
    memory.dropped(NOW_MS - 86_400_000)
    assert (memory.run_drops, memory.drops) == (1, 11)
