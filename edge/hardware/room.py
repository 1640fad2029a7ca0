"""A nursing room without a controller of its own: a button on pins, a fridge's thermometer on Modbus.

    transport = "bridge:edge.hardware.room:create"

    [hardware.button]
    chip = "/dev/gpiochip0"
    closes = 17
    opens = 27

    [hardware.fridge]
    address = "tcp://192.168.1.20:502"
    register = 0

A press is repeated to the agent until it lies in the journal. Between the contact and the journal (0.1 s) it lives in
memory only; a controller with a battery of its own has no such moment, which is why it is the better choice.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

from devices.nursing_room import frames
from devices.nursing_room.frames import FrameType
from devices.nursing_room.messages import CallLight, Pressed, RoomReading
from edge.hardware.bridge import Bridge
from edge.hardware.gpio import Button, ButtonSettings, GpioPins, Pins
from edge.hardware.modbus import ModbusThermometer, ThermometerError, ThermometerSettings
from edge.transports import Line
from fleet.clock import Clock
from fleet.messages import ReplyStatus

READING_EVERY_S: Final = 15.0
COMMANDS_KEPT_MAX: Final = 64

_log = logging.getLogger(__name__)


class RoomSettings(BaseModel):
    """Table `[hardware]`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    button: ButtonSettings
    fridge: ThermometerSettings | None = None
    reading_every_s: float = Field(default=READING_EVERY_S, ge=0.1, le=30)


class RoomBridge(Bridge):
    """Speaks `devices.nursing_room.frames` for a button and a thermometer."""

    def __init__(
        self,
        settings: RoomSettings,
        clock: Clock,
        *,
        take_pins: Callable[[ButtonSettings], Pins] = GpioPins,
        make_id: Callable[[], bytes] = lambda: secrets.token_bytes(16),
    ) -> None:
        super().__init__()
        self._settings = settings
        self._clock = clock
        self._take_pins = take_pins
        self._make_id = make_id
        self._pins: Pins | None = None
        self._button: Button | None = None
        self._thermometer = ModbusThermometer(settings.fridge) if settings.fridge else None
        self._fridge_celsius: float | None = None
        self._light: CallLight = "idle"
        self._link_ok = False
        self._done: dict[bytes, ReplyStatus] = {}
        self._report_now = asyncio.Event()

    async def connect(self) -> None:
        """See Bridge."""
        self._pins = self._take_pins(self._settings.button)

    def disconnect(self) -> None:
        """See Bridge."""
        if self._pins is not None:
            self._pins.close()
            self._pins = None
        if self._thermometer is not None:
            self._thermometer.close()

    def works(self) -> Sequence[Callable[[], Coroutine[Any, Any, None]]]:
        """See Bridge: the button never waits for the thermometer."""
        assert self._pins is not None
        held = self._button is not None and self._button.pressed
        self._button = Button(self._pins, self._on_press, self._on_link, pressed=held)
        return (self._button.run, self._report, *((self._measure,) if self._thermometer else ()))

    def _on_press(self) -> None:
        event_id = self._make_id()
        self._light = "calling"
        event = Pressed(event_id=event_id.hex(), press_id=event_id.hex())
        self.tell(event_id, frames.encode_event(self._clock.now_ms(), event))
        self._report_now.set()

    def _on_link(self, ok: bool) -> None:  # noqa: FBT001  # a callback with one fact
        self._link_ok = ok
        self._report_now.set()

    async def _measure(self) -> None:
        """The last value stays when a question has no answer; a value that never changes is an alarm of its own."""
        assert self._thermometer is not None
        told = False
        while True:
            try:
                self._fridge_celsius = await self._thermometer.celsius()
                told = False
            except ThermometerError as error:
                if not told:
                    _log.warning("fridge: %s", error)
                told = True
            await asyncio.sleep(self._settings.reading_every_s)

    async def _report(self) -> None:
        while True:
            self.say(frames.encode_reading(self._reading()))
            self._report_now.clear()
            try:
                async with asyncio.timeout(self._settings.reading_every_s):
                    await self._report_now.wait()
            except TimeoutError:
                continue

    def _reading(self) -> RoomReading:
        return RoomReading(
            at=self._clock.now_ms(), call_state=self._light, button_link_ok=self._link_ok, button_battery_percent=100,
            cord_in_place=True, occupied=False, fridge_celsius=self._fridge_celsius or 0.0, fridge_door_open=False,
            sterilizer_state="idle", sterilizer_door_open=False, lamp_hours=0.0, air_celsius=0.0,
            air_relative_humidity_percent=0.0, mains_power=True, backup_battery_percent=100,
        )  # fmt: skip

    async def on_frame(self, frame_type: int, body: bytes) -> None:
        """See Bridge."""
        if frame_type == FrameType.EVENT_ACK:
            self.acknowledged(body)
        elif frame_type == FrameType.STATUS_REQUEST:
            self._report_now.set()
        elif frame_type == FrameType.COMMAND:
            command_id, action, _ = frames.decode_command(body)
            if command_id not in self._done:
                while len(self._done) >= COMMANDS_KEPT_MAX:
                    del self._done[next(iter(self._done))]
                self._done[command_id] = self._carry_out(action)
            self.say(frames.encode_progress(command_id, self._done[command_id], _reason(self._done[command_id])))

    def _carry_out(self, action: str) -> ReplyStatus:
        if action == "show_received":
            self._light = "received"
        elif action == "show_help_coming":
            self._light = "help_coming"
        else:
            return ReplyStatus.REFUSED
        self._report_now.set()
        return ReplyStatus.SUCCEEDED


def _reason(status: ReplyStatus) -> Any:
    return "not_possible" if status is ReplyStatus.REFUSED else ""


def create(hardware: Mapping[str, object], clock: Clock) -> Line:
    """For `transport`; raises ValueError."""
    return RoomBridge(RoomSettings.model_validate(hardware), clock)
