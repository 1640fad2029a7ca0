"""The device page's presence and data link, and small annoyances, in a real Chromium."""

import pytest
from playwright.sync_api import expect
from sqlalchemy import update
from test_pages_browser import DESK, PHONE, live, signed_in

from cloud import presence, tables
from cloud.presence import Presence
from tests.web import world as worlds
from tests.web.world import PASSWORD

pytestmark = pytest.mark.browser


def remember(served, device_id, memory, **twin):
    served.world.database.write_here(
        lambda tx: tx.execute(
            update(tables.twin)
            .where(tables.twin.c.device_id == device_id)
            .values(presence=presence.encode(memory), **twin)
        )
    )


def test_a_sensor_that_dies_shows_on_the_open_page_and_fits_a_phone(browser, served):
    with signed_in(browser, served, "crew", viewport=PHONE) as page:
        page.goto(served.url + "/devices/meal-001")
        live(page)
        expect(page.locator("#presence .chip-presence-stale")).to_have_count(0)
        remember(served, "meal-001", Presence(lost={"chilled": worlds.NOW_MS - 700_000}, late=3), telemetry_seq=9)
        served.publish("device", {"device_id": "meal-001", "online": True})
        expect(page.locator("#presence .chip-presence-stale")).to_have_count(1)
        expect(page.locator("#state .chip-presence-stale")).to_have_count(1)  # the value it shows is old
        expect(page.locator("#data-link")).to_contain_text("33.3 %")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        table = page.locator("table.stacked")
        assert table.evaluate("e => e.scrollWidth <= e.parentElement.clientWidth"), "no column hides beyond the edge"


def test_acknowledging_one_of_many_alarms_keeps_the_place(browser, served):
    for number in range(30):
        worlds.add_alarm(served.world, f"more-{number:02}", f"bike-{number + 30:03}", "bike", "left_unlocked")
    with signed_in(browser, served, "crew", viewport=DESK) as page:
        page.goto(served.url + "/alarms")
        live(page)
        button = page.locator(".alarm.is-open form[action$='/acknowledge'] button").nth(15)
        button.scroll_into_view_if_needed()
        before = page.evaluate("scrollY")
        assert before > 500
        button.click()
        page.wait_for_url("**/alarms?notice=acknowledged*")
        page.wait_for_function(f"Math.abs(scrollY - {before}) < 200")


def test_a_mistyped_code_leaves_an_address_that_can_be_loaded_again(browser, served):
    context = browser.new_context(viewport=PHONE, locale="zh-CN")  # the refused form is a 404 in the console: intended
    try:
        page = context.new_page()
        page.goto(f"{served.url}/login")
        page.fill("[name=login]", "employee")
        page.fill("[name=password]", PASSWORD)
        page.click("main button")
        page.wait_for_selector(".account form")
        page.goto(served.url + "/me")
        field = page.locator("form[action='/me/rides'] [name=device_id]")
        field.fill("bike-9999")
        with page.expect_response("**/me/rides") as refused:
            field.press("Enter")
        assert refused.value.status == 404
        page.wait_for_url("**/me")
        expect(page.locator(".problem")).to_be_visible()
        assert page.reload().status == 200
    finally:
        context.close()
