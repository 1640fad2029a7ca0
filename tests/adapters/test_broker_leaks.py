"""Every device × every topic of every device, published and subscribed, judged by what is delivered to whom.

A broker grants `SUBSCRIBE #` and acknowledges a publish that its access list denies: only deliveries prove something.
"""

import asyncio
from collections import Counter

import pytest
from secure_broker import SecureBroker

from fleet.topics import ROOT, DownChannel, UpChannel, down, shard_of, up

pytestmark = pytest.mark.mosquitto

DEVICES = [f"{prefix}-{number:03d}" for prefix in ("bike", "machine", "room") for number in range(1, 9)]
UP, DOWN = sorted(UpChannel), sorted(DownChannel)
OTHERS = ["other", ROOT, f"{ROOT}/0", "$SYS/broker/uptime", "$CONTROL/dynamic-security/v1", "$CONTROL/#", "$share/g/f"]
FILTERS = [
    "#", "+/#", f"{ROOT}/#", f"{ROOT}/+/+/down/#", f"{ROOT}/+/+/up/#", "+/+/+/+/+", "+/+/+/+", f"{ROOT}/+/bike-001/#",
    "$SYS/#", "$CONTROL/#", "$CONTROL/dynamic-security/v1/response", f"$share/everybody/{ROOT}/#",
    f"$share/everybody/{ROOT}/+/+/down/#", "$share/everybody/#", "$share/cloud/f/+/+/up/#",
]  # fmt: skip


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    with SecureBroker(tmp_path_factory.mktemp("leaks"), DEVICES) as made:
        yield made


async def everybody(broker):
    """(cloud, device id → party); each subscribed to everything that it can name."""
    ids = [*DEVICES]
    parties = dict(zip(ids, await asyncio.gather(*[broker.device(one) for one in ids]), strict=True))
    topics = [up(one, channel) for one in ids for channel in UP] + [
        down(one, channel) for one in ids for channel in DOWN
    ]
    cloud = await broker.service("fleet.ingester-1")
    await asyncio.gather(*[party.subscribe(*FILTERS, *topics) for party in (cloud, *parties.values())])
    return cloud, parties


def allowed_up(topic, publisher):
    return topic in {up(publisher, channel) for channel in UP} | {
        f"{ROOT}/{shard}/{publisher}/up/{channel.value}" for shard in range(64) for channel in UP
    }


async def test_no_message_reaches_anybody_whom_it_does_not_concern(broker):
    cloud, parties = await everybody(broker)
    everything = {up(one, channel) for one in DEVICES for channel in UP}
    everything |= {down(one, channel) for one in DEVICES for channel in DOWN}
    wrong_shard = {f"{ROOT}/{(shard_of(one) + 1) % 64}/{one}/up/event" for one in DEVICES}
    tried = sorted(everything | wrong_shard | (set(OTHERS) - {"$CONTROL/#", "$share/g/f"}))

    await asyncio.gather(*[
        party.publish_all([(topic, f"{publisher} {topic}".encode()) for topic in tried])
        for publisher, party in parties.items()
    ])  # fmt: skip
    await cloud.publish_all([(topic, f"cloud {topic}".encode()) for topic in tried])
    await asyncio.gather(*[party.settle() for party in (cloud, *parties.values())])

    leaks = Counter()
    for name, party in parties.items():
        mine = {down(name, channel) for channel in DOWN}
        for topic, payload in party.received:
            if topic not in mine or payload != f"cloud {topic}".encode():
                leaks[f"{name} was given {topic}: {payload!r}"] += 1
        assert {topic for topic, _ in party.received} == mine, "what is its own does arrive"
    for topic, payload in cloud.received:
        publisher = payload.decode().split()[0]
        if not allowed_up(topic, publisher):
            leaks[f"the cloud was given {topic}: {payload!r}"] += 1
    assert not leaks
    told = {topic for topic, payload in cloud.received}
    assert told >= {up(one, channel) for one in DEVICES for channel in UP}
    for party in (cloud, *parties.values()):
        await party.close()


async def test_a_last_will_speaks_for_its_own_device_alone(broker):
    cloud = await broker.service("fleet.ingester-2")
    await cloud.subscribe(f"{ROOT}/+/+/up/#")
    forged = up("bike-002", UpChannel.STATUS)
    thief = await broker.device("bike-001", will=(forged, b"gone"))
    await thief.cut()
    honest = await broker.device("bike-003", will=(up("bike-003", UpChannel.STATUS), b"gone"))
    await honest.cut()
    async with asyncio.timeout(10):
        while (up("bike-003", UpChannel.STATUS), b"gone") not in cloud.received:
            cloud.arrived.clear()
            await cloud.arrived.wait()
    assert forged not in {topic for topic, _ in cloud.received}
    await cloud.close()


async def test_nothing_is_kept_for_who_comes_later(broker):
    """Retained messages are refused: an old command must not wait for a device."""
    from mqtt5 import PublishPacket

    cloud = await broker.service("fleet.ingester-3")
    topic = down("bike-001", DownChannel.COMMAND)
    cloud._writer.write(PublishPacket(topic, b"old", retain=True).write())
    await cloud.closed_by_broker()  # MQTT 5: retain is not supported
    device = await broker.device("bike-001")
    await device.subscribe(topic)
    await device.settle()
    assert device.received == []
    await device.close()
