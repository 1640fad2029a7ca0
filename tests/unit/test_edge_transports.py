"""Lines to the hardware: memory and a pseudo-terminal (a file of the kernel, no socket)."""

import asyncio
import contextlib
import os

import pytest

from edge.transports import LINE_BUFFER_BYTES_MAX, SerialLine, memory_pair
from tests.edge_support import eventually


async def test_memory_carries_bytes_both_ways_and_can_be_cut():
    first, second = memory_pair()
    first.write(b"a")
    first.write(b"\x00b")
    assert await second.read() == b"a\x00b"
    second.write(b"c")
    assert await first.read() == b"c"
    first.cut()
    assert await first.read() == b""
    await first.open()
    second.write(b"d")
    assert await first.read() == b"d"


async def test_memory_is_bounded_and_counts_what_it_loses():
    first, second = memory_pair()
    first.write(bytes(LINE_BUFFER_BYTES_MAX))
    first.write(b"too much")
    assert second.dropped_bytes == 8
    assert len(await second.read()) == LINE_BUFFER_BYTES_MAX


async def test_a_pseudo_terminal_is_raw_and_ends_when_the_other_end_goes():
    master, slave = os.openpty()
    line = SerialLine(os.ttyname(slave))
    await line.open()
    os.write(master, b"\x00\r\n\x03\xff")
    received = b""
    while len(received) < 5:
        received += await line.read()
    assert received == b"\x00\r\n\x03\xff"
    line.write(b"\r\x00\x04")
    assert os.read(master, 10) == b"\r\x00\x04"
    big = bytes(range(256)) * 200
    line.write(big)  # more than the terminal takes at once
    os.set_blocking(master, False)
    echoed = bytearray()

    def drained():
        with contextlib.suppress(BlockingIOError):
            echoed.extend(os.read(master, 65536))
        return bytes(echoed) == big

    await eventually(drained)
    os.close(slave)
    os.close(master)
    assert await asyncio.wait_for(line.read(), 2) == b""
    line.close()


async def test_a_missing_or_unsuitable_port_is_an_os_error(tmp_path):
    with pytest.raises(OSError, match="absent"):
        await SerialLine(str(tmp_path / "absent")).open()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="file"):
        await SerialLine(str(tmp_path / "file")).open()
