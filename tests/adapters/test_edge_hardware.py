"""Bridges to hardware: a real Modbus server over TCP and RTU, a lock on a pseudo-terminal, a button on injected pins.

The driver, its frames and the agent are the real ones; GPIO has no pins here, so its pins are injected.
"""

import asyncio
import os
from contextlib import asynccontextmanager, suppress

import pytest
from pymodbus import FramerType
from pymodbus.server import ModbusSerialServer, ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

import devices
from devices.bike.messages import LockClosed, LockOpened, Unlock
from devices.nursing_room.messages import Pressed
from edge.hardware import room
from edge.hardware.bridge import EVENTS_KEPT_MAX, Bridge, BridgeFullError
from edge.hardware.gpio import Button, ButtonSettings
from edge.hardware.modbus import ModbusThermometer, ThermometerError, ThermometerSettings
from edge.transports import SerialLine, line_from
from fleet.clock import ManualClock
from fleet.messages import ReplyStatus
from tests.edge_support import eventually

REGISTERS = [41, 65_495, 32_767]  # 4.1 °C, -4.1 °C, a broken probe


def server_device():
    return SimDevice(1, simdata=[SimData(0, values=REGISTERS, datatype=DataType.REGISTERS)])


@asynccontextmanager
async def modbus_tcp():
    server = ModbusTcpServer(server_device(), address=("127.0.0.1", 0))
    await server.serve_forever(background=True)
    try:
        yield server.transport.sockets[0].getsockname()[1]
    finally:
        await server.shutdown()


@asynccontextmanager
async def wire():
    """Two ends of a serial cable: names of two pseudo-terminals joined to each other."""
    (left, left_name), (right, right_name) = (pair for pair in (_pty(), _pty()))
    loop = asyncio.get_running_loop()

    def carry(source, target):
        with suppress(OSError):  # nobody has opened the other end just now
            os.write(target, os.read(source, 4096))

    loop.add_reader(left, carry, left, right)
    loop.add_reader(right, carry, right, left)
    try:
        yield left_name, right_name
    finally:
        loop.remove_reader(left)
        loop.remove_reader(right)
        os.close(left)
        os.close(right)


_kept = []


def _pty():
    import tty

    master, slave = os.openpty()
    tty.setraw(slave)
    _kept.append(slave)  # so that the master never sees an end
    os.set_blocking(master, False)
    return master, os.ttyname(slave)


def thermometer(address, register=0):
    return ModbusThermometer(ThermometerSettings(address=address, register=register))


async def test_a_real_modbus_server_is_read_over_tcp_and_its_errors_are_told():
    async with modbus_tcp() as port:
        for register, celsius in ((0, 4.1), (1, -4.1)):
            fridge = thermometer(f"tcp://127.0.0.1:{port}", register)
            assert await fridge.celsius() == pytest.approx(celsius)
            assert await fridge.celsius() == pytest.approx(celsius)
            fridge.close()
        with pytest.raises(ThermometerError, match="broken"):
            await thermometer(f"tcp://127.0.0.1:{port}", 2).celsius()
        with pytest.raises(ThermometerError, match="register 500"):
            await thermometer(f"tcp://127.0.0.1:{port}", 500).celsius()
    with pytest.raises(ThermometerError, match=r"127\.0\.0\.1"):
        await thermometer(f"tcp://127.0.0.1:{port}").celsius()


async def test_a_real_modbus_server_is_read_over_a_serial_wire():
    async with wire() as (ours, theirs):
        server = ModbusSerialServer(server_device(), framer=FramerType.RTU, port=theirs, baudrate=9600)
        await server.serve_forever(background=True)
        try:
            fridge = thermometer(f"serial:{ours}?baud=9600")
            assert await fridge.celsius() == pytest.approx(4.1)
            fridge.close()
        finally:
            await server.shutdown()


@pytest.mark.parametrize("address", ["usb", "tcp:", "http://x"])
def test_an_address_that_names_no_controller_is_refused(address):
    with pytest.raises(ValueError, match="write tcp://"):
        ThermometerSettings(address=address)


