"""A real server on loopback with a seeded world, and a real Chromium."""

import asyncio
import json
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from tests.web import world as worlds
from tests.web.world import World

CHROMIUM = "/usr/bin/chromium"
VENDOR = Path(__file__).parents[2] / "cloud/web/static/vendor"


@dataclass
class Served:
    """A running server."""

    world: World
    url: str
    loop: asyncio.AbstractEventLoop

    def publish(self, topic: str, facts: dict[str, Any]) -> None:
        """As the pipeline does after a commit, on the server's own loop."""
        self.loop.call_soon_threadsafe(self.world.changes.publish, topic, facts)


def seed(world: World) -> None:
    """A small fleet on an ordinary day with a few things that went wrong."""
    randomness = random.Random(7)
    for number in range(1, 61):
        reading = {
            **worlds.BIKE_READING,
            "battery_percent": round(randomness.uniform(18, 100), 1),
            "latitude": round(randomness.uniform(38.842, 38.888), 5),
            "longitude": round(randomness.uniform(121.483, 121.557), 5),
        }
        worlds.add_device(
            world, f"bike-{number:03}", "bike", online=number % 17 != 0,
            state={"device_id": f"bike-{number:03}", "reading": reading, "lock_state": "locked"},
        )  # fmt: skip
    for number in range(1, 6):
        worlds.add_device(
            world, f"meal-{number:03}", "meal_machine", name=f"软件园 {number} 号楼大堂",
            latitude=round(randomness.uniform(38.85, 38.88), 5), longitude=round(randomness.uniform(121.49, 121.55), 5),
            state=worlds.machine_state(f"meal-{number:03}"),
        )  # fmt: skip
    for number in range(1, 16):
        worlds.add_device(
            world, f"room-{number:03}", "nursing_room", name=f"母婴小屋 {number:03}", online=number != 9,
            latitude=round(randomness.uniform(38.85, 38.88), 5), longitude=round(randomness.uniform(121.49, 121.55), 5),
            state={"device_id": f"room-{number:03}", "reading": worlds.ROOM_READING},
        )  # fmt: skip
    worlds.add_call(world, "call-1", "room-004")
    worlds.add_alarm(world, "alarm-1", "bike-017", "bike", "battery_critical", priority="medium")
    worlds.add_alarm(world, "alarm-2", "meal-002", "meal_machine", "chilled_unsafe", priority="high")
    worlds.add_alarm(
        world,
        "alarm-3",
        "bike-023",
        "bike",
        "fallen",
        priority="low",
        state="acknowledged",
        acknowledged_by="person-crew",
    )
    worlds.add_order(
        world, "order-1", "meal-003", "meal_machine", title_zh="补货：软件园 3 号楼", title_en="Restock building 3",
        items='{"braised-pork-rice": 12, "tomato-beef": 8}',
    )  # fmt: skip
    worlds.add_order(
        world, "order-2", "bike-017", "bike", skill="battery", title_zh="更换电池", title_en="Swap the battery",
        items='{"battery_pack": 1}', state="accepted", assigned_to="person-crew", priority="high",
        due_at=worlds.NOW_MS - 600_000,
    )  # fmt: skip
    from cloud.wallet.service import top_up

    world.database.write_here(lambda tx: top_up(tx, "person-employee", 10_000, "first", worlds.NOW_MS))
    for number in range(8):
        kinds = ("lock_opened", "lock_closed")
        world.write(
            worlds.tables.event, device_id="bike-001", kind="bike", lane="event", boot_epoch=1, seq=number + 1,
            event_id=f"{number:032x}", type=kinds[number % 2], occurred_at=worlds.NOW_MS - (9 - number) * 600_000,
            received_at=worlds.NOW_MS - (9 - number) * 600_000 + 400, late=int(number == 3),
            body=json.dumps({"type": kinds[number % 2], "event_id": f"{number:032x}", "accuracy_metres": 4.0}),
        )  # fmt: skip


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A seeded world behind uvicorn on a free loopback port."""
    world = worlds.make_world(tmp_path)
    seed(world)
    config = uvicorn.Config(world.app, host="127.0.0.1", port=0, log_level="warning", timeout_graceful_shutdown=1)
    started = threading.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    class Announcing(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            loops.append(asyncio.get_running_loop())
            started.set()

    server = Announcing(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    assert started.wait(20)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield Served(world, f"http://127.0.0.1:{port}", loops[0])
    server.should_exit = True
    thread.join(20)
    world.database.close()


@pytest.fixture(scope="module")  # ended with it: Playwright keeps a loop running, which asynchronous tests cannot share
def browser() -> Iterator[Any]:
    """A real Chromium; skipped loudly where there is none, or where the front-end files were not built."""
    if not Path(CHROMIUM).exists():
        pytest.skip(f"{CHROMIUM} is not installed (apt-get install chromium fonts-wqy-microhei)")
    if not (VENDOR / "leaflet/leaflet.js").exists():
        pytest.skip("front-end files are not built (python -m scripts.assets)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        yield chromium
        chromium.close()
