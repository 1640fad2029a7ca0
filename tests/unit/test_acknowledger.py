"""Who is told what and when: emergencies at once, telemetry once per device and second, only what is committed."""

from itertools import pairwise

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloud.device_commands.keys import OneKey
from cloud.ingest.acknowledger import REFUSED_PER_ACK_MAX, TELEMETRY_ACK_EVERY_S, Acknowledger
from cloud.ingest.intake import Intake
from cloud.model import DeviceLane
from fleet.envelope import Lane, Refused, decode_downlink
from fleet.topics import DownChannel, down

KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)


@pytest.fixture
def lanes():
    return {name: DeviceLane(name, "bike", None, None, generation=3) for name in ("bike-001", "bike-002")}


@pytest.fixture
def acknowledger():
    return Acknowledger(OneKey("key", KEY))


def told(acknowledger, lanes, at_s):
    return [(message.topic, decode_downlink(message.payload)) for message in acknowledger.due(at_s, lanes)]


def committed(acknowledger, lane, seq, at_s):
    lane.telemetry_seq = seq
    acknowledger.committed([lane], at_s)


def test_urgent_words_leave_at_once_with_all_marks(acknowledger, lanes):
    intake = Intake()
    draft = intake.ack("bike-001")
    draft.urgent, draft.resend, draft.replies = True, {Lane.EVENT}, ["c" * 32]
    lanes["bike-001"].event_seq = 7
    acknowledger.note(intake, 10.0)
    ((topic, message),) = told(acknowledger, lanes, 10.0)
    assert topic == down("bike-001", DownChannel.ACK)
    assert (message.generation, message.marks[Lane.EVENT], message.resend) == (3, 7, (Lane.EVENT,))
    assert message.replies == ("c" * 32,)
    assert told(acknowledger, lanes, 100.0) == []


def test_telemetry_is_told_once_per_second_with_the_newest_mark(acknowledger, lanes):
    bike = lanes["bike-001"]
    seen = []
    for tick in range(50):
        at_s = 100.0 + tick / 10
        committed(acknowledger, bike, tick + 1, at_s)
        seen += [(at_s, message.marks[Lane.TELEMETRY]) for _, message in told(acknowledger, lanes, at_s)]
    assert len(seen) == 5
    assert all(later[0] - earlier[0] >= TELEMETRY_ACK_EVERY_S - 1e-6 for earlier, later in pairwise(seen))
    assert [mark for _, mark in seen] == [1, 11, 21, 31, 41]
    assert acknowledger.wait_s(104.9) <= TELEMETRY_ACK_EVERY_S
    assert [message.marks[Lane.TELEMETRY] for _, message in told(acknowledger, lanes, 106.0)] == [50]
    assert acknowledger.wait_s(106.0) > 1000


def test_telemetry_that_is_not_committed_is_not_told(acknowledger, lanes):
    bike = lanes["bike-001"]
    committed(acknowledger, bike, 5, 1.0)
    told(acknowledger, lanes, 10.0)
    bike.telemetry_seq = 9  # in memory and in the spool
    intake = Intake()
    intake.ack("bike-001").resend.add(Lane.EVENT)
    acknowledger.note(intake, 20.0)
    ((_, message),) = told(acknowledger, lanes, 20.0)
    assert message.marks[Lane.TELEMETRY] == 5


def test_a_repeat_is_answered_again_within_the_second(acknowledger, lanes):
    intake = Intake()
    intake.ack("bike-002")
    acknowledger.note(intake, 10.0)
    assert len(told(acknowledger, lanes, 10.0)) == 1
    acknowledger.note(intake, 10.1)
    assert told(acknowledger, lanes, 10.5) == []
    assert len(told(acknowledger, lanes, 11.1)) == 1


def test_many_refusals_are_split_so_that_each_message_fits(acknowledger, lanes):
    intake = Intake()
    refused = [Refused(Lane.EVENT, seq, "é" * 200) for seq in range(1, 251)]
    intake.ack("bike-001").refused.extend(refused)
    acknowledger.note(intake, 1.0)
    messages = told(acknowledger, lanes, 1.0)
    assert [len(message.refused) for _, message in messages] == [REFUSED_PER_ACK_MAX, REFUSED_PER_ACK_MAX, 50]
    assert [item for _, message in messages for item in message.refused] == refused
