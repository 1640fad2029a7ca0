"""What a device's page says about its commands: how each ended and why, in words, in both languages."""

import pytest
from sqlalchemy import insert, update

from cloud import tables
from tests.web import world as worlds
from tests.web.client import client
from tests.web.world import make_world


@pytest.fixture
def world(tmp_path):
    made = make_world(tmp_path)
    worlds.add_device(made, "bike-001", "bike")
    yield made
    made.database.close()


def give(world, status, reason, online=1):
    def write(tx):
        tx.execute(
            insert(tables.command).values(
                id="a" * 32, device_id="bike-001", action="ring", arguments='{"action":"ring"}', actor="p", issued_at=1,
                not_after=2, generation=1, status=status, reason=reason, changed_at=1,
            )
        )  # fmt: skip
        tx.execute(update(tables.twin).where(tables.twin.c.device_id == "bike-001").values(online=online))

    world.database.write_here(write)


@pytest.mark.parametrize(
    ("status", "reason", "online", "zh", "en"),
    [
        ("refused", "untrusted_time", 1, "设备尚未获得可信时间", "does not know the time yet"),
        ("refused", "busy", 1, "设备正忙", "the device is busy"),
        ("expired", "expired", 1, "不会再执行", "it will not happen any more"),
        ("queued", "", 0, "目前无法连接", "be reached now"),
    ],
)
async def test_the_history_says_in_words_how_a_command_ended(world, status, reason, online, zh, en):
    give(world, status, reason, online)
    for language, words in (("zh_CN", zh), ("en", en)):
        spoken = update(tables.person).values(language=language)
        world.database.write_here(lambda tx, spoken=spoken: tx.execute(spoken))
        async with client(world, "crew") as crew:
            assert words in (await crew.get("/devices/bike-001")).text
