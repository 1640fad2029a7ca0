"""What is no message of the device: kept with its bytes and the reason, never in the way of what follows."""

import pytest
from ingest_cases import (
    BIKE,
    ROOM,
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

from cloud.ingest.intake import QUARANTINED_PER_BATCH_MAX
from cloud.model import DeviceLane
from fleet.credentials import CertificateRequest, encode_credentials
from fleet.envelope import MESSAGE_BYTES_MAX, Lane
from fleet.topics import UpChannel, shard_of, up
from tests.device_messages import NOW_MS, Speaker, hex_id

__all__ = ["ingest", "lanes"]


def set_aside(ingest, message, **keywords):
    """Quarantined without using up a number; what follows is taken."""
    intake = ingest.accept([*arrived(message), *arrived(BIKE.telemetry(2))], NOW_MS, **keywords)
    (item,) = intake.quarantined
    assert (item.topic, item.payload) == (message[0][:200], message[1])
    assert (item.lane, item.seq) == (None, None)
    assert item.reason
    assert ("bike-001", Lane.TELEMETRY, 2) in accepted_seqs(intake)
    assert all(draft.refused == [] for draft in intake.acks.values())
    return item.reason


DEEP = b"[" * 30_000 + b"]" * 30_000
UNDECODABLE = (
    b"", b'{"version":NaN}', b'{"\\ud800":1}', b'{"version":1,"x\xff":2}',
    b"\x00", b"\xff\xfe", b"{", b"null", b"[]", b"{}", b'"x"', b"\x80" * 100, DEEP, b'{"a":' * 10_000,
    b'{"version":1,"payload":' + DEEP + b"}",
)  # fmt: skip


@pytest.mark.parametrize("channel", list(UpChannel))
@pytest.mark.parametrize("data", UNDECODABLE, ids=range(len(UNDECODABLE)))
def test_bytes_that_are_no_message_are_kept_with_the_reason(ingest, channel, data):
    speaker = ROOM if channel is UpChannel.EMERGENCY else BIKE
    set_aside(ingest, (speaker.topic(channel), data))


def test_a_deeply_nested_payload_is_set_aside_or_refused_but_never_raises(ingest, lanes):
    text = "[" * 20_000 + "]" * 20_000
    intake = ingest.accept(
        arrived(
            (ROOM.topic(Lane.EMERGENCY), ROOM.envelope(Lane.EMERGENCY, 1, text)),
            (BIKE.topic(Lane.TELEMETRY), BIKE.envelope(Lane.TELEMETRY, 2, text)),
            ROOM.emergency(lanes["room-001"].emergency_seq + 1),
        ),
        NOW_MS,
    )
    assert len(intake.quarantined) == 2


@all_lanes
def test_an_oversized_message_is_set_aside(ingest, lanes, lane):
    topic, data = in_lane(lane, 1)
    padded = data[:-1] + b" " * (MESSAGE_BYTES_MAX + 1 - len(data)) + b"}"
    intake = ingest.accept(arrived((topic, padded), (topic, data)), NOW_MS)
    (item,) = intake.quarantined
    assert str(MESSAGE_BYTES_MAX) in item.reason
    assert mark_of(lanes, lane) == 1
    fits = data[:-1] + b" " * (MESSAGE_BYTES_MAX - len(data)) + b"}"
    lanes[device_of(lane)].advance(lane, lanes[device_of(lane)].mark(lane) - 1)
    assert len(accepted_seqs(one(ingest, (topic, fits)))) == 1


@all_lanes
@pytest.mark.parametrize("payload", [b"NaN", b"Infinity", b'"\\ud800"', b"'x'", b"", b"01"])
def test_a_payload_that_is_no_json_leaves_its_number_free(ingest, lanes, lane, payload):
    topic, data = in_lane(lane, 1, payload="7777")
    intake = ingest.accept(arrived((topic, data.replace(b"7777", payload)), in_lane(lane, 1)), NOW_MS)
    (item,) = intake.quarantined
    assert item.reason.encode()
    assert (item.lane, item.seq, mark_of(lanes, lane)) == (None, None, 1)


@pytest.mark.parametrize("version", [0, 2, 99])
def test_another_version_of_the_envelope_is_set_aside(ingest, version):
    topic, data = BIKE.telemetry(2)
    reason = set_aside(ingest, (topic, data.replace(b'"version":1', b'"version":%d' % version)))
    assert f"version {version}" in reason


@pytest.mark.parametrize("channel", list(UpChannel))
def test_a_message_on_another_devices_topic_is_set_aside(ingest, channel):
    thief = Speaker("room-001" if channel is UpChannel.EMERGENCY else "bike-001", "bike")
    other = Speaker("machine-001", "meal_machine")
    data = {
        UpChannel.HELLO: lambda: other.hello()[1],
        UpChannel.STATUS: lambda: other.status(online=True)[1],
        UpChannel.REPLY: lambda: other.reply(hex_id(1), "succeeded")[1],
        UpChannel.CERTIFICATE: lambda: encode_credentials(CertificateRequest("machine-001", "PEM")),
    }.get(channel, lambda: other.envelope(Lane(channel.value), 1, {}))()
    assert "machine-001" in set_aside(ingest, (thief.topic(channel), data))


@pytest.mark.parametrize("wrong", [(a, b) for a in Lane for b in Lane if a is not b])
def test_a_lane_on_the_topic_of_another_is_set_aside(ingest, wrong):
    topic_lane, message_lane = wrong
    data = ROOM.envelope(message_lane, 1, {})
    assert "lane" in set_aside(ingest, (ROOM.topic(topic_lane), data))


@pytest.mark.parametrize(
    "topic",
    ["", "f", "f/1/bike-001/up", "f/x/bike-001/up/telemetry", "g/1/bike-001/up/telemetry", "f/1/BIKE/up/telemetry",
     "f/1/bike-001/down/ack", "f/1/bike-001/up/nonsense", "f/1/bike-001/up/telemetry/x", "f/" + "9" * 400, "\x00",
     f"f/{(shard_of('bike-001') + 1) % 64}/bike-001/up/telemetry", f"f/0{shard_of('bike-001')}/bike-001/up/telemetry",
     f"f/{shard_of('bike-001')}/bike-001\n/up/telemetry"],
)  # fmt: skip
def test_a_topic_that_is_none_of_ours_or_in_the_wrong_shard_is_set_aside(ingest, topic):
    set_aside(ingest, (topic, BIKE.telemetry(2)[1]))


def test_an_unknown_device_is_looked_up_once_and_then_set_aside(ingest):
    stranger = Speaker("bike-999", "bike")
    intake = one(ingest, stranger.telemetry(1))
    assert [(device_id, message.topic) for device_id, message in intake.unknown] == [
        ("bike-999", up("bike-999", UpChannel.TELEMETRY))
    ]
    assert not intake.quarantined
    assert "unknown device" in set_aside(ingest, stranger.telemetry(1), unknown_is_final=True)


def test_a_device_of_a_kind_without_a_folder_is_set_aside(ingest, lanes):
    lanes["bus-001"] = DeviceLane("bus-001", "bus", None, None, generation=1)
    bus = Speaker("bus-001", "bus")
    topic, data = bus.topic(Lane.TELEMETRY), bus.envelope(Lane.TELEMETRY, 1, {})
    assert "unknown kind" in set_aside(ingest, (topic, data))


def test_a_hello_of_another_kind_or_a_retired_device_is_set_aside(ingest, lanes):
    assert "enrolled as" in set_aside(ingest, Speaker("room-001", "bike").hello())
    lanes["room-001"].retired = True
    for message in (ROOM.hello(), ROOM.status(online=True), ROOM.reply(hex_id(1), "failed")):
        intake = one(ingest, message)
        assert "retired" in intake.quarantined[0].reason
        assert not intake.heard


def test_what_devices_say_besides_their_lanes_is_heard(ingest):
    messages = (BIKE.hello(), BIKE.status(online=False, connection=3), BIKE.reply(hex_id(1), "succeeded"))
    hello, status, reply = ingest.accept(arrived(*messages), NOW_MS).heard
    assert hello.hello.storage_id == BIKE.storage_id
    assert (status.status.online, status.status.connection) == (False, 3)
    assert (reply.reply.command_id, reply.reply.status) == (hex_id(1), "succeeded")
    assert {item.device_id for item in (hello, status, reply)} == {"bike-001"}


def test_a_flood_of_rubbish_is_counted_and_not_stored(ingest):
    rubbish = (BIKE.topic(Lane.EVENT), b"rubbish")
    number = QUARANTINED_PER_BATCH_MAX + 250
    intake = ingest.accept([*arrived(*[rubbish] * number), *arrived(ROOM.emergency(1))], NOW_MS)
    assert len(intake.quarantined) == QUARANTINED_PER_BATCH_MAX
    assert intake.quarantined_uncounted == 250
    assert accepted_seqs(intake) == [("room-001", Lane.EMERGENCY, 1)]


def test_a_second_look_adds_to_the_first(ingest, lanes):
    stranger = Speaker("bike-999", "bike")
    intake = ingest.accept(
        arrived(stranger.telemetry(1), ROOM.emergency(1), stranger.telemetry(2), stranger.event(1, "tamper")), NOW_MS
    )
    lanes["bike-999"] = DeviceLane("bike-999", "bike", None, None, generation=1)
    ingest.forget_routes()
    intake.merge(ingest.accept([message for _, message in intake.unknown], NOW_MS, unknown_is_final=True))
    assert accepted_seqs(intake)[:2] == [("bike-999", Lane.TELEMETRY, 1), ("bike-999", Lane.TELEMETRY, 2)]
    assert [item.reason for item in intake.quarantined] == ["tamper.latitude: Field required"]
    assert intake.acks["bike-999"].refused[0].seq == 1
    assert not intake.unknown
