"""Claims, certificates and revocation on both databases; two registrars do the same work once."""

import asyncio
import secrets

from sqlalchemy import select

from cloud import tables
from cloud.enrolment import acts, repository
from cloud.enrolment.lifecycle import EnrolmentEvent
from cloud.identity import certificates, revocation
from cloud.identity.fingerprints import fingerprint_of_request, pin_of_root
from cloud.identity.pki_folder import FolderSigner, PkiFolder
from cloud.identity.registrar import PUBLISH_AGAIN_S, Registrar, Surroundings
from fleet.claim import Claim
from fleet.clock import ManualClock
from tests.api.enrolment_world import REAL_MS, Box, Wall

pytest_plugins = ("tests.adapters.postgres_fixture",)


class Office:
    def __init__(self, database, folder):
        self.database, self.wall, self.broker = database, Wall(), []
        self.pki = PkiFolder(folder / "own-pki")
        self.pki.initialise(self.wall.now)
        self.broker_listens = True
        self.around = Surroundings(ManualClock(REAL_MS), self.wall, lambda: secrets.token_hex(16))

    def registrar(self):
        async def publish():
            self.broker.append("list" if self.broker_listens else "refused")
            return self.broker_listens

        async def end(device_id):
            self.broker.append(device_id)

        signer = FolderSigner(self.pki)
        return Registrar(self.database, signer, self.around, publish_list=publish, end_session=end)

    def write(self, work):
        return self.database.write_here(work)

    def rows(self, table):
        return self.database.read_here(lambda tx: list(tx.execute(select(table))))

    def asked(self, box):
        """A box has asked with a claim of its own."""
        act = self.around.act("admin")
        claim = Claim(secrets.token_bytes(10), pin_of_root(self.pki.root_file("services").read_bytes()))
        self.write(lambda tx: acts.register(tx, "room-007", acts.NewDevice("nursing_room"), act))
        self.write(lambda tx: acts.make_claim(tx, "room-007", "FB-1", claim, act))
        wanted = acts.Ask(
            claim.secret, "fb-1 ", box.request, fingerprint_of_request(box.request.encode()), "poll", "10.0.0.1"
        )
        return self.write(lambda tx: acts.ask(tx, wanted, act))


async def test_a_revocation_that_was_not_published_is_not_carried_out(database, tmp_path):
    office, box = Office(database, tmp_path), Box()
    registrar, act = office.registrar(), office.around.act("admin")
    office.asked(box)
    office.write(lambda tx: acts.decide(tx, "room-007", EnrolmentEvent.APPROVE, act, fingerprint=box.fingerprint))
    await registrar.look()
    office.wall.ms += 10
    office.broker_listens = False
    office.write(lambda tx: revocation.revoke(tx, "room-007", "stolen", office.around.act("admin")))
    await registrar.look()
    assert office.broker == ["refused", "room-007"], "the session ends all the same"
    await registrar.look()
    assert office.broker == ["refused", "room-007"], "not twice a second"
    office.wall.ms += 3_600_000  # however long it takes
    office.around.clock.advance(seconds=PUBLISH_AGAIN_S)
    await registrar.look()
    assert office.broker[2:] == ["refused"]
    office.broker_listens = True
    office.around.clock.advance(seconds=PUBLISH_AGAIN_S)
    await registrar.look()
    await registrar.look()
    assert office.broker[3:] == ["list"]


async def test_the_whole_life_of_an_identity(database, tmp_path):
    office, box = Office(database, tmp_path), Box()
    registrar, act = office.registrar(), office.around.act("admin")
    asked = office.asked(box)
    office.write(lambda tx: acts.decide(tx, "room-007", EnrolmentEvent.APPROVE, act, fingerprint=box.fingerprint))
    await registrar.look()
    assert office.database.read_here(lambda tx: repository.one(tx, asked.id)).state == "granted"
    (row,) = office.rows(tables.certificate)
    office.write(lambda tx: certificates.prove(tx, "room-007", row.serial, REAL_MS + 1))
    later = Box()
    office.write(lambda tx: certificates.ask(tx, "room-007", later.fingerprint, later.request, REAL_MS + 2))
    office.wall.ms += 10
    await registrar.look()
    (answer,) = office.database.read_here(lambda tx: certificates.answers(tx, ["room-007"]))
    assert answer.chain
    assert office.write(lambda tx: revocation.revoke(tx, "room-007", "stolen", act))
    await registrar.look()
    assert office.broker == ["list", "room-007"]
    assert all(row.revoked_at is not None for row in office.rows(tables.certificate))
    office.write(lambda tx: certificates.ask(tx, "room-007", Box().fingerprint, Box().request, REAL_MS + 3))
    await registrar.look()
    (answer,) = office.database.read_here(lambda tx: certificates.answers(tx, ["room-007"]))
    assert "not in service" in answer.refused
    assert not office.write(lambda tx: revocation.revoke(tx, "room-999", "x", act))


async def test_two_registrars_issue_one_certificate_per_key(database, tmp_path):
    office, box = Office(database, tmp_path), Box()
    office.asked(box)
    act = office.around.act("admin")
    office.write(lambda tx: acts.decide(tx, "room-007", EnrolmentEvent.APPROVE, act, fingerprint=box.fingerprint))
    renewed = Box()
    office.write(lambda tx: certificates.ask(tx, "room-007", renewed.fingerprint, renewed.request, REAL_MS))
    await asyncio.gather(*(office.registrar().look() for _ in range(3)))
    assert sorted(row.origin for row in office.rows(tables.certificate)) == ["enrolment", "renewal"]


async def test_a_device_prepared_at_a_desk_is_known_by_its_file_and_by_no_other_name(database, tmp_path):
    office = Office(database, tmp_path)
    office.pki.issue_device("bike-001", office.wall.now)
    (made,) = office.pki.prepared()
    registrar = office.registrar()
    registrar._prepared = office.pki.prepared
    await registrar.look()
    (row,) = office.rows(tables.certificate)
    assert (row.serial, row.device_id, row.origin, row.proven_at) == (made[0], "bike-001", "prepared", None)
    assert (row.issued_at, row.expires_at) == made[2:]
    for number in range(50):  # stolen, it names serials that nobody issued
        office.write(lambda tx, number=number: certificates.prove(tx, "bike-001", f"{number:x}", REAL_MS))
    assert [row.serial for row in office.rows(tables.certificate)] == [made[0]]
    office.write(lambda tx: acts.register(tx, "bike-001", acts.NewDevice("bike"), office.around.act("admin")))
    office.write(lambda tx: revocation.revoke(tx, "bike-001", "stolen", office.around.act("admin")))
    assert [row.revoked_at for row in office.rows(tables.certificate)] == [office.wall()], "the true one is taken back"


async def test_of_a_device_that_nobody_prepared_here_one_name_is_believed(database, tmp_path):
    office = Office(database, tmp_path)
    for number in range(1, 50):
        office.write(lambda tx, number=number: certificates.prove(tx, "bike-002", f"{number:x}", REAL_MS))
    assert [row.serial for row in office.rows(tables.certificate)] == ["1"]
