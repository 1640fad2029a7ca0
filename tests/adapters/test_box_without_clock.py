"""A box without a battery clock, started without the cloud, against the real pipeline and a real Mosquitto."""

from types import SimpleNamespace

import pytest
from pipeline_bench import Cloud, SteadyClock, until
from test_storage_set_back import ROOM, Edge

from cloud import presence
from cloud.tables import event, quarantine, twin

pytestmark = pytest.mark.mosquitto

YEAR_S = 365 * 86_400.0


def clock_off_by(years):
    clock = SteadyClock()
    clock.advance(seconds=years * YEAR_S)
    return clock


@pytest.mark.parametrize("years", [-20.0, 5.0])
async def test_nothing_of_a_box_that_knew_no_time_is_refused(tmp_path, broker, years):
    cloud = Cloud(tmp_path, broker.port)
    cloud.enrol(ROOM, granted=False)
    folder = tmp_path / "box"
    box = SimpleNamespace(clock=clock_off_by(years), key=cloud.key)
    now_ms = cloud.clock.now_ms()
    async with Edge(folder, box, broker.port).running() as edge:  # a start that never meets the cloud
        edge.hardware.press(1)
        edge.hardware.clear(1)
        edge.hardware.read(box.clock.now_ms())
        await edge.journalled(2)
        await until(lambda: edge.agent._telemetry.waiting + edge.agent.counts["readings"] == 1)
    box.clock = clock_off_by(years)
    async with Edge(folder, box, broker.port).running() as edge:  # and one that does, later
        edge.hardware.press(2)
        edge.hardware.read(box.clock.now_ms())
        await edge.journalled(1)
        async with cloud.running():
            await until(lambda: len(cloud.events()) == 3 and cloud.pipeline.lanes["room-001"].telemetry_seq >= 1)
            await until(lambda: edge.agent.connected and not edge.agent.uplink.emergency_waiting.is_set())
            await until(lambda: cloud.pipeline.lanes["room-001"].presence.time_corrected > 0, "corrected messages")
            await until(lambda: presence.decode(cloud.rows(twin)[0]["presence"]).time_uncertain > 0, "stored")
    assert [row["reason"] for row in cloud.rows(quarantine)] == []
    assert all(abs(row["occurred_at"] - now_ms) <= 60_000 for row in cloud.rows(event))
    assert {row["time_quality"] for row in cloud.rows(event)} <= {"uncertain", "corrected"}
    assert presence.decode(cloud.rows(twin)[0]["presence"]).quarantined == 0
