"""Clones, revoked devices and renewals at the ingester: a real broker, a real SQLite, devices that say anything."""

import asyncio
import json
import secrets

import pytest
from pipeline_bench import SOON_S, Cloud, Devices, until

from cloud.adapters.sql.database import SqlDatabase
from cloud.identity import pki
from cloud.identity.desk import IdentityDesk
from cloud.identity.fingerprints import fingerprint_of_request
from cloud.identity.pki_folder import FolderSigner, PkiFolder
from cloud.identity.registrar import Registrar, Surroundings
from cloud.rules.conditions import IDENTITY_TWICE
from cloud.tables import alarm, call, certificate, device, event
from fleet.credentials import CertificateGrant, CertificateRequest, decode_certificate_answer, encode_credentials
from fleet.envelope import Lane, Welcome
from fleet.topics import UpChannel
from tests.api.enrolment_world import Wall
from tests.device_messages import Speaker, hex_id

pytestmark = pytest.mark.mosquitto

ROOM = Speaker("room-001", "nursing_room")


@pytest.fixture
def broker(production):
    return production


@pytest.fixture
async def people(broker):
    async with Devices(broker.port).connected() as connected:
        yield connected


class Site:
    """A cloud whose desk writes to the same file; `ended` are sessions that were ended."""

    def __init__(self, folder, port):
        self.ended, self.wall = [], Wall()
        self.desk = IdentityDesk(None, None, self._end, self.wall)
        self.cloud = Cloud(folder, port, identity=self.desk)
        self.desk._database = SqlDatabase(self.cloud.url)
        self.desk._publish = self.cloud.link.publish
        self.folder = folder

    async def _end(self, device_id):
        self.ended.append(device_id)

    def registrar(self):
        folder = PkiFolder(self.folder / "own-pki")
        folder.initialise(self.wall.now)
        around = Surroundings(self.cloud.clock, self.wall, lambda: secrets.token_hex(16))

        async def nothing(_=None):
            return True

        return Registrar(self.desk._database, FolderSigner(folder), around, publish_list=nothing, end_session=nothing)


@pytest.fixture
async def site(tmp_path, broker):
    made = Site(tmp_path, broker.port)
    made.cloud.enrol(ROOM)
    beside = asyncio.ensure_future(made.desk.run())
    async with made.cloud.running():
        yield made
    beside.cancel()
    made.desk._database.close()


def _answered(people):
    return {item.nonce for item in people.told["room-001"] if isinstance(item, Welcome)}


async def test_two_boxes_that_alternate_make_one_alarm_few_generations_and_lose_no_press(site, people):
    cloud = site.cloud
    await people.welcome(ROOM, hex_id("first"))
    clone = {"storage_id": hex_id("other storage")}
    await people.welcome(ROOM, hex_id("taken over"), **clone)
    for turn in range(12):
        people.say(ROOM.hello(hex_id("old", turn)))
        people.say(ROOM.emergency(1 + turn, event_id=hex_id("old box", turn)))
        people.say(ROOM.hello(hex_id("new", turn), **clone))
        people.say(ROOM.emergency(1 + turn, event_id=hex_id("new box", turn)))
        await people.heard_by_broker()
    wanted = {hex_id(box, turn) for box in ("old box", "new box") for turn in range(12)}
    await until(lambda: {row[0] for row in cloud.events()} >= wanted, "every press of both boxes")
    last = ROOM.hello(hex_id("last"), **clone)
    people.say(last)
    await until(lambda: hex_id("last") in _answered(people), "the last hello, which comes after all others")
    (raised,) = [row for row in cloud.rows(alarm) if row["key"] == IDENTITY_TWICE]
    assert raised["priority"] == "high"
    assert cloud.rows(device)[0]["generation"] <= 3
    assert not _answered(people) & {hex_id("old", turn) for turn in range(12)}, "the one that returns waits"


