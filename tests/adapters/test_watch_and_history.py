"""What the process itself tells people and `/metrics`, and what it forgets."""

import json

from prometheus_client import CollectorRegistry, generate_latest
from sqlalchemy import func, insert, select

from cloud.history import bounds as history
from cloud.tables import (
    audit,
    call,
    command,
    command_step,
    event,
    history_mark,
    idempotency,
    inbox,
    intent,
    outbox,
    person,
    proof_test,
    session,
)
from cloud.watch import Condition, Watch

pytest_plugins = ("tests.adapters.postgres_fixture",)

DAY_MS = 86_400_000
NOW_MS = 1_000 * DAY_MS


class Clock:
    speed = 1.0

    def __init__(self):
        self.real_s = 0.0

    def now_ms(self):
        return NOW_MS + round(self.real_s * 1000)

    def monotonic_s(self):
        return self.real_s


def watch_of(database, clock, state):
    watch = Watch(database, clock, "ingester-a", ["inbox", "webhook"], lambda: state.__setitem__("woken", True))
    watch.conditions.append(Condition("broker", lambda: state["down"], "断线", "Down", 30.0))
    return watch


async def told(database):
    rows = await database.read(lambda tx: tx.execute(select(outbox).order_by(outbox.c.id)).mappings().all())
    return [
        (row["channel"], body["kind_of"], body["priority"], body["title_en"])
        for row in rows
        for body in [json.loads(row["notification"])]
    ]


async def test_a_condition_is_told_once_when_it_lasts_and_once_when_it_ends_also_after_a_restart(database):
    clock, state = Clock(), {"down": True, "woken": False}
    watch = watch_of(database, clock, state)
    await watch.look()
    clock.real_s = 29.0
    await watch.look()
    assert await told(database) == []
    assert not state["woken"]
    clock.real_s = 30.0
    await watch.look()
    await watch.look()
    begun = [(channel, "system", "high", "Down") for channel in ("inbox", "webhook")]
    assert await told(database) == begun
    assert state["woken"]

    again = watch_of(database, clock, state)  # a restart while it lasts
    for clock.real_s in (31.0, 90.0):
        await again.look()
        assert await told(database) == begun
    state["down"] = False
    await again.look()
    assert await told(database) == [*begun, *((channel, "system", "low", "Over: Down") for channel, *_ in begun)]


async def test_numbers_are_read_at_the_scrape(database):
    watch = watch_of(database, Clock(), {"down": False, "woken": False})
    depth = 3
    watch.numbers.single["fleet_x"] = "X", lambda: depth
    watch.numbers.devices = lambda: {("bike", "online"): 7}
    registry = CollectorRegistry()
    registry.register(watch.numbers)
    await database.write(lambda tx: tx.execute(insert(outbox).values(**_notice("w1", None))))
    await watch.look()
    depth = 4
    text = generate_latest(registry).decode()
    assert "fleet_x 4.0" in text
    assert 'fleet_devices{kind="bike",state="online"} 7.0' in text
    assert 'fleet_outbox_waiting{urgency="other"} 1.0' in text


def _notice(name, delivered_at, reference=""):
    return {
        "delivery_id": name, "channel": "inbox", "reference": reference, "notification": "{}", "urgent": 0,
        "created_at": 0, "available_at": 0, "delivered_at": delivered_at,
    }  # fmt: skip


def _command(name, status, at):
    return {
        "id": name, "device_id": "bike-001", "action": "unlock", "arguments": "{}", "actor": "a", "issued_at": at,
        "not_after": at, "generation": 1, "status": status, "changed_at": at,
    }  # fmt: skip


def _event(name, at):
    return {
        "device_id": "bike-001", "kind": "bike", "lane": "event", "boot_epoch": 1, "seq": 1, "event_id": name,
        "type": "t", "occurred_at": at, "received_at": at, "body": "{}",
    }  # fmt: skip


async def test_what_is_done_and_old_goes_and_nothing_else(database, monkeypatch):
    monkeypatch.setattr(history, "BATCH_ROWS", 2)
    old, new, ancient = NOW_MS - 31 * DAY_MS, NOW_MS - 29 * DAY_MS, NOW_MS - 401 * DAY_MS

    def fill(tx):
        tx.execute(insert(event), [_event(f"e{n}", ancient) for n in range(5)] + [_event("young", old)])
        tx.execute(insert(command), [_command("ended", "succeeded", ancient), _command("open", "accepted", ancient)])
        tx.execute(insert(command), [_command("younger", "accepted", old)])
        tx.execute(
            insert(outbox),
            [
                _notice("old", old), _notice("new", new), _notice("waits", None),
                _notice("remembered", old, "condition:a:broker"),
            ],
        )  # fmt: skip
        tx.execute(
            insert(inbox), [{"delivery_id": str(at), "notification": "{}", "created_at": at} for at in (old, new)]
        )
        act = {"device_id": "bike-001", "name": "n", "actor": "a", "arguments": "{}", "at": ancient}
        tx.execute(insert(intent), [{"id": "done", **act, "done_at": old}, {"id": "open", **act, "done_at": None}])
        for key, at, status in (("old", old, 200), ("new", new, 200), ("open", ancient, None)):
            tx.execute(insert(idempotency).values(person_id="p", key=key, body_hash="", created_at=at, status=status))
        tx.execute(insert(person).values(id="p", login="p", name="P", role="admin", password_hash="", created_at=0))
        for token, until in (("over", NOW_MS - 1), ("live", NOW_MS + 1)):
            tx.execute(
                insert(session).values(
                    token_hash=token, person_id="p", csrf_token="", created_at=0, last_used_at=0, expires_at=until
                )
            )
        tx.execute(insert(proof_test), [
            {"device_id": device_id, "kind": "nursing_room", "at": at, "received_at": at, "how": "pressed",
             "passed": passed, "event_id": f"{device_id}{at}{passed}"}
            for device_id, at, passed in (
                ("room-001", ancient, 1), ("room-001", ancient, 0), ("room-001", old, 1),
                ("room-002", ancient - 1, 1), ("room-002", ancient, 1), ("room-002", ancient, 0),
            )
        ])  # fmt: skip
        tx.execute(insert(call).values(
            id="c", device_id="room-001", kind="nursing_room", state="calling", pressed_at=ancient, received_at=ancient,
            changed_at=ancient,
        ))  # fmt: skip
        tx.execute(insert(audit).values(at=0, actor="a", action="x.y", object="o", detail="{}"))

    await database.write(fill)
    deleted = await history.prune(database, Clock(), 400, 30)
    assert deleted == {
        "command_step": 2, "event": 5, "command": 1, "outbox": 1, "proof_test": 3, "inbox": 1, "intent": 1,
        "idempotency": 1, "session": 1,
    }  # fmt: skip
    assert await database.read(lambda tx: list(tx.scalars(select(command.c.id)))) == ["open", "younger"]
    assert await database.read(lambda tx: list(tx.scalars(select(session.c.token_hash)))) == ["live"]
    assert await database.read(lambda tx: tx.scalar(select(func.count()).select_from(audit))) == 1
    assert await history.prune(database, Clock(), 400, 30) == {}

    def follow(tx):
        # Of the younger one: no step goes before it is in the series.
        (step,) = tx.scalars(select(command_step.c.id))
        tx.execute(insert(history_mark).values(name="command_step", position=step))

    await database.write(follow)
    assert await history.prune(database, Clock(), 400, 30) == {"command_step": 1}
