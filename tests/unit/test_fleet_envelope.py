"""The envelope: what is encoded is decoded, and nothing else gets through."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet import envelope
from fleet.envelope import (
    Acknowledgement,
    Envelope,
    EnvelopeError,
    Hello,
    Lane,
    Refused,
    Status,
    Welcome,
)
from fleet.topics import DEVICE_ID_PATTERN

device_ids = st.from_regex(DEVICE_ID_PATTERN, fullmatch=True)
seqs = st.integers(1, 2**53)
payloads = st.dictionaries(st.text(max_size=5), st.integers(-(2**53), 2**53), max_size=4)
GOOD = {
    "version": 1, "kind": "bike", "device_id": "bike-001", "boot_epoch": 1_048_577, "lane": "event", "seq": 7,
    "occurred_at": 1_800_000_000_000, "payload": {},
}  # fmt: skip


@given(
    device_id=device_ids,
    lane=st.sampled_from(Lane),
    seq=seqs,
    epoch=st.integers(0, 2**53),
    at=st.integers(0, 253_402_300_799_000),
    payload=payloads,
    evicted=st.none() | seqs,
)
def test_round_trip(device_id, lane, seq, epoch, at, payload, evicted):
    sent = Envelope(1, "bike", device_id, epoch, lane, seq, at, msgspec.Raw(msgspec.json.encode(payload)), evicted)
    received = envelope.decode(envelope.encode(sent))
    assert msgspec.structs.replace(received, payload=msgspec.Raw()) == msgspec.structs.replace(
        sent, payload=msgspec.Raw()
    )
    assert json.loads(bytes(received.payload)) == payload


@given(data=st.binary(max_size=300))
def test_any_bytes_are_decoded_or_refused(data):
    for decode in (envelope.decode, envelope.decode_hello, envelope.decode_status, envelope.decode_downlink):
        with pytest.raises(EnvelopeError):
            decode(data)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 0}, {"version": 2}, {"version": "1"}, {"kind": "Bike"}, {"kind": ""}, {"device_id": "bike_001"},
        {"device_id": "x" * 33}, {"seq": 0}, {"seq": -1}, {"seq": 1.5}, {"lane": "gossip"}, {"occurred_at": -1},
        {"occurred_at": 1e300}, {"boot_epoch": -1}, {"evicted_from": 0}, {"surprise": 1},
    ],
)  # fmt: skip
def test_each_wrong_field_is_refused(change):
    assert envelope.decode(json.dumps(GOOD).encode()).seq == 7
    with pytest.raises(EnvelopeError):
        envelope.decode(json.dumps({**GOOD, **change}).encode())


@pytest.mark.parametrize("missing", list(GOOD))
def test_each_missing_field_is_refused(missing):
    with pytest.raises(EnvelopeError):
        envelope.decode(json.dumps({name: value for name, value in GOOD.items() if name != missing}).encode())


def test_oversized_and_deeply_nested_bytes_are_refused():
    with pytest.raises(EnvelopeError, match="more than"):
        envelope.decode(b" " * (envelope.MESSAGE_BYTES_MAX + 1))
    with pytest.raises(EnvelopeError):
        envelope.decode(b'{"payload":' + b"[" * 30_000)


def test_generation_and_boots_make_one_ordered_number():
    assert envelope.boot_epoch(2, 0) > envelope.boot_epoch(1, envelope.BOOTS_PER_GENERATION - 1)
    assert (
        msgspec.convert(
            {**GOOD, "boot_epoch": envelope.boot_epoch(3, 9), "payload": msgspec.Raw()}, Envelope
        ).generation
        == 3
    )
    for boots in (-1, envelope.BOOTS_PER_GENERATION):
        with pytest.raises(ValueError, match="outside"):
            envelope.boot_epoch(1, boots)


def test_downlinks_are_told_apart_by_their_tag():
    ack = Acknowledgement(1, {Lane.EVENT: 9}, (Lane.TELEMETRY,), (Refused(Lane.EVENT, 8, "absurd"),), ("ab",))
    welcome = Welcome("00" * 16, 1_800_000_000_000, 1, {Lane.EVENT: 9}, "key:sig")
    assert envelope.decode_downlink(envelope.encode(ack)) == ack
    assert envelope.decode_downlink(envelope.encode(welcome)) == welcome


def test_hello_and_status_round_trip():
    hello = Hello(1, "bike", "bike-001", "0" * 32, 1, 4, "f" * 32, "1.0.0", "e" * 32, "1a")
    assert envelope.decode_hello(envelope.encode(hello)) == hello
    status = Status("bike-001", 5, 2, online=False)
    assert envelope.decode_status(envelope.encode(status)) == status
