"""Presence and data link of one device over HTTP, on its page and on the command line, on real SQLite."""

import json

import pytest
from sqlalchemy import update
from typer.testing import CliRunner

from cli.app import app
from cloud import presence, tables
from cloud.presence import Presence
from tests.web import world as worlds
from tests.web.client import client
from tests.web.world import NOW_MS, make_world

BIKE = {"device_id": "bike-001", "reading": worlds.BIKE_READING}


@pytest.fixture
def world(tmp_path):
    made = make_world(tmp_path)
    yield made
    made.database.close()


def remember(world, device_id, memory, **twin):
    columns = {"presence": presence.encode(memory), **twin}
    world.database.write_here(
        lambda tx: tx.execute(update(tables.twin).where(tables.twin.c.device_id == device_id).values(**columns))
    )


async def presence_of(world, device_id):
    async with client(world, "crew") as crew:
        return (await crew.get(f"/api/v1/devices/{device_id}")).json()["presence"]


async def test_link_data_and_sensors_are_three_answers(world):
    worlds.add_device(world, "bike-001", "bike", state=BIKE)
    said = await presence_of(world, "bike-001")
    assert said["link"] == {"state": "up", "changed_at": NOW_MS - 3_600_000, "drops": 0, "unstable": False}
    assert said["data"] == {"state": "fresh", "at": NOW_MS - 5_000, "stale_after_s": 3_600.0}
    assert {key: (one["state"], one["last_good_at"]) for key, one in said["sensors"].items()} == {
        "gnss": ("fresh", NOW_MS - 5_000),
        "battery_thermometer": ("fresh", NOW_MS - 5_000),
    }
    assert said["sensors"]["gnss"]["title_en"] == "Satellite positioning"


async def test_a_connected_device_that_only_keeps_alive_is_up_with_stale_data(world):
    worlds.add_device(world, "bike-001", "bike", state=BIKE)
    remember(world, "bike-001", Presence(), last_reading_at=NOW_MS - 4_000_000)
    said = await presence_of(world, "bike-001")
    assert (said["link"]["state"], said["data"]["state"]) == ("up", "stale")


async def test_a_dead_sensor_of_a_device_that_talks_is_stale_alone(world):
    worlds.add_device(world, "bike-001", "bike", state=BIKE)
    remember(world, "bike-001", Presence(lost={"battery_thermometer": NOW_MS - 3 * 3_600_000, "gnss": 0}))
    said = await presence_of(world, "bike-001")
    assert said["data"]["state"] == "fresh"
    assert said["sensors"]["battery_thermometer"]["state"] == "stale"
    assert said["sensors"]["battery_thermometer"]["last_good_at"] == NOW_MS - 3 * 3_600_000
    assert (said["sensors"]["gnss"]["state"], said["sensors"]["gnss"]["last_good_at"]) == ("never", None)


async def test_an_old_fix_makes_only_the_position_old(world):
    reading = {**worlds.BIKE_READING, "fix_age_seconds": 15_000.0}
    worlds.add_device(world, "bike-001", "bike", state={"device_id": "bike-001", "reading": reading})
    said = await presence_of(world, "bike-001")
    assert said["sensors"]["gnss"]["state"] == "stale"
    assert said["sensors"]["gnss"]["last_good_at"] == NOW_MS - 5_000 - 15_000_000
    assert said["sensors"]["battery_thermometer"]["state"] == "fresh"


@pytest.mark.parametrize(
    ("online", "heard_ago_ms", "state"), [(True, 5_000, "up"), (True, 3_600_000, "unknown"), (False, 5_000, "down")]
)
async def test_a_link_nobody_ended_but_nobody_hears_is_unknown(world, online, heard_ago_ms, state):
    worlds.add_device(world, "bike-001", "bike", online=online, heard_ago_ms=heard_ago_ms, state=BIKE)
    assert (await presence_of(world, "bike-001"))["link"]["state"] == state


async def test_a_device_that_never_spoke(world):
    world.write(tables.device, device_id="bike-009", kind="bike", enrolled_at=NOW_MS)
    said = await presence_of(world, "bike-009")
    assert said["link"]["state"] == "unknown"
    assert said["data"] == {"state": "never", "at": None, "stale_after_s": 3_600.0}
    async with client(world, "crew") as crew:
        link = (await crew.get("/api/v1/devices/bike-009/link")).json()
        assert (await crew.get("/devices/bike-009")).status_code == 200
    assert (link["messages"], link["late_share"], link["gaps"], link["refused"]) == (0, 0.0, [], [])


