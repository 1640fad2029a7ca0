"""Rows such as the services write, and a store that remembers points by their identity."""

from sqlalchemy import insert, update

from cloud.history.feed import HistoryFeed
from cloud.history.horizon import Horizon
from cloud.history.sending import Sending
from cloud.history.steps import SOURCES
from cloud.ports import SeriesError
from cloud.tables import (
    alarm,
    alarm_transition,
    call,
    call_transition,
    command,
    purchase,
    purchase_step,
    ride,
    work_order,
    work_order_transition,
)

NOW_MS = 1_800_000_000_000
MINUTE_MS = 60_000


class StillClock:
    speed = 1.0

    def __init__(self, now_ms=NOW_MS):
        self.ms = now_ms
        self.real_s = 0.0

    def now_ms(self):
        return self.ms

    def monotonic_s(self):
        return self.real_s


class NoJitter:
    def uniform(self, low, _high):
        return low


class MemoryStore:
    """Points by identity; `refuses` names fields' values it will never take, `down` is an outage."""

    def __init__(self):
        self.points = {}
        self.writes = 0
        self.refuses = None
        self.down = 0

    async def write(self, points):
        if self.down:
            self.down -= 1
            raise SeriesError("503", retry_after_s=1.0)
        if self.refuses is not None and any(self.refuses(point) for point in points):
            raise SeriesError("400: field type conflict", retry_after_s=None)
        self.writes += 1
        for point in points:
            self.points[point.kind, point.device_id, point.tags, point.at_ns] = dict(point.fields)

    def of(self, measurement):
        """(tags with the device, ms, fields) in order of time."""
        found = []
        for (kind, device_id, tags, at_ns), fields in sorted(self.points.items(), key=lambda item: item[0][3]):
            if kind == measurement:
                found.append(({"device_id": device_id, **dict(tags)}, at_ns // 1_000_000, fields))
        return found

    def steps(self, measurement):
        return [tags["step"] for tags, _, _ in self.of(measurement)]


class FreeLease:
    """Nobody else is there."""

    def __init__(self):
        self.taken = []
        self.lost = False

    async def take(self, shards):
        self.taken.append(list(shards))

    async def keep(self):
        return

    def check(self, _tx):
        if self.lost:
            from cloud.ingest.leases import LeaseLostError

            raise LeaseLostError("another has it")


class Follower:
    """A feed with its store; `restarted` is the next process on the same database and store."""

    def __init__(self, database, store=None, clock=None, lease=None, batch_rows=500):
        self.database, self.store = database, store or MemoryStore()
        self.clock, self.lease = clock or StillClock(), lease or FreeLease()
        self.waited_s, self.quarantined, self.batch_rows = [], [], batch_rows
        self.feed, self.sending = self._feed()
        self.horizon = Horizon(database, [source.name for source in SOURCES])

    def _feed(self):
        async def quarantine(items):
            self.quarantined.extend(items)

        async def sleep(seconds):
            self.waited_s.append(seconds)

        sending = Sending(
            self.store, quarantine=quarantine, received_at_ms=self.clock.now_ms, randomness=NoJitter(), sleep=sleep
        )
        feed = HistoryFeed(
            self.database, sending, lease=lambda: self.lease, clock=self.clock, sleep=sleep, batch_rows=self.batch_rows
        )
        return feed, sending

    def restarted(self):
        return Follower(self.database, self.store, self.clock, self.lease, self.batch_rows)

    async def step(self):
        return await self.feed.step(self.lease, self.horizon)

    async def follow(self):
        while await self.step():
            continue


def add_call(tx, call_id, *, purpose="help", device_id="room-001", at=NOW_MS):
    times = {"pressed_at": at, "received_at": at, "changed_at": at}
    row = {"id": call_id, "device_id": device_id, "kind": "nursing_room", "state": "calling", "purpose": purpose}
    tx.execute(insert(call).values(**row, **times))
    add_call_step(tx, call_id, "press", "idle", "calling", at)


def add_call_step(tx, call_id, step, before, after, at, event_id=None):
    row = {"call_id": call_id, "step": step, "before": before, "after": after, "at": at, "received_at": at}
    tx.execute(insert(call_transition).values(**row, actor="", event_id=event_id or f"{call_id}:{step}:{at}"))


def add_alarm(tx, alarm_id, *, device_id="machine-001", at=NOW_MS):
    row = {"id": alarm_id, "device_id": device_id, "kind": "meal_machine", "key": "too_warm", "priority": "high"}
    tx.execute(insert(alarm).values(**row, state="unacknowledged", activated_at=at, changed_at=at))
    add_alarm_step(tx, alarm_id, "activate", "normal", "unacknowledged", at)


def add_alarm_step(tx, alarm_id, event, before, after, at):
    row = {"alarm_id": alarm_id, "event": event, "before": before, "after": after, "at": at}
    tx.execute(insert(alarm_transition).values(**row, actor="rules", note=""))


def add_order(tx, order_id, *, device_id="bike-001", at=NOW_MS, due_at=NOW_MS + MINUTE_MS):
    row = {
        "id": order_id, "cause": f"cause:{order_id}", "device_id": device_id, "kind": "bike", "skill": "battery",
        "title_zh": "换电", "title_en": "Battery", "items": "{}", "priority": "medium", "state": "dispatchable",
        "created_at": at, "due_at": due_at, "changed_at": at,
    }  # fmt: skip
    tx.execute(insert(work_order).values(**row))
    add_order_step(tx, order_id, "release", "draft", "dispatchable", at)


def add_order_step(tx, order_id, event, before, after, at, reason=""):
    row = {"order_id": order_id, "event": event, "before": before, "after": after, "at": at, "reason": reason}
    tx.execute(insert(work_order_transition).values(**row, actor="dispatch"))


def add_ride(tx, ride_id, *, at=NOW_MS):
    row = {
        "id": ride_id, "person_id": "p1", "device_id": "bike-001", "command_id": f"c-{ride_id}", "state": "unlocking",
        "asked_at": at, "deadline_at": at + 10_000, "changed_at": at,
    }  # fmt: skip
    tx.execute(insert(ride).values(**row))


def move_ride(tx, ride_id, **values):
    tx.execute(update(ride).where(ride.c.id == ride_id).values(**values))


def add_purchase(tx, purchase_id, *, at=NOW_MS):
    row = {
        "id": purchase_id, "person_id": "p1", "device_id": "machine-001", "sku": "braised_pork", "price_fen": 1850,
        "state": "payment_pending", "asked_at": at, "deadline_at": at + 10_000, "changed_at": at,
    }  # fmt: skip
    tx.execute(insert(purchase).values(**row))
    add_purchase_step(tx, purchase_id, "ask_payment", "requested", "payment_pending", at)


def add_purchase_step(tx, purchase_id, event, before, after, at, **values):
    row = {"purchase_id": purchase_id, "event": event, "before": before, "after": after, "at": at}
    tx.execute(insert(purchase_step).values(**row))
    tx.execute(update(purchase).where(purchase.c.id == purchase_id).values(state=after, changed_at=at, **values))


def add_command(tx, command_id, *, at=NOW_MS):
    row = {
        "id": command_id, "device_id": "bike-001", "action": "unlock", "arguments": "{}", "actor": "p1",
        "issued_at": at, "not_after": at + 10_000, "generation": 1, "status": "queued", "changed_at": at,
    }  # fmt: skip
    tx.execute(insert(command).values(**row))


def move_command(tx, command_id, status, at, reason=""):
    tx.execute(update(command).where(command.c.id == command_id).values(status=status, changed_at=at, reason=reason))
