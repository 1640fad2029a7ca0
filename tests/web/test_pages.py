"""The pages without a browser: words in both languages, forms without scripts, safe redirects."""

import re
from pathlib import Path

import pytest
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po
from sqlalchemy import select

import cloud.web
from cloud import tables
from cloud.api.access import CSRF_HEADER
from cloud.wallet.service import top_up
from cloud.web.language import CATALOGUES
from tests.web import world as worlds
from tests.web.client import client
from tests.web.world import NOW_MS, PASSWORD, make_world

WEB = Path(cloud.web.__file__).parent


@pytest.fixture
def world(tmp_path):
    made = make_world(tmp_path)
    yield made
    made.database.close()


# --- words -----------------------------------------------------------------------------------------------------


def _messages():
    methods = [("**.py", "python"), ("templates/**.html", "jinja2")]
    found = extract_from_dir(
        WEB, methods, {"templates/**.html": {"extensions": "jinja2.ext.i18n", "silent": "false"}},
        directory_filter=lambda folder: Path(folder).name not in {"static", "assets", "__pycache__"},
    )  # fmt: skip
    return {message if isinstance(message, str) else message[0] for _, _, message, _, _ in found}


def test_no_message_lacks_its_translation():
    with (CATALOGUES / "zh_CN/LC_MESSAGES/fleet.po").open("rb") as file:
        catalogue = read_po(file, locale="zh_CN")
    translated = {}
    for message in catalogue:
        if message.id:
            source = message.id if isinstance(message.id, str) else message.id[0]
            words = [message.string] if isinstance(message.string, str) else list(message.string)
            assert not message.fuzzy, source
            translated[source] = words
    used = _messages()
    assert len(used) > 250
    assert used - translated.keys() == set(), "without a translation"
    assert translated.keys() - used == set(), "no longer used"
    for source, words in translated.items():
        for text in words:
            assert text, source
            assert sorted(re.findall(r"%\(\w+\)\w", text)) == sorted(re.findall(r"%\(\w+\)\w", source)), source


@pytest.mark.parametrize(
    ("header", "language"),
    [("en-GB,en;q=0.8", "en"), ("zh-CN", "zh-CN"), ("fr", "zh-CN"), ("", "zh-CN"), ("de, en;q=0.5, zh;q=0.9", "zh-CN"),
     ("a;q=x", "zh-CN")],
)  # fmt: skip
async def test_before_signing_in_the_browser_chooses_the_language(world, header, language):
    async with client(world) as browser:
        assert f'<html lang="{language}">' in (await browser.get("/login", headers={"accept-language": header})).text
        other, code = ("en", "en") if language != "en" else ("zh-CN", "zh_CN")
        await browser.get(f"/language/{code}")
        assert f'<html lang="{other}">' in (await browser.get("/login", headers={"accept-language": header})).text


async def test_a_persons_own_language_goes_before_the_browsers(world):
    async with client(world, "crew") as crew:
        assert '<html lang="zh-CN">' in (await crew.get("/", headers={"accept-language": "en"})).text
        answer = await crew.post("/language", data={"language": "en", "back": "/alarms"})
        assert answer.headers["location"] == "/alarms"
        assert '<html lang="en">' in (await crew.get("/", headers={"accept-language": "zh"})).text


# --- forms without scripts -------------------------------------------------------------------------------------


async def _token(browser, path):
    return re.search(r'name="csrf_token" value="([^"]+)"', (await browser.get(path)).text).group(1)


async def _sign_in(browser, login, next_path="/"):
    return await browser.post("/login", data={"login": login, "password": PASSWORD, "next": next_path})


async def test_pages_lead_to_the_login_and_back(world):
    worlds.add_device(world, "bike-001", "bike")
    async with client(world) as browser:
        asked = await browser.get("/devices/bike-001?command=x")
        assert asked.headers["location"] == "/login?next=/devices/bike-001%3Fcommand%3Dx"
        answer = await _sign_in(browser, "crew", "/devices/bike-001")
        assert answer.headers["location"] == "/devices/bike-001"
        assert (await browser.get("/devices/bike-001")).status_code == 200


