"""Rides, purchases, calls, alarms with their orders: each as its steps, in the words of `fleet.series`."""

import random
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from cloud.history.steps import point
from cloud.timeseries.points import Point
from fleet import series

if TYPE_CHECKING:
    from cli.sample.fleet import Fault

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = 24 * HOUR_MS
SKILLS: Final = {
    "silent": "inspection",
    "stock_low": "restock",
    "stock_out": "restock",
    "battery_critical": "battery",
}


def _steps(
    measurement: series.Measurement, tags: Mapping[str, str], identity: str,
    steps: Sequence[tuple[str, int, dict[str, Any]]],
) -> Iterator[Point]:  # fmt: skip
    number = zlib.crc32(identity.encode()) % 90_000
    for index, (step, at_ms, fields) in enumerate(steps):
        yield point(measurement, 10 * number + index, at_ms, {**tags, "step": step}, fields)


def of_fault(fault: "Fault") -> Iterator[Point]:
    """The alarm, and the order it leads to."""
    identity = f"{fault.device_id}-{fault.from_ms}"
    tags = {"device_id": fault.device_id, "kind": fault.kind}
    seen_ms = min(fault.from_ms + 4 * MINUTE_MS, fault.until_ms)
    alarm = {"alarm_id": identity, "view": "shown"}
    yield from _steps(
        series.ALARM_STEP, {**tags, "key": fault.key, "priority": fault.priority}, identity,
        [
            ("activate", fault.from_ms, {**alarm, "state": "unacknowledged"}),
            ("acknowledge", seen_ms, {**alarm, "state": "acknowledged"}),
            ("return", fault.until_ms, {**alarm, "state": "normal", "active_ms": fault.until_ms - fault.from_ms}),
        ],
    )  # fmt: skip
    work = {"order_id": identity, "reason": "", "priority": fault.priority}
    length_ms = fault.until_ms - fault.from_ms
    names = (("release", "dispatchable", 0.01), ("assign", "assigned", 0.02), ("accept", "accepted", 0.1),
             ("travel", "travelling", 0.15), ("start", "in_progress", 0.6), ("complete", "done", 1.0))  # fmt: skip
    yield from _steps(
        series.ORDER_STEP, {**tags, "skill": SKILLS.get(fault.key, "repair")}, identity,
        [
            (step, fault.from_ms + round(share * length_ms),
             {**work, "state": state, "since_made_ms": round(share * length_ms),
              "late": length_ms > 4 * HOUR_MS if step == "complete" else None})
            for step, state, share in names
        ],
    )  # fmt: skip


