"""A real Mosquitto with the configuration of production, and MQTT 5 clients that show every byte's meaning."""

import asyncio
import datetime as dt
import ssl

import pytest
from mqtt5 import (
    ConnAckPacket,
    ConnectPacket,
    DisconnectPacket,
    PingReqPacket,
    PingRespPacket,
    PubAckPacket,
    PublishPacket,
    QoS,
    SubAckPacket,
    SubscribePacket,
    TopicFilter,
    Will,
    read,
)

from cli.broker import Broker, find_mosquitto
from cli.demo.stage import make_identities, put_identity
from cloud.adapters.mqtt import ReceiverOptions
from cloud.identity import pki
from cloud.identity.authority import Credentials
from cloud.identity.revocation_list import RevocationList, SignalReload, revoked_of
from fleet.topics import INGESTER_NAME

WAIT_S = 10


class RefusedError(Exception):
    """The broker ended the connection before it accepted it, or never answered."""


class SecureBroker:
    """Folder, domains, identities and the process."""

    def __init__(self, folder, devices):
        if find_mosquitto() is None:
            pytest.skip("Mosquitto is not installed; `make test` installs it when it is root")
        self.folder = folder
        self.pki, tls = make_identities(folder, [INGESTER_NAME], now())
        self.process = Broker(folder / "broker", tls=tls, persist=False)
        for device_id in devices:
            self.identify(device_id, self.pki.device_authority().issue_client(device_id, now()))
        reload = SignalReload(self.process.pid_file)
        self.revocations = RevocationList(self.pki.device_authority, self.pki.revocation_file, reload)

    def __enter__(self):
        self.process.start()
        return self

    def __exit__(self, *_):
        self.process.kill()

    def identify(self, name, credentials):
        put_identity(self.folder / "identities", name, credentials)

    def strange(self, name, authority, common_name, hosts=(), issued_at=None):
        """An identity file `name` that `authority` vouches for as `common_name`, or as a server of `hosts`."""
        key = pki.new_key()
        issued = authority.leaf(common_name, key.public_key(), issued_at or now(), hosts=hosts)
        self.identify(name, Credentials(issued.chain, pki.key_pem(key)))

    def certificate(self, name):
        return pki.load_certificate((self.folder / "identities" / f"{name}.pem").read_bytes())

    async def revoke(self, *names):
        return await self.revocations.publish([revoked_of(self.certificate(name), now()) for name in names], now())

    def context(self, name=None, version=None):
        context = ssl.create_default_context(cafile=str(self.pki.root_file("services")))
        if name is not None:
            folder = self.folder / "identities"
            context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
        if version is not None:
            context.minimum_version = context.maximum_version = version
        return context

    def options(self, client_id="fleet.test"):
        """Of a connection of ours, for the product's own code."""
        return ReceiverOptions(
            client_id=client_id, port=self.process.services_port, tls=self.context(INGESTER_NAME),
            server_hostname="localhost",
        )  # fmt: skip

    async def device(self, name, **changes):
        """A connected device. Raises RefusedError."""
        return await Party.connect(self.process.port, self.context(name), changes.pop("client_id", name), **changes)

    async def service(self, client_id="fleet.test", name=INGESTER_NAME):
        """A connected process of ours. Raises RefusedError."""
        return await Party.connect(self.process.services_port, self.context(name), client_id)

    def log(self):
        return (self.process.directory / "mosquitto.log").read_text(errors="replace")


def now():
    return dt.datetime.now(dt.UTC)


class Party:
    """One MQTT 5 connection; `received` holds (topic, payload), `ended` is set when the broker hung up."""

    @classmethod
    async def connect(cls, port, context, client_id, *, clean=True, expiry_s=0, will=None):
        self = cls()
        self.received, self.ended, self.arrived = [], asyncio.Event(), asyncio.Event()
        self._answers, self._packet_id, self._pongs = {}, 0, asyncio.Queue()
        self._accepted = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(WAIT_S):
                self._reader, self._writer = await asyncio.open_connection(
                    "127.0.0.1", port, ssl=context, server_hostname="localhost"
                )
                self._task = asyncio.create_task(self._read())
                packet = ConnectPacket(
                    client_id, clean_start=clean, keep_alive=60, session_expiry_interval=expiry_s,
                    will=None if will is None else Will(will[0], payload=will[1], qos=QoS.AT_LEAST_ONCE),
                )  # fmt: skip
                self._writer.write(packet.write())
                self.answer = await self._accepted
        except (OSError, TimeoutError) as error:
            raise RefusedError(f"{type(error).__name__}: {error}") from error
        if int(self.answer.reason_code):
            raise RefusedError(self.answer.reason_code.name)
        return self

    async def _read(self):
        buffer = bytearray()
        try:
            while data := await self._reader.read(65_536):
                buffer += data
                while buffer:
                    try:
                        packet, size = read(memoryview(bytes(buffer)))
                    except IndexError:
                        break
                    del buffer[:size]
                    self._on(packet)
        except OSError:
            pass
        finally:
            self.ended.set()
            if not self._accepted.done():
                self._accepted.set_exception(ConnectionError("closed before CONNACK"))

    def _on(self, packet):
        match packet:
            case PublishPacket():
                self.received.append((packet.topic, bytes(packet.payload)))
                self.arrived.set()
                if packet.packet_id:
                    self._writer.write(PubAckPacket(packet.packet_id).write())
            case ConnAckPacket():
                self._accepted.set_result(packet)
            case PingRespPacket():
                self._pongs.put_nowait(None)
            case PubAckPacket() | SubAckPacket():
                self._answers.pop(packet.packet_id).set_result(packet)

    async def publish_all(self, messages):
        """QoS 1 for all of them at once; returns when the broker has answered each."""
        async with asyncio.timeout(WAIT_S):
            await asyncio.gather(*[
                self._ask(lambda number, topic=topic, payload=payload: PublishPacket(
                    topic, payload, qos=QoS.AT_LEAST_ONCE, packet_id=number
                ))
                for topic, payload in messages
            ])  # fmt: skip

    async def subscribe(self, *filters):
        async with asyncio.timeout(WAIT_S):
            for start in range(0, len(filters), 50):
                chunk = [TopicFilter(text, max_qos=QoS.AT_LEAST_ONCE) for text in filters[start : start + 50]]
                await self._ask(lambda number, chunk=chunk: SubscribePacket(number, chunk))

    def _ask(self, packet_of):
        self._packet_id += 1
        answer = asyncio.get_running_loop().create_future()
        self._answers[self._packet_id] = answer
        self._writer.write(packet_of(self._packet_id).write())
        return answer

    async def settle(self):
        """Everything the broker had for us until now has been received."""
        self._writer.write(PingReqPacket().write())
        async with asyncio.timeout(WAIT_S):
            await self._pongs.get()

    async def is_alive(self):
        if self.ended.is_set():
            return False
        try:
            await self.settle()
        except (OSError, TimeoutError):
            return False
        return True

    async def closed_by_broker(self):
        async with asyncio.timeout(WAIT_S):
            await self.ended.wait()

    async def close(self):
        self._writer.write(DisconnectPacket().write())
        await self.cut()

    async def cut(self):
        """Go without a word."""
        self._writer.transport.abort()
        await self._task
