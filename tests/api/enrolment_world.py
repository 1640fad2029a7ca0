"""A world in which boxes can be enrolled: a PKI in a folder, a registrar, and a box's side of the conversation."""

import base64
import datetime as dt
import hashlib
import secrets
from dataclasses import dataclass, field

from cloud import tables
from cloud.enrolment.service import EnrolmentService, Trust
from cloud.identity import pki
from cloud.identity.fingerprints import pin_of_root
from cloud.identity.pki_folder import FolderSigner, PkiFolder
from cloud.identity.registrar import Registrar, Surroundings
from fleet.claim import parse_claim
from tests.web.client import client
from tests.web.world import make_world

REAL_MS = 1_800_000_000_000


@dataclass
class Wall:
    """Real time of certificates, apart from business time."""

    ms: int = REAL_MS

    def __call__(self):
        return self.ms

    @property
    def now(self):
        return dt.datetime.fromtimestamp(self.ms / 1000, dt.UTC)


@dataclass
class Box:
    """What a box holds: a key, and how it polls."""

    key: object = field(default_factory=pki.new_key)
    poll_secret: str = field(default_factory=lambda: secrets.token_hex(32))

    @property
    def request(self):
        return pki.make_request("whatever", self.key).decode()

    @property
    def fingerprint(self):
        der = self.key.public_key().public_bytes(pki.Encoding.DER, pki.serialization.PublicFormat.SubjectPublicKeyInfo)
        return hashlib.sha256(der).hexdigest()

    def body(self, claim, serial="FB-0042", **changes):
        secret = base64.b32encode(parse_claim(claim).secret).decode()
        return {
            "secret": secret, "hardware_serial": serial, "request": self.request, "poll_secret": self.poll_secret,
            **changes,
        }  # fmt: skip


class EnrolmentWorld:
    """`published` and `ended` are what the registrar did to the broker, in order."""

    def __init__(self, folder):
        self.world = make_world(folder)
        self.wall = Wall()
        self.pki = PkiFolder(folder / "pki")
        self.pki.initialise(self.wall.now)
        root = self.pki.root_file("services").read_text()
        self.service = EnrolmentService(
            self.world.database, self.world.clock, self.wall, self._new_id, secrets.token_bytes,
            Trust(root, "fleet.example.org", 8883, lambda: {"main": "PEM"}),
        )  # fmt: skip
        self.world.services.add(self.service)
        self.broker = []
        self.registrar = Registrar(
            self.world.database, FolderSigner(self.pki), Surroundings(self.world.clock, self.wall, self._new_id),
            publish_list=self._publish, end_session=self._end,
        )  # fmt: skip
        self.pin = pin_of_root(root.encode())

    @staticmethod
    def _new_id():
        return secrets.token_hex(16)

    async def _publish(self):
        self.broker.append("list")
        return True

    async def _end(self, device_id):
        self.broker.append(device_id)

    def add_device(self, device_id="room-007", kind="nursing_room"):
        self.world.write(tables.device, device_id=device_id, kind=kind, name="", enrolled_at=1)

    async def claim(self, device_id="room-007", serial="FB-0042"):
        async with client(self.world, "admin") as admin:
            answer = await admin.post(f"/api/v1/devices/{device_id}/claims", json={"hardware_serial": serial})
            assert answer.status_code == 201, answer.text
            return answer.json()["claim"]

    async def enrol(self, box, device_id="room-007"):
        """The whole way; the certificate's answer."""
        async with client(self.world, "admin") as admin, client(self.world) as door:
            asked = await door.post("/api/v1/enrolments", json=box.body(await self.claim(device_id)))
            assert asked.status_code == 202, asked.text
            decided = await admin.post(f"/api/v1/devices/{device_id}/approve", json={"fingerprint": box.fingerprint})
            assert decided.status_code == 204, decided.text
            await self.registrar.look()
            return (await self.poll(door, asked.json()["id"], box)).json()

    @staticmethod
    async def poll(door, enrolment_id, box):
        return await door.get(f"/api/v1/enrolments/{enrolment_id}", headers={"x-enrolment-secret": box.poll_secret})

    def rows(self, table):
        return self.world.database.read_here(lambda tx: list(tx.execute(table.select())))
