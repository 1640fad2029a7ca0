"""Claims, requests, approval and revocation over HTTP, as installers and admins meet them."""

import asyncio

import pytest
from cryptography import x509
from enrolment_world import REAL_MS, Box, EnrolmentWorld

from cloud import tables
from cloud.enrolment.lifecycle import ENROLMENT, EnrolmentEvent, EnrolmentState
from cloud.identity import certificates
from cloud.identity.pki import PkiError, common_name
from fleet.claim import ClaimError, parse_claim
from fleet.lifecycle import IllegalTransitionError
from tests.web.client import client


@pytest.fixture
def site(tmp_path):
    made = EnrolmentWorld(tmp_path)
    made.add_device()
    yield made
    made.world.database.close()


async def test_a_box_gets_a_certificate_for_its_own_key_after_approval(site):
    box = Box()
    answer = await site.enrol(box)
    leaf = x509.load_pem_x509_certificate(answer["chain"].encode())
    assert answer["state"] == "granted"
    assert common_name(leaf) == "room-007", "the server decides the name, whatever the request says"
    assert leaf.public_key() == box.key.public_key()
    assert (answer["broker_host"], answer["kind"]) == ("fleet.example.org", "nursing_room")
    assert answer["authority"] == site.pki.root_file("services").read_text()
    (row,) = site.rows(tables.certificate)
    assert (row.origin, row.fingerprint, row.proven_at) == ("enrolment", box.fingerprint, None)
    assert row.expires_at - REAL_MS == 90 * certificates.DAY_MS


async def test_a_claim_is_stored_hashed_and_carries_the_pin_of_the_root(site):
    text = await site.claim()
    claim = parse_claim(f" {text.lower()} ")
    assert claim.pin == site.pin
    (row,) = site.rows(tables.claim)
    assert claim.secret.hex() not in str(row)
    assert text not in str(row)
    assert text.replace("-", "") not in str(site.rows(tables.audit))


