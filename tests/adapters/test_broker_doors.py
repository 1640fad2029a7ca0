"""Who the broker lets in, and how a device is put out for good; on a real Mosquitto with production's configuration."""

import asyncio
import datetime as dt
import json
import os
import signal
import socket
import ssl
import subprocess
import time

import pytest
from mqtt5 import ConnectPacket
from secure_broker import RefusedError, SecureBroker, now
from typer.testing import CliRunner

from cli.app import app
from cli.broker import find_mosquitto, port_taken
from cloud.adapters.mqtt.takeover import SessionEndError, end_session
from cloud.identity.pki_folder import PkiFolder
from cloud.identity.revocation_list import RevocationListError, problem_of
from fleet.topics import INGESTER_NAME, DownChannel, UpChannel, down, up
from scripts.tidy import ROOT

pytestmark = pytest.mark.mosquitto

DEVICES = [f"bike-{number:03d}" for number in range(1, 9)]
DAY = dt.timedelta(days=1)
VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)


@pytest.fixture(scope="module")
def door(tmp_path_factory):
    """A broker with strangers' identities beside the right ones; tests change nothing."""
    folder = tmp_path_factory.mktemp("door")
    with SecureBroker(folder, DEVICES) as broker:
        foreign = PkiFolder(folder / "foreign")
        foreign.initialise(now())
        broker.strange("foreign", foreign.device_authority(), "bike-001")
        broker.strange("expired", broker.pki.device_authority(), "bike-001", issued_at=now() - 91 * DAY)
        broker.strange("future", broker.pki.device_authority(), "bike-001", issued_at=now() + 2 * DAY)
        broker.strange("server", broker.pki.device_authority(), "bike-001", hosts=["bike-001"])
        broker.strange("service-server", broker.pki.authority("services"), INGESTER_NAME, hosts=["localhost"])
        yield broker


@pytest.fixture
def broker(tmp_path):
    with SecureBroker(tmp_path, DEVICES) as made:
        yield made


# --- who gets in -------------------------------------------------------------------------------------------------


async def test_a_device_gets_in_and_is_known_by_its_certificate_alone(door):
    device = await door.device("bike-001", client_id="bike-002")
    other = await door.device("bike-002")
    assert await device.is_alive(), "the client id that it claimed was another's: nobody lost a session for it"
    assert device.answer.assigned_client_id in {None, "bike-001"}
    await device.close()
    await other.close()


@pytest.mark.parametrize("name", ["expired", "foreign", "future", "server"])
async def test_a_certificate_that_does_not_count_is_refused(door, name):
    with pytest.raises(RefusedError):
        await door.device(name)


async def test_no_certificate_gets_nowhere(door):
    with pytest.raises(RefusedError):
        await door.device(None, client_id="bike-001")
    with pytest.raises(RefusedError):
        await door.service(name=None)


async def test_neither_domain_gets_in_at_the_others_door(door):
    with pytest.raises(RefusedError):
        await door.service("bike-001", name="bike-001")
    with pytest.raises(RefusedError):
        await door.device(INGESTER_NAME)
    with pytest.raises(RefusedError):
        await door.service(name="service-server")
    await (await door.service()).close()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_old_tls_is_refused(door):
    for old in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
        with pytest.raises(OSError):  # noqa: PT011  # which layer says no depends on the library
            await asyncio.to_thread(hello, door, door.context("bike-001", old), "bike-001")


async def test_no_session_is_resumed(door):
    """A resumed session would be checked neither against the list nor against the certificate's end."""
    for version in VERSIONS:
        context = door.context("bike-003", version)
        session, _ = await asyncio.to_thread(hello, door, context, "bike-003")
        _, reused = await asyncio.to_thread(hello, door, context, "bike-003", session)
        assert not reused, version
        assert not (session and session.has_ticket), version


def hello(broker, context, name, session=None):
    """(TLS session, whether it was resumed) of a connection that the broker accepted. Raises OSError."""
    raw = socket.create_connection(("127.0.0.1", broker.process.port), timeout=10)
    with context.wrap_socket(raw, server_hostname="localhost", session=session) as connection:
        connection.sendall(ConnectPacket(name, clean_start=True, keep_alive=30).write())
        if not connection.recv(64):
            raise ConnectionError("closed by the broker")
        connection.sendall(b"\xc0\x00")
        connection.recv(64)  # with TLS 1.3 the tickets come somewhere before this
        return connection.session, connection.session_reused


