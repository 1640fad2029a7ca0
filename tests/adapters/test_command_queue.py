"""The queue of a device's commands: its bounds, its order, its clock; on SQLite and PostgreSQL."""

import asyncio

import msgspec
import pytest
from sqlalchemy import insert, select, update

from cloud.device_commands import service
from cloud.device_commands.keys import OneKey
from cloud.device_commands.service import DeviceCommands
from cloud.ports import CommandQueueFullError
from cloud.tables import command, device
from devices.bike.messages import Ring
from devices.nursing_room.messages import ShowHelpComing, StartSelfTest
from fleet.messages import Reply, ReplyStatus

pytest_plugins = ("tests.adapters.postgres_fixture",)

NOW_MS = 1_700_000_000_000
YEARS_MS = 10 * 365 * 86_400_000


class Clock:
    speed = 1.0

    def __init__(self):
        self.ms = NOW_MS

    def now_ms(self):
        return self.ms

    def monotonic_s(self):
        return asyncio.get_running_loop().time()


class NoSigner:
    def sign(self, _data):
        return b"s" * 64


class Desk:
    """One process that orders, sends and expires."""

    def __init__(self, database):
        self.clock = Clock()
        self.database = database
        self.sent = []
        numbers = iter(range(1, 10_000))
        self.commands = DeviceCommands(
            database, self.clock, self.sent.extend, OneKey("key", NoSigner()), lambda: f"{next(numbers):032x}"
        )

    async def order(self, device_id, wanted, actor="p1"):
        return await self.database.write(lambda tx: self.commands.order(tx, device_id, wanted, actor=actor))

    async def rows(self):
        query = select(command).order_by(command.c.id)
        return await self.database.read(lambda tx: [dict(row) for row in tx.execute(query).mappings()])

    async def look(self):
        """One round of the sender and one of the clock."""
        await self.commands._send_queued()
        await self.commands._expire()

    def sent_ids(self):
        found = []
        for message in self.sent:
            order = msgspec.json.decode(msgspec.json.decode(message.payload)["order"])
            found.append(order["id"])
        return found


@pytest.fixture
async def desk(database):
    names = [("bike-001", "bike"), ("room-001", "nursing_room"), *((f"bike-{n:03d}", "bike") for n in range(2, 8))]
    rows = [{"device_id": name, "kind": kind, "name": name, "enrolled_at": 1, "generation": 1} for name, kind in names]
    await database.write(lambda tx: tx.execute(insert(device), rows))
    return Desk(database)


async def test_a_device_has_so_many_open_commands_and_help_is_shown_beside_them(desk):
    refused = service.COMMANDS_REFUSED.labels("device")._value.get()
    for _ in range(service.OPEN_PER_DEVICE_MAX):
        await desk.order("room-001", StartSelfTest())
    with pytest.raises(CommandQueueFullError, match="16 unanswered commands") as full:
        await desk.order("room-001", StartSelfTest())
    assert full.value.bound == "device"
    assert service.COMMANDS_REFUSED.labels("device")._value.get() == refused + 1
    urgent = await desk.order("room-001", ShowHelpComing(press_id="b" * 32), actor="system")
    await desk.look()
    assert desk.sent_ids()[0] == urgent, "and it leaves before them"
    for _ in range(service.OPEN_URGENT_PER_DEVICE_MAX - 1):
        await desk.order("room-001", ShowHelpComing(), actor="system")
    with pytest.raises(CommandQueueFullError) as full:
        await desk.order("room-001", ShowHelpComing(), actor="system")
    assert full.value.bound == "urgent"


async def test_one_person_has_so_many_open_commands_and_an_end_frees_one(desk):
    ids = [
        await desk.order(f"bike-{1 + number // 12:03d}", Ring()) for number in range(service.OPEN_PER_ACTOR_MAX)
    ]  # fmt: skip
    with pytest.raises(CommandQueueFullError) as full:
        await desk.order("bike-007", Ring())
    assert full.value.bound == "actor"
    await desk.order("bike-007", Ring(), actor="p2")
    await desk.order("bike-007", Ring(), actor=service.SYSTEM_ACTOR)
    reply = Reply(command_id=ids[0], device_id="bike-001", status=ReplyStatus.SUCCEEDED, at=NOW_MS)
    await desk.database.write(lambda tx: desk.commands.record_replies(tx, [reply], NOW_MS))
    await desk.order("bike-007", Ring())


