"""A fleet of journals in one process: what devices do so that nothing is lost, without hardware, over one connection.

`python -m cli.bench.journals PORT DEVICES RATE AT_MS`: each device numbers its messages without holes, two lanes, keeps
them until an application acknowledgement covers them, and goes back when it is asked to or nobody answers. A line on
stdin ends the making of new messages; when everything is acknowledged, the last line on stdout says what was made, as
JSON. Before that, a line a second: messages made and acknowledged so far.
"""

import json
import select
import socket
import sys
import time
import uuid
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from mqtt5 import ConnectPacket, PingReqPacket, PublishPacket, QoS, SubscribePacket, TopicFilter, read

from cli.bench.load import GENERATION, bench_device, reading
from fleet.envelope import Acknowledgement, Envelope, Lane, boot_epoch, decode_downlink, encode
from fleet.topics import ROOT, UpChannel, up

WINDOW: Final = 64
"""Messages of one lane on their way at the same time."""
EVENT_EVERY: Final = 10
"""Of so many messages of a device one is an event."""
ANSWER_S_MAX: Final = 2.0
"""So long a device waits for an acknowledgement before it sends again, …"""
ANSWER_S_MOST: Final = 8.0
"""… each time twice as long, up to this."""
DRAIN_S_MAX: Final = 120.0
TICK_S: Final = 0.05
STEP_MS: Final = 10
"""Between the moments of a device's messages."""
_EPOCH: Final = boot_epoch(GENERATION, 1)


def event_id(device_id: str, seq: int) -> str:
    """Id of a device's event `seq`."""
    return uuid.uuid5(uuid.NAMESPACE_OID, f"{device_id}/{seq}").hex


def odometer(seq: int) -> float:
    """What message `seq` of the telemetry lane says, so that number and content can be compared."""
    return float(seq)


@dataclass(slots=True)
class Journal:
    """One lane of one device: everything up to `mark` is acknowledged, up to `sent` on its way, up to `made` waits."""

    number: int
    lane: Lane
    made: int = 0
    sent: int = 0
    mark: int = 0
    answered_s: float = 0.0
    patience_s: float = ANSWER_S_MAX

    def packets(self, at_ms: int, now_s: float) -> list[bytes]:
        """What may be sent now."""
        if self.sent > self.mark and now_s - self.answered_s > self.patience_s:
            self.sent = self.mark
            self.patience_s = min(ANSWER_S_MOST, 2 * self.patience_s)
        if self.sent == self.mark:
            self.answered_s = now_s
        last = min(self.made, self.mark + WINDOW)
        made = [self._packet(seq, at_ms) for seq in range(self.sent + 1, last + 1)]
        self.sent = max(self.sent, last)
        return made

    def acknowledged(self, mark: int, now_s: float, *, resend: bool) -> bool:
        """Take an acknowledgement; False if it speaks of what was never made."""
        if mark > self.mark:
            self.mark, self.answered_s, self.patience_s = mark, now_s, ANSWER_S_MAX
            self.sent = max(self.sent, mark)
        elif resend:
            self.sent, self.answered_s = self.mark, now_s
        return mark <= self.made

    def _packet(self, seq: int, at_ms: int) -> bytes:
        device_id, moment = bench_device(self.number), at_ms + seq * STEP_MS
        body: dict[str, Any]
        if self.lane is Lane.TELEMETRY:
            body = {"readings": [{**reading(moment, self.number, seq), "odometer_metres": odometer(seq)}]}
        else:
            body = {
                "type": "lock_closed", "event_id": event_id(device_id, seq), "command_id": None, "latitude": 38.86,
                "longitude": 121.51, "accuracy_metres": 3.5,
            }  # fmt: skip
        envelope = Envelope(
            1, "bike", device_id, _EPOCH, self.lane, seq, moment, msgspec.Raw(msgspec.json.encode(body))
        )
        topic = up(device_id, UpChannel(self.lane.value))
        packet_id = (self.number * 131 + seq) % 65_535 + 1
        return PublishPacket(topic, encode(envelope), qos=QoS.AT_LEAST_ONCE, packet_id=packet_id).write()