# --- ending a session --------------------------------------------------------------------------------------------


async def test_a_live_session_is_ended_and_its_stored_one_with_it(broker):
    device = await broker.device("bike-001", clean=False, expiry_s=3600)
    await device.subscribe(down("bike-001", DownChannel.COMMAND))
    bystanders = [await broker.device(name) for name in DEVICES[1:]]
    await end_session(broker.options(), "bike-001")
    await device.closed_by_broker()
    assert all([await one.is_alive() for one in bystanders])
    back = await broker.device("bike-001", clean=False, expiry_s=3600)
    assert not back.answer.session_present
    for party in (back, *bystanders):
        await party.close()


async def test_ending_a_session_tells_the_cloud_that_the_link_is_gone(broker):
    service = await broker.service()
    await service.subscribe(up("bike-001", UpChannel.STATUS))
    device = await broker.device("bike-001", will=(up("bike-001", UpChannel.STATUS), b"gone"))
    await end_session(broker.options(), "bike-001")
    await device.closed_by_broker()
    async with asyncio.timeout(10):
        await service.arrived.wait()
    assert service.received == [(up("bike-001", UpChannel.STATUS), b"gone")]
    await service.close()


async def test_nobody_elses_session_is_ever_taken(broker):
    service = await broker.service("fleet.ingester-1")
    with pytest.raises(ValueError, match="no device id"):
        await end_session(broker.options(), "fleet.ingester-1")
    assert await service.is_alive()
    await service.close()


async def test_a_broker_that_is_away_is_said(broker):
    broker.process.kill()
    with pytest.raises(SessionEndError, match=r"127\.0\.0\.1"):
        await end_session(broker.options(), "bike-001")


# --- revocation --------------------------------------------------------------------------------------------------


async def test_revoked_means_out_within_two_seconds_and_never_back(broker):
    sessions = []
    for version in VERSIONS:
        context = broker.context("bike-001", version)
        session, _ = await asyncio.to_thread(hello, broker, context, "bike-001")
        sessions.append((context, session))
    device = await broker.device("bike-001", clean=False, expiry_s=3600)
    bystanders = [await broker.device(name) for name in DEVICES[1:]]
    started_s = time.monotonic()
    await broker.revoke("bike-001")
    await end_session(broker.options(), "bike-001")
    await device.closed_by_broker()
    assert time.monotonic() - started_s < 2.0
    with pytest.raises(RefusedError):
        await broker.device("bike-001")
    with pytest.raises(RefusedError):  # its stored session is no way back
        await broker.device("bike-001", clean=False, expiry_s=3600)
    for context, session in sessions:
        with pytest.raises(OSError, match=r"(?i)revoked|closed|EOF|reset"):
            await asyncio.to_thread(hello, broker, context, "bike-001", session)
    assert all([await one.is_alive() for one in bystanders]), "the others stay connected"
    await (await broker.device("bike-002")).close()
    for one in bystanders[1:]:
        await one.close()
    broker.process.kill()
    broker.process.start()
    with pytest.raises(RefusedError):
        await broker.device("bike-001")
    await (await broker.device("bike-002")).close()


async def test_entries_stay_whatever_the_next_caller_knows(broker):
    await broker.revoke("bike-001")
    state = await broker.revoke("bike-002")
    assert len(state.revoked) == 2
    await broker.revocations.publish([], now())
    for name in ("bike-001", "bike-002"):
        with pytest.raises(RefusedError):
            await broker.device(name)
    await (await broker.device("bike-003")).close()


async def test_a_renewed_intermediate_takes_nothing_back(broker):
    """Old certificates live on under the old issuer's list, revoked ones stay revoked, new ones are accepted."""
    await broker.revoke("bike-001")
    broker.pki.renew_intermediate("devices", now() + dt.timedelta(seconds=2))
    broker.identify("bike-new", broker.pki.device_authority().issue_client("bike-new", now()))
    await broker.revocations.publish([], now())
    with pytest.raises(RefusedError):
        await broker.device("bike-001")
    for name in ("bike-002", "bike-new"):
        await (await broker.device(name)).close()
    await broker.revoke("bike-new")
    with pytest.raises(RefusedError):
        await broker.device("bike-new")