async def test_a_revoked_device_is_heard_acknowledged_and_obeyed_no_more_until_it_is_enrolled_anew(site, people):
    cloud = site.cloud
    await people.welcome(ROOM, hex_id(1))
    people.say(ROOM.emergency(1))
    await until(lambda: cloud.rows(call), "the call")
    await people.acknowledged(ROOM, Lane.EMERGENCY, 1)  # or it comes when nothing may come any more
    await cloud.intents.submit("room-001", "revoke", "admin", {})
    await until(lambda: site.ended == ["room-001"], "its session to be ended")
    people.told.clear()
    people.say(ROOM.emergency(2), ROOM.telemetry(1), ROOM.hello(hex_id(2)), ROOM.status(online=True))
    await until(lambda: len(cloud.quarantined()) == 4, "all of it in quarantine")
    assert {row["device_id"] for row in cloud.quarantined()} == {"room-001"}
    assert all("revoked" in row["reason"] for row in cloud.quarantined())
    await until(lambda: len(site.ended) >= 2, "its session to be ended again")
    assert people.told["room-001"] == []
    assert [row["state"] for row in cloud.rows(call)] == ["calling"], "an open call stays open"
    assert [row["seq"] for row in cloud.rows(event)] == [1]
    await cloud.intents.submit("room-001", "reinstate", "registrar", {})
    await people.welcome(ROOM, hex_id(3))
    people.say(ROOM.emergency(2))
    await until(lambda: [row["seq"] for row in cloud.rows(event)] == [1, 2], "what was not acknowledged, again")


async def test_a_revoked_device_stays_out_after_a_restart(tmp_path, broker, people):
    cloud = Cloud(tmp_path, broker.port)
    cloud.enrol(ROOM)
    cloud.sql.write_here(lambda tx: tx.execute(device.update().values(revoked_at=1)))
    async with cloud.running():
        people.say(ROOM.hello(hex_id(1)), ROOM.emergency(1))
        await until(lambda: len(cloud.quarantined()) == 2, "both in quarantine")
        assert people.told["room-001"] == []


async def test_a_renewal_goes_through_rows_and_gives_the_same_certificate_again(site, people):
    cloud, registrar = site.cloud, site.registrar()
    request = pki.make_request("room-001", pki.new_key()).decode()
    asking = ROOM.topic(UpChannel.CERTIFICATE), encode_credentials(CertificateRequest("room-001", request))
    for count in (1, 2):
        people.say(asking)
        async with asyncio.timeout(SOON_S):
            while len(people.orders["room-001"]) < count:
                await registrar.look()
                await asyncio.sleep(0.02)  # two processes meet in the database alone
    first, second = (decode_certificate_answer(data) for data in people.orders["room-001"][:2])
    assert isinstance(first, CertificateGrant)
    assert first == second
    assert first.fingerprint == fingerprint_of_request(request.encode())
    (row,) = cloud.rows(certificate)
    assert (row["origin"], row["proven_at"]) == ("renewal", None)
    await people.welcome(ROOM, hex_id(1), certificate=row["serial"])
    await until(lambda: cloud.rows(certificate)[0]["proven_at"] is not None, "the proof")


async def test_a_device_prepared_elsewhere_is_adopted_so_that_it_can_be_revoked(site, people):
    await people.welcome(ROOM, hex_id(1), certificate="ab12")
    await until(lambda: site.cloud.rows(certificate), "its certificate")
    assert [(row["serial"], row["origin"]) for row in site.cloud.rows(certificate)] == [("ab12", "prepared")]


async def test_whoever_is_retired_loses_its_certificates(site, people):
    await people.welcome(ROOM, hex_id(1), certificate="ab12")
    await until(lambda: site.cloud.rows(certificate), "its certificate")
    await site.cloud.intents.submit("room-001", "retire", "admin", {})
    await until(lambda: site.cloud.rows(device)[0]["retired_at"], "the end of its service")
    assert site.cloud.rows(certificate)[0]["revoked_reason"] == "retired"
    assert site.cloud.rows(device)[0]["revoked_at"] is not None


async def test_rubbish_instead_of_a_request_is_set_aside_or_refused(site, people):
    topic = ROOM.topic(UpChannel.CERTIFICATE)
    people.say((topic, b"{"), (topic, json.dumps({"device_id": "room-002", "request": "x"}).encode()))
    await until(lambda: len(site.cloud.quarantined()) == 2, "both in quarantine")
    people.say((topic, encode_credentials(CertificateRequest("room-001", "no request"))))
    await until(lambda: people.orders["room-001"], "a refusal")
    assert "P-256" in decode_certificate_answer(people.orders["room-001"][0]).reason