@dataclass(slots=True)
class Fleet:
    """All journals, and what was seen of the acknowledgements."""

    journals: dict[tuple[str, Lane], Journal]
    late_acknowledgements: int = 0
    """Such that say less than one before: of an ingester that was held up while another one went on."""
    resends_asked: int = 0
    acknowledgements: int = 0
    refused: int = 0
    made: int = field(default=0)

    def make(self, count: int) -> None:
        """`count` new messages, device after device."""
        devices = len(self.journals) // 2
        for _ in range(count):
            lane = Lane.EVENT if (self.made // devices) % EVENT_EVERY == EVENT_EVERY - 1 else Lane.TELEMETRY
            self.journals[bench_device(self.made % devices), lane].made += 1
            self.made += 1

    def hear(self, topic: str, payload: bytes, now_s: float) -> None:
        """Take what the cloud says to one device."""
        answer = decode_downlink(payload)
        if not isinstance(answer, Acknowledgement):
            return
        self.acknowledgements += 1
        self.refused += len(answer.refused)
        self.resends_asked += len(answer.resend)
        device_id = topic.split("/")[2]
        for lane in {*answer.marks, *answer.resend}:
            journal = self.journals.get((device_id, lane))
            if journal is None:
                continue
            mark = answer.marks.get(lane, journal.mark)
            self.late_acknowledgements += mark < journal.mark
            if not journal.acknowledged(mark, now_s, resend=lane in answer.resend):
                raise RuntimeError(f"{device_id} was told of message {mark}, it made {journal.made}")

    @property
    def acknowledged(self) -> int:
        """Messages the cloud has taken for good."""
        return sum(journal.mark for journal in self.journals.values())


class _Wire:
    """One connection to the broker; it is never lost in these runs, so losing it is an error."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._rest = b""
        self.send(ConnectPacket("bench-journals", clean_start=True, keep_alive=300).write())
        self.send(SubscribePacket(1, [TopicFilter(f"{ROOT}/+/+/down/ack", max_qos=QoS.AT_MOST_ONCE)]).write())

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def received(self) -> list[PublishPacket]:
        """What came, without waiting."""
        found: list[PublishPacket] = []
        while select.select([self._socket], [], [], 0)[0]:
            data = self._socket.recv(1 << 18)
            if not data:
                raise ConnectionError("the broker closed the connection")
            self._rest += data
            position, view = 0, memoryview(self._rest)
            while position < len(view):
                try:
                    packet, size = read(view[position:])
                except IndexError:
                    break
                position += size
                if isinstance(packet, PublishPacket):
                    found.append(packet)
            rest = bytes(view[position:])
            view.release()
            self._rest = rest
        return found


def run(port: int, devices: int, rate: float, at_ms: int) -> dict[str, Any]:
    """Send until a line comes on stdin, then until everything is acknowledged."""
    lanes = (Lane.TELEMETRY, Lane.EVENT)
    fleet = Fleet({(bench_device(number), lane): Journal(number, lane) for number in range(devices) for lane in lanes})
    wire = _Wire(port)
    began_s = said_s = pinged_s = time.monotonic()
    ending_s: float | None = None
    while True:
        now_s = time.monotonic()
        if ending_s is None:
            fleet.make(int((now_s - began_s) * rate) - fleet.made)
            if select.select([sys.stdin], [], [], 0)[0]:
                ending_s = now_s
        for packet in wire.received():
            fleet.hear(packet.topic, bytes(packet.payload), now_s)
        wire.send(b"".join(data for one in fleet.journals.values() for data in one.packets(at_ms, now_s)))
        done = fleet.acknowledged
        if now_s - said_s >= 1:
            said_s = now_s
            print(json.dumps({"made": fleet.made, "acknowledged": done}), flush=True)
        if now_s - pinged_s >= 60:  # well within the keep-alive
            pinged_s = now_s
            wire.send(PingReqPacket().write())
        if ending_s is not None and (done == fleet.made or now_s - ending_s > DRAIN_S_MAX):
            break
        time.sleep(TICK_S)
    return {
        "made": fleet.made, "acknowledged": done, "late_acknowledgements": fleet.late_acknowledgements,
        "resends_asked": fleet.resends_asked, "acknowledgements": fleet.acknowledgements, "refused": fleet.refused,
        "per_device": {
            bench_device(number): [fleet.journals[bench_device(number), lane].made for lane in lanes]
            for number in range(devices)
        },
    }  # fmt: skip


def main() -> None:
    """See the module."""
    port, devices, rate, at_ms = sys.argv[1:5]
    print(json.dumps(run(int(port), int(devices), float(rate), int(at_ms))), flush=True)


if __name__ == "__main__":
    main()
