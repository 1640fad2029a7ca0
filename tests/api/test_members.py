"""Signing in, sessions and the administration of people, over HTTP on real SQLite."""

import random

import pytest
from sqlalchemy import select

from cloud import tables
from cloud.api.access import CSRF_HEADER
from cloud.members.seed import seed_demo
from cloud.members.service import ACCOUNT_FAILURES_MAX, ADDRESS_FAILURES_MAX, FAILURE_WINDOW_S, MemberService
from cloud.members.throttle import KEYS_MAX, Throttle
from fleet.clock import ManualClock
from tests.web.client import client
from tests.web.world import NOW_MS, PASSWORD, make_world


@pytest.fixture
def world(tmp_path):
    made = make_world(tmp_path)
    yield made
    made.database.close()


async def test_the_session_cookie_is_out_of_reach_for_scripts(world):
    async with client(world) as browser:
        answer = await browser.post("/api/v1/session", json={"login": "crew", "password": PASSWORD})
    cookie = answer.headers["set-cookie"].lower()
    assert cookie.startswith("fleet-session=")
    assert {"httponly", "samesite=lax", "path=/"} <= {part.strip() for part in cookie.split(";")}


async def test_over_https_the_cookie_is_host_bound_and_secure(tmp_path):
    world = make_world(tmp_path, public_url="https://fleet.example")
    async with client(world, base_url="https://fleet.example") as browser:
        answer = await browser.post("/api/v1/session", json={"login": "crew", "password": PASSWORD})
        cookie = answer.headers["set-cookie"]
        assert cookie.startswith("__Host-fleet-session=")
        assert "Secure" in cookie
        assert "Domain" not in cookie
        assert (await browser.get("/api/v1/session")).json()["role"] == "crew"
        assert answer.headers["strict-transport-security"]
    world.database.close()


async def test_the_token_is_stored_as_a_hash_only(world):
    async with client(world) as browser:
        token = (await browser.post("/api/v1/session", json={"login": "crew", "password": PASSWORD})).json()["token"]
    stored = world.database.read_here(lambda tx: [tuple(row) for row in tx.execute(select(tables.session))])
    assert len(token) >= 43  # 256 bits
    assert token not in str(stored)


async def test_a_bearer_token_works_without_csrf(world):
    async with client(world) as program:
        token = (await program.post("/api/v1/session", json={"login": "crew", "password": PASSWORD})).json()["token"]
        program.cookies.clear()
        program.headers["authorization"] = f"Bearer {token}"
        assert (await program.get("/api/v1/session")).status_code == 200
        assert (await program.delete("/api/v1/session")).status_code == 204
        assert (await program.get("/api/v1/session")).status_code == 401


async def test_an_invalid_bearer_token_does_not_fall_back_to_the_cookie(world):
    async with client(world, "crew") as browser:
        answer = await browser.get("/api/v1/session", headers={"authorization": "Bearer nonsense"})
    assert answer.status_code == 401


async def test_unknown_login_wrong_password_and_closed_account_get_the_same_answer(world):
    async with client(world, "admin") as admin:
        assert (await admin.post("/api/v1/persons/person-other/disable")).status_code == 204
    answers = []
    async with client(world) as stranger:
        for login, password in (("nobody", "x"), ("crew", "wrong"), ("other", PASSWORD)):
            answer = await stranger.post("/api/v1/session", json={"login": login, "password": password})
            answers.append((answer.status_code, answer.json()))
    assert answers[0][0] == 401
    assert answers[0] == answers[1] == answers[2]


@pytest.mark.parametrize("login", ["crew", "nobody"])
async def test_guessing_is_slowed_down_per_account_known_or_not(world, login):
    async with client(world) as stranger:
        body = {"login": login, "password": "guess"}
        for _ in range(ACCOUNT_FAILURES_MAX):
            assert (await stranger.post("/api/v1/session", json=body)).status_code == 401
        refused = await stranger.post("/api/v1/session", json={"login": login, "password": PASSWORD})
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) > 0
        other = await stranger.post("/api/v1/session", json={"login": "admin", "password": PASSWORD})
        assert other.status_code == 201
        world.clock.advance(seconds=FAILURE_WINDOW_S + 1)
        again = await stranger.post("/api/v1/session", json={"login": login, "password": "guess"})
        assert again.status_code == 401


async def test_an_own_login_does_not_pay_for_guessing_at_others_from_one_address(world):
    async with client(world) as stranger:
        own = {"login": "employee", "password": PASSWORD}
        for number in range(ADDRESS_FAILURES_MAX):
            guess = await stranger.post("/api/v1/session", json={"login": f"guessed-{number}", "password": "guess"})
            assert guess.status_code == 401
            if number < ADDRESS_FAILURES_MAX - 1:
                assert (await stranger.post("/api/v1/session", json=own)).status_code == 201
        refused = await stranger.post("/api/v1/session", json={"login": "guessed-more", "password": "guess"})
        assert refused.status_code == 429


