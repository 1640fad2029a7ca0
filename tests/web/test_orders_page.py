"""The pages of work orders as their users meet them: plain forms, without any script."""

import io
import re

import httpx
import pytest
from PIL import Image
from sqlalchemy import select

from cloud import tables
from tests.web import world as worlds
from tests.web.world import PASSWORD


@pytest.fixture
async def pages(tmp_path):
    world = worlds.make_world(tmp_path)
    worlds.add_device(world, "bike-017", "bike", latitude=38.86, longitude=121.52)
    worlds.add_order(
        world, "order-2", "bike-017", "bike", skill="repair", title_zh="修车座", title_en="Mend the saddle",
        items='{"saddle": 1}', state="assigned", assigned_to="person-crew", priority="high",
    )  # fmt: skip
    transport = httpx.ASGITransport(app=world.app)
    clients = {}
    for login in ("crew", "admin", "employee"):
        client = clients[login] = httpx.AsyncClient(transport=transport, base_url="http://fleet.test")
        page = await client.get("/login")
        token = re.search(r'name="csrf_token" value="([^"]+)"', page.text)
        data = {"login": login, "password": PASSWORD, **({"csrf_token": token[1]} if token else {})}
        assert (await client.post("/login", data=data)).status_code == 303
    yield world, clients
    for client in clients.values():
        await client.aclose()
    world.database.close()


async def post(client, path, page="/orders", status=303, files=None, **data):
    token = re.search(r'name="csrf_token" value="([^"]+)"', (await client.get(page)).text)[1]
    answer = await client.post(path, data={"csrf_token": token, **data}, files=files)
    assert answer.status_code == status, answer.text
    return answer


async def test_the_crew_s_way_from_the_list_to_done(pages):
    world, clients = pages
    crew = clients["crew"]
    listed = (await crew.get("/orders")).text
    assert "修车座" in listed
    assert "geo:38.86,121.52" in listed
    await post(crew, "/orders/order-2/accept")
    code_answer = await clients["admin"].get("/api/v1/work-orders/codes/bike-017.svg")
    assert code_answer.status_code == 200
    code = world.database.read_here(lambda tx: tx.scalar(select(tables.device_code.c.code)))
    landed = await crew.get(f"/scan/{code}")
    assert "bike-017" in landed.text
    moved = await post(crew, "/orders/scan", f"/scan/{code}", code=code)
    assert moved.headers["location"].startswith("/orders/order-2")
    written = io.BytesIO()
    Image.new("RGB", (40, 30)).save(written, "PNG")
    photo = {"photo": ("p.png", written.getvalue(), "image/png")}
    await post(crew, "/orders/order-2/photos", "/orders/order-2", files=photo)
    await post(crew, "/orders/order-2/notes", "/orders/order-2", text="钥匙在前台")
    page = (await crew.get("/orders/order-2")).text
    assert "钥匙在前台" in page
    picture = re.search(r'src="(/api/v1/work-orders/order-2/photos/[^"]+)"', page)[1]
    assert (await crew.get(picture.replace("&amp;", "&"))).headers["content-type"] == "image/jpeg"
    await post(crew, "/orders/order-2/complete", "/orders/order-2", back="order")
    states = world.database.read_here(lambda tx: list(tx.scalars(select(tables.work_order.c.state))))
    assert states == ["done"]


async def test_what_cannot_be_done_needs_a_reason_on_the_page(pages):
    _, clients = pages
    crew = clients["crew"]
    await post(crew, "/orders/order-2/accept")
    refused = await post(crew, "/orders/order-2/give_up", "/orders/order-2", status=422, back="order")
    assert "请选择原因" in refused.text
    said = {"reason": "no_access", "note": "门锁着", "back": "order"}
    await post(crew, "/orders/order-2/give_up", "/orders/order-2", **said)
    page = (await crew.get("/orders/order-2")).text
    assert "无法进入" in page
    assert "门锁着" in page
    assert "修车座" in (await clients["admin"].get("/orders?show=cannot_complete")).text


async def test_the_dispatcher_makes_gives_and_sees_figures(pages):
    world, clients = pages
    admin = clients["admin"]
    made = await post(admin, "/orders/make", device_id="bike-017", title="铃", skill="repair", priority="low", key="k")
    path = made.headers["location"].split("?")[0]
    await post(admin, f"{path}/priority", path, priority="high", note="x")
    await post(admin, f"{path}/assign", path, person_id="person-crew")
    refused = await post(
        admin, "/orders/make", status=404, device_id="bike-999", title="x", skill="repair", priority="low", key="l"
    )
    assert refused.status_code == 404
    for page in ("/orders", "/orders?show=overdue", "/orders?show=unassigned", "/orders/figures", path):
        assert (await admin.get(page)).status_code == 200
    assert (await clients["employee"].get("/orders")).status_code == 403
    assert len(world.database.read_here(lambda tx: list(tx.scalars(select(tables.work_order.c.id))))) == 2
    await post(clients["crew"], "/orders/make", "/orders", status=403, device_id="bike-017")
