"""deploy/: the broker's real configuration on a real Mosquitto, with the certificates the script makes.

Who may do what is judged by deliveries: the broker acknowledges what its rules drop.
"""

import queue
import shutil
import socket
import ssl
import subprocess
import time

import paho.mqtt.client as mqtt
import pytest

from fleet.topics import DownChannel, UpChannel, down, up
from scripts import tidy

pytestmark = pytest.mark.mosquitto
WAIT_S = 10


@pytest.fixture(scope="module")
def secrets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("deploy")
    shutil.copy(tidy.ROOT / "deploy/make_secrets.sh", folder)
    script = folder / "make_secrets.sh"
    subprocess.run([script, "localhost", "bike-001", "bike-002"], check=True, capture_output=True)
    before = (folder / "secrets/command_key").read_bytes()
    subprocess.run([script, "localhost", "room-001"], check=True, capture_output=True)
    assert (folder / "secrets/command_key").read_bytes() == before, "a second run keeps what is there"
    return folder / "secrets"


@pytest.fixture(scope="module")
def broker(secrets, tmp_path_factory):
    """Port of a broker that runs deploy/mosquitto/mosquitto.conf, with paths and port of this machine."""
    binary = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if binary is None:
        pytest.skip("Mosquitto is not installed; `make test` installs it when root")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("broker")
    acl = shutil.copy(tidy.ROOT / "deploy/mosquitto/acl", folder / "acl")
    text = (tidy.ROOT / "deploy/mosquitto/mosquitto.conf").read_text()
    for old, new in (
        ("listener 8883", f"listener {port} 127.0.0.1\nuser root"),
        ("/mosquitto/config/acl", str(acl)),
        ("/run/secrets/broker_ca", str(secrets / "authority/ca.pem")),
        ("/run/secrets/broker_certificate", str(secrets / "broker.pem")),
        ("/run/secrets/broker_key", str(secrets / "broker.key")),
    ):
        assert old in text
        text = text.replace(old, new)
    (folder / "mosquitto.conf").write_text(text)
    log = (folder / "log").open("wb")
    process = subprocess.Popen([binary, "-c", str(folder / "mosquitto.conf")], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + WAIT_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline
        yield port
    finally:
        process.terminate()
        process.wait(WAIT_S)
        log.close()


class Party:
    """A connected client that collects what is delivered to it."""

    def __init__(self, port, secrets, name):
        self.received = queue.Queue()
        self.client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, client_id=name.replace("/", "-"), protocol=mqtt.MQTTv5
        )
        self.client.tls_set(
            str(secrets / "authority/ca.pem"), str(secrets / f"{name}.pem"), str(secrets / f"{name}.key"),
            tls_version=ssl.PROTOCOL_TLS_CLIENT,
        )  # fmt: skip
        subscribed = self.subscribed = queue.Queue()
        connected = queue.Queue()
        self.client.on_message = lambda *arguments: self.received.put((arguments[2].topic, arguments[2].payload))
        self.client.on_subscribe = lambda *_: subscribed.put(True)
        self.client.on_connect = lambda *arguments: connected.put(arguments[3])
        self.client.connect("localhost", port)
        self.client.loop_start()
        assert not connected.get(timeout=WAIT_S).is_failure

    def subscribe(self, topic):
        self.client.subscribe(topic, qos=1)
        self.subscribed.get(timeout=WAIT_S)

    def publish(self, topic, payload):
        self.client.publish(topic, payload, qos=1).wait_for_publish(WAIT_S)

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def parties(broker, secrets):
    made = {name: Party(broker, secrets, name) for name in ("ingester", "devices/bike-001", "devices/bike-002")}
    yield made
    for party in made.values():
        party.close()


def test_a_device_writes_its_own_topics_only(parties):
    ingester, device = parties["ingester"], parties["devices/bike-001"]
    ingester.subscribe("f/#")
    device.publish(up("bike-002", UpChannel.EVENT), b"forged")
    device.publish(down("bike-001", DownChannel.COMMAND), b"forged")
    device.publish("other/topic", b"forged")
    device.publish(up("bike-001", UpChannel.EVENT), b"own")
    assert ingester.received.get(timeout=WAIT_S) == (up("bike-001", UpChannel.EVENT), b"own")
    assert ingester.received.empty()


def test_a_device_reads_its_own_commands_only(parties):
    ingester, device, other = parties["ingester"], parties["devices/bike-001"], parties["devices/bike-002"]
    for party in (device, other):
        party.subscribe("#")
        party.subscribe("f/+/+/down/#")
    ingester.publish(down("bike-001", DownChannel.COMMAND), b"for 1")
    ingester.publish(down("bike-002", DownChannel.COMMAND), b"for 2")
    assert device.received.get(timeout=WAIT_S)[1] == b"for 1"
    assert other.received.get(timeout=WAIT_S)[1] == b"for 2"
    ingester.publish(down("bike-001", DownChannel.ACK), b"last")
    payloads = {device.received.get(timeout=WAIT_S)[1]}
    while not device.received.empty():
        payloads.add(device.received.get()[1])
    assert payloads <= {b"for 1", b"last"}
    assert b"for 1" not in {payload for _, payload in list(other.received.queue)}


def test_nobody_connects_without_a_certificate_of_this_authority(broker, secrets):
    context = ssl.create_default_context(cafile=str(secrets / "authority/ca.pem"))
    assert not answer_to_connect(broker, context)
    context.load_cert_chain(secrets / "ingester.pem", secrets / "ingester.key")
    assert answer_to_connect(broker, context)


def answer_to_connect(port, context):
    """What the broker answers to an MQTT CONNECT over this TLS context; nothing if it ends the connection."""
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=WAIT_S) as raw,
            context.wrap_socket(raw, server_hostname="localhost") as connection,
        ):
            connection.sendall(b"\x10\x0f\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x02no")
            return connection.recv(16)
    except OSError:
        return b""
