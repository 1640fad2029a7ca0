"""Lines to the hardware: memory and a pseudo-terminal (a file of the kernel, no socket)."""

import asyncio
import contextlib
import os

import pytest

from edge.transports import LINE_BUFFER_BYTES_MAX, SerialLine, SerialOptions, line_from, memory_pair
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


async def test_a_port_belongs_to_one_process_and_comes_back_after_an_unplugging(tmp_path):
    link = tmp_path / "ttyUSB0"
    first, second = SerialLine(str(link)), SerialLine(str(link))
    with pytest.raises(OSError, match="ttyUSB0"):
        await first.open()
    for _ in range(2):
        master, slave = os.openpty()
        link.symlink_to(os.ttyname(slave))
        await first.open()
        with pytest.raises(OSError, match="in use by another process"):
            await second.open()
        os.write(master, b"hello")
        assert await first.read() == b"hello"
        os.close(slave)
        os.close(master)  # unplugged
        link.unlink()
        assert await asyncio.wait_for(first.read(), 2) == b""
        with pytest.raises(OSError, match="ttyUSB0"):
            await first.open()
    first.close()


async def test_a_port_without_direction_pin_says_so():
    master, slave = os.openpty()
    line = line_from(f"serial:{os.ttyname(slave)}?baud=9600&parity=even&stop=2&rs485=1&rts_before_ms=1")
    assert line.options == SerialOptions(baud=9600, parity="even", stop=2, rs485=True, rts_before_ms=1)
    with pytest.raises(OSError, match="remove rs485=1"):
        await line.open()
    os.close(slave)
    os.close(master)


@pytest.mark.parametrize("query", ["parity=mark", "stop=3", "rs485=yes", "rs485=2", "speed=9600", "rts_after_ms=-1"])
def test_wrong_options_of_a_serial_line_are_refused(query):
    with pytest.raises(ValueError, match=query.partition("=")[0]):
        line_from(f"serial:/dev/ttyUSB0?{query}")
