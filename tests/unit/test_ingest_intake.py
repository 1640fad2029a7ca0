"""A lane accepts exactly the next seq, whatever the network makes of it, and poison never blocks (ADR 0002)."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ingest_cases import (
    BIKE,
    DAY_MS,
    ROOM,
    SPEAKERS,
    YEAR_MS,
    accepted_seqs,
    all_lanes,
    arrived,
    device_of,
    in_lane,
    ingest,
    lanes,
    mark_of,
    one,
)

import devices
from cloud.ingest.intake import Gap, Ingest
from cloud.model import DeviceLane
from fleet.envelope import Lane, boot_epoch
from fleet.messages import CLOCK_SKEW_FUTURE_S_MAX, CLOCK_SKEW_PAST_S_MAX
from tests.device_messages import NOW_MS, hex_id

__all__ = ["ingest", "lanes"]


# --- numbers ------------------------------------------------------------------------------------------------------


@all_lanes
def test_the_next_number_is_accepted_with_its_content(ingest, lanes, lane):
    intake = ingest.accept(arrived(in_lane(lane, 1), in_lane(lane, 2)), NOW_MS)
    assert len(accepted_seqs(intake)) == 2
    assert mark_of(lanes, lane) == 2
    assert not intake.quarantined
    if lane is Lane.TELEMETRY:
        (first, envelope, raw), _ = intake.telemetry
        assert first is lanes["bike-001"]
        assert envelope.payload.readings[0].battery_percent == 80.5
        assert raw == in_lane(lane, 1)[1]
    else:
        assert [item.event.event_id for item in intake.events] == [hex_id(1), hex_id(2)]
    assert intake.acks.get("room-001", None) is None or intake.acks["room-001"].urgent


@all_lanes
def test_a_repeat_is_acknowledged_again_and_changes_nothing(ingest, lanes, lane):
    ingest.accept(arrived(in_lane(lane, 1), in_lane(lane, 2)), NOW_MS)
    intake = ingest.accept(arrived(in_lane(lane, 1), in_lane(lane, 2)), NOW_MS)
    assert accepted_seqs(intake) == []
    assert intake.duplicates == 2
    assert mark_of(lanes, lane) == 2
    draft = intake.acks[device_of(lane)]
    assert (draft.resend, draft.refused) == (set(), [])
    assert draft.urgent is (lane is Lane.EMERGENCY)


@all_lanes
def test_a_hole_asks_for_the_lane_again_and_takes_nothing(ingest, lanes, lane):
    intake = ingest.accept(arrived(in_lane(lane, 2), in_lane(lane, 3)), NOW_MS)
    assert accepted_seqs(intake) == []
    assert (intake.holes, mark_of(lanes, lane)) == (2, 0)
    assert intake.acks[device_of(lane)].resend == {lane}
    assert not intake.quarantined


@pytest.mark.parametrize(
    ("seq", "changes"),
    [(1, {}), (3, {}), (2, {"boot_epoch": boot_epoch(2, 1)}), (2, {"boot_epoch": boot_epoch(0, 1)})],
    ids=["number used before", "hole", "newer storage", "older storage"],
)
def test_an_emergency_out_of_turn_is_passed_on_by_its_event_id_and_changes_no_mark(ingest, lanes, seq, changes):
    one(ingest, in_lane(Lane.EMERGENCY, 1))
    intake = one(ingest, in_lane(Lane.EMERGENCY, seq, **changes))
    assert [(item.early, item.event.event_id) for item in intake.events] == [(True, hex_id(seq))]
    assert mark_of(lanes, Lane.EMERGENCY) == 1


@all_lanes
def test_an_evicted_range_is_passed_over_and_recorded(ingest, lanes, lane):
    intake = one(ingest, in_lane(lane, 5, evicted_from=1))
    base = 1 if lane is Lane.TELEMETRY else 0
    assert intake.gaps == [Gap(device_of(lane), lane, 1, base + 1, base + 4)]
    assert mark_of(lanes, lane) == 5
    assert len(accepted_seqs(intake)) == 1


@all_lanes
def test_of_an_evicted_range_only_what_is_missing_counts_as_lost(ingest, lanes, lane):
    intake = ingest.accept(arrived(in_lane(lane, 1), in_lane(lane, 2), in_lane(lane, 5, evicted_from=2)), NOW_MS)
    base = 1 if lane is Lane.TELEMETRY else 0
    assert intake.gaps == [Gap(device_of(lane), lane, 1, base + 3, base + 4)]
    assert mark_of(lanes, lane) == 5


@all_lanes
def test_a_declared_range_that_begins_too_late_is_still_a_hole(ingest, lanes, lane):
    intake = one(ingest, in_lane(lane, 5, evicted_from=3))
    assert (intake.gaps, intake.holes, mark_of(lanes, lane)) == ([], 1, 0)
    assert intake.acks[device_of(lane)].resend == {lane}


@all_lanes
@pytest.mark.parametrize("generation", [0, 2])
def test_another_storage_generation_is_not_taken_and_not_lost_silently(ingest, lanes, lane, generation):
    intake = one(ingest, in_lane(lane, 1, boot_epoch=boot_epoch(generation, 1)))
    assert accepted_seqs(intake) == []
    assert (intake.holes, mark_of(lanes, lane)) == (1, 0)
    assert device_of(lane) in intake.acks, "its acknowledgement tells the device the generation we know"
    assert not intake.quarantined


@all_lanes
def test_numbers_go_on_across_a_boot(ingest, lanes, lane):
    one(ingest, in_lane(lane, 1))
    intake = one(ingest, in_lane(lane, 2, boot_epoch=boot_epoch(1, 2)))
    assert len(accepted_seqs(intake)) == 1
    assert mark_of(lanes, lane) == 2


def test_lanes_and_devices_do_not_disturb_each_other(ingest):
    intake = ingest.accept(
        arrived(
            BIKE.telemetry(3), ROOM.telemetry(2), ROOM.emergency(1), BIKE.telemetry(2), ROOM.emergency(3),
            BIKE.telemetry(3), ROOM.event(1, "mains_lost"),
        ),
        NOW_MS,
    )  # fmt: skip
    assert accepted_seqs(intake) == [
        ("room-001", Lane.TELEMETRY, 2), ("bike-001", Lane.TELEMETRY, 2), ("bike-001", Lane.TELEMETRY, 3),
        ("room-001", Lane.EMERGENCY, 1), ("room-001", Lane.EVENT, 1),
    ]  # fmt: skip
    assert intake.acks["bike-001"].resend == {Lane.TELEMETRY}
    assert intake.acks["room-001"].resend == {Lane.EMERGENCY}


# --- content that can't be used -----------------------------------------------------------------------------------


def refused(ingest, lanes, lane, message):
    """The only refusal; its number is used up and the next one is taken."""
    intake = ingest.accept(arrived(message, in_lane(lane, 2)), NOW_MS)
    (refusal,) = intake.acks[device_of(lane)].refused
    (item,) = intake.quarantined
    assert (refusal.lane, refusal.seq) == (item.lane, item.seq) == (lane, 2 if lane is Lane.TELEMETRY else 1)
    assert item.reason.startswith(refusal.reason[:190])
    assert (item.topic, item.payload, item.device_id) == (message[0], message[1], device_of(lane))
    assert item.received_at == NOW_MS
    assert mark_of(lanes, lane) == 2, "poison does not block what follows"
    assert len(accepted_seqs(intake)) == 1
    msgspec.json.encode(refusal)
    return refusal.reason


@all_lanes
@pytest.mark.parametrize(
    "payload",
    ["null", "1", "[]", "{}", '{"readings":[]}', '{"type":"none of ours"}', '{"type":null}'],
)
def test_a_payload_that_breaks_the_contract_is_refused_with_its_reason(ingest, lanes, lane, payload):
    assert refused(ingest, lanes, lane, in_lane(lane, 1, payload=payload))


def test_the_reason_names_the_field(ingest, lanes):
    payload = {"readings": [BIKE.reading(battery_percent=101.0)]}
    reason = refused(ingest, lanes, Lane.TELEMETRY, in_lane(Lane.TELEMETRY, 1, payload=payload))
    assert "battery_percent" in reason
    assert "100" in reason


@pytest.mark.parametrize("field", ["\x00", "é" * 300, "\n", "\u2028"])
def test_a_reason_can_always_be_stored_and_sent(ingest, lanes, field):
    payload = {"readings": [{**BIKE.reading(), field: 1}]}
    reason = refused(ingest, lanes, Lane.TELEMETRY, in_lane(Lane.TELEMETRY, 1, payload=payload))
    assert reason.encode()
    assert len(reason) <= 200


@all_lanes
def test_another_kind_than_enrolled_is_refused(ingest, lanes, lane):
    assert "enrolled as" in refused(ingest, lanes, lane, in_lane(lane, 1, kind="meal_machine"))


@all_lanes
def test_a_retired_device_is_refused(ingest, lanes, lane):
    lanes[device_of(lane)].retired = True
    intake = one(ingest, in_lane(lane, 1))
    assert "retired" in intake.acks[device_of(lane)].refused[0].reason
    assert accepted_seqs(intake) == []


@pytest.mark.parametrize(
    "at",
    [0, NOW_MS - 10 * YEAR_MS, NOW_MS - CLOCK_SKEW_PAST_S_MAX * 1000 - 1, NOW_MS + CLOCK_SKEW_FUTURE_S_MAX * 1000 + 1,
     NOW_MS + 10 * YEAR_MS, 253_402_300_799_000],
)  # fmt: skip
def test_a_reading_s_time_stamp_years_off_is_refused(ingest, lanes, at):
    message = in_lane(Lane.TELEMETRY, 1, at=at, payload={"readings": [BIKE.reading(at)]})
    assert "time stamp" in refused(ingest, lanes, Lane.TELEMETRY, message)


def test_a_reading_years_off_is_refused_even_in_a_punctual_envelope(ingest, lanes):
    payload = {"readings": [BIKE.reading(), BIKE.reading(NOW_MS - 10 * YEAR_MS)]}
    assert "days old" in refused(ingest, lanes, Lane.TELEMETRY, in_lane(Lane.TELEMETRY, 1, payload=payload))
    single = {"readings": [BIKE.reading(NOW_MS + 10 * YEAR_MS)]}
    intake = one(ingest, (BIKE.topic(Lane.TELEMETRY), BIKE.envelope(Lane.TELEMETRY, 4, single)))
    assert "future" in intake.acks["bike-001"].refused[0].reason


@pytest.mark.parametrize("lane", [Lane.TELEMETRY, Lane.EVENT])
def test_what_waited_for_weeks_on_a_device_is_taken(ingest, lane):
    old = NOW_MS - 60 * DAY_MS
    changes = {"payload": {"readings": [BIKE.reading(old)]}} if lane is Lane.TELEMETRY else {}
    intake = one(ingest, in_lane(lane, 1, at=old, **changes))
    assert len(accepted_seqs(intake)) == 1
    assert all(item.late for item in intake.events)


@pytest.mark.parametrize("lane", [Lane.EMERGENCY, Lane.EVENT])
@pytest.mark.parametrize("at", [0, NOW_MS - 10 * YEAR_MS, NOW_MS + 10 * YEAR_MS, 253_402_300_799_000])
def test_what_happened_is_never_refused_for_its_time_and_then_counts_as_of_now(ingest, lane, at):
    intake = one(ingest, in_lane(lane, 1, at=at))
    (accepted,) = intake.events
    assert accepted.envelope.occurred_at == NOW_MS, "rules and pages must not meet a year that the device invented"
    assert accepted.raw == in_lane(lane, 1, at=at)[1]
    assert not intake.quarantined
    assert intake.acks.get(device_of(lane)) is None or intake.acks[device_of(lane)].refused == []


@pytest.mark.parametrize("jump_ms", [-10 * YEAR_MS, -3_600_000, 10 * YEAR_MS])
@all_lanes
def test_a_clock_of_ours_that_was_set_refuses_nothing_and_moves_nothing(ingest, lane, jump_ms):
    message = in_lane(lane, 1)
    intake = ingest.accept(arrived(message), NOW_MS + jump_ms, steady_ms=NOW_MS)
    assert len(accepted_seqs(intake)) == 1
    assert not intake.quarantined
    assert all(item.envelope.occurred_at == NOW_MS for item in intake.events)
    assert all(envelope.occurred_at == NOW_MS for _, envelope, _ in intake.telemetry)


def test_an_emergency_that_waited_keeps_its_own_time(ingest):
    intake = one(ingest, ROOM.emergency(1, at=NOW_MS - DAY_MS))
    assert intake.events[0].envelope.occurred_at == NOW_MS - DAY_MS
    assert intake.events[0].late


# --- go-back-N over a bad network -----------------------------------------------------------------------------------


class Edge:
    """A device that sends a window after its mark and goes back when it is told to, or when nothing comes."""

    def __init__(self, lane, count, window):
        self.lane, self.count, self.window = lane, count, window
        self.mark = 0

    def send(self):
        last = min(self.count, self.mark + self.window)
        return [in_lane(self.lane, number) for number in range(self.mark + 1, last + 1)]

    def hear(self, mark):
        self.mark = max(self.mark, mark)


@st.composite
def rounds(draw):
    """How the network treats the messages of each round: which arrive, how often, in what order."""
    fates = st.lists(st.sampled_from([0, 0, 1, 1, 1, 2, 3]), min_size=8, max_size=8)
    return draw(st.lists(st.tuples(fates, st.randoms(use_true_random=False), st.booleans()), max_size=12))


@settings(max_examples=150, deadline=None)
@given(lane=st.sampled_from(list(Lane)), count=st.integers(1, 20), window=st.integers(1, 8), weather=rounds())
def test_any_loss_repetition_and_reordering_converges_to_every_message_once_and_in_order(lane, count, window, weather):
    lanes = {s.device_id: DeviceLane(s.device_id, s.kind, None, None, generation=1) for s in SPEAKERS}
    ingest = Ingest(lanes, devices.kinds())
    ingest.accept(arrived(*(speaker.telemetry(1) for speaker in SPEAKERS)), NOW_MS)
    edge, received, delayed = Edge(lane, count, window), [], []

    def deliver(messages, *, acknowledged):
        intake = ingest.accept(arrived(*messages), NOW_MS)
        assert not intake.quarantined
        received.extend(seq for _, _, seq in accepted_seqs(intake))
        if acknowledged:
            edge.hear(mark_of(lanes, lane))

    for fates, order, acknowledged in weather:
        sent = edge.send()
        copies = [message for message, fate in zip(sent, fates, strict=False) for _ in range(fate)]
        arriving = copies + delayed
        order.shuffle(arriving)
        cut = order.randint(0, len(arriving))
        delayed = arriving[cut:]  # overtaken by the next rounds
        deliver(arriving[:cut], acknowledged=acknowledged)
    deliver(delayed, acknowledged=False)
    for _ in range(count + 1):  # the network is well again: each round makes progress
        deliver(edge.send(), acknowledged=True)
    base = 1 if lane is Lane.TELEMETRY else 0
    assert received == list(range(base + 1, base + count + 1))
    assert edge.mark == count
