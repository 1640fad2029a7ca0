"""The electronics of a simulated bike: lock motor, sensors, flash, power and the line."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from devices.bike import city, frames, physics
from devices.bike.frames import (
    ActionCode,
    CommandFrame,
    EventCode,
    EventFrame,
    FrameType,
    LockCode,
    Place,
    ReadingFrame,
    ReasonCode,
    ResultFrame,
    StatusCode,
)
from devices.bike.line import CommandMemory, EventQueue, Port
from devices.bike.physics import Body, Receiver
from fleet.framing import FrameReader, encode_frame
from fleet.kind import Site
from fleet.randomness import Randomness

PARKED_INTERVAL_MS: Final = 900_000
RIDING_INTERVAL_MS: Final = 30_000
BOOT_MS: Final = 4_000
BATTERY_LOW_PERCENT: Final = 20.0
BATTERY_RECOVERED_PERCENT: Final = 30.0
BROWN_OUT_BELOW_PERCENT: Final = 6.0
MOVING_METRES_PER_SECOND: Final = 0.3
BROWN_OUT_CHANCE: Final = 0.3
_LOCK_EVENTS: Final = {
    LockCode.LOCKED: EventCode.LOCK_CLOSED,
    LockCode.UNLOCKED: EventCode.LOCK_OPENED,
    LockCode.JAMMED: EventCode.LOCK_JAMMED,
}
_AMOUNT_FIELDS: Final = {
    EventCode.MOVED_WHILE_LOCKED: "moved_metres",
    EventCode.FALL: "tilt_degrees",
    EventCode.BATTERY_LOW: "battery_percent",
}


class Controller:
    """What is soldered: it knows the world only through its sensors and people only through the lock."""

    def __init__(self, randomness: Randomness, site: Site, started_ms: int, port: Port) -> None:
        self._randomness = randomness
        self._jam_probability = float(site.facts.get("jam_probability", 0.002))
        self._port = port
        self.body = Body(
            position=(site.latitude, site.longitude),
            battery_percent=float(site.facts.get("battery_percent", randomness.uniform(22, 100))),
            temperature_celsius=physics.ambient_celsius(started_ms) + randomness.uniform(0, 2),
            odometer_metres=float(round(randomness.uniform(20_000, 4_000_000))),
            signal_base_dbm=randomness.gauss(-84, 7),
            now_ms=started_ms,
        )
        self.lock = LockCode.LOCKED
        self.blocked = False
        self.opened_for_rider = False
        self.powered = True
        self.thermometer_dead = False
        self._fix_lost_at_ms: int | None = None
        self._last_place = Place(site.latitude, site.longitude, 0.0)
        self._reported_lock = LockCode.LOCKED
        self._receiver = Receiver(randomness)
        self._reader = FrameReader()
        self._events = EventQueue()
        self._commands = CommandMemory()
        self._parked_interval_ms = PARKED_INTERVAL_MS
        self._low_reported = self.body.battery_percent < BATTERY_LOW_PERCENT
        self._moving: CommandFrame | None = None
        self._locating: bytes | None = None
        self._rebooting: bytes | None = None
        self._due_ms: dict[str, int] = {"report": started_ms + round(randomness.uniform(0, PARKED_INTERVAL_MS))}
        self._steps: Mapping[str, Callable[[int], None]] = {
            "boot": self._boot,
            "motor": self._finish_bolt,
            "locate": self._located,
            "report": self.report,
        }

    # --- time -----------------------------------------------------------------------------------------------------

    @property
    def next_due_ms(self) -> int:
        due_ms = min(self._due_ms.values())
        return due_ms if self._events.due_ms is None or not self.powered else min(due_ms, self._events.due_ms)

    @property
    def unacknowledged_events(self) -> int:
        return len(self._events)

    def advance(self, now_ms: int) -> None:
        """Do what is due at `now_ms`; the caller steps from one due time to the next."""
        self.body.advance(now_ms)
        for name, step in self._steps.items():
            if self._due_ms.get(name, now_ms + 1) <= now_ms:
                del self._due_ms[name]
                step(now_ms)
        if self.powered:
            self._port.send(self._events.send_due(now_ms))

    # --- sensors --------------------------------------------------------------------------------------------------

    def report(self, now_ms: int) -> None:
        """Send a reading now and the next one an interval later; without power only time passes."""
        riding = self.body.motion is not None
        self._due_ms["report"] = now_ms + (RIDING_INTERVAL_MS if riding else self._parked_interval_ms)
        if not self.powered:
            return
        self.body.use_charge(physics.REPORT_PERCENT)
        if self.body.battery_percent <= 0:
            self._power_off(now_ms, "battery_empty")
            return
        motion = self.body.motion
        speed = 0.0 if motion is None else max(0.0, motion.metres_per_second * self._randomness.gauss(1, 0.08))
        temperature = self.body.temperature_celsius + self._randomness.gauss(0, 0.1)
        reading = ReadingFrame(
            at_ms=now_ms,
            battery_percent=self.body.battery_percent,
            place=self._place(),
            speed_metres_per_second=speed,
            lock=self.lock,
            tilt_degrees=abs(self.body.tilt_degrees + self._randomness.gauss(0, 0.8)),
            signal_dbm=max(-128.0, min(-40.0, self.body.signal_base_dbm + self._randomness.gauss(0, 3))),
            odometer_metres=self.body.odometer_metres,
            temperature_celsius=None if self.thermometer_dead else temperature,
            fix_age_seconds=0 if self._fix_lost_at_ms is None else (now_ms - self._fix_lost_at_ms) // 1_000,
        )
        wire = frames.reading_body(reading)
        seen = frames.parse_reading(wire)._asdict()  # the log holds what the wire can carry
        place: Place = seen.pop("place")
        self._port.log(now_ms, "reading", **place._asdict(), **{**seen, "lock": self.lock.name.lower()})
        self._port.send(encode_frame(FrameType.READING, wire))
        self._check_battery(now_ms)

    def _check_battery(self, now_ms: int) -> None:
        percent = self.body.battery_percent
        if percent < BATTERY_LOW_PERCENT and not self._low_reported:
            self._low_reported = True
            self.sense(EventCode.BATTERY_LOW, now_ms, amount=percent)
        elif percent > BATTERY_RECOVERED_PERCENT:
            self._low_reported = False

    def lose_fix(self, now_ms: int) -> None:
        """The receiver sees no satellites any more: antenna torn off, or the bike taken indoors."""
        self._last_place = self._place()
        self._fix_lost_at_ms = now_ms

    def find_fix(self) -> None:
        """It sees them again."""
        self._fix_lost_at_ms = None

    def _place(self) -> Place:
        if self._fix_lost_at_ms is not None:
            return self._last_place
        sigma = city.nearest_place(self.body.position).gnss_sigma_metres
        position, accuracy = self._receiver.fix(self.body.position, sigma)
        return Place(*position, accuracy)

    def sense(
        self, code: EventCode, now_ms: int, *, command_id: bytes = frames.NO_COMMAND, amount: float = 0.0
    ) -> None:
        """Something happened that the hardware must report; without power it goes unnoticed."""
        what = code.name.lower()
        if not self.powered:
            self._port.log(now_ms, f"{what}_unnoticed")
            return
        event_id = self._randomness.getrandbits(128).to_bytes(16, "big")
        event = frames.parse_event(
            frames.event_body(EventFrame(event_id, now_ms, code, command_id, self._place(), amount))
        )
        facts: dict[str, Any] = event.place._asdict() if code is not EventCode.BATTERY_LOW else {}
        if command_id != frames.NO_COMMAND:
            facts["command_id"] = command_id.hex()
        if (name := _AMOUNT_FIELDS.get(code)) is not None:
            facts[name] = event.amount
        self._port.log(now_ms, what, event_id.hex(), **facts)
        evicted = self._events.add(event, now_ms)
        if evicted is not None:
            self._port.log(now_ms, "event_evicted", evicted=evicted.event_id.hex())
        self._port.send(self._events.send_due(now_ms))
        if code is not EventCode.BATTERY_LOW:
            self.report(now_ms)

    # --- lock -----------------------------------------------------------------------------------------------------

    def push_lever(self, now_ms: int) -> None:
        """A person closes the lock by hand; works without power, which then notices at the next boot."""
        if self.lock is LockCode.LOCKED:
            self._port.log(now_ms, "lever_pushed_in_vain")
            return
        self._bolt_moves(LockCode.LOCKED, frames.NO_COMMAND, now_ms)

    def free_bolt(self, now_ms: int) -> None:
        """Crew clears what blocks the bolt and leaves the bike locked."""
        self.blocked = False
        if self.lock is LockCode.JAMMED:
            self._bolt_moves(LockCode.LOCKED, frames.NO_COMMAND, now_ms, certain=True)

    def _bolt_moves(self, to: LockCode, command_id: bytes, now_ms: int, *, certain: bool = False) -> bool:
        """Move the bolt, or jam; the sensor's event is the evidence. Returns whether it arrived."""
        if not certain and (self.blocked or self._randomness.random() < self._jam_probability):
            to = LockCode.JAMMED
        self.lock = to
        if self.powered:
            self._reported_lock = to
        self.sense(_LOCK_EVENTS[to], now_ms, command_id=command_id)
        return to is not LockCode.JAMMED

    def _finish_bolt(self, now_ms: int) -> None:
        command = self._moving
        self._moving = None
        if command is None:
            return
        opening = command.action is ActionCode.UNLOCK
        arrived = self._bolt_moves(LockCode.UNLOCKED if opening else LockCode.LOCKED, command.command_id, now_ms)
        if arrived:
            self.opened_for_rider = opening
            self._answer(command.command_id, StatusCode.SUCCEEDED)
        else:
            self._answer(command.command_id, StatusCode.FAILED, ReasonCode.JAM)

    # --- power ----------------------------------------------------------------------------------------------------

    def brown_out(self, now_ms: int) -> None:
        """The supply sags: the controller restarts; flash and the bolt keep what they hold."""
        self._power_off(now_ms, "brown_out")
        self._due_ms["boot"] = now_ms + BOOT_MS

    def swap_battery(self, now_ms: int, percent: float) -> None:
        """A fresh pack; the controller starts with it."""
        self.body.battery_percent = percent
        self.brown_out(now_ms)

    def _power_off(self, now_ms: int, what: str) -> None:
        self.powered = False
        self._moving = None
        self._due_ms.pop("motor", None)
        self._due_ms.pop("locate", None)
        self._port.log(now_ms, what)

    def _boot(self, now_ms: int) -> None:
        if self.body.battery_percent <= 0:
            self._port.log(now_ms, "boot_failed")
            return
        self.powered = True
        self._reader = FrameReader()
        self._port.log(now_ms, "booted")
        for command_id in self._commands.unfinished():
            if command_id == self._rebooting:
                self._answer(command_id, StatusCode.SUCCEEDED)
            else:
                self._answer(command_id, StatusCode.FAILED, ReasonCode.POWER_LOST)
        self._rebooting = None
        if self.lock is not self._reported_lock:  # moved by hand while nobody watched
            self._reported_lock = self.lock
            self.sense(_LOCK_EVENTS[self.lock], now_ms)
        self.report(now_ms)

    # --- line -----------------------------------------------------------------------------------------------------

    def on_bytes(self, data: bytes, now_ms: int) -> None:
        """Bytes from the driver; a controller without power hears nothing."""
        if not self.powered:
            return
        for frame_type, body in self._reader.feed(data):
            self._on_frame(frame_type, body, now_ms)

    def _on_frame(self, frame_type: int, body: bytes, now_ms: int) -> None:
        if not self.powered:  # the frame before was a reboot
            return
        if frame_type == FrameType.POLL:
            self.report(now_ms)
        elif frame_type == FrameType.EVENT_ACK:
            self._events.acknowledge(body, now_ms)
            self._port.send(self._events.send_due(now_ms))
        elif frame_type == FrameType.COMMAND:
            try:
                command = frames.parse_command(body)
            except ValueError:
                return  # the driver repeats it, or gives up and says so
            self._on_command(command, now_ms)

    def _on_command(self, command: CommandFrame, now_ms: int) -> None:
        known = self._commands.answer(command.command_id)
        if known:
            self._port.send(known)
            return
        self._port.log(now_ms, "command", command_id=command.command_id.hex(), action=command.action.name.lower())
        match command.action:
            case ActionCode.UNLOCK | ActionCode.LOCK:
                self._on_bolt_command(command, now_ms)
            case ActionCode.RING:
                self._port.log(now_ms, "bell_rang", duration_seconds=command.argument)
                self._answer(command.command_id, StatusCode.SUCCEEDED)
            case ActionCode.SET_INTERVAL:
                self._parked_interval_ms = command.argument * 1_000
                self.report(now_ms)
                self._answer(command.command_id, StatusCode.SUCCEEDED)
            case ActionCode.LOCATE if self._locating is not None:
                self._answer(command.command_id, StatusCode.FAILED, ReasonCode.BUSY)
            case ActionCode.LOCATE:
                self._locating = command.command_id
                self._due_ms["locate"] = now_ms + round(self._randomness.uniform(800, 4_000))
                self._answer(command.command_id, StatusCode.EXECUTING)
            case ActionCode.REBOOT:
                self._rebooting = command.command_id
                self._answer(command.command_id, StatusCode.EXECUTING)
                self._power_off(now_ms, "rebooting")
                self._due_ms["boot"] = now_ms + BOOT_MS

    def _on_bolt_command(self, command: CommandFrame, now_ms: int) -> None:
        opening = command.action is ActionCode.UNLOCK
        moving = self.body.motion is not None and self.body.motion.metres_per_second > MOVING_METRES_PER_SECOND
        if self._moving is not None:
            self._answer(command.command_id, StatusCode.FAILED, ReasonCode.BUSY)
        elif moving:  # a bolt shot into turning spokes throws the rider; a carried bike is not opened for its thief
            self._answer(command.command_id, StatusCode.REFUSED, ReasonCode.NOT_POSSIBLE)
        elif opening and self.lock is LockCode.UNLOCKED:
            self._answer(command.command_id, StatusCode.FAILED, ReasonCode.NOT_POSSIBLE)
        elif not opening and self.lock is LockCode.LOCKED:
            self._answer(command.command_id, StatusCode.SUCCEEDED)
        else:
            self._answer(command.command_id, StatusCode.EXECUTING)
            self.body.use_charge(physics.ACTUATION_PERCENT)
            if self.body.battery_percent < BROWN_OUT_BELOW_PERCENT and self._randomness.random() < BROWN_OUT_CHANCE:
                self.brown_out(now_ms)
                return
            self._moving = command
            self._due_ms["motor"] = now_ms + round(self._randomness.uniform(400, 900))

    def _located(self, now_ms: int) -> None:
        command_id = self._locating
        self._locating = None
        self.report(now_ms)
        if command_id is not None:
            self._answer(command_id, StatusCode.SUCCEEDED)

    def _answer(self, command_id: bytes, status: StatusCode, reason: ReasonCode = ReasonCode.NONE) -> None:
        self._port.send(self._commands.record(ResultFrame(command_id, status, reason)))
