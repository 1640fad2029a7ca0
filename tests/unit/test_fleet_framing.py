"""Frames survive any cut of the stream, and no damage gets through as another frame's content."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.framing import FRAME_BYTES_MAX, FrameReader, encode_frame

frames = st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=600)), max_size=6)


@given(frames=frames, cuts=st.lists(st.integers(0, 4_000), max_size=10))
def test_frames_come_back_however_the_stream_is_cut(frames, cuts):
    stream = b"".join(encode_frame(*frame) for frame in frames)
    points = sorted({0, len(stream), *(min(cut, len(stream)) for cut in cuts)})
    reader = FrameReader()
    received = [frame for start, end in itertools.pairwise(points) for frame in reader.feed(stream[start:end])]
    assert received == frames
    assert reader.errors == 0


@given(frame_type=st.integers(0, 255), body=st.binary(max_size=FRAME_BYTES_MAX - 3))
def test_a_frame_holds_no_zero_but_its_delimiter(frame_type, body):
    encoded = encode_frame(frame_type, body)
    assert encoded[-1] == 0
    assert 0 not in encoded[:-1]
    assert len(encoded) <= FRAME_BYTES_MAX + FRAME_BYTES_MAX // 254 + 2


@given(
    before=st.binary(min_size=1, max_size=40),
    lost=st.binary(min_size=1, max_size=40),
    position=st.integers(0, 10_000),
    bit=st.integers(0, 7),
)
def test_one_flipped_bit_is_an_error_and_never_another_frame(before, lost, position, bit):
    first, second, third = encode_frame(1, before), encode_frame(2, lost), encode_frame(3, b"after")
    flip = position % (len(second) - 1)  # not the delimiter: that case joins two frames, below
    damaged = second[:flip] + bytes((second[flip] ^ (1 << bit),)) + second[flip + 1 :]
    reader = FrameReader()
    received = reader.feed(first + damaged + third)
    assert received == [(1, before), (3, b"after")]
    assert reader.errors >= 1


@given(body=st.binary(max_size=60), following=st.binary(max_size=60))
def test_a_lost_delimiter_costs_two_frames_and_no_more(body, following):
    reader = FrameReader()
    received = reader.feed(encode_frame(1, body)[:-1] + encode_frame(2, following) + encode_frame(3, b"x"))
    assert received == [(3, b"x")]
    assert reader.errors == 1


@given(noise=st.binary(max_size=3_000), body=st.binary(max_size=100))
def test_after_any_noise_the_next_frame_is_read(noise, body):
    reader = FrameReader()
    reader.feed(noise)
    assert reader.feed(b"\x00" + encode_frame(9, body))[-1] == (9, body)


def test_endless_noise_without_a_delimiter_does_not_grow():
    reader = FrameReader()
    for _ in range(100):
        reader.feed(b"\x55" * 1_000)
    assert len(reader._pending) <= FRAME_BYTES_MAX + FRAME_BYTES_MAX // 254 + 1
    assert reader.errors > 0


@pytest.mark.parametrize("length", [FRAME_BYTES_MAX - 3, 253, 254, 255, 508, 0])
@pytest.mark.parametrize("byte", [b"\x00", b"\x01", b"\xff"])
def test_lengths_at_the_edges_of_a_block(length, byte):
    assert FrameReader().feed(encode_frame(7, byte * length)) == [(7, byte * length)]


def test_an_oversized_body_is_refused():
    with pytest.raises(ValueError, match="more than"):
        encode_frame(1, bytes(FRAME_BYTES_MAX - 2))
