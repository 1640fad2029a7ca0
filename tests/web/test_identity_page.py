"""The identity of a device on its page: an admin approves, rejects and revokes; nobody else sees it."""

import re

import pytest

from cloud import tables
from tests.api.enrolment_world import Box, EnrolmentWorld
from tests.web.client import client


@pytest.fixture
def site(tmp_path):
    made = EnrolmentWorld(tmp_path)
    made.add_device()
    yield made
    made.world.database.close()


async def press(admin, path, **fields):
    """What a form of the page sends."""
    token = admin.headers.pop("x-csrf-token")
    answer = await admin.post(path, data={"csrf_token": token, **fields})
    admin.headers["x-csrf-token"] = token
    return answer


async def test_an_admin_approves_the_box_whose_fingerprint_stands_there(site):
    text, box = await site.claim(), Box()
    async with client(site.world) as door, client(site.world, "admin") as admin:
        await door.post("/api/v1/enrolments", json=box.body(text))
        page = (await admin.get("/devices/room-007")).text
        shown = "".join(page.split())
        assert box.fingerprint in shown
        assert "FB-0042" in page
        assert '<a href="#identity">有盒子等待批准' in page, "seen without scrolling"
        done = await press(admin, "/devices/room-007/approve", fingerprint=box.fingerprint)
        assert (done.status_code, done.headers["location"]) == (303, "/devices/room-007?notice=box_approved#identity")
        await site.registrar.look()
        page = (await admin.get("/devices/room-007?notice=box_approved")).text
    assert "已批准" in page
    assert "已签发" in page
    assert "有盒子等待批准" not in page
    assert "云端自动" in page
    assert re.search(r"<td>20\d\d-\d\d-\d\d</td>", page), "it ends in another year than this, perhaps"
    assert box.fingerprint not in "".join(page.split())


async def test_an_admin_rejects_a_box_and_revokes_a_device_with_a_reason(site):
    text, box = await site.claim(), Box()
    async with client(site.world) as door, client(site.world, "admin") as admin:
        await door.post("/api/v1/enrolments", json=box.body(text))
        assert (await press(admin, "/devices/room-007/reject")).status_code == 303
        assert (await press(admin, "/devices/room-007/revoke", reason=" ")).status_code == 422
        assert (await press(admin, "/devices/room-007/revoke", reason="<b>stolen</b>")).status_code == 303
        page = (await admin.get("/devices/room-007")).text
    assert "&lt;b&gt;stolen" in page
    assert "确认吊销" not in page, "once is enough"
    assert '<a href="#identity">已吊销' in page
    assert "安装人员（" in page
    assert [row.state for row in site.rows(tables.enrolment)] == ["rejected"]


async def test_a_refused_attempt_stands_on_the_page(site):
    async with client(site.world) as door, client(site.world, "admin") as admin:
        await door.post("/api/v1/enrolments", json=Box().body(await site.claim(), serial="FB-9"))
        page = (await admin.get("/devices/room-007")).text
    assert "序列号不符" in page
    assert "FB-9" in page


@pytest.mark.parametrize("path", ["approve", "reject", "revoke"])
async def test_nobody_else_sees_or_does_it(site, path):
    async with client(site.world, "crew") as crew:
        assert 'id="identity"' not in (await crew.get("/devices/room-007")).text
        answer = await press(crew, f"/devices/room-007/{path}", reason="x", fingerprint="0" * 64)
        assert answer.status_code == 403
