"""All devices drop at once on the real pipeline: what people are told of it, and what a press waits meanwhile.

390 rooms and machines say that they are there and then nothing more, as in a power cut; their silence is noticed in
the same second. Around that second people press in 50 other rooms. Business time runs `SPEED` times as fast, so that
ten of its minutes are two; a press is measured in real time, from its bytes leaving to the receiver's 2xx.
"""

import socket
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import msgspec
from mqtt5 import ConnectPacket, PublishPacket, QoS
from sqlalchemy import Connection, func, select

import devices
from cli.bench.load import GENERATION
from cli.bench.rig import BenchError, Rig
from cli.broker import free_port
from cli.clock import SystemClock, real_now_ms
from cli.demo import people, verdict
from cli.processes import Child
from cloud.rules.conditions import SILENT
from cloud.rules.links import FAIR_CHANCE_S
from cloud.tables import alarm, incident, incident_alarm, outbox
from fleet.envelope import VERSION, Envelope, Lane, Status, boot_epoch, encode
from fleet.topics import UpChannel, up

SPEED: Final = 5.0
TEN_MINUTES_MS: Final = 600_000
PRESS_EVERY_S: Final = 0.05
PRESS_BEFORE_S: Final = 1.0
NOTICED_S_MAX: Final = 60.0
MACHINES: Final = 20
NOTIFICATIONS_MAX: Final = 3
PRESS_MS_MAX: Final = 250.0

_EPOCH: Final = boot_epoch(GENERATION, 1)