@pytest.mark.parametrize(
    "target", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)", "/a\nb", ""]
)
async def test_signing_in_leads_to_no_other_site(world, target):
    async with client(world) as browser:
        assert (await _sign_in(browser, "crew", target)).headers["location"] == "/"


async def test_a_wrong_password_is_said_on_the_page_and_the_login_is_kept(world):
    async with client(world) as browser:
        answer = await browser.post("/login", data={"login": "<crew>", "password": "wrong"})
    assert answer.status_code == 401
    assert 'value="&lt;crew&gt;"' in answer.text
    assert 'role="alert"' in answer.text


async def test_each_role_has_its_pages(world):
    async with client(world, "employee") as employee:
        assert (await employee.get("/")).headers["location"] == "/me"
        refused = await employee.get("/alarms")
        assert refused.status_code == 403
        assert "text/html" in refused.headers["content-type"]
    async with client(world, "crew") as crew:
        for path in ("/", "/alarms", "/orders"):
            assert (await crew.get(path)).status_code == 200
        assert (await crew.get("/me")).status_code == 403


async def test_empty_pages_say_what_to_do_next(world):
    async with client(world, "crew") as crew:
        assert "fleet demo" in (await crew.get("/")).text
        assert 'class="empty"' in (await crew.get("/alarms")).text
        assert 'class="empty"' in (await crew.get("/orders")).text


async def test_calls_and_alarms_are_acknowledged_by_forms(world):
    worlds.add_device(world, "room-001", "nursing_room", name="母婴小屋 001")
    worlds.add_call(world, "call-1", "room-001")
    worlds.add_alarm(world, "alarm-1", "room-001", "nursing_room", "fridge_warm")
    async with client(world, "crew") as crew:
        del crew.headers[CSRF_HEADER]
        token = await _token(crew, "/alarms")
        refused = await crew.post("/calls/call-1/acknowledge", data={"csrf_token": "guess"})
        assert refused.status_code == 403
        for path in ("/calls/call-1/acknowledge", "/alarms/alarm-1/acknowledge"):
            assert (await crew.post(path, data={"csrf_token": token})).status_code == 303
        page = (await crew.get("/alarms")).text
        world.intents.refusal = "too late"
        late = await crew.post("/alarms/alarm-1/acknowledge", data={"csrf_token": token})
    assert {(name, actor) for _, name, actor, _ in world.intents.submitted} >= {
        ("acknowledge_call", "person-crew"), ("acknowledge_alarm", "person-crew"),
    }  # fmt: skip
    assert "李师傅" in page
    assert 'action="/calls/call-1/acknowledge"' not in page
    assert late.status_code == 409
    assert 'id="inbox"' in late.text


async def test_an_order_is_moved_by_forms(world):
    worlds.add_device(world, "bike-001", "bike")
    worlds.add_order(world, "order-1", "bike-001", "bike", state="accepted", assigned_to="person-crew")
    async with client(world, "crew") as crew:
        token = await _token(crew, "/orders")
        moved = await crew.post("/orders/order-1/travel", data={"csrf_token": token})
        again = await crew.post("/orders/order-1/travel", data={"csrf_token": token})
    assert moved.status_code == 303
    assert again.status_code == 409
    row = world.database.read_here(lambda tx: tx.execute(select(tables.work_order)).one())
    assert row.state == "travelling"


async def test_a_command_is_sent_by_a_form_and_its_outcome_shown(world):
    worlds.add_device(world, "bike-001", "bike")
    async with client(world, "crew") as crew:
        token = await _token(crew, "/devices/bike-001")
        form = {"csrf_token": token, "action": "ring", "duration_seconds": "7", "roles": "admin"}
        sent = await crew.post("/devices/bike-001/commands", data=form)
        assert sent.status_code == 303
        page = await crew.get(sent.headers["location"])
        assert 'class="watched"' in page.text
        wrong = await crew.post("/devices/bike-001/commands", data={**form, "duration_seconds": "many"})
        assert wrong.status_code == 422
        reboot = await crew.post("/devices/bike-001/commands", data={"csrf_token": token, "action": "reboot"})
        assert reboot.status_code == 403
    row = world.database.read_here(lambda tx: tx.execute(select(tables.command)).one())
    assert '"duration_seconds":7' in row.arguments


