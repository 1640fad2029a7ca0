"""Rides over HTTP: who may ask, whose ride is seen, and waiting for a change."""

import asyncio

import pytest
from rides_world import BIKE, OTHER_BIKE, make_world

from cloud.api.access import Role


@pytest.fixture
def world(tmp_path):
    made = make_world(tmp_path)
    made.add_person("crew", role=Role.CREW)
    made.add_person("admin", role=Role.ADMIN)
    yield made
    made.database.close()


async def test_asking_answers_with_the_ride_and_where_to_follow_it(world):
    async with world.client("wang") as client:
        answer = await client.post("/api/v1/rides", json={"device_id": BIKE})
        assert answer.status_code == 202
        ride = answer.json()
        assert ride["state"] == "unlocking"
        assert set(ride) == {
            "id", "device_id", "state", "asked_at", "deadline_at", "started_at", "ended_at", "fee_fen", "reason",
            "flagged",
        }  # fmt: skip
        assert (await client.get(answer.headers["location"])).json() == ride


@pytest.mark.parametrize("name", ["", "nobody"])
@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/rides"), ("GET", "/rides"), ("GET", "/rides/1"), ("GET", "/bikes")]
)
async def test_nothing_without_signing_in(world, name, method, path):
    async with world.client(name) as client:
        answer = await client.request(method, f"/api/v1{path}", json={"device_id": BIKE} if method == "POST" else None)
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("name", ["crew", "admin"])
async def test_only_employees_ride(world, name):
    async with world.client(name) as client:
        assert (await client.post("/api/v1/rides", json={"device_id": BIKE})).status_code == 403
    assert world.commands_of() == []


@pytest.mark.parametrize("name", ["li", "crew", "admin"])
async def test_nobody_sees_a_ride_of_somebody_else(world, name):
    ride = await world.rides.ask(BIKE, world.people["wang"])
    async with world.client(name) as client:
        answer = await client.get(f"/api/v1/rides/{ride.id}")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        assert (await client.get("/api/v1/rides")).json()["rides"] == []
        unknown = await client.get("/api/v1/rides/unknown")
        assert unknown.json()["title"] == answer.json()["title"], "existence is not told"


@pytest.mark.parametrize(
    "body",
    [{}, {"device_id": 1}, {"device_id": "Bike 1"}, {"device_id": BIKE, "free": True}, {"device_id": "x" * 99}, []],
)
async def test_bad_input_is_refused(world, body):
    async with world.client("wang") as client:
        answer = await client.post("/api/v1/rides", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")


async def test_conflicts_have_a_stable_word(world):
    async with world.client("wang") as first, world.client("li") as second:
        ride = (await first.post("/api/v1/rides", json={"device_id": BIKE})).json()
        taken = await second.post("/api/v1/rides", json={"device_id": BIKE})
        assert (taken.status_code, taken.json()["code"]) == (409, "bike_taken")
        busy = await first.post("/api/v1/rides", json={"device_id": OTHER_BIKE})
        assert (busy.json()["code"], busy.json()["ride_id"]) == ("ride_open", ride["id"])


async def test_waiting_returns_when_the_lock_reports(world):
    async with world.running(), world.client("wang") as client:
        ride = await world.rides.ask(BIKE, world.people["wang"])
        async with asyncio.timeout(10):
            answer, _ = await asyncio.gather(
                client.get(f"/api/v1/rides/{ride.id}?wait_s=20&seen=unlocking"),
                world.evidence("lock_opened", command_id=ride.command_id),
            )
    assert answer.json()["state"] == "riding"


async def test_a_change_just_before_the_question_is_not_waited_past(world):
    ride = await world.rides.ask(BIKE, world.people["wang"])
    await world.evidence("lock_opened", command_id=ride.command_id)
    async with world.client("wang") as client, asyncio.timeout(5):
        answer = await client.get(f"/api/v1/rides/{ride.id}?wait_s=30&seen=unlocking")
    assert answer.json()["state"] == "riding"


async def test_waiting_ends_without_a_change(world):
    async with world.client("wang") as client:
        ride = await world.rides.ask(BIKE, world.people["wang"])
        answer = await client.get(f"/api/v1/rides/{ride.id}?wait_s=0.05")
    assert answer.json()["state"] == "unlocking"
    assert not world.rides._waiting, "nobody is waited for any more"


async def test_a_finished_ride_is_not_waited_for(world):
    ride = await world.rides.ask(BIKE, world.people["wang"])
    await world.evidence("lock_jammed", command_id=ride.command_id)
    async with world.client("wang") as client, asyncio.timeout(5):
        answer = await client.get(f"/api/v1/rides/{ride.id}?wait_s=30")
    assert answer.json()["state"] == "never_began"


async def test_changes_are_announced_to_their_rider_alone(world):
    with world.changes.subscribe() as page:
        async with world.running():
            ride = await world.rides.ask(BIKE, world.people["wang"])
            change = await page.next()
            assert (change.topic, change.facts["state"]) == ("ride", "unlocking")
            assert change.facts["person_id"] == "person-wang"
            await world.evidence("lock_opened", command_id=ride.command_id)
            states = []
            async with asyncio.timeout(5):
                while "riding" not in states:
                    change = await page.next()
                    if change.topic == "ride":
                        states.append(change.facts["state"])


async def test_a_page_of_rides_leads_to_the_next(world):
    wang = world.people["wang"]
    for _ in range(5):
        ride = await world.rides.ask(BIKE, wang)
        await world.evidence("lock_jammed", command_id=ride.command_id)
        world.clock.advance(seconds=60)
    async with world.client("wang") as client:
        seen, before = [], None
        for _ in range(3):
            page = (
                await client.get("/api/v1/rides", params={"limit": 2, **({"before": before} if before else {})})
            ).json()
            seen += [ride["asked_at"] for ride in page["rides"]]
            before = page["next_before"]
    assert before is None
    assert seen == sorted(seen, reverse=True)
    assert len(set(seen)) == 5


async def test_rides_asked_for_in_one_moment_are_all_found_page_by_page(world):
    wang = world.people["wang"]
    asked = set()
    for _ in range(5):
        ride = await world.rides.ask(BIKE, wang)
        asked.add(ride.id)
        await world.evidence("lock_jammed", command_id=ride.command_id)
    async with world.client("wang") as client:
        seen, mark = [], {}
        for _ in range(3):
            page = (await client.get("/api/v1/rides", params={"limit": 2, **mark})).json()
            seen += [ride["id"] for ride in page["rides"]]
            mark = {"before": page["next_before"]}
    assert page["next_before"] is None
    assert (len(seen), set(seen)) == (5, asked)


async def test_bikes_to_rent_leave_out_the_taken_the_faulty_and_the_silent(world):
    world.add_bike("bike-003", fallen_at=5)
    world.add_bike("bike-004", online=False)
    await world.rides.ask(OTHER_BIKE, world.people["li"])
    async with world.client("wang") as client:
        found = (await client.get("/api/v1/bikes")).json()["bikes"]
    assert [bike["device_id"] for bike in found] == [BIKE]
    assert found[0]["latitude"] == pytest.approx(38.8622)