def ride(bike: str, at_ms: int, identity: str, chance: random.Random) -> Iterator[Point]:
    """Mostly it opens; one in forty does not."""
    opened, unlock_ms = chance.random() > 0.025, round(chance.lognormvariate(6.8, 0.25))
    length_ms = round(chance.lognormvariate(6.3, 0.5)) * 1000
    ride_ = {"ride_id": identity, "reason": "", "flagged": ""}
    steps: list[tuple[str, int, dict[str, Any]]] = [
        ("asked", at_ms, {**ride_, "state": "unlocking", "since_asked_ms": 0})
    ]
    if opened:
        ended_ms = unlock_ms + min(length_ms, 50 * MINUTE_MS)
        fee = {"duration_ms": ended_ms - unlock_ms, "fee_fen": 100 + 50 * (ended_ms // (30 * MINUTE_MS))}
        steps.append(("opened", at_ms + unlock_ms, {**ride_, "state": "riding", "since_asked_ms": unlock_ms}))
        steps.append(("closed", at_ms + ended_ms, {**ride_, "state": "ended", "since_asked_ms": ended_ms, **fee}))
    else:
        steps.append(
            ("failed", at_ms + 8000, {**ride_, "state": "never_began", "reason": "jam", "since_asked_ms": 8000})
        )
    yield from _steps(series.RIDE_STEP, {"device_id": bike}, identity, steps)
    yield from _command(bike, "unlock", at_ms, identity, "succeeded" if opened else "failed", min(unlock_ms, 5000))


def _command(device_id: str, action: str, at_ms: int, identity: str, end: str, took_ms: int) -> Iterator[Point]:
    command = {"command_id": identity, "reason": "" if end == "succeeded" else "jam"}
    steps = (("queued", 0), ("sent", 30), (end, took_ms))
    yield from _steps(
        series.COMMAND_STEP, {"device_id": device_id, "action": action}, identity,
        [(step, at_ms + after_ms, {**command, "duration_ms": after_ms}) for step, after_ms in steps],
    )  # fmt: skip


def purchase(machine: str, at_ms: int, identity: str, chance: random.Random) -> Iterator[Point]:
    """Mostly it is delivered; one in eighty is given back."""
    failed, took_ms = chance.random() < 0.012, round(chance.uniform(60, 95)) * 1000
    sale = {"purchase_id": identity, "meal": f"rice-{chance.randrange(6)}", "fen": chance.choice((1500, 1800, 2200))}
    reason = chance.choice(("jam", "heater_fault", "timeout")) if failed else ""
    ends = [("fail", "dispense_failed", took_ms), ("refund", "refunded", took_ms + 900)] if failed else [
        ("dispense", "dispensing", took_ms - 6000), ("deliver", "delivered", took_ms)]  # fmt: skip
    for tags, steps in (
        ({}, [("ask_payment", "payment_pending", 0), ("pay", "paid", 4000)] + ([] if failed else ends)),
        ({"reason": reason}, ends if failed else []),
    ):
        yield from _steps(
            series.PURCHASE_STEP, {"device_id": machine, "reason": "", **tags}, identity,
            [
                (step, at_ms + after_ms,
                 {**sale, "state": state, "since_asked_ms": after_ms,
                  "since_paid_ms": after_ms - 4000 if after_ms > 4000 else None,
                  "refunded_fen": sale["fen"] if step == "refund" else None})
                for step, state, after_ms in steps
            ],
        )  # fmt: skip
    yield from _command(machine, "dispense", at_ms + 4_500, identity, "failed" if failed else "succeeded", took_ms)


def call(room: str, at_ms: int, identity: str, chance: random.Random) -> Iterator[Point]:
    """Help, or the test that is due; both are cleared in the room."""
    accepted_ms = round(chance.lognormvariate(3.0, 0.6)) * 1000
    steps = [
        ("press", "calling", 0),
        ("acknowledge", "acknowledged", accepted_ms),
        ("attend", "attended", accepted_ms + 150_000),
        ("clear_at_origin", "cleared", accepted_ms + 420_000),
    ]
    purpose = "test" if chance.random() < 0.8 else "help"
    yield from _call(room, at_ms, identity, purpose, steps)


def shown_call(room: str, at_ms: int, until_ms: int) -> Iterator[Point]:
    """A call for help that somebody attends to, cleared at `until_ms`."""
    steps = [("press", "calling", 0), ("acknowledge", "acknowledged", 21_000), ("attend", "attended", 260_000),
             ("clear_at_origin", "cleared", until_ms - at_ms)]  # fmt: skip
    yield from _call(room, at_ms, f"{room}-{at_ms}-shown", "help", steps)


def _call(
    room: str, at_ms: int, identity: str, purpose: str, steps: Sequence[tuple[str, str, int]]
) -> Iterator[Point]:  # fmt: skip
    """The steps, and the lights that the room is told to show."""
    yield from _command(room, "show_received", at_ms + 200, f"{identity}-1", "succeeded", 310)
    yield from _command(room, "show_help_coming", at_ms + steps[1][2] + 150, f"{identity}-2", "succeeded", 280)
    yield from _steps(
        series.CALL_STEP, {"device_id": room, "purpose": purpose}, identity,
        [
            (step, at_ms + after_ms, {"call_id": identity, "state": state, "since_press_ms": after_ms, "escalation": 0})
            for step, state, after_ms in steps
        ],
    )  # fmt: skip


def of_day(
    devices: Mapping[str, Sequence[str]], day: int, chance_of: Callable[..., random.Random]
) -> Iterator[Point]:  # fmt: skip
    """What comes with the calendar: boxes thrown away each morning, firmware for a few devices of each kind."""
    for machine in devices.get("meal_machine", ()):
        chance = chance_of("waste", machine, day)
        if chance.random() < 0.4:
            fields = {"boxes": 1 + chance.randrange(4), "meal": f"rice-{chance.randrange(6)}", "slot": 1}
            tags = {"device_id": machine, "reason": chance.choice(("expired", "expired", "expired", "spoiled"))}
            yield point(series.WASTE_STEP, 1, day * DAY_MS + 2 * HOUR_MS, tags, fields)
    for kind, names in devices.items():
        for index, device_id in enumerate(names):
            if (index + day) % 30 == 0 or index == 0:
                fields = {"firmware": f"2.{day % 100}.0", "firmware_before": f"2.{(day - 1) % 100}.0"}
                tags = {"device_id": device_id, "kind": kind}
                yield point(series.FIRMWARE_STEP, 0, day * DAY_MS + 5 * HOUR_MS + index, tags, fields)
