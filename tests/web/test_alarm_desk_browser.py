"""The alarm desk in a real Chromium: incidents, filters, hiding with the keyboard alone, and what is hidden."""

import os
from pathlib import Path

import pytest
from playwright.sync_api import expect
from sqlalchemy import select

from cloud import tables
from tests.web import world as worlds
from tests.web.test_pages_browser import DESK, PHONE, live, signed_in

pytestmark = pytest.mark.browser

SHOTS = os.environ.get("FLEET_TEST_SCREENSHOTS", "")


def shot(page, name):
    if SHOTS:
        page.screenshot(path=Path(SHOTS) / f"{name}.png", full_page=True)


@pytest.fixture
def desk(served):
    """An incident of twelve silent bikes at one site, a latched alarm, a shelf, and a child behind its parent."""
    world, now = served.world, worlds.NOW_MS
    if world.database.read_here(lambda tx: tx.execute(select(tables.incident)).first()) is None:
        world.database.write_here(
            lambda tx: tx.execute(
                tables.device.update().where(tables.device.c.device_id <= "bike-012").values(site="软件园 1 号楼")
            )
        )
        for number in range(1, 13):
            name = f"gone-{number}"
            worlds.add_alarm(world, name, f"bike-{number:03}", "bike", "silent", priority="medium")
            world.write(tables.incident_alarm, incident_id="flood:page:1", alarm_id=name, added_at=now)
        world.write(
            tables.incident, id="flood:page:1", state="open", tier="page", site="软件园 1 号楼", priority="medium",
            opened_at=now - 120_000, changed_at=now, alarm_count=12, open_count=12,
        )  # fmt: skip
        worlds.add_alarm(
            world, "latched-1", "bike-020", "bike", "tampered", priority="high", state="latched_acknowledged",
            acknowledged_by="person-crew",
        )  # fmt: skip
        worlds.add_alarm(
            world, "child-1", "bike-005", "bike", "signal_weak", priority="low", view="suppressed_by_design",
            hidden_by="silent",
        )  # fmt: skip
        world.write(
            tables.hiding, id="shelf-1", device_id="bike-030", key="signal_weak", form="shelf", from_at=now,
            until_at=now + 3_600_000, actor="person-crew", reason="新天线今天到货", created_at=now,
        )  # fmt: skip
        world.write(
            tables.hiding, id="outage-1", device_id="room-009", key="", form="out_of_service", from_at=now,
            actor="person-admin", reason="房间装修", created_at=now,
        )  # fmt: skip
    return served


@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
@pytest.mark.parametrize("locale", ["zh-CN", "en-GB"])
def test_an_incident_its_alarms_and_what_is_hidden_fit_the_screen(browser, desk, viewport, locale):
    with signed_in(browser, desk, "crew", viewport=viewport, locale=locale) as page:
        page.goto(f"{desk.url}/alarms")
        live(page)
        if locale == "en-GB":
            page.click("form[action='/language'] button")
            live(page)
        incident = page.locator(".alarm[id^=incident]")
        expect(incident).to_contain_text("软件园 1 号楼")
        expect(page.locator("#alarm-gone-1")).to_have_count(0)  # it stands in its incident
        expect(page.locator("#hidden-shelf-1")).to_contain_text("新天线今天到货")
        wide = page.evaluate(
            "[...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > innerWidth)"
            ".map(e => e.outerHTML.slice(0, 120))"
        )
        assert wide == []
        shot(page, f"alarms-{'phone' if viewport == PHONE else 'desk'}-{locale[:2]}")
        page.click(".alarm[id^=incident] a")
        expect(page.locator("#alarm-gone-1")).to_be_visible()
        if locale == "en-GB":
            page.click("form[action='/language'] button")