class InjectedPins:
    def __init__(self):
        self.pressed, self.cut, self.closed = False, False, False
        self._edge = asyncio.Event()

    def move(self, *, pressed=False, cut=False):
        self.pressed, self.cut = pressed, cut
        self._edge.set()

    def levels(self):
        return self.pressed and not self.cut, not self.pressed and not self.cut

    async def changed(self):
        await self._edge.wait()
        self._edge.clear()

    def close(self):
        self.closed = True


class Talk:
    """A driver on a line: everything it understood."""

    def __init__(self, kind, line):
        self.driver = devices.role(kind, "driver").create("x")
        self.line = line
        self.readings, self.events, self.progress = [], [], []
        self.now_ms = 1_800_000_000_000

    def take(self, output):
        self.readings += output.readings
        self.events += [event for _, event in output.events]
        self.progress += output.progress
        self.line.write(output.to_hardware + output.after_commit)

    async def run(self):
        await self.line.open()
        self.take(self.driver.on_start(self.now_ms))
        while data := await self.line.read():
            self.take(self.driver.on_bytes(data, self.now_ms))

    def order(self, command, number=1):
        self.take(self.driver.on_command(f"{number:032x}", command, self.now_ms))


@asynccontextmanager
async def talking(kind, line):
    talk = Talk(kind, line)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(talk.run())
        yield talk
        running.cancel()
    line.close()


async def test_a_room_of_pins_and_modbus_speaks_as_a_controller():
    pins = InjectedPins()
    async with modbus_tcp() as port:
        settings = room.RoomSettings.model_validate({
            "button": {"closes": 17, "opens": 27},
            "fridge": {"address": f"tcp://127.0.0.1:{port}"},
            "reading_every_s": 0.1,
        })  # fmt: skip
        bridge = room.RoomBridge(settings, ManualClock(), take_pins=lambda _: pins)
        async with talking("nursing_room", bridge) as talk:
            await eventually(lambda: talk.readings and talk.readings[-1].button_link_ok)
            await eventually(lambda: talk.readings[-1].fridge_celsius == pytest.approx(4.1))
            assert talk.readings[-1].call_state == "idle"
            pins.move(pressed=True)
            await eventually(lambda: talk.events)
            (press,) = talk.events
            assert isinstance(press, Pressed)
            await eventually(lambda: talk.readings[-1].call_state == "calling")
            pins.move()
            pins.move(pressed=True)
            await asyncio.sleep(0.1)
            pins.move(cut=True)
            await eventually(lambda: not talk.readings[-1].button_link_ok)
            pins.move()
            await eventually(lambda: talk.readings[-1].button_link_ok)
            assert not bridge._waiting, "acknowledged, so not repeated"
        assert pins.closed


async def test_a_press_is_repeated_until_the_journal_has_it_even_over_a_reopening():
    pins = InjectedPins()
    settings = room.RoomSettings.model_validate({"button": {"closes": 1, "opens": 2}, "reading_every_s": 30})
    bridge = room.RoomBridge(settings, ManualClock(), take_pins=lambda _: pins)
    await bridge.open()
    await bridge.read()
    pins.move(pressed=True)
    await eventually(lambda: bridge._waiting)
    (event_id,) = bridge._waiting
    bridge.close()
    assert await bridge.read() == b""
    async with talking("nursing_room", bridge) as talk:
        await eventually(lambda: talk.events)
        assert [bytes.fromhex(event.event_id) for event in talk.events] == [event_id]
        await eventually(lambda: not bridge._waiting)


async def test_a_bouncing_contact_is_one_press_and_a_held_one_too():
    pins, presses, links = InjectedPins(), [], []
    button = Button(pins, lambda: presses.append(1), links.append)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(button.run())
        await eventually(lambda: links == [True])
        for bounce in (True, False, True, False, True):
            pins.move(pressed=bounce)
            await asyncio.sleep(0.002)
        await eventually(lambda: presses)
        await asyncio.sleep(0.1)
        assert len(presses) == 1
        pins.move()
        await eventually(lambda: not button.pressed)
        pins.move(pressed=True)
        await eventually(lambda: len(presses) == 2)
        running.cancel()


