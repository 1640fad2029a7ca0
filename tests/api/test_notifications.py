"""Contact points, wishes and the delivery log over HTTP, and on the page of one's own."""

import asyncio
import json
import re

import pytest
from sqlalchemy import insert, select, update

from cloud.dispatch.notices import decode
from cloud.notifications.service import NotificationService
from cloud.tables import contact_point, delivery_attempt, outbox
from tests.api.duty_world import on_duty, refusals

BASE = "/api/v1/notifications"
SUBSCRIPTION = json.dumps({"endpoint": "https://push.example.org/x", "keys": {"p256dh": "B" * 87, "auth": "A" * 22}})


@pytest.fixture
async def duty(tmp_path):
    async with on_duty(tmp_path, {}) as opened:
        yield opened


def sent_code(duty):
    """The code that is on its way, as its reader sees it."""
    statement = select(outbox.c.notification).order_by(outbox.c.id.desc()).limit(1)
    return decode(duty.world.database.read_here(lambda tx: tx.execute(statement).scalar_one())).facts["code"]


async def added(duty, channel="sms", address="+86 138-0000-0000", role="crew"):
    return await duty.post(f"{BASE}/contacts", {"channel": channel, "address": address}, role, 201)


async def test_a_number_proves_itself_by_the_code_that_was_sent_there(duty):
    contact = await added(duty)
    assert (contact["address"], contact["verified_at"]) == ("+8613800000000", None)
    (row,) = duty.world.database.read_here(lambda tx: tx.execute(select(outbox)).all())
    assert (row.channel, row.contact_id, row.urgent) == ("sms", contact["id"], 2)
    code = sent_code(duty)
    wrong = "000000" if code != "000000" else "111111"
    answer = await duty.post(f"{BASE}/contacts/{contact['id']}/verify", {"code": wrong}, status=409)
    assert answer["code"] == "wrong_code"
    verified = await duty.post(f"{BASE}/contacts/{contact['id']}/verify", {"code": code})
    assert verified["verified_at"] is not None
    stored = duty.world.database.read_here(lambda tx: tx.execute(select(contact_point)).one())
    assert (stored.code_hash, stored.code_tries) == (None, 1)
    assert [action for action in ("contact.add", "contact.verify") if duty.audited(action)] == [
        "contact.add", "contact.verify",
    ]  # fmt: skip


async def test_a_code_ends_after_ten_minutes_and_after_five_wrong_tries(duty):
    contact = await added(duty)
    path, code = f"{BASE}/contacts/{contact['id']}", sent_code(duty)
    duty.world.clock.advance(seconds=601)
    assert "ended" in (await duty.post(f"{path}/verify", {"code": code}, status=409))["detail"]
    await duty.post(f"{path}/code")
    fresh = sent_code(duty)
    for _ in range(5):
        await duty.post(f"{path}/verify", {"code": f"{(int(fresh) + 1) % 10**6:06}"}, status=409)
    assert "Too many wrong" in (await duty.post(f"{path}/verify", {"code": fresh}, status=409))["detail"]


async def test_codes_are_not_sent_often(duty):
    contact = await added(duty)
    path = f"{BASE}/contacts/{contact['id']}/code"
    assert (await duty.post(path, status=409))["code"] == "code_just_sent"
    for _ in range(4):
        duty.world.clock.advance(seconds=61)
        await duty.post(path)
    duty.world.clock.advance(seconds=61)
    assert (await duty.post(path, status=409))["code"] == "too_many_codes"


WRONG = (
    ("sms", "12"),
    ("voice", "call me"),
    ("mail", "nobody"),
    ("mail", "a@b.c, d@e.fg"),
    ("chat", "json://127.0.0.1"),
    ("push", "{}"),
    ("push", SUBSCRIPTION.replace("push.example.org", "127.0.0.1")),
    ("push", SUBSCRIPTION.replace("push.example.org", "169.254.169.254")),
    ("push", SUBSCRIPTION.replace("push.example.org", "localhost")),
    ("push", SUBSCRIPTION.replace("https", "http")),
)


