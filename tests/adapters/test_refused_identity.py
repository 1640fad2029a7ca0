"""What a box says when the broker refuses its certificate: at once, in words, and before the agent is started."""

import datetime as dt
import json
import time

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from secure_broker import SecureBroker, now
from typer.testing import CliRunner

from cli.app import app
from cloud.identity.authority import public_pem
from cloud.identity.pki_folder import PkiFolder
from edge.identity import load_tls_context
from edge.link import IdentityRefusedError
from edge.mqtt_link import BrokerAddress, MqttLink
from fleet.envelope import Status

pytestmark = pytest.mark.mosquitto

DEVICE = "bike-001"
REASONS = {"expired": "it has ended", "foreign": "another installation", "revoked": "it was revoked"}


@pytest.fixture(scope="module")
def door(tmp_path_factory):
    folder = tmp_path_factory.mktemp("refused")
    with SecureBroker(folder, [DEVICE]) as broker:
        foreign = PkiFolder(folder / "foreign")
        foreign.initialise(now())
        broker.strange("foreign", foreign.device_authority(), DEVICE)
        broker.strange("expired", broker.pki.device_authority(), DEVICE, issued_at=now() - dt.timedelta(days=91))
        broker.strange("revoked", broker.pki.device_authority(), DEVICE)
        yield broker


def identity_of(door, name):
    folder = door.folder / "identities"
    return door.pki.root_file("services"), folder / f"{name}.pem", folder / f"{name}.key"


@pytest.mark.parametrize("name", sorted(REASONS))
async def test_a_refused_box_knows_why_at_once_and_not_when_its_patience_ends(door, name):
    """An emergency that waits gives an attempt a few seconds: the reason has to come before."""
    await door.revoke("revoked")
    link = MqttLink(DEVICE, BrokerAddress("localhost", door.process.port), load_tls_context(*identity_of(door, name)),
                    connect_s_max=30.0)  # fmt: skip
    began_s = time.monotonic()
    with pytest.raises(IdentityRefusedError, match=REASONS[name]):
        async with link.connect(Status(DEVICE, 0, 1, online=False), 60):
            pytest.fail("the broker let it in")
    assert time.monotonic() - began_s < 10


@pytest.mark.parametrize("name", sorted([DEVICE, *REASONS]))
async def test_check_finds_a_certificate_that_the_broker_refuses(door, name, tmp_path):
    await door.revoke("revoked")
    authority, certificate, key = identity_of(door, name)
    (tmp_path / "main.pem").write_bytes(public_pem(Ed25519PrivateKey.generate().public_key()))
    config = tmp_path / "edge.toml"
    config.write_text(f"""
device_id = "{DEVICE}"
kind = "bike"
transport = "tcp://127.0.0.1:9"
data_directory = "data"
[broker]
host = "localhost"
port = {door.process.port}
authority = "{authority}"
certificate = "{certificate}"
private_key = "{key}"
[command_keys]
main = "main.pem"
""")
    ended = CliRunner().invoke(app, ["edge", "check", "--config", str(config), "--json"])
    found = {one["check"]: one for one in json.loads(ended.stdout)["findings"]}
    assert ended.exit_code == 3
    assert found["Line"]["verdict"] == "problem", "nobody listens at the gateway's port"
    assert "127.0.0.1:9" in found["Line"]["found"]
    if name == DEVICE:
        assert found["Broker"]["verdict"] == "ok"
    else:
        assert found["Broker"]["verdict"] == "problem"
        assert REASONS[name] in found["Broker"]["found"]
        assert "fleet edge enrol" in found["Broker"]["found"] + found["Broker"]["fix"]
