# ruff: noqa: ARG001, ARG002  # the signatures of a role
"""Lines of text: `R 21.5` reading, `P <id>` pressed, `O <id>` opened, `D <command>` done, `X <command>` jam.

Towards the hardware: `A <id>` kept, `L <id>` light on, `C <command> <times>` ring.
"""

from devices.doorbell.messages import DoorbellReading, Opened, Pressed, Ring

from fleet.kind import DriverOutput, Progress
from fleet.messages import Command, Event, ReplyStatus


class DoorbellDriver:
    def __init__(self) -> None:
        self.frame_errors = 0
        self._rest = b""

    def on_start(self, now_ms: int) -> DriverOutput:
        return DriverOutput(to_hardware=b"S\n")

    def on_bytes(self, data: bytes, now_ms: int) -> DriverOutput:
        *lines, self._rest = (self._rest + data).split(b"\n")
        readings, events, progress, kept = [], [], [], b""
        for line in lines:
            letter, _, text = line.decode().partition(" ")
            if letter == "R":
                readings.append(DoorbellReading(at=now_ms, temperature_celsius=float(text)))
            elif letter in ("P", "O"):
                events.append((now_ms, (Pressed if letter == "P" else Opened)(event_id=text)))
                kept += f"A {text}\n".encode()
            elif letter == "D":
                progress.append(Progress(text, ReplyStatus.SUCCEEDED))
            elif letter == "X":
                progress.append(Progress(text, ReplyStatus.FAILED, "jam"))
            else:
                self.frame_errors += 1
        return DriverOutput(tuple(readings), tuple(events), tuple(progress), after_commit=kept)

    def on_command(self, command_id: str, command: Command, now_ms: int) -> DriverOutput:
        assert isinstance(command, Ring)
        return DriverOutput(
            progress=(Progress(command_id, ReplyStatus.EXECUTING),),
            to_hardware=f"C {command_id} {command.times}\n".encode(),
        )

    def on_acknowledged(self, event: Event, now_ms: int) -> DriverOutput:
        return DriverOutput(to_hardware=f"L {event.event_id}\n".encode())

    def on_timer(self, now_ms: int) -> DriverOutput:
        return DriverOutput()

    @property
    def next_due_ms(self) -> int | None:
        return None


def create(device_id: str) -> DoorbellDriver:
    return DoorbellDriver()