async def test_a_press_is_told_although_the_other_contact_is_broken():
    pins, presses, links = InjectedPins(), [], []
    pins.levels = lambda: (pins.pressed, True)  # the opening contact is welded shut
    button = Button(pins, lambda: presses.append(1), links.append)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(button.run())
        await eventually(lambda: links == [True])
        pins.move(pressed=True)
        await eventually(lambda: presses == [1])
        await eventually(lambda: links == [True, False])
        running.cancel()


class BoughtLock:
    """Another maker's lock on the other end of a serial wire."""

    def __init__(self, port):
        self.line = SerialLine(port)
        self.state, self.moves, self.jams = 0, 0, False

    async def run(self):
        await self.line.open()
        text = b""
        while data := await self.line.read():
            *words, text = (text + data).split(b"\n")
            for word in words:
                if word in (b"O", b"C"):
                    self.moves += 1
                    self.state = 2 if self.jams else int(word == b"O")
                self.tell()

    def tell(self):
        self.line.write(b"noise\nS,%d,87\n" % self.state)

    def push(self):
        self.state = 0
        self.tell()


async def test_a_bought_lock_on_a_serial_wire_is_a_bike_to_its_driver():
    async with wire() as (ours, theirs):
        bought = BoughtLock(theirs)
        line = line_from(
            "bridge:edge.hardware.lock:create",
            {"line": f"serial:{ours}?baud=9600", "latitude": 38.86, "longitude": 121.52},
            ManualClock(),
        )
        async with asyncio.TaskGroup() as group:
            running = group.create_task(bought.run())
            async with talking("bike", line) as talk:
                await eventually(lambda: talk.readings)
                assert talk.readings[-1].lock_state == "locked"
                assert talk.readings[-1].battery_percent == 87
                talk.order(Unlock())
                await eventually(lambda: talk.events)
                opened = talk.events[0]
                assert isinstance(opened, LockOpened)
                assert opened.command_id == f"{1:032x}"
                await eventually(lambda: talk.progress and talk.progress[-1].status is ReplyStatus.SUCCEEDED)
                bought.push()
                await eventually(lambda: len(talk.events) == 2)
                assert isinstance(talk.events[1], LockClosed)
                bought.jams = True
                talk.order(Unlock(), 2)
                await eventually(lambda: talk.progress[-1].status is ReplyStatus.FAILED)
                assert talk.progress[-1].reason == "jam"
                moves = bought.moves
                line.write(_repeated())
                await asyncio.sleep(0.1)
                assert bought.moves == moves, "a repeated command never moves it twice"
            running.cancel()
        bought.line.close()


def _repeated():
    from devices.bike import frames

    return frames.command_frame(frames.CommandFrame(bytes.fromhex(f"{2:032x}"), frames.ActionCode.UNLOCK, 0))


class Dying(Bridge):
    def works(self):
        async def die():
            raise OSError("unplugged")

        return (die,)

    async def on_frame(self, frame_type, body):
        raise ValueError(frame_type, body)


async def test_a_bridge_whose_work_dies_breaks_the_line_and_is_bounded():
    bridge = Dying()
    await bridge.open()
    with pytest.raises(OSError, match="unplugged"):
        await bridge.read()
    bridge.close()
    for number in range(EVENTS_KEPT_MAX):
        bridge.tell(number.to_bytes(16, "big"), b"x")
    with pytest.raises(BridgeFullError):
        bridge.tell(bytes(15) + b"\xff", b"x")


@pytest.mark.parametrize(
    ("address", "hardware", "words"),
    [
        ("bridge:nowhere:create", {}, "cannot be loaded"),
        ("bridge:edge.hardware.room:nothing", {}, "cannot be loaded"),
        ("bridge:edge.hardware.room:create", {}, "button"),
        ("bridge:edge.hardware.lock:create", {"line": "usb", "latitude": 0, "longitude": 0}, "names no line"),
    ],
)
def test_wrong_bridges_are_refused_when_the_file_is_read(address, hardware, words):
    with pytest.raises(ValueError, match=words):
        line_from(address, hardware)


def test_without_pins_the_settings_say_which_pins():
    assert ButtonSettings(closes=17, opens=27).chip == "/dev/gpiochip0"
