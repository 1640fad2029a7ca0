"""Approving a box and revoking a device, pressed in a real Chromium."""

import pytest
from sqlalchemy import select

from cloud import tables
from tests.web.test_pages_browser import PHONE, signed_in

pytestmark = pytest.mark.browser

FINGERPRINT = "1f3a9c02" * 8


def row_of(served, table, device_id):
    query = select(table).where(table.c.device_id == device_id)
    return served.world.database.read_here(lambda tx: tx.execute(query).one())


def test_an_admin_approves_the_box_that_waits_and_later_revokes_the_device(browser, served):
    served.world.write(
        tables.enrolment, id="e" * 32, claim_id="c" * 32, device_id="room-011", hardware_serial="FB-0042",
        fingerprint=FINGERPRINT, request="PEM", poll_hash="x", address="10.1.2.3", asked_at=served.world.clock.now_ms(),
        state="pending",
    )  # fmt: skip
    with signed_in(browser, served, "admin", viewport=PHONE) as page:
        page.goto(f"{served.url}/devices/room-011")
        assert "".join(page.inner_text(".fingerprint").split()) == FINGERPRINT
        page.click("#identity form[action$='/approve'] button")
        page.wait_for_url("**notice=box_approved**")
        assert page.query_selector("#identity form[action$='/approve']") is None
        assert row_of(served, tables.enrolment, "room-011").state == "approved"
        page.click("#identity details summary")
        page.fill("#identity [name=reason]", "stolen")
        page.click("#identity form[action$='/revoke'] button")
        page.wait_for_url("**notice=device_revoked**")
        assert "stolen" in page.inner_text("#identity")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert row_of(served, tables.device, "room-011").revoked_reason == "stolen"