def test_the_throttle_is_bounded_and_counts_what_it_forgets():
    clock = ManualClock()
    throttle = Throttle(clock, failures_max=1, window_s=60)
    for number in range(KEYS_MAX + 5):
        throttle.failed(str(number))
    assert throttle.forgotten == 5
    assert throttle.wait_s("0") == 0
    assert throttle.wait_s(str(KEYS_MAX)) == 60


async def test_disabling_a_person_ends_all_their_sessions_at_once(world):
    async with client(world, "employee") as phone, client(world, "employee") as desk, client(world, "admin") as admin:
        assert (await phone.get("/api/v1/session")).status_code == 200
        assert (await admin.post("/api/v1/persons/person-employee/disable")).status_code == 204
        assert (await phone.get("/api/v1/session")).status_code == 401
        assert (await desk.get("/api/v1/session")).status_code == 401


async def test_an_admin_cannot_lock_everybody_out(world):
    async with client(world, "admin") as admin:
        assert (await admin.post("/api/v1/persons/person-admin/disable")).json()["code"] == "own_account"


async def test_a_session_ends_with_its_time(world):
    async with client(world, "crew") as browser:
        world.clock.advance(seconds=13.9 * 3600)
        assert (await browser.get("/api/v1/session")).status_code == 200
        world.clock.advance(seconds=0.2 * 3600)
        assert (await browser.get("/api/v1/session")).status_code == 401


async def test_a_session_lasts_a_real_shift_also_when_business_time_runs_faster(tmp_path):
    world = make_world(tmp_path, clock=ManualClock(NOW_MS, speed=60))
    async with client(world, "crew") as browser:
        world.clock.advance(seconds=60 * 13 * 3600)  # 13 real hours
        assert (await browser.get("/api/v1/session")).status_code == 200
    world.database.close()


async def test_created_people_can_sign_in_and_are_audited(world):
    body = {"login": "new.crew", "name": "新师傅", "role": "crew", "password": "a long password"}
    async with client(world, "admin") as admin:
        made = await admin.post("/api/v1/persons", json=body)
        assert made.status_code == 201
        assert "password" not in made.text
        assert (await admin.post("/api/v1/persons", json=body)).json()["code"] == "login_taken"
        short = await admin.post("/api/v1/persons", json={**body, "login": "b2", "password": "short"})
        assert short.status_code == 422
        assert "short" not in short.json()["detail"]
        page = (await admin.get("/api/v1/persons", params={"limit": 2})).json()
        rest = (await admin.get("/api/v1/persons", params={"after": page["next_after"]})).json()
    assert [one["login"] for one in page["persons"] + rest["persons"]] == [
        "admin",
        "crew",
        "employee",
        "new.crew",
        "other",
    ]
    async with client(world) as browser:
        answer = await browser.post("/api/v1/session", json={"login": "new.crew", "password": "a long password"})
        assert answer.status_code == 201
    audit = world.database.read_here(lambda tx: tx.execute(select(tables.audit)).all())
    assert [(line.actor, line.action) for line in audit] == [("person-admin", "person.create")]
    assert "a long password" not in str(audit)


async def test_the_default_hash_is_argon2id(world):
    body = {"login": "hash.test", "name": "x", "role": "crew", "password": "a long password"}
    world_service = MemberService(world.database, world.clock, secure_cookies=False)
    from cloud.api.access import Person, Role
    from cloud.members.schemas import PersonBody

    admin = Person("person-admin", "admin", "a", Role.ADMIN, "en")
    row = await world_service.create(PersonBody.model_validate(body), admin)
    assert row.password_hash.startswith("$argon2id$v=19$m=65536,")


def test_the_demo_seeds_one_of_each_role_and_the_seed_fixes_the_passwords(world, tmp_path):
    (tmp_path / "second").mkdir()
    second = make_world(tmp_path / "second")
    for one in (world, second):
        one.database.write_here(lambda tx: tx.execute(tables.person.delete()))
    first = world.database.write_here(lambda tx: seed_demo(tx, NOW_MS, random.Random(3)))
    again = second.database.write_here(lambda tx: seed_demo(tx, NOW_MS, random.Random(3)))
    assert [one.role for one in first] == ["employee", "crew", "admin"]
    assert [one.password for one in first] == [one.password for one in again]
    second.database.close()


async def test_sign_out_needs_the_csrf_token_and_ends_the_session(world):
    async with client(world, "crew") as browser:
        token = browser.headers.pop(CSRF_HEADER)
        assert (await browser.delete("/api/v1/session")).json()["code"] == "csrf"
        assert (await browser.delete("/api/v1/session", headers={CSRF_HEADER: token})).status_code == 204
        assert (await browser.get("/api/v1/session")).status_code == 401
