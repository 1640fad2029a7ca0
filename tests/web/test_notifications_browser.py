"""How I am told, in a real browser: the page on a phone and a desk, and a push that is shown and opened."""

import json
import os
from contextlib import contextmanager

import pytest

from cloud.notifications.service import NotificationService
from cloud.tables import contact_point, delivery_attempt
from tests.web import world as worlds
from tests.web.world import PASSWORD

PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 800}
KEY = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"
WAIT_MS = 15_000


@pytest.fixture
def told(served):
    """The crew has one number that works, one that fails, and one that waits for its code."""
    world, now = served.world, worlds.NOW_MS
    for name, facts in {
        "works": {"verified_at": now, "delivered_at": now},
        "fails": {"verified_at": now, "failing_since": now - 3_600_000, "failure": "HTTP 400: the gateway refuses"},
        "waits": {"code_sent_at": now, "codes_sent": 1},
    }.items():
        world.write(
            contact_point, id=name, person_id="person-crew", channel="sms", address=f"+86138{name}", created_at=now,
            **facts,
        )  # fmt: skip
    world.write(
        delivery_attempt, at=now, delivery_id="d", reference="call-1", kind_of="call", channel="sms",
        recipient="person-crew", contact_id="works", attempt=1, urgent=1, outcome="delivered", duration_ms=80, error="",
    )  # fmt: skip
    world.services.get(NotificationService).push_public_key = KEY
    return served


@contextmanager
def signed_in(browser, served, *, viewport, locale):
    context = browser.new_context(viewport=viewport, locale=locale, permissions=["notifications"])
    try:
        page = context.new_page()
        page.set_default_timeout(WAIT_MS)
        page.goto(f"{served.url}/login")
        page.fill("[name=login]", "crew")
        page.fill("[name=password]", PASSWORD)
        page.click("main button")
        page.wait_for_selector(".account form")
        yield context, page
    finally:
        context.close()


@pytest.mark.parametrize(
    ("viewport", "locale"), [(PHONE, "zh-CN"), (DESK, "en-US")], ids=["phone in Chinese", "desk in English"]
)
def test_the_page_fits_and_says_what_does_not_get_through(browser, told, viewport, locale):
    with signed_in(browser, told, viewport=viewport, locale=locale) as (_, page):
        if locale.startswith("en"):
            page.click(".account [name=language]")
        page.goto(f"{told.url}/me/notifications")
        page.wait_for_selector("#push:not([hidden]) button")
        folder = os.environ.get("FLEET_SCREENSHOTS")
        if folder:
            page.screenshot(path=f"{folder}/notifications-{locale}.png", full_page=True)
        wide = page.evaluate(
            "[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1)"
            ".map(e => e.outerHTML.slice(0, 120))"
        )
        assert wide == []
        small = page.evaluate(
            "[...document.querySelectorAll('main button')].filter(e => e.offsetParent)"
            ".filter(e => e.getBoundingClientRect().height < 40).map(e => e.outerHTML)"
        )
        assert small == []
        assert "HTTP 400" in page.inner_text("#contact-fails")
        assert page.locator("#contact-waits [name=code]").count() == 1
        assert page.locator("#contact-works [name=code]").count() == 0


def test_a_push_is_shown_and_leads_to_its_call(browser, told):
    """The service worker of the page, with the browser playing the push service."""
    with signed_in(browser, told, viewport=PHONE, locale="zh-CN") as (context, page):
        page.goto(f"{told.url}/me/notifications")
        page.evaluate(
            "navigator.serviceWorker.register('/service-worker.js').then(() => navigator.serviceWorker.ready)"
        )
        session = context.new_cdp_session(page)
        found = []
        session.on("ServiceWorker.workerRegistrationUpdated", lambda event: found.extend(event["registrations"]))
        session.send("ServiceWorker.enable")
        page.wait_for_function("navigator.serviceWorker.controller !== null")
        for _ in range(50):
            if found:
                break
            page.wait_for_timeout(100)
        shown = {
            "title": "紧急呼叫：软件园", "body": "地点：A", "link": f"{told.url}/alarms#call-call-1", "tag": "call-1",
            "urgent": True,
        }  # fmt: skip
        notice = None
        for _ in range(20):  # the browser drops what it is handed in the moment in which the worker is being exchanged
            session.send(
                "ServiceWorker.deliverPushMessage",
                {"origin": told.url, "registrationId": found[-1]["registrationId"], "data": json.dumps(shown)},
            )
            notice = page.evaluate(
                """async () => {
                    const registration = await navigator.serviceWorker.ready;
                    for (let look = 0; look < 50; look++) {
                        const [one] = await registration.getNotifications();
                        if (one) return {title: one.title, body: one.body, tag: one.tag, link: one.data.link};
                        await new Promise((again) => setTimeout(again, 20));
                    }
                    return null;
                }"""
            )
            if notice is not None:
                break
        assert notice == {name: shown[name] for name in ("title", "body", "tag", "link")}
