"""The fan-out to open pages: nothing blocks, nothing is lost silently, and nobody hears what is another's."""

import asyncio

import anyio
import pytest

from cloud.api import changes as module
from cloud.api.access import Person, Role
from cloud.api.changes import RELOAD, Change, Changes, TooManySubscribersError
from cloud.web.stream import _events, may_see
from tests.web.client import client
from tests.web.world import make_world


async def test_every_subscriber_hears_every_change_in_order():
    changes = Changes()
    with changes.subscribe() as one, changes.subscribe() as two:
        for number in range(3):
            changes.publish("alarm", {"id": str(number)})
        for subscription in (one, two):
            assert [(await subscription.next()).facts["id"] for _ in range(3)] == ["0", "1", "2"]
    assert changes.subscribers == 0


async def test_changes_of_one_thing_are_joined_into_the_latest():
    changes = Changes()
    with changes.subscribe() as subscription:
        for state in ("calling", "acknowledged", "attended"):
            changes.publish("call", {"id": "call-1", "state": state})
        changes.publish("alarm", {"id": "call-1"})
        assert (await subscription.next()).facts["state"] == "attended"
        assert (await subscription.next()).topic == "alarm"


async def test_who_does_not_keep_up_is_cut_off_counted_and_told(monkeypatch):
    monkeypatch.setattr(module, "PENDING_MAX", 3)
    dropped = []
    changes = Changes(on_dropped=lambda: dropped.append(1))
    with changes.subscribe() as slow, changes.subscribe() as quick:
        for number in range(4):
            changes.publish("alarm", {"id": str(number)})
            await quick.next()
        assert (await slow.next()).topic == RELOAD
        assert (await slow.next()).topic == RELOAD
        assert changes.subscribers == 1
    assert dropped == [1]


async def test_waiting_ends_when_something_comes_and_can_be_cancelled():
    changes = Changes()
    with changes.subscribe() as subscription:
        waiting = asyncio.ensure_future(subscription.next())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        changes.publish("alarm", {"id": "1"})
        assert (await subscription.next()).facts == {"id": "1"}


async def test_the_number_of_subscribers_is_bounded(monkeypatch):
    monkeypatch.setattr(module, "SUBSCRIBERS_MAX", 1)
    changes = Changes()
    with changes.subscribe(), pytest.raises(TooManySubscribersError), changes.subscribe():
        pass


@pytest.mark.parametrize(
    ("role", "facts", "seen"),
    [
        (Role.EMPLOYEE, {"id": "a"}, False),
        (Role.CREW, {"id": "a"}, True),
        (Role.ADMIN, {"id": "a"}, True),
        (Role.EMPLOYEE, {"id": "r", "person_id": "me"}, True),
        (Role.EMPLOYEE, {"id": "r", "person_id": "other"}, False),
        (Role.ADMIN, {"id": "r", "person_id": "other"}, False),
    ],
)
def test_who_hears_what(role, facts, seen):
    assert may_see(Person("me", "me", "Me", role, "en"), Change("ride", facts)) is seen


async def test_the_stream_ends_when_the_account_is_closed(tmp_path):
    world = make_world(tmp_path)
    person = Person("person-crew", "crew", "Crew", Role.CREW, "en")
    events = _events(None, person, world.changes, world.members, world.clock, anyio.Event())
    assert (await anext(events))["event"] == "hello"
    world.changes.publish("alarm", {"id": "alarm-1"})
    assert (await anext(events))["event"] == "alarm"
    async with client(world, "admin") as admin:
        assert (await admin.post("/api/v1/persons/person-crew/disable")).status_code == 204
    with pytest.raises(StopAsyncIteration):
        await anext(events)
    assert world.changes.subscribers == 0
    world.database.close()
