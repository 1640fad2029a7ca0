"""Who is on duty, in a real Chromium: the page on a phone, a file that is brought in, a swap, a hand-over."""

import pytest
from sqlalchemy import select

from cloud import tables
from tests.web.test_pages_browser import DESK, PHONE, live, signed_in

pytestmark = pytest.mark.browser

TABLE = """梯队,人员,开始,结束,重复
当班,crew,2027-01-01 00:00,24:00,每天
值班经理,admin,2027-01-01 00:00,24:00,每天
"""


@pytest.fixture
def sun(served):
    """A person without shifts."""
    served.world.write(
        tables.person, id="person-sun", login="sun", name="孙师傅", role="crew", password_hash="",
        created_at=served.world.clock.now_ms(),
    )  # fmt: skip


def bring(page, text, act):
    page.set_input_files(
        "#files [name=file]", {"name": "一月.csv", "mimeType": "text/csv", "buffer": text.encode("gb18030")}
    )
    page.click(f"#files button[value={act}]")
    page.wait_for_selector("#imported")


@pytest.mark.usefixtures("sun")
def test_an_admin_brings_in_a_roster_sees_its_holes_and_swaps_a_shift(browser, served):
    with signed_in(browser, served, "admin", viewport=PHONE) as page:
        page.goto(f"{served.url}/roster")
        live(page)
        assert page.query_selector(".duty-line") is None
        bring(page, TABLE.replace("crew,2027", "nobody,2027"), "import")
        assert "nobody" in page.inner_text("#imported")
        assert "2" in page.inner_text("#imported li strong")
        bring(page, TABLE, "look")
        assert page.query_selector(".duty-line") is None
        bring(page, TABLE, "import")
        page.goto(f"{served.url}/roster")
        assert "李师傅" in page.inner_text("#tier-on_call")
        assert "张管理" in page.inner_text("#tier-duty_manager")
        assert page.locator(".duty-line .is-covered").count() == 30
        assert page.locator(".duty-line .is-uncovered").count() == 1
        assert "无人值班" in page.inner_text("#tier-second_crew")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.select_option("#swap [name=from_person]", "person-crew")
        page.select_option("#swap [name=to_person]", "person-sun")
        page.click("#swap button.primary")
        page.wait_for_url("**notice=roster_changed**")
        assert "代替 李师傅" in page.inner_text("#tier-on_call")
    query = select(tables.audit.c.actor).where(tables.audit.c.action == "roster.take_over")
    assert served.world.database.read_here(lambda tx: list(tx.scalars(query))) == ["person-admin"]


def test_who_goes_off_duty_leaves_a_note_and_the_next_one_confirms(browser, served):
    with signed_in(browser, served, "crew", viewport=PHONE) as page:
        page.goto(f"{served.url}/roster")
        page.fill("#handovers [name=note]", "钥匙在前台")
        page.click("#handovers button.primary")
        page.wait_for_url("**notice=handed_over**")
        handover = page.inner_text("#handovers article")
        assert "钥匙在前台" in handover
        assert page.query_selector("#handovers form[action$=confirm]") is None
        page.click("#handovers article summary")
        assert "母婴小屋 004" in page.inner_text("#handovers article")
        assert page.query_selector("#files form") is None
    with signed_in(browser, served, "admin", viewport=DESK) as page:
        page.goto(f"{served.url}/roster")
        page.click("#handovers form[action$=confirm] button")
        page.wait_for_url("**notice=handed_over**")
        assert "张管理" in page.inner_text("#handovers article")