async def test_an_employee_unlocks_a_bike_by_its_code(world):
    bike = {"device_id": "bike-001", "reading": worlds.BIKE_READING, "lock_state": "locked"}
    worlds.add_device(world, "bike-001", "bike", state=bike)
    worlds.add_device(world, "bike-002", "bike", state={**bike, "device_id": "bike-002"})
    world.database.write_here(lambda tx: top_up(tx, "person-employee", 10_000, "first", NOW_MS))
    async with client(world, "employee") as employee:
        token = await _token(employee, "/me")
        missing = await employee.post("/me/rides", data={"csrf_token": token, "device_id": "bike-999"})
        assert missing.status_code == 404
        asked = await employee.post("/me/rides", data={"csrf_token": token, "device_id": " BIKE-001 "})
        assert asked.status_code == 303
        assert "bike-001" in (await employee.get("/me")).text
        second = await employee.post("/me/rides", data={"csrf_token": token, "device_id": "bike-002"})
        assert second.status_code == 409
        assert "请先锁好那辆车" in second.text
    row = world.database.read_here(lambda tx: tx.execute(select(tables.ride)).one())
    assert (row.person_id, row.device_id, row.state) == ("person-employee", "bike-001", "unlocking")


async def test_a_meal_is_bought_once_however_often_the_button_is_pressed(world):
    worlds.add_device(world, "meal-001", "meal_machine", state=worlds.machine_state("meal-001"))
    world.database.write_here(lambda tx: top_up(tx, "person-employee", 10_000, "first", NOW_MS))
    async with client(world, "employee") as employee:
        page = (await employee.get("/me?machine=meal-001")).text
        assert "红烧肉饭" in page
        assert page.count('name="key"') == 3  # the meal that is sold out has no button
        key = re.search(r'name="key" value="([^"]+)"', page).group(1)
        token = re.search(r'name="csrf_token" value="([^"]+)"', page).group(1)
        form = {"csrf_token": token, "device_id": "meal-001", "sku": "braised-pork-rice", "key": key}
        for _ in range(2):
            assert (await employee.post("/me/purchases", data=form)).status_code == 303
        after = (await employee.get("/me")).text
        assert "¥78.00" in after
        broke = await employee.post("/me/purchases", data={**form, "sku": "no-such-meal", "key": "another-key"})
        assert broke.status_code == 404
    rows = world.database.read_here(lambda tx: tx.execute(select(tables.purchase)).all())
    assert [(row.person_id, row.sku, row.price_fen) for row in rows] == [("person-employee", "braised-pork-rice", 2200)]


async def test_too_little_money_is_said_and_nothing_is_charged(world):
    worlds.add_device(world, "meal-001", "meal_machine", state=worlds.machine_state("meal-001"))
    async with client(world, "employee") as employee:
        page = (await employee.get("/me?machine=meal-001")).text
        key = re.search(r'name="key" value="([^"]+)"', page).group(1)
        form = {"device_id": "meal-001", "sku": "braised-pork-rice", "key": key}
        answer = await employee.post("/me/purchases", data=form)
    assert answer.status_code == 402
    assert "钱包余额不足" in answer.text


async def test_what_people_type_is_never_markup(world):
    worlds.add_device(world, "room-001", "nursing_room", name="<script>alert(1)</script>")
    worlds.add_call(world, "call-1", "room-001")
    async with client(world, "crew") as crew:
        for path in ("/", "/alarms", "/devices/room-001", "/?q=<script>alert(1)</script>"):
            assert "<script>alert" not in (await crew.get(path)).text


async def test_no_page_holds_an_inline_script_style_or_handler(world):
    worlds.add_device(world, "bike-001", "bike", state={"device_id": "bike-001", "reading": worlds.BIKE_READING})
    async with client(world, "crew") as crew:
        pages = [(await crew.get(path)).text for path in ("/", "/alarms", "/orders", "/devices/bike-001")]
    async with client(world, "employee") as employee:
        pages += [(await employee.get("/me")).text, (await employee.get("/login")).text]
    for page in pages:
        assert not re.search(r"<script(?![^>]*\bsrc=)", page)
        assert not re.search(r"<style|\sstyle=|\son\w+=|hx-on", page)