@pytest.mark.parametrize(
    ("spoil", "status", "code"),
    [
        ("unknown", 404, "claim_unknown"), ("expired", 410, "claim_expired"), ("serial", 409, "wrong_serial"),
        ("used", 409, "claim_used"), ("withdrawn", 410, "claim_withdrawn"), ("request", 422, "request_invalid"),
        ("curve", 422, "request_invalid"),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_refused_with_its_own_words_and_leaves_a_trace(site, spoil, status, code):
    text = await site.claim()
    box, other = Box(), Box()
    async with client(site.world) as door, client(site.world, "admin") as admin:
        body = box.body(text)
        if spoil == "unknown":
            body["secret"] = "A" * 16
        elif spoil == "expired":
            site.wall.ms += 15 * 60_000
        elif spoil == "serial":
            body["hardware_serial"] = "FB-9999"
        elif spoil == "used":
            assert (await door.post("/api/v1/enrolments", json=other.body(text))).status_code == 202
        elif spoil == "withdrawn":
            await site.claim()
        elif spoil == "request":
            body["request"] = body["request"].replace("A", "B")
        else:
            from cryptography.hazmat.primitives.asymmetric import ec

            from cloud.identity import pki

            body["request"] = pki.make_request("x", ec.generate_private_key(ec.SECP384R1())).decode()
        before = len(site.rows(tables.enrolment))
        answer = await door.post("/api/v1/enrolments", json=body)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert len(answer.json()["detail"]) > 20
        assert len(site.rows(tables.enrolment)) == before
        identity = (await admin.get("/api/v1/devices/room-007/identity")).json()
    refused = [line for line in site.rows(tables.audit) if line.action == "enrolment.refused"]
    assert [code in line.detail for line in refused] == [True]
    if spoil not in {"request", "curve"}:  # nobody can say which device a broken request was about
        assert identity["trace"][0]["detail"]["code"] == code


async def test_asking_again_with_the_same_key_after_a_lost_answer_finds_the_same_request(site):
    text, box = await site.claim(), Box()
    async with client(site.world) as door:
        first = (await door.post("/api/v1/enrolments", json=box.body(text))).json()
        box.poll_secret = "ab" * 32
        site.wall.ms += 20 * 60_000  # the claim has ended, the request has not
        again = (await door.post("/api/v1/enrolments", json=box.body(text))).json()
        assert again["id"] == first["id"]
        assert (await site.poll(door, first["id"], box)).status_code == 200
        thief = await door.post("/api/v1/enrolments", json=Box().body(text))
        assert thief.json()["code"] == "claim_used"
    assert len(site.rows(tables.enrolment)) == 1


async def test_only_who_knows_the_secret_follows_a_request(site):
    text, box = await site.claim(), Box()
    async with client(site.world) as door:
        asked = (await door.post("/api/v1/enrolments", json=box.body(text))).json()
        assert asked["chain"] == ""
        assert (await site.poll(door, asked["id"], Box())).status_code == 404
        assert (await door.get(f"/api/v1/enrolments/{asked['id']}")).status_code == 404


async def test_guessing_is_slowed_down_per_address(site):
    async with client(site.world) as door:
        body = Box().body(await site.claim(), secret="A" * 16)
        codes = [(await door.post("/api/v1/enrolments", json=body)).status_code for _ in range(12)]
    assert codes == [404] * 10 + [429] * 2


async def test_an_approval_names_the_key_that_was_seen(site):
    text, box = await site.claim(), Box()
    async with client(site.world) as door, client(site.world, "admin") as admin:
        nobody = await admin.post("/api/v1/devices/room-007/approve", json={"fingerprint": box.fingerprint})
        assert nobody.json()["code"] == "nothing_waits"
        await door.post("/api/v1/enrolments", json=box.body(text))
        (line,) = (await admin.get("/api/v1/enrolments")).json()["waiting"]
        assert (line["device_id"], line["fingerprint"]) == ("room-007", box.fingerprint)
        other = await admin.post("/api/v1/devices/room-007/approve", json={"fingerprint": "0" * 64})
        assert other.json()["code"] == "other_fingerprint"
        for nothing in ("::::::::", " " * 8, "1:::::::"):
            blank = await admin.post("/api/v1/devices/room-007/approve", json={"fingerprint": nothing})
            assert blank.json()["code"] == "other_fingerprint"
        right = await admin.post("/api/v1/devices/room-007/approve", json={"fingerprint": box.fingerprint[:8]})
        assert right.status_code == 204


async def test_a_rejected_box_gets_nothing(site):
    text, box = await site.claim(), Box()
    async with client(site.world) as door, client(site.world, "admin") as admin:
        asked = (await door.post("/api/v1/enrolments", json=box.body(text))).json()
        await admin.post("/api/v1/devices/room-007/reject", json={"reason": "not ours"})
        await site.registrar.look()
        answer = (await site.poll(door, asked["id"], box)).json()
    assert (answer["state"], answer["reason"], answer["chain"]) == ("rejected", "not ours", "")
    assert site.rows(tables.certificate) == []


async def test_nobody_else_may_enrol_approve_or_revoke(site):
    for login in ("employee", "crew"):
        async with client(site.world, login) as person:
            for path, body in (
                ("claims", {"hardware_serial": "X"}), ("approve", {"fingerprint": "0" * 64}),
                ("reject", {"reason": "x"}), ("revoke", {"reason": "x"}),
            ):  # fmt: skip
                answer = await person.post(f"/api/v1/devices/room-007/{path}", json=body)
                assert answer.status_code == 403, (login, path)


async def test_a_revoked_device_is_on_the_list_before_its_session_ends_and_can_be_enrolled_anew(site):
    await site.enrol(Box())
    site.broker.clear()
    async with client(site.world, "admin") as admin:
        assert (await admin.post("/api/v1/devices/room-007/revoke", json={"reason": "stolen"})).status_code == 204
        await site.registrar.look()
        assert site.broker == ["list", "room-007"]
        await site.registrar.look()
        assert site.broker == ["list", "room-007"], "carried once"
        identity = (await admin.get("/api/v1/devices/room-007/identity")).json()
        assert identity["certificates"][0]["state"] == "revoked"
        command = {"action": "silence_buzzer"}
        answer = await admin.post("/api/v1/devices/room-007/commands", json=command)
        assert answer.status_code in {409, 422}
    assert [row.name for row in site.rows(tables.intent)] == ["revoke"]
    site.wall.ms += 1000
    await site.enrol(Box())
    (device,) = site.rows(tables.device)
    assert device.revoked_at is None
    assert [row.name for row in site.rows(tables.intent)] == ["revoke", "reinstate"]
    states = sorted((row.revoked_at is None) for row in site.rows(tables.certificate))
    assert states == [False, True], "the old one stays revoked"


async def test_revoking_rejects_the_box_that_waits_and_withdraws_the_claim(site):
    first, second = await site.claim(), None
    async with client(site.world) as door, client(site.world, "admin") as admin:
        await door.post("/api/v1/enrolments", json=Box().body(first))
        second = await site.claim()
        await admin.post("/api/v1/devices/room-007/revoke", json={"reason": "x"})
        assert (await door.post("/api/v1/enrolments", json=Box().body(second))).json()["code"] == "claim_withdrawn"
    (row,) = site.rows(tables.enrolment)
    assert row.state == "rejected"


async def test_a_renewal_is_the_same_however_often_it_is_asked_for_and_bounded_per_day(site):
    database, box = site.world.database, Box()
    for _ in range(2):
        database.write_here(lambda tx: certificates.ask(tx, "room-007", box.fingerprint, box.request, 1))
        await site.registrar.look()
    (row,) = site.rows(tables.certificate)
    (answer,) = database.read_here(lambda tx: certificates.answers(tx, ["room-007"]))
    assert (answer.chain, answer.refused) == (row.chain, "")
    for _ in range(certificates.ISSUED_PER_DAY_MAX):
        more = Box()
        database.write_here(lambda tx, more=more: certificates.ask(tx, "room-007", more.fingerprint, more.request, 1))
        await site.registrar.look()
    assert len(site.rows(tables.certificate)) == certificates.ISSUED_PER_DAY_MAX
    (answer,) = database.read_here(lambda tx: certificates.answers(tx, ["room-007"]))
    assert "within a day" in answer.refused
    assert answer.retry_after_s > 0


async def test_a_proof_supersedes_what_came_before_and_a_new_enrolment_takes_it_back(site):
    database = site.world.database
    await site.enrol(Box())
    site.wall.ms += 1000
    await site.enrol(Box())
    old, new = sorted(site.rows(tables.certificate), key=lambda row: row.issued_at)
    database.write_here(lambda tx: certificates.prove(tx, "room-007", new.serial, site.wall.ms))
    old, new = sorted(site.rows(tables.certificate), key=lambda row: row.issued_at)
    assert (old.superseded_at, old.revoked_reason) == (site.wall.ms, "enrolled anew")
    assert (new.proven_at, new.revoked_at) == (site.wall.ms, None)
    site.broker.clear()
    await site.registrar.look()
    assert site.broker == ["list"], "the new box's session stays"


async def test_a_renewal_for_the_former_box_does_not_outlive_the_new_one(site):
    database, former, late = site.world.database, Box(), Box()
    await site.enrol(Box())
    site.wall.ms += 1000
    await site.enrol(Box())
    new = max(site.rows(tables.certificate), key=lambda row: row.issued_at).serial
    site.wall.ms += 1000
    database.write_here(lambda tx: certificates.ask(tx, "room-007", former.fingerprint, former.request, site.wall.ms))
    await site.registrar.look()
    database.write_here(lambda tx: certificates.ask(tx, "room-007", late.fingerprint, late.request, site.wall.ms))
    database.write_here(lambda tx: certificates.prove(tx, "room-007", new, site.wall.ms))
    await site.registrar.look()
    rows = site.rows(tables.certificate)
    assert len(rows) == 3, "what was asked for and not yet signed is not signed"
    assert [row.serial for row in rows if row.revoked_at is None] == [new]


async def test_a_device_that_was_retired_after_the_approval_gets_nothing(site):
    box = Box()
    async with client(site.world, "admin") as admin, client(site.world) as door:
        asked = await door.post("/api/v1/enrolments", json=box.body(await site.claim()))
        await admin.post("/api/v1/devices/room-007/approve", json={"fingerprint": box.fingerprint})
        retired = tables.device.update().values(retired_at=1, revoked_at=1, revoked_reason="retired")
        site.world.database.write_here(lambda tx: tx.execute(retired))
        await site.registrar.look()
        answer = (await site.poll(door, asked.json()["id"], box)).json()
    assert answer["state"] == "rejected"
    assert "retired" in answer["reason"]
    assert site.rows(tables.certificate) == []
    assert site.rows(tables.device)[0].revoked_at == 1


async def test_keys_that_cannot_be_read_stop_the_signing_and_nothing_else(site, monkeypatch):
    """The calls for help run in the same process."""
    looks = []

    async def damaged():
        looks.append(1)
        if len(looks) == 3:
            raise asyncio.CancelledError
        raise PkiError("devices.key is not the key of devices.pem")

    monkeypatch.setattr(site.registrar, "look", damaged)
    monkeypatch.setattr("cloud.identity.registrar.LOOK_S", 0.001)
    with pytest.raises(asyncio.CancelledError):
        await site.registrar.run()
    assert len(looks) == 3


async def test_a_certificate_that_nobody_renews_is_counted_two_weeks_before_its_end(site):
    await site.enrol(Box())
    site.wall.ms += 75 * certificates.DAY_MS
    assert (
        site.world.database.read_here(
            lambda tx: certificates.expiring_count(tx, site.wall.ms + certificates.EXPIRES_SOON_MS)
        )
        == 0
    )
    site.wall.ms += 2 * certificates.DAY_MS
    site.world.clock.advance(seconds=120)
    await site.registrar.look()
    assert site.registrar.expiring == 1


async def test_nobody_decides_for_a_day_and_the_request_is_over(site):
    text, box = await site.claim(), Box()
    async with client(site.world) as door:
        asked = (await door.post("/api/v1/enrolments", json=box.body(text))).json()
        site.wall.ms += 25 * 3_600_000
        await site.registrar.look()
        assert (await site.poll(door, asked["id"], box)).json()["state"] == "expired"


@pytest.mark.parametrize("event", sorted(EnrolmentEvent))
@pytest.mark.parametrize("state", sorted(EnrolmentState))
def test_every_illegal_step_of_a_request_is_refused(state, event):
    if (state, event) in ENROLMENT.table:
        assert ENROLMENT.next(state, event) is ENROLMENT.table[state, event]
    else:
        with pytest.raises(IllegalTransitionError):
            ENROLMENT.next(state, event)


@pytest.mark.parametrize("text", ["", "ABCD", "ABCD-" * 7 + "ABC1", "A" * 33])
def test_a_mistyped_claim_is_named(text):
    with pytest.raises(ClaimError, match=r"letters|digits"):
        parse_claim(text)
