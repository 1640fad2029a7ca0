"""Packed telemetry: smaller, the same again, and harmless whatever the bytes are."""

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.bench.fuzz_payloads import real_messages
from fleet.compact import packed, unpacked
from fleet.envelope import MESSAGE_BYTES_MAX, decode


def telemetry():
    return [data for topic, data in real_messages({"bike": "bike-007"}, 3) if topic.endswith("/up/telemetry")]


def test_a_bikes_telemetry_takes_less_than_half_and_comes_back():
    messages = telemetry()
    assert len(messages) > 100
    for message in messages:
        assert unpacked(packed(message)) == message
    assert sum(map(len, map(packed, messages))) < sum(map(len, messages)) / 2
    decode(unpacked(packed(messages[0])))


@given(st.binary(max_size=500))
def test_any_bytes_come_back_and_any_bytes_can_be_read(data):
    assert unpacked(packed(data)) in (data, unpacked(data))
    assert len(packed(data)) <= len(data)
    unpacked(b"\x78" + data)


def test_what_was_never_packed_or_would_burst_stays_as_it_is():
    bomb = packed(b"{" + b" " * (10 * MESSAGE_BYTES_MAX) + b"}")
    assert unpacked(bomb) == bomb
    whole = packed(telemetry()[0])
    for damaged in (whole[:-3], whole + b"x", whole[:10] + b"\xff" + whole[11:], zlib.compress(b"{}" * 100), b"", b"x"):
        assert unpacked(damaged) == damaged


@pytest.mark.parametrize("size", [MESSAGE_BYTES_MAX, MESSAGE_BYTES_MAX + 1])
def test_the_bound_is_that_of_a_message(size):
    message = b"{" + b" " * (size - 2) + b"}"
    assert (unpacked(packed(message)) == message) is (size <= MESSAGE_BYTES_MAX)
