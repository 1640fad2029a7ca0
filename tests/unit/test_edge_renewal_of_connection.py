"""A new generation is granted: whatever the order in which welcomes are worked off, the connection is renewed."""

import pytest

from edge.boot_clocks import BootClocks
from fleet.envelope import Lane
from tests.edge_support import DEVICE, Cloud, Rig, SystemClock, doorbell_kind, eventually


@pytest.fixture(autouse=True)
def _doorbell():
    with doorbell_kind():
        yield


async def test_a_grant_that_overtakes_the_end_of_an_earlier_welcome_is_seen(tmp_path, monkeypatch):
    cloud = Cloud(SystemClock())
    async with Rig(tmp_path, cloud).running() as rig:
        rig.bell.say("R 1.0")
        rig.bell.say("R 2.0")
        await eventually(lambda: len(cloud.readings()) == 2)
    cloud.marks[DEVICE, 1, Lane.TELEMETRY] += 5  # more than this storage ever sent: it will begin a new one
    settle, waited = BootClocks.settle, []

    async def slowly(clocks):
        if not waited:  # the hello of the new storage goes out, by its own retry, before this welcome is done with
            waited.append(True)
            await eventually(lambda: len({hello.storage_id for hello in cloud.hellos}) == 2)
        return await settle(clocks)

    monkeypatch.setattr(BootClocks, "settle", slowly)
    async with Rig(tmp_path, cloud).running() as rig:
        rig.bell.say("R 3.0")
        rig.bell.say("R 4.0")
        await eventually(lambda: len(cloud.readings()) == 4)
    assert waited
    assert cloud.generation(DEVICE) == 2
