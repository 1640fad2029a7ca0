"""The hostile link damages as told and nothing else."""

import asyncio
import random
from contextlib import asynccontextmanager

from cli.chaos.hostile import HostileLink, Rates
from fleet.topics import DownChannel, UpChannel

DEVICE = "room-001"


class FakeLink:
    def __init__(self, incoming=()):
        self.published = []
        self._incoming = incoming

    @asynccontextmanager
    async def connect(self, *_will_and_keep_alive):
        yield self

    async def publish(self, channel, payload):
        self.published.append((channel, payload))

    async def received(self):
        for item in self._incoming:
            yield item


def send(rates, count, channel=UpChannel.EVENT):
    link = FakeLink()

    async def run():
        async with HostileLink(link, DEVICE, rates, random.Random(1)).connect(None, 60) as session:
            for number in range(count):
                await session.publish(channel, f'{{"device_id":"{DEVICE}","seq":{number}}}'.encode())

    asyncio.run(run())
    return [payload for _, payload in link.published]


def receive(rates, count):
    link = FakeLink([(DownChannel.COMMAND, f"order {number}".encode()) for number in range(count)])

    async def run():
        async with HostileLink(link, DEVICE, rates, random.Random(1)).connect(None, 60) as session:
            return [data async for _, data in session.received()]

    return asyncio.run(run())


def test_without_rates_everything_passes_as_it_is():
    payloads = send(Rates(), 50)
    assert payloads == [f'{{"device_id":"{DEVICE}","seq":{number}}}'.encode() for number in range(50)]
    assert receive(Rates(), 50) == [f"order {number}".encode() for number in range(50)]


def test_duplicates_follow_their_original():
    assert len(send(Rates(duplicated=1.0), 10)) == 20
    assert receive(Rates(duplicated=1.0), 2) == [b"order 0", b"order 0", b"order 1", b"order 1"]


def test_a_reordered_message_comes_after_the_next_one():
    payloads = send(Rates(reordered=1.0), 4)
    assert [payload[-2:-1] for payload in payloads] == [b"1", b"0", b"3", b"2"]
    assert receive(Rates(reordered=1.0), 4) == [b"order 1", b"order 0", b"order 3", b"order 2"]


def test_truncated_messages_replace_the_whole_ones():
    assert all(len(payload) < 32 for payload in send(Rates(truncated=1.0), 20))
    assert all(len(data) < 8 for data in receive(Rates(truncated=1.0), 20))


def test_forgeries_claim_another_device_and_the_true_message_follows():
    payloads = send(Rates(forged=1.0), 3)
    assert [b"room-999" in payload for payload in payloads] == [True, False] * 3
    mutated = receive(Rates(forged=1.0), 3)
    assert mutated[1::2] == [b"order 0", b"order 1", b"order 2"]
    assert all(one != other for one, other in zip(mutated[::2], mutated[1::2], strict=True))


def test_greetings_are_left_alone():
    assert len(send(Rates(truncated=1.0, reordered=1.0, forged=1.0), 5, UpChannel.HELLO)) == 5


def test_rates_change_while_agents_run(tmp_path):
    Rates(duplicated=0.5).write(tmp_path / "rates.json")
    rates = Rates()
    rates.update(tmp_path / "rates.json")
    assert rates == Rates(duplicated=0.5)
