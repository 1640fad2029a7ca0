"""Hypothesis on everything that reads bytes of strangers: envelope codec, framing, and every kind's driver."""

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import devices
from cli.bench.fuzz_payloads import Fuzzer, real_messages
from devices import kinds
from fleet import envelope
from fleet.envelope import EnvelopeError
from fleet.framing import FRAME_BYTES_MAX, FrameReader, encode_frame
from fleet.kind import DriverOutput

NOW_MS = 1_800_000_000_000
DECODERS = ["decode", "decode_downlink", "decode_hello", "decode_status"]
EXAMPLES = settings(max_examples=150, deadline=None)


def reads_or_refuses(decode, data):
    with suppress(EnvelopeError):
        decode(data)


@pytest.mark.parametrize("name", DECODERS)
@given(data=st.binary(max_size=600))
@EXAMPLES
def test_noise_is_an_envelope_error_and_nothing_else(name, data):
    reads_or_refuses(getattr(envelope, name), data)


@pytest.fixture(scope="module")
def nonsense():
    ids = {name: f"fuzz-{number:03d}" for number, name in enumerate(sorted(kinds()), 1)}
    return Fuzzer(real_messages(ids, 2), sorted(ids.values()), 2)


@pytest.mark.parametrize("name", DECODERS)
def test_bent_messages_are_read_or_refused(nonsense, name):
    decode = getattr(envelope, name)
    for _ in range(2_000):
        reads_or_refuses(decode, nonsense.message("fuzz-001")[1])


@given(chunks=st.lists(st.binary(max_size=300), max_size=8))
@EXAMPLES
def test_a_frame_after_any_noise_is_read(chunks):
    reader = FrameReader()
    for chunk in chunks:
        list(reader.feed(chunk))
    assert (7, b"hello") in list(reader.feed(b"\x00" + encode_frame(7, b"hello")))


@given(
    data=st.binary(min_size=FRAME_BYTES_MAX * 3, max_size=FRAME_BYTES_MAX * 4).map(
        lambda data: data.replace(b"\0", b"\1")
    )
)
@settings(max_examples=20, deadline=None)
def test_a_line_without_delimiters_takes_no_memory(data):
    reader = FrameReader()
    list(reader.feed(data))
    assert (
        sum(len(value) for value in vars(reader).values() if isinstance(value, bytes | bytearray))
        <= 2 * FRAME_BYTES_MAX
    )


@pytest.mark.parametrize("kind", sorted(kinds()))
@given(
    chunks=st.lists(
        st.one_of(
            st.binary(max_size=200),
            st.builds(encode_frame, st.integers(0, 255), st.binary(max_size=120)),
        ),
        max_size=12,
    )
)
@EXAMPLES
def test_a_driver_survives_any_bytes_and_goes_on(kind, chunks):
    driver = devices.role(kind, "driver").create("x-001")
    driver.on_start(NOW_MS)
    for step, chunk in enumerate(chunks):
        output = driver.on_bytes(chunk, NOW_MS + step)
        assert isinstance(output, DriverOutput)
        assert all(reading.model_dump_json() for reading in output.readings)
        assert all(event.model_dump_json() for _, event in output.events)
    if driver.next_due_ms is not None:
        driver.on_timer(max(NOW_MS + 1_000, driver.next_due_ms))
    assert driver.frame_errors >= 0
