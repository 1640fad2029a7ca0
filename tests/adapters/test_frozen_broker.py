"""A broker that is there and says nothing: attempts and publishes end in time, and nothing is left behind."""

import asyncio
import logging

import pytest

from edge import mqtt_link
from edge.link import LinkError
from edge.mqtt_link import BrokerAddress, MqttLink
from fleet.envelope import Status
from fleet.topics import UpChannel

pytestmark = pytest.mark.mosquitto

WILL = Status("bell-001", 0, 1, online=False)


@pytest.fixture
def frozen(broker):
    yield broker
    broker.freeze(frozen=False)


async def test_a_connection_to_a_frozen_broker_is_given_up_in_time(frozen, caplog):
    link = MqttLink("bell-001", BrokerAddress("127.0.0.1", frozen.port), None, connect_s_max=0.2)
    loop = asyncio.get_running_loop()
    frozen.freeze(frozen=True)
    for _ in range(3):
        began_s = loop.time()
        with pytest.raises(LinkError):
            async with link.connect(WILL, 5):
                pytest.fail("nobody answered")
        assert loop.time() - began_s < 2
    frozen.freeze(frozen=False)
    async with link.connect(WILL, 5) as session:
        await session.publish(UpChannel.STATUS, b"{}")
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_publish_to_a_broker_that_froze_ends_the_connection_in_time(frozen, monkeypatch, caplog):
    monkeypatch.setattr(mqtt_link, "_PUBLISH_S_MAX", 0.3)
    link = MqttLink("bell-001", BrokerAddress("127.0.0.1", frozen.port), None, connect_s_max=2.0)
    loop = asyncio.get_running_loop()
    unheard = []
    loop.set_exception_handler(lambda _, context: unheard.append(context))
    with pytest.raises(LinkError):  # noqa: PT012  # the connection is a context
        async with link.connect(WILL, 5) as session:
            frozen.freeze(frozen=True)
            began_s = loop.time()
            await session.publish(UpChannel.STATUS, b"{}")
    assert loop.time() - began_s < 2
    frozen.freeze(frozen=False)
    async with link.connect(WILL, 5) as session:
        await session.publish(UpChannel.STATUS, b"{}")
    import gc

    gc.collect()
    await asyncio.sleep(0)
    assert unheard == [], "no future of the library is left with an exception nobody looked at"
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_task_that_is_ended_while_connecting_ends(broker):
    """However the cancellation falls together with an answer of the broker."""
    link = MqttLink("bell-001", BrokerAddress("127.0.0.1", broker.port), None)

    async def stay():
        async with link.connect(WILL, 5):
            await asyncio.Event().wait()

    for turns in range(0, 60, 2):
        task = asyncio.ensure_future(stay())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=2)
        assert done, f"still running, cancelled after {turns} turns"