async def test_what_can_be_no_address_is_refused(duty):
    for channel, address in WRONG:
        answer = await duty.post(f"{BASE}/contacts", {"channel": channel, "address": address}, status=422)
        assert answer["code"] == "invalid_address"


async def test_a_browser_subscribes_once(duty):
    first = await added(duty, "push", SUBSCRIPTION)
    assert (await added(duty, "push", SUBSCRIPTION))["id"] == first["id"]
    assert first["address"] == "push.example.org"
    duty.world.services.get(NotificationService).push_public_key = "key"
    assert await duty.get(f"{BASE}/push-key") == {"public_key": "key"}


async def test_ten_contacts_are_enough_and_a_channel_that_is_not_here_is_said(duty):
    for number in range(10):
        await added(duty, address=f"1380000{number:04}")
    body = {"channel": "sms", "address": "13800009999"}
    assert (await duty.post(f"{BASE}/contacts", body, status=409))["code"] == "too_many_contacts"
    duty.world.services.get(NotificationService).channels = ("push",)
    assert (await duty.post(f"{BASE}/contacts", body, status=409))["code"] == "channel_not_here"


async def test_contacts_are_their_owners(duty):
    contact = await added(duty)
    path = f"{BASE}/contacts/{contact['id']}"
    assert (await duty.get(f"{BASE}/contacts", "admin"))["contacts"] == []
    (shortened,) = (await duty.get(f"{BASE}/contacts?person_id={contact['person_id']}", "admin"))["contacts"]
    assert shortened["address"] == "…0000"
    other = await added(duty, address="13900000000", role="admin")
    for act in ("code", "test"):
        await duty.post(f"{BASE}/contacts/{other['id']}/{act}", status=404)
    await duty.post(f"{BASE}/contacts/{other['id']}/verify", {"code": "123456"}, status=404)
    assert (await duty.clients["crew"].delete(f"{BASE}/contacts/{other['id']}")).status_code == 404
    assert (await duty.get(f"{BASE}/contacts?person_id={other['person_id']}"))["contacts"][0]["id"] == contact["id"]
    assert (await duty.clients["crew"].delete(path)).status_code == 204
    assert (await duty.get(f"{BASE}/contacts"))["contacts"] == []


async def test_a_test_goes_where_it_was_verified_only(duty):
    contact = await added(duty)
    path = f"{BASE}/contacts/{contact['id']}/test"
    assert (await duty.post(path, status=409))["code"] == "not_verified"
    duty.world.database.write_here(lambda tx: tx.execute(update(contact_point).values(verified_at=1)))
    delivery_id = (await duty.post(path))["delivery_id"]
    statement = select(outbox.c.channel).where(outbox.c.delivery_id == delivery_id)
    assert duty.world.database.read_here(lambda tx: tx.execute(statement).scalar_one()) == "sms"


async def test_wishes(duty):
    own = await duty.get(f"{BASE}/preferences")
    assert own["channels"]["high"] == ["push", "chat", "mail"]
    wanted = {
        "channels": {"high": ["sms"], "medium": [], "low": []}, "quiet_from_minute": 1320, "quiet_until_minute": 420,
        "time_zone": "Asia/Shanghai", "language": "en",
    }  # fmt: skip
    answer = await duty.clients["crew"].put(f"{BASE}/preferences", json=wanted)
    assert (answer.status_code, answer.json()) == (200, wanted)
    assert await duty.get(f"{BASE}/preferences") == wanted
    for change in (
        {"quiet_until_minute": None}, {"time_zone": "Mars/Olympus"}, {"channels": {"emergency": []}},
        {"language": "de"}, {"quiet_from_minute": 1440},
    ):  # fmt: skip
        answer = await duty.clients["crew"].put(f"{BASE}/preferences", json={**wanted, **change})
        assert answer.status_code == 422, change