async def test_a_list_that_ended_refuses_every_device_and_a_fresh_one_lets_them_in_again(broker):
    live = await broker.device("bike-001")
    await broker.revocations.publish([], now() - 8 * DAY)
    with pytest.raises(RefusedError):
        await broker.device("bike-002")
    await (await broker.service()).close()
    assert await live.is_alive()
    assert "ended" in problem_of(broker.pki.revocation_file, now())
    assert "certificate verify failed" in broker.log(), "what docs/operations.md tells people to look for"
    await broker.revocations.publish([], now())
    await (await broker.device("bike-002")).close()
    assert not problem_of(broker.pki.revocation_file, now())
    await live.close()


async def test_garbage_in_the_lists_place_is_found_and_mended(broker):
    """Mosquitto then reloads without any list; so we never write one, say so, and the database has the entries."""
    revoked = (await broker.revoke("bike-001")).revoked
    broker.pki.revocation_file.write_bytes(b"garbage")
    os.kill(broker.process.pid, signal.SIGHUP)
    assert "fleet pki crl" in problem_of(broker.pki.revocation_file, now())
    assert broker.revocations.due(now())
    with pytest.raises(RevocationListError, match="fleet pki crl"):
        broker.revocations.state()
    await broker.revocations.publish(revoked, now())
    with pytest.raises(RefusedError):
        await broker.device("bike-001")
    await (await broker.device("bike-002")).close()


async def test_a_broker_that_cannot_be_told_is_said(broker):
    broker.process.kill()
    with pytest.raises(RevocationListError, match="FLEET_BROKER_PID_FILE"):
        await broker.revoke("bike-001")
    broker.process.start()
    with pytest.raises(RefusedError):  # it was written all the same
        await broker.device("bike-001")


# --- looking from outside ----------------------------------------------------------------------------------------


def check(broker, *arguments):
    return CliRunner().invoke(app, [
        "broker", "check", "--pki", str(broker.pki.directory), "--devices-port", str(broker.process.port),
        "--services-port", str(broker.process.services_port), "--json", *arguments,
    ])  # fmt: skip


def test_check_finds_a_running_broker_in_order_and_what_is_not(broker):
    broker.pki.issue_service(INGESTER_NAME, now())
    healthy = check(broker)
    assert healthy.exit_code == 0, healthy.output
    names = {one["check"] for one in json.loads(healthy.stdout)["findings"]}
    assert {"Services' port lets the cloud in", "Devices' port refuses services", "Revocation list"} <= names

    ended = broker.pki.authority("services").issue_client(INGESTER_NAME, now() - 91 * DAY)
    for path, content in zip(broker.pki.issued_files(INGESTER_NAME), (ended.certificate, ended.key), strict=True):
        path.write_bytes(content)
    sick = check(broker)
    assert sick.exit_code == 3
    (found,) = [one for one in json.loads(sick.stdout)["findings"] if one["verdict"] == "problem"]
    assert found["check"] == "Services' port lets the cloud in"
    assert "expired" in found["fix"]


def test_check_finds_a_port_that_lets_strangers_in(broker):
    """As with a hand-written configuration."""
    broker.process.kill()
    configuration = broker.process.directory / "mosquitto.conf"
    text = configuration.read_text().replace("require_certificate true", "require_certificate false")
    for line in ("use_identity_as_username true", "use_username_as_clientid true"):
        text = text.replace(line, "")
    configuration.write_text(text.replace("allow_anonymous false", "allow_anonymous true"))
    log = (broker.process.directory / "mosquitto.log").open("ab")
    process = subprocess.Popen([find_mosquitto(), "-c", str(configuration)], stdout=log, stderr=log)
    try:
        while not (port_taken(broker.process.port) and port_taken(broker.process.services_port)):
            assert process.poll() is None, broker.log()
        findings = {one["check"]: one for one in json.loads(check(broker).stdout)["findings"]}
        assert "let a stranger in" in findings["Services' port refuses strangers"]["found"]
    finally:
        process.kill()
        process.wait()
        log.close()


async def test_the_log_says_what_the_operations_page_tells_people_to_look_for(door):
    for name in ("expired", None):
        with pytest.raises(RefusedError):
            await door.device(name, client_id="bike-001")
    for words in ("certificate verify failed", "peer did not return a certificate"):
        assert words in door.log()
        assert f"`{words}`" in (ROOT / "docs/operations.md").read_text()
