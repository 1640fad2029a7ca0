"""The pages in a real Chromium against a real uvicorn: what people see and press."""

import re
from contextlib import contextmanager

import pytest
from playwright.sync_api import expect
from sqlalchemy import update

from cloud import tables
from tests.web import world as worlds
from tests.web.world import PASSWORD

pytestmark = pytest.mark.browser

PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 900}
PAGES = {"crew": ("/", "/devices/bike-001", "/devices/meal-001", "/devices/room-004", "/alarms", "/orders"),
         "employee": ("/me", "/me?machine=meal-001")}  # fmt: skip
WAIT_MS = 10_000


@contextmanager
def signed_in(browser, served, login, *, viewport=DESK, locale="zh-CN", scripts=True):
    """A page of somebody; afterwards the console must have stayed silent."""
    context = browser.new_context(viewport=viewport, locale=locale, java_script_enabled=scripts)
    said = []
    try:
        page = context.new_page()
        page.set_default_timeout(WAIT_MS)
        page.on("console", lambda message: said.append(message.text) if message.type in {"error", "warning"} else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(f"{served.url}/login")
        page.fill("[name=login]", login)
        page.fill("[name=password]", PASSWORD)
        page.click("main button")
        page.wait_for_selector(".account form")
        yield page
    finally:
        context.close()  # also its stream, which the server's stop would wait for
    assert said == []


def live(page):
    page.wait_for_selector("#live-state:not([hidden]):not(.is-off)")


@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
@pytest.mark.parametrize("login", ["crew", "admin", "employee"])
def test_every_page_fits_its_screen_and_the_console_stays_silent(browser, served, login, viewport):
    with signed_in(browser, served, login, viewport=viewport) as page:
        for path in PAGES.get(login, PAGES["crew"]):
            page.goto(served.url + path)
            live(page)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
            small = page.evaluate(
                "[...document.querySelectorAll('main button, .top nav a')].filter(e => e.offsetParent)"
                ".filter(e => e.getBoundingClientRect().height < 40).map(e => e.outerHTML)"
            )
            assert small == [], path


def test_the_overview_counts_and_maps_the_fleet(browser, served):
    with signed_in(browser, served, "crew") as page:
        assert "57" in page.inner_text("[data-kind=bike]")
        page.wait_for_selector("#map[data-markers='80']")
        assert page.locator("#map .marker.is-call").count() == 1
        assert page.locator("#map .marker.is-alarm").count() == 3
        assert page.locator("#device-list tbody tr").count() == 25
        page.click("text=下一页")
        page.wait_for_selector("#row-bike-026")


def test_a_call_shows_by_itself_on_an_open_page(browser, served):
    with signed_in(browser, served, "crew") as page:
        page.goto(served.url + "/orders")
        live(page)
        assert page.locator(".call-strip").count() == 1
        worlds.add_call(served.world, "call-2", "room-005")
        served.publish("call", {"id": "call-2", "device_id": "room-005", "state": "calling"})
        expect(page.locator(".call-strip")).to_have_count(2)
        assert "母婴小屋 005" in page.inner_text("#call-banner")


def test_the_counts_follow_the_fleet(browser, served):
    with signed_in(browser, served, "crew") as page:
        live(page)
        served.world.database.write_here(
            lambda tx: tx.execute(
                update(tables.twin).where(tables.twin.c.device_id.in_(["bike-001", "bike-002"])).values(online=0)
            )
        )
        served.publish("device", {"device_id": "bike-001"})
        expect(page.locator("[data-kind=bike]")).to_contain_text("55")


def test_acknowledging_an_alarm_and_accepting_a_call(browser, served):
    with signed_in(browser, served, "crew", viewport=PHONE) as page:
        page.goto(served.url + "/alarms")
        page.click("#alarm-alarm-1 button")
        page.wait_for_selector(".notice")
        assert "李师傅" in page.inner_text("#alarm-alarm-1")
        page.click("text=我去处理")
        page.wait_for_selector("#call-call-1.is-taken")
        assert "李师傅" in page.inner_text("#call-call-1")
    assert [intent[1] for intent in served.world.intents.submitted] == ["acknowledge_alarm", "acknowledge_call"]


def test_a_page_keeps_what_somebody_is_typing_while_it_refreshes(browser, served):
    with signed_in(browser, served, "crew") as page:
        live(page)
        page.fill("[name=q]", "half a wor")
        page.focus("[name=q]")
        with page.expect_response(lambda response: response.url.rstrip("/") == served.url):
            served.publish("alarm", {"id": "alarm-9", "device_id": "bike-001"})
        expect(page.locator("[name=q]")).to_be_focused()
        assert page.input_value("[name=q]") == "half a wor"


def test_the_device_page_plots_and_sends_a_command(browser, served):
    with signed_in(browser, served, "crew") as page:
        page.goto(served.url + "/devices/bike-001")
        page.wait_for_selector("#plot canvas")
        expect(page.locator("#plot-summary")).to_contain_text("%")
        page.select_option("#plot-field", "temperature_celsius")
        expect(page.locator("#plot-summary")).to_contain_text("°C")
        page.click("summary:has-text('响铃')")
        page.click("text=确认发送：响铃")
        page.wait_for_selector("#commands-sent .watched")
        expect(page.locator("#commands-sent .watched")).to_contain_text("成功")


def test_an_employee_buys_a_meal(browser, served):
    with signed_in(browser, served, "employee", viewport=PHONE) as page:
        page.select_option("[name=machine]", "meal-001")
        page.click("text=查看菜单")
        page.click("text=¥22.00 购买")
        page.wait_for_selector(".purchase")
        assert "红烧肉饭" in page.inner_text("#purchases")
        assert "¥78.00" in page.inner_text("#wallet")
        live(page)
        purchase = served.world.database.read_here(lambda tx: tx.execute(tables.purchase.select()).one())
        now = served.world.clock.now_ms()

        def heat(tx):
            tx.execute(update(tables.purchase).values(state="heating"))
            tx.execute(
                tables.purchase_step.insert().values(
                    purchase_id=purchase.id, event="heat", before="reserved", after="heating", at=now
                )
            )

        served.world.database.write_here(heat)
        served.publish("purchase", {"id": purchase.id, "person_id": "person-employee", "state": "heating"})
        page.wait_for_selector(".purchase progress")
        expect(page.locator("time[data-until]")).to_have_text(re.compile(r"^1:[01]\d$"))
        served.world.database.write_here(lambda tx: tx.execute(update(tables.purchase).values(state="delivered")))
        served.publish("purchase", {"id": purchase.id, "person_id": "person-employee", "state": "delivered"})
        page.wait_for_selector(".chip-sale-delivered")


def test_both_languages_are_whole(browser, served):
    with signed_in(browser, served, "crew") as page:
        for path in PAGES["crew"]:
            page.goto(served.url + path)
            words = re.sub(r"[a-z]+-\d+|WGS-84|dBm|English|km|m/s", "", page.inner_text("main"))
            assert not re.search(r"[A-Za-z]{4,}", words), (path, re.findall(r"[A-Za-z]{4,}", words))
        page.click("text=English")
        page.wait_for_selector("html[lang=en]")
        for path in ("/", "/orders", "/devices/bike-001"):
            page.goto(served.url + path)
            words = re.sub(r"母婴小屋 \d+|软件园 \d 号楼大堂|李师傅", "", page.inner_text("main"))
            assert not re.search(r"[一-鿿]", words), (path, re.findall(r"[一-鿿]+", words))


def test_everything_works_without_scripts(browser, served):
    with signed_in(browser, served, "crew", viewport=PHONE, scripts=False) as page:
        assert page.locator("#device-list tbody tr").count() == 25
        page.goto(served.url + "/alarms")
        page.click("#alarm-alarm-1 button")
        page.wait_for_selector(".notice")
        page.goto(served.url + "/devices/bike-001")
        page.click("summary:has-text('响铃')")
        page.click("text=确认发送：响铃")
        page.wait_for_selector("#commands-sent .watched")
    with signed_in(browser, served, "employee", viewport=PHONE, scripts=False) as page:
        page.fill("[name=device_id]", "bike-001")
        page.click("text=开锁")
        page.wait_for_selector("#ride .progress")
        page.click(".account >> text=退出")
        page.wait_for_selector("[name=password]")


def test_the_keyboard_reaches_the_content_first_and_signs_in(browser, served):
    context = browser.new_context(locale="en-US")
    page = context.new_page()
    page.goto(f"{served.url}/login")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.focus("[name=login]")
    page.keyboard.type("crew")
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_selector("#counts")
    context.close()


def test_text_has_enough_contrast(browser, served):
    """WCAG 2 AA, computed from what Chromium shows: 4.5:1, or 3:1 for large text."""
    script = """() => {
      const parse = (c) => (c.match(/[\\d.]+/g) || []).map(Number);
      const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
        .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
      const ground = (e) => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor);
        if (c.length === 3 || c[3] > 0.99) return c.slice(0, 3); } return [255, 255, 255]; };
      const bad = [];
      for (const e of document.querySelectorAll('body *')) {
        if (!e.offsetParent || e.closest('#map, #plot, svg')) continue;
        if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
        const style = getComputedStyle(e), size = parseFloat(style.fontSize), bold = Number(style.fontWeight) >= 700;
        if (size === 0) continue;
        const [a, b] = [light(parse(style.color)), light(ground(e))].sort((x, y) => y - x);
        const ratio = (a + 0.05) / (b + 0.05), wanted = size >= 24 || (bold && size >= 18.66) ? 3 : 4.5;
        if (ratio < wanted) bad.push(`${ratio.toFixed(2)} ${e.outerHTML.slice(0, 120)}`);
      }
      return bad; }"""
    with signed_in(browser, served, "crew") as page:
        for path in PAGES["crew"]:
            page.goto(served.url + path)
            assert page.evaluate(script) == [], path
    with signed_in(browser, served, "employee") as page:
        page.goto(served.url + "/me?machine=meal-001")
        assert page.evaluate(script) == []