async def test_the_log_is_read_in_pages_and_by_filters(duty):
    lines = [
        {"at": number, "delivery_id": f"d{number}", "reference": f"call-{number % 2}", "kind_of": "call",
         "channel": "sms", "recipient": "crew", "contact_id": "c", "attempt": 1, "urgent": 1,
         "outcome": "delivered" if number % 3 else "failed", "duration_ms": 5, "error": ""}
        for number in range(1, 8)
    ]  # fmt: skip
    duty.world.database.write_here(lambda tx: tx.execute(insert(delivery_attempt), lines))
    first = await duty.get(f"{BASE}/deliveries?limit=4")
    rest = await duty.get(f"{BASE}/deliveries?limit=4&before={first['next_before']}")
    assert [line["at"] for line in first["deliveries"] + rest["deliveries"]] == [7, 6, 5, 4, 3, 2, 1]
    assert rest["next_before"] is None
    for query, expected in (
        ("reference=call-1", [7, 5, 3, 1]), ("outcome=failed", [6, 3]), ("channel=mail", []), ("delivery_id=d2", [2]),
    ):  # fmt: skip
        assert [line["at"] for line in (await duty.get(f"{BASE}/deliveries?{query}"))["deliveries"]] == expected


async def test_only_those_on_duty(duty):
    for path in ("/deliveries", "/contacts", "/preferences", "/push-key"):
        await refusals(duty, "GET", BASE + path, {"crew", "admin"})


async def test_two_wrong_codes_at_once_are_both_counted(duty):
    contact = await added(duty)
    wrong = "000000" if sent_code(duty) != "000000" else "111111"
    path = f"{BASE}/contacts/{contact['id']}/verify"
    await asyncio.gather(*(duty.post(path, {"code": wrong}, status=409) for _ in range(2)))
    tries = select(contact_point.c.code_tries)
    assert duty.world.database.read_here(lambda tx: tx.execute(tries).scalar_one()) == 2


# --- the page ------------------------------------------------------------------------------------------------------


async def test_the_page_adds_verifies_tests_and_removes(duty):
    browser, page = duty.clients["crew"], "/me/notifications"

    async def submit(path, **form):
        answer = await browser.post(page + path, data=form)
        assert answer.status_code == 303, answer.text
        return (await browser.get(page)).text

    text = await submit("/contacts", channel="sms", address="13800000000", label="手机")
    contact_id = re.search(r'id="contact-([0-9a-zA-Z-]+)"', text).group(1)
    assert f"/contacts/{contact_id}/verify" in text
    text = await submit(f"/contacts/{contact_id}/verify", code=sent_code(duty))
    assert f"/contacts/{contact_id}/test" in text
    await submit(f"/contacts/{contact_id}/test")
    text = await submit("/preferences", high="sms", quiet_from="22:00", quiet_until="07:30", time_zone="Asia/Shanghai")
    assert 'value="22:00"' in text
    assert 'value="07:30"' in text
    duty.world.database.write_here(
        lambda tx: tx.execute(update(contact_point).values(failing_since=1_800_000_000_000, failure="HTTP 400"))
    )
    assert "HTTP 400" in (await browser.get(page)).text
    assert f"contact-{contact_id}" not in await submit(f"/contacts/{contact_id}/remove")
    for form in ({"quiet_from": "22"}, {"quiet_from": "22:00"}, {"time_zone": "x"}):
        answer = await browser.post(f"{page}/preferences", data={"time_zone": "Asia/Shanghai", **form})
        assert answer.status_code == 422
    answer = await browser.post(f"{page}/contacts", data={"channel": "sms", "address": "x"})
    assert answer.status_code == 422
    assert (await browser.post(f"{page}/contacts/nobody/verify", data={"code": "123456"})).status_code == 404


async def test_the_service_worker_lies_at_the_root(duty):
    answer = await duty.clients["nobody"].get("/service-worker.js")
    assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (200, "text/javascript")
    assert "showNotification" in answer.text
