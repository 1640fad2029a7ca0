"""The receiver over TLS, on a real Mosquitto: the same promises when the transport decrypts into our buffer."""

import asyncio
import datetime as dt
import ipaddress
import random
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from mosquitto_fixture import Mosquitto

from cloud.adapters.mqtt import MqttReceiver, ReceiverOptions
from cloud.model import Downstream

pytestmark = pytest.mark.mosquitto

DAY = dt.timedelta(days=1)
TODAY = dt.datetime.now(dt.UTC)


def certificate(folder):
    """A self-signed certificate for 127.0.0.1; returns the paths of certificate and key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "broker")])
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(TODAY - DAY).not_valid_after(TODAY + DAY)
    builder = builder.add_extension(address, critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    signed = builder.sign(key, hashes.SHA256())
    (folder / "broker.crt").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "broker.key").write_bytes(private)
    return folder / "broker.crt", folder / "broker.key"


@pytest.fixture
def tls_broker(tmp_path):
    certificate_file, key_file = certificate(tmp_path)
    server = Mosquitto(tmp_path, f"certfile {certificate_file}\nkeyfile {key_file}")
    yield server, certificate_file
    server.close()


async def test_ten_thousand_messages_over_tls_with_back_pressure(tls_broker):
    server, certificate_file = tls_broker
    tls = ssl.create_default_context(cafile=certificate_file)
    options = ReceiverOptions(client_id="tls", port=server.port, tls=tls, held_max=700)
    receiver = MqttReceiver(options, ["t/#"], random.Random(5))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(receiver.run())
        await receiver.wait_connected()
        receiver.publish([Downstream("t/1", b"%d" % number + bytes(200)) for number in range(10_000)])
        heard = []
        async with asyncio.timeout(40):
            while len(heard) < 10_000:
                batch = await receiver.next_batch(500, 0.01)
                receiver.acknowledge(batch)
                heard += [int(message.payload.rstrip(b"\0")) for message in batch]
        task.cancel()
    assert heard == list(range(10_000))
    assert receiver.statistics.connections == 1


async def test_a_certificate_of_somebody_else_is_refused(tls_broker):
    server, _ = tls_broker
    options = ReceiverOptions(
        client_id="tls", port=server.port, tls=ssl.create_default_context(), reconnect_base_s=0.01
    )
    receiver = MqttReceiver(options, ["t/#"], random.Random(5))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(receiver.run())
        async with asyncio.timeout(20):
            while receiver.statistics.connections_failed < 2:  # noqa: ASYNC110  # a counter has no event
                await asyncio.sleep(0.005)
        task.cancel()
    assert not receiver.connected