async def test_a_devices_commands_leave_in_the_order_given(desk):
    ids = [await desk.order("bike-001", Ring()) for _ in range(10)]  # all in one millisecond
    await desk.look()
    assert desk.sent_ids() == ids
    issued = [row["issued_at"] for row in await desk.rows()]
    assert issued == sorted(set(issued))


async def test_without_a_broker_they_stay_queued_can_be_taken_back_and_expire(desk):
    desk.commands.link_is_up = lambda: False
    first, second, third = [await desk.order("bike-001", Ring()) for _ in range(3)]
    await desk.look()
    assert desk.sent == []
    noted = []
    assert await desk.commands.cancel(first, noted.append)
    assert not await desk.commands.cancel(first, noted.append)
    assert len(noted) == 1
    desk.commands.link_is_up = lambda: True
    await desk.database.write(lambda tx: tx.execute(update(command).where(command.c.id == second).values(not_after=1)))
    await desk.look()
    assert desk.sent_ids() == [third]
    assert [(row["status"], row["reason"]) for row in await desk.rows()] == [
        ("refused", "cancelled"), ("expired", "expired"), ("sent", ""),
    ]  # fmt: skip
    assert not await desk.commands.cancel(third, noted.append), "what has left cannot be taken back"


async def test_the_broker_is_told_how_long_a_command_is_of_use(desk):
    await desk.order("bike-001", Ring())
    desk.clock.ms += 4_000
    await desk.look()
    (message,) = desk.sent
    assert message.expires_s - asyncio.get_running_loop().time() == pytest.approx(6.0, abs=0.5)


@pytest.mark.parametrize("jump_ms", [YEARS_MS, -YEARS_MS])
async def test_a_clock_that_is_set_by_years_leaves_no_command_open_for_years(desk, jump_ms):
    sent = await desk.order("bike-001", Ring())
    await desk.look()
    desk.clock.ms += jump_ms
    await desk.look()
    later = await desk.order("bike-001", Ring())
    await desk.look()
    assert later in desk.sent_ids()
    desk.clock.ms += round((10 + service.ACCEPT_GRACE_S + 1) * 1000)
    await desk.look()
    assert {row["id"]: row["status"] for row in await desk.rows()} == {sent: "expired", later: "expired"}


async def test_devices_that_trust_other_keys_are_asked_to_say_hello_a_few_at_a_time(desk, monkeypatch):
    from cloud.tables import twin

    monkeypatch.setattr(service, "NUDGES_MAX", 2)
    monkeypatch.setattr(service, "NUDGE_S", 0.0)
    columns = {column.name: 0 for column in twin.columns if not column.nullable and column.server_default is None}

    def fill(tx):
        tx.execute(update(device).values(command_keys="old"))
        tx.execute(update(device).where(device.c.device_id == "bike-001").values(command_keys="new"))
        for name in ("bike-001", "bike-002", "bike-003", "bike-004"):
            row = {**columns, "device_id": name, "kind": "bike", "state": "{}", "desk": "{}", "online": 1}
            tx.execute(insert(twin), row | {"presence": "{}"})

    await desk.database.write(fill)
    keys = OneKey("new", NoSigner())
    keys.version = 7
    desk.commands._keys = keys
    await desk.commands._tell_of_keys()
    assert len(desk.sent) == 2
    await desk.commands._tell_of_keys()
    asked = sorted(message.topic.split("/")[2] for message in desk.sent)
    assert asked == ["bike-002", "bike-003", "bike-004"], "connected, in service, and each of them once"
    assert all(msgspec.json.decode(message.payload)["greet"] for message in desk.sent)


@pytest.mark.parametrize("end", ["retired_at", "revoked_at"])
async def test_nothing_is_ordered_for_a_device_out_of_service(desk, end):
    await desk.database.write(lambda tx: tx.execute(update(device).values({end: NOW_MS})))
    with pytest.raises(LookupError, match="no device 'bike-001' in service"):
        await desk.order("bike-001", Ring(), actor="system")
    assert await desk.rows() == []


@pytest.mark.parametrize("end", ["retired_at", "revoked_at"])
async def test_what_waits_for_a_device_that_leaves_service_is_never_sent_and_expires(desk, end):
    await desk.order("bike-001", Ring())
    await desk.database.write(lambda tx: tx.execute(update(device).values({end: NOW_MS})))
    await desk.look()
    assert desk.sent == []
    desk.clock.ms += 60_000
    await desk.look()
    assert [row["status"] for row in await desk.rows()] == ["expired"]
