"""The proxy between devices and broker: what passes, in which order, and what each weather does to it."""

import asyncio
import random
from contextlib import asynccontextmanager

import pytest

from cli.chaos.proxy import Proxy, Weather

pytestmark = pytest.mark.e2e

ECHO = b"0123456789" * 2_000


@asynccontextmanager
async def echoing():
    async def serve(reader, writer):
        try:
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    proxy = Proxy(server.sockets[0].getsockname()[1], random.Random(1))
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.close()
        server.close()


async def connect(proxy):
    return await asyncio.open_connection("127.0.0.1", proxy.port)


async def is_ended(reader):
    try:
        return await reader.read(1) == b""
    except ConnectionError:
        return True


def run(scenario):
    async def limited():
        async with asyncio.timeout(20), echoing() as proxy:
            await scenario(proxy)

    asyncio.run(limited())


def test_in_good_weather_every_byte_passes_in_order():
    async def scenario(proxy):
        reader, writer = await connect(proxy)
        writer.write(ECHO)
        assert await reader.readexactly(len(ECHO)) == ECHO
        writer.close()

    run(scenario)


def test_delay_keeps_the_order_and_takes_its_time():
    async def scenario(proxy):
        proxy.weather = Weather(one_way_s_min=0.05, one_way_s_max=0.1)
        reader, writer = await connect(proxy)
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        writer.write(ECHO)
        assert await reader.readexactly(len(ECHO)) == ECHO
        assert loop.time() - began_s >= 0.1
        writer.close()

    run(scenario)


def test_cut_ends_standing_connections_and_refusing_new_ones():
    async def scenario(proxy):
        reader, writer = await connect(proxy)
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        proxy.weather.refusing = True
        assert proxy.cut() == 1
        assert await is_ended(reader)
        refused, _ = await connect(proxy)
        assert await is_ended(refused)
        proxy.weather.refusing = False
        reader, writer = await connect(proxy)
        writer.write(b"y")
        assert await reader.readexactly(1) == b"y"

    run(scenario)


def test_frozen_passes_nothing_and_keeps_it():
    async def scenario(proxy):
        reader, writer = await connect(proxy)
        proxy.set_frozen(frozen=True)
        writer.write(b"later")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.readexactly(5), 0.1)
        proxy.set_frozen(frozen=False)
        assert await reader.readexactly(5) == b"later"

    run(scenario)


def test_the_asked_share_of_connections_is_reset():
    async def scenario(proxy):
        proxy.weather = Weather(reset_share=1.0, reset_within_s=0.05)
        reader, _ = await connect(proxy)
        assert await is_ended(reader)
        assert proxy.counts["reset"] == 1
        proxy.weather = Weather(reset_share=0.0)
        reader, writer = await connect(proxy)
        writer.write(b"z")
        assert await reader.readexactly(1) == b"z"

    run(scenario)
