"""Revoke → disconnected, on a real broker with production's configuration, among devices that stay connected.

Each revocation is what the cloud does: sign and write the list, have the broker read it, take the session over. The
moment counts at which the device sees its connection end; it comes back at once and again and again, as a thief would,
with a clean start and with its stored session, and once more after the broker was killed and started again.
"""

import asyncio
import datetime as dt
import random
import ssl
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from mqtt5 import ConnAckPacket, ConnectPacket, PingReqPacket, read

from cli.bench.rig import BenchError
from cli.broker import Broker
from cli.demo.stage import make_identities, put_identity
from cli.demo.verdict import percentiles
from cloud import logs
from cloud.adapters.mqtt import ReceiverOptions
from cloud.adapters.mqtt.takeover import end_session
from cloud.identity import pki
from cloud.identity.revocation_list import RevocationList, SignalReload, revoked_of
from fleet.topics import INGESTER_NAME

ENDED_S_MAX: Final = 10.0
ANSWER_S_MAX: Final = 10.0
CONNECT_AT_ONCE: Final = 20
SESSION_EXPIRY_S: Final = 3600
RETURNS: Final = 3
"""How often a revoked device tries each of its ways back."""


class Device:
    """One connected device; `ended_s` is the moment at which the broker hung up, `None` while it is connected."""

    def __init__(self, name: str, context: ssl.SSLContext, port: int) -> None:
        self.name = name
        self.context = context
        self.ended_s: float | None = None
        self.ended = asyncio.Event()
        self._port = port
        self._task: asyncio.Task[None] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._pong = asyncio.Event()

    async def connect(self, *, clean: bool) -> bool:
        """Whether the broker let it in."""
        try:
            async with asyncio.timeout(ANSWER_S_MAX):
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", self._port, ssl=self.context, server_hostname="localhost"
                )
                packet = ConnectPacket(
                    self.name, clean_start=clean, keep_alive=0, session_expiry_interval=SESSION_EXPIRY_S
                )
                writer.write(packet.write())
                data = await reader.read(1024)
                answer = read(memoryview(data))[0] if data else None
        except (OSError, TimeoutError, IndexError):
            return False
        if not isinstance(answer, ConnAckPacket) or int(answer.reason_code):
            writer.transport.abort()
            return False
        self._writer = writer
        self._task = asyncio.get_running_loop().create_task(self._listen(reader))
        return True

    async def is_alive(self) -> bool:
        """Whether the broker answers a ping."""
        if self.ended.is_set() or self._writer is None:
            return False
        self._pong.clear()
        self._writer.write(PingReqPacket().write())
        try:
            async with asyncio.timeout(ANSWER_S_MAX):
                await self._pong.wait()
        except TimeoutError:
            return False
        return not self.ended.is_set()

    async def leave(self) -> None:
        """Cut the connection."""
        if self._writer is not None:
            self._writer.transport.abort()
        if self._task is not None:
            await self._task

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        try:
            while data := await reader.read(1024):
                if data.endswith(b"\xd0\x00"):
                    self._pong.set()
        except OSError:
            pass
        finally:
            self.ended_s = time.monotonic()
            self.ended.set()
            self._pong.set()


def measure(directory: Path, devices: int, revoked: int) -> dict[str, Any]:
    """Connect `devices`, revoke `revoked` of them one after another. Raises BenchError."""
    if revoked >= devices:
        raise BenchError("--revoked must be smaller than --devices: somebody has to stay")
    logs.configure("warning")
    return asyncio.run(_measure(directory, devices, revoked))


async def _measure(directory: Path, devices: int, revoked: int) -> dict[str, Any]:
    folder, tls = make_identities(directory, [INGESTER_NAME], _now())
    broker = Broker(directory / "broker", tls=tls)
    authority = folder.device_authority()
    names = [f"device-{number:04d}" for number in range(devices)]
    for name in names:
        put_identity(directory / "identities", name, authority.issue_client(name, _now()))
    revocations = RevocationList(folder.device_authority, folder.revocation_file, SignalReload(broker.pid_file))
    options = ReceiverOptions(
        client_id="fleet.bench", port=broker.services_port, server_hostname="localhost",
        tls=_context(directory, INGESTER_NAME, folder.root_file("services")),
    )  # fmt: skip
    broker.start()
    fleet = [Device(name, _context(directory, name, folder.root_file("services")), broker.port) for name in names]
    try:
        await _connect_all(fleet)
        chosen = random.Random(1).sample(fleet, revoked)
        latencies, came_back = [], 0
        for device in chosen:
            certificate = pki.load_certificate((directory / "identities" / f"{device.name}.pem").read_bytes())
            started_s = time.monotonic()
            await revocations.publish([revoked_of(certificate, _now())], _now())
            await end_session(options, device.name)
            async with asyncio.timeout(ENDED_S_MAX):
                await device.ended.wait()
            assert device.ended_s is not None
            latencies.append((device.ended_s - started_s) * 1000)
            came_back += await _returns(device, broker.port)
        staying = [device for device in fleet if device not in chosen]
        alive = await asyncio.gather(*[device.is_alive() for device in staying])
        await asyncio.to_thread(broker.kill)
        await asyncio.to_thread(broker.start)
        for device in chosen:
            came_back += await Device(device.name, device.context, broker.port).connect(clean=False)
    except TimeoutError as error:
        raise BenchError(f"a revoked device stayed connected for more than {ENDED_S_MAX:.0f} s") from error
    finally:
        await asyncio.gather(*[device.leave() for device in fleet])
        await asyncio.to_thread(broker.stop)
    result = {
        "devices": devices,
        "revoked": len(latencies),
        "revoke_to_disconnected_ms": percentiles(latencies),
        "came_back": came_back,
        "others_disconnected": alive.count(False),
    }
    if came_back or not all(alive):
        raise BenchError(f"revoked devices came back or others were disconnected: {result}")
    return result


async def _connect_all(fleet: Sequence[Device]) -> None:
    for start in range(0, len(fleet), CONNECT_AT_ONCE):
        let_in = await asyncio.gather(*[
            device.connect(clean=False) for device in fleet[start : start + CONNECT_AT_ONCE]
        ])  # fmt: skip
        if not all(let_in):
            raise BenchError(f"{let_in.count(False)} of {len(let_in)} devices were not let in")


async def _returns(device: Device, port: int) -> int:
    """How many of its tries to come back were let in."""
    let_in = 0
    for attempt in range(RETURNS * 2):
        again = Device(device.name, device.context, port)
        let_in += await again.connect(clean=bool(attempt % 2))
        await again.leave()
    return let_in


def _context(directory: Path, name: str, root: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(root))
    context.load_cert_chain(directory / "identities" / f"{name}.pem", directory / "identities" / f"{name}.key")
    return context


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