def measure(directory: Path, count: int, presses: int) -> dict[str, Any]:
    """Run it; raises BenchError if what happened is not what was meant to be measured, or a goal was missed."""
    machines = min(MACHINES, count // 2)
    dropping = {f"machine-{number:03}": "meal_machine" for number in range(1, machines + 1)}
    dropping |= {f"room-{number:03}": "nursing_room" for number in range(1, count - machines + 1)}
    calling = {f"calling-{number:03}": "nursing_room" for number in range(1, presses + 1)}
    origin_ms = real_now_ms()
    clock = SystemClock(speed=SPEED, origin_ms=origin_ms)
    receiver_port, log = free_port(), directory / "notified.jsonl"
    receiver = Child("receiver", ["receiver", str(receiver_port), str(log)], directory / "receiver.log")
    settings = {
        "FLEET_WEBHOOK_URL": f"http://127.0.0.1:{receiver_port}/notify", "FLEET_WEBHOOK_ALLOW_PRIVATE": "true",
        "FLEET_CLOCK_SPEED": f"{SPEED:g}", "FLEET_CLOCK_ORIGIN_MS": str(origin_ms),
    }  # fmt: skip
    with Rig(directory, {**dropping, **calling}, settings) as rig:
        receiver.start()
        try:
            time.sleep(FAIR_CHANCE_S + 1.0)  # so long after its start the cloud calls nobody silent
            line = _Line(rig.broker.services_port)
            _drop(line, dropping)
            line.say([_status(device_id) for device_id in calling])
            pressed = _press(line, list(calling), clock)
            rig.wait(lambda: len(rig.read(_silences)) >= count, NOTICED_S_MAX, "all silences to be noticed")
            incidents = rig.read(_incidents)
            silences = rig.read(_silences)
            first_ms = min(silences)
            rest_s = (first_ms + TEN_MINUTES_MS - clock.now_ms()) / 1000 / SPEED
            time.sleep(max(0.0, rest_s) + 2.0)
            counts = rig.read(lambda tx: _told(tx, first_ms))
            line.close()
        finally:
            receiver.stop()
    notices, _ = people.new_lines(log, 0)
    latencies = _latencies(pressed, notices)
    if len(latencies) < presses:
        raise BenchError(f"{presses - len(latencies)} of {presses} presses were not notified")
    result = {
        "devices": count,
        "silences": len(silences),
        "noticed_within_s": round((max(silences) - first_ms) / 1000, 1),
        "incidents": incidents,
        "notifications_in_ten_business_minutes": counts,
        "presses": presses,
        "press_to_notified_ms": verdict.percentiles(list(latencies.values())),
    }
    check(result, max(counts.values(), default=0), sorted(latencies.values()))
    return result


def check(result: dict[str, Any], told_max: int, latencies_ms: list[float]) -> None:
    """Raises BenchError unless people were told, of one incident, not too often, and no press waited for it."""
    if not told_max:
        raise BenchError("nobody was told: nothing was measured")
    if len(result["incidents"]) != 1 or result["incidents"][0]["alarms"] != result["devices"]:
        raise BenchError(f"{result['devices']} devices dropped, and that became {result['incidents']}")
    if told_max > NOTIFICATIONS_MAX:
        raise BenchError(f"somebody was told {told_max} times in ten minutes: {result}")
    p99_ms = latencies_ms[min(len(latencies_ms) - 1, int(len(latencies_ms) * 0.99))]
    if p99_ms > PRESS_MS_MAX:
        raise BenchError(f"a press waited {p99_ms:.0f} ms (p99): {result}")


class _Line:
    """All devices on one connection to the broker."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(ConnectPacket("bench-load", clean_start=True, keep_alive=600).write())
        self._socket.recv(1024)
        self._packet_id = 0

    def say(self, messages: list[tuple[str, bytes]]) -> float:
        """Publish at QoS 1; returns the real moment at which the bytes left."""
        data = b""
        for topic, payload in messages:
            self._packet_id = self._packet_id % 60_000 + 1
            data += PublishPacket(topic, payload, qos=QoS.AT_LEAST_ONCE, packet_id=self._packet_id).write()
        at_s = time.monotonic()
        self._socket.sendall(data)
        return at_s

    def close(self) -> None:
        """Leave; nobody here has a last will."""
        self._socket.close()


def _status(device_id: str) -> tuple[str, bytes]:
    return up(device_id, UpChannel.STATUS), encode(Status(device_id, _EPOCH, 1, online=True))


def _drop(line: _Line, dropping: dict[str, str]) -> None:
    """Each device says that it is there, once, so that the silences of all kinds begin at the same time."""
    kinds = devices.kinds()
    ordered = sorted(set(dropping.values()), key=lambda name: -kinds[name].silent_after_s)
    for name, following in zip(ordered, [*ordered[1:], ""], strict=True):
        line.say([_status(device_id) for device_id, kind in dropping.items() if kind == name])
        until_s = kinds[following].silent_after_s if following else PRESS_BEFORE_S * SPEED
        time.sleep((kinds[name].silent_after_s - until_s) / SPEED)


def _press(line: _Line, rooms: list[str], clock: SystemClock) -> dict[str, float]:
    """One press in each room; event id → real moment."""
    pressed: dict[str, float] = {}
    for number, device_id in enumerate(rooms, start=1):
        event_id = f"{number:032x}"
        payload = msgspec.Raw(msgspec.json.encode({"type": "pressed", "event_id": event_id, "press_id": event_id}))
        envelope = Envelope(VERSION, "nursing_room", device_id, _EPOCH, Lane.EMERGENCY, 1, clock.now_ms(), payload)
        pressed[event_id] = line.say([(up(device_id, UpChannel.EMERGENCY), encode(envelope))])
        time.sleep(PRESS_EVERY_S)
    return pressed


def _latencies(pressed: dict[str, float], notices: list[dict[str, Any]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for notice in notices:
        event_id = notice["notification"]["facts"].get("event_id", "")
        if event_id in pressed and event_id not in found:
            found[event_id] = (notice["accepted_s"] - pressed[event_id]) * 1000
    return found


def _silences(tx: Connection) -> list[int]:
    return list(
        tx.scalars(select(alarm.c.received_at).where(alarm.c.key == SILENT, ~alarm.c.device_id.like("calling-%")))
    )


def _told(tx: Connection, first_ms: int) -> dict[str, int]:
    """Notifications about alarms per channel and person that were delivered within ten minutes."""
    columns = outbox.c
    query = select(columns.channel, columns.recipient).where(
        columns.delivered_at >= first_ms,
        columns.delivered_at < first_ms + TEN_MINUTES_MS,
        columns.notification.like('%"kind_of":"alarm"%'),
    )
    return dict(Counter(f"{row.channel} {row.recipient}".strip() for row in tx.execute(query)))


def _incidents(tx: Connection) -> list[dict[str, Any]]:
    """Each incident with how many of the dropped devices are in its list."""
    dropped = (alarm.c.key == SILENT) & ~alarm.c.device_id.like("calling-%")
    members = incident_alarm.join(alarm, alarm.c.id == incident_alarm.c.alarm_id)
    query = select(func.count()).select_from(members).where(dropped)
    return [
        {"state": row.state, "alarms": tx.scalar(query.where(incident_alarm.c.incident_id == row.id))}
        for row in tx.execute(select(incident)).all()
    ]