def with_a_history(world):
    worlds.add_device(world, "bike-001", "bike", state=BIKE)
    memory = Presence(
        hello_at=NOW_MS - 60_000, firmware="edge-7", boots=12, duplicates=3, holes=2, evicted=10, late=25, drops=4,
        quarantined=1,
    )  # fmt: skip
    remember(world, "bike-001", memory, emergency_seq=0, event_seq=10, telemetry_seq=100)
    for device_id, first in (("bike-001", 11), ("bike-002", 500)):
        world.write(
            tables.gap, device_id=device_id, lane="telemetry", generation=1, first_seq=first, last_seq=first + 9,
            received_at=NOW_MS,
        )  # fmt: skip
        world.write(
            tables.quarantine, device_id=device_id, lane="event", seq=7, received_at=NOW_MS, topic="f/0/x/up/event",
            reason=f"of {device_id}: <b>no</b> such field", payload=b"{}",
        )  # fmt: skip


async def test_gaps_repeats_late_and_refused_messages_are_told_per_device(world):
    with_a_history(world)
    async with client(world, "crew") as crew:
        link = (await crew.get("/api/v1/devices/bike-001/link")).json()
    assert (link["messages"], link["late"], link["late_share"]) == (100, 25, 0.25)
    assert (link["duplicates"], link["asked_again"], link["evicted"], link["evicted_ever"]) == (3, 2, 10, 10)
    assert [(gap["first_seq"], gap["last_seq"]) for gap in link["gaps"]] == [(11, 20)]
    assert [one["reason"] for one in link["refused"]] == ["of bike-001: <b>no</b> such field"]
    assert (link["firmware"], link["boots"], link["hello_at"], link["drops"]) == ("edge-7", 12, NOW_MS - 60_000, 4)
    assert {mark["lane"]: mark["seq"] for mark in link["marks"]} == {"emergency": 0, "event": 10, "telemetry": 100}


@pytest.mark.parametrize(("role", "status"), [("employee", 403), ("crew", 200), ("admin", 200)])
async def test_who_may_see_a_link(world, role, status):
    with_a_history(world)
    async with client(world, role) as person:
        assert (await person.get("/api/v1/devices/bike-001/link")).status_code == status
        assert (await person.get("/api/v1/devices/bike-404/link")).status_code in {403, 404}


@pytest.mark.parametrize(("language", "words"), [("zh_CN", "数据链路 11–20 25.0"), ("en", "Data link 11–20 25.0")])
async def test_the_page_shows_it_in_both_languages_and_escapes_what_devices_say(world, language, words):
    with_a_history(world)
    world.database.write_here(lambda tx: tx.execute(update(tables.person).values(language=language)))
    async with client(world, "crew") as crew:
        page = (await crew.get("/devices/bike-001")).text
    for word in words.rsplit(" ", 2):
        assert word in page
    assert "&lt;b&gt;no&lt;/b&gt; such field" in page
    assert 'id="presence"' in page
    assert 'id="data-link"' in page


async def test_the_page_says_to_look_at_the_hardware_when_only_data_is_missing(world):
    worlds.add_device(world, "bike-001", "bike", state=BIKE)
    remember(world, "bike-001", Presence(), last_reading_at=NOW_MS - 4_000_000)
    async with client(world, "crew") as crew:
        assert "请检查硬件，而不是网络" in (await crew.get("/devices/bike-001")).text


def test_the_command_line_tells_the_same(world, tmp_path):
    with_a_history(world)
    told = CliRunner().invoke(app, ["devices", "link", "bike-001", "--data-directory", str(tmp_path), "--json"])
    assert told.exit_code == 0, told.output
    document = json.loads(told.stdout)
    assert document["late"] == 25
    assert document["presence"]["sensors"].keys() == {"gnss", "battery_thermometer"}
    words = CliRunner().invoke(app, ["devices", "link", "bike-001", "--data-directory", str(tmp_path)])
    assert "asked again: 2" in words.output
    unknown = CliRunner().invoke(app, ["devices", "link", "bike-404", "--data-directory", str(tmp_path)])
    assert unknown.exit_code == 1
    assert "fleet devices list" in unknown.output


def test_memory_of_another_release_is_no_obstacle():
    assert presence.decode('{"hello_at": "never"}') == Presence()
    assert presence.decode(None) == Presence()
    assert presence.decode('{"drops": 3, "what_a_later_release_knows": 1}').drops == 3
    kept = Presence(lost={"gnss": 5}, run_drops=3, run_began_at=1, dropped_at=2)
    assert presence.decode(presence.encode(kept)) == kept