def test_an_alarm_is_hidden_with_the_keyboard_alone(browser, desk):
    with signed_in(browser, desk, "crew", viewport=PHONE) as page:
        page.goto(f"{desk.url}/alarms")
        live(page)
        hours = page.locator("#shelve-alarm-2 option").all_text_contents()
        assert len(hours) == 2, "a high alarm is hidden for at most four hours"
        page.focus("#shelve-alarm-2 summary")
        page.keyboard.press("Enter")
        for key in ("Tab", "Tab", "Space", "Tab"):
            page.keyboard.press(key)
        page.keyboard.type("压缩机今天更换")
        page.keyboard.press("Enter")
        expect(page.locator(".notice")).to_be_visible()
    device_id, name, actor, arguments = desk.world.intents.submitted[-1]
    assert (device_id, name, actor) == ("meal-002", "shelve_alarm", "person-crew")
    wanted = {"alarm_id": "alarm-2", "reason": "压缩机今天更换", "for_s": 3600.0, "one_shot": True}
    assert arguments == wanted


def test_a_form_in_use_survives_what_changes_around_it(browser, desk):
    """New alarms arrive above and below while somebody types: focus, text and choices stay, and the news is shown."""
    with signed_in(browser, desk, "crew", viewport=PHONE) as page:
        page.goto(f"{desk.url}/alarms")
        live(page)
        form = page.locator("#shelve-alarm-2")
        form.locator("summary").click()
        form.locator("[name=one_shot]").check()
        reason = form.locator("[name=reason]")
        reason.press_sequentially("压缩机")
        for number, priority in enumerate(("high", "low", "high")):
            name = f"meanwhile-{number}"
            worlds.add_alarm(desk.world, name, f"bike-10{number}", "bike", "signal_weak", priority=priority)
            desk.publish("alarm", {"id": name, "device_id": f"bike-10{number}"})
            expect(page.locator(f"#alarm-{name}")).to_be_visible()
            expect(reason).to_be_focused()
        page.keyboard.type("今天更换")
        page.locator("body").click(position={"x": 2, "y": 2})  # typed, and left for a moment
        worlds.add_alarm(desk.world, "meanwhile-9", "bike-109", "bike", "signal_weak", priority="high")
        desk.publish("alarm", {"id": "meanwhile-9", "device_id": "bike-109"})
        expect(page.locator("#alarm-meanwhile-9")).to_be_visible()
        expect(reason).to_be_visible()
        expect(reason).to_have_value("压缩机今天更换")
        expect(form.locator("[name=one_shot]")).to_be_checked()
        form.locator("button").click()
        expect(page.locator(".notice")).to_be_visible()
    wanted = {"alarm_id": "alarm-2", "reason": "压缩机今天更换", "for_s": 3600.0, "one_shot": True}
    assert desk.world.intents.submitted[-1][3] == wanted


def test_a_latch_is_reset_with_what_was_found_and_a_shelf_is_ended(browser, desk):
    with signed_in(browser, desk, "crew") as page:
        page.goto(f"{desk.url}/alarms?kind=bike&priority=high")
        live(page)
        expect(page.locator("#alarm-alarm-2")).to_have_count(0)
        page.click("#reset-latched-1 summary")
        page.click("#reset-latched-1 button")  # the field is required: nothing is sent
        expect(page.locator("#reset-latched-1 input[name=reason]")).to_be_focused()
        page.fill("#reset-latched-1 input[name=reason]", "锁体完好")
        page.click("#reset-latched-1 button")
        expect(page.locator(".notice")).to_be_visible()
        assert desk.world.intents.submitted[-1][1] == "reset_latch"
        page.click("#hidden-outage-1 button")
        expect(page.locator(".notice")).to_be_visible()
    assert desk.world.intents.submitted[-1][:2] == ("room-009", "in_service")


def test_a_new_incident_appears_by_itself(browser, desk):
    with signed_in(browser, desk, "crew", viewport=PHONE) as page:
        page.goto(f"{desk.url}/alarms")
        live(page)
        worlds_now = worlds.NOW_MS
        desk.world.write(
            tables.incident, id="flood:page:2", state="open", tier="page", site="", priority="high",
            opened_at=worlds_now, changed_at=worlds_now, alarm_count=33, open_count=33,
        )  # fmt: skip
        desk.publish("incident", {"id": "flood:page:2"})
        expect(page.locator("#live-incidents")).to_contain_text("33")
