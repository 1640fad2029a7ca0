"""Work orders over HTTP, on real SQLite."""

import pytest
from sqlalchemy import update

from cloud.members import repository as members_repository
from cloud.tables import work_order
from cloud.work_orders.schemas import OrderAct
from fleet.incident import ORDER, OrderEvent, OrderState
from tests.api.duty_world import on_duty, refusals
from tests.unit.dispatch_cases import NOW, alarm_change, definition, need_change
from tests.web.world import HASHER, PASSWORD

CREW = "person-crew"


@pytest.fixture
async def duty(tmp_path):
    async with on_duty(tmp_path, {}) as world:
        yield world


async def made(duty) -> str:
    duty.plan(need_change())
    (order,) = (await duty.get("/api/v1/work-orders"))["orders"]
    return order["id"]


WHY = {"hold": "other_work", "give_up": "part_missing", "cancel": "not_needed", "reopen": "not_fixed"}


def said(act):
    return {"reason": WHY[act], "note": "缺零件"} if act in WHY else {}


def prove(duty, order_id):
    """As if its code had been scanned on site."""
    mark = update(work_order).where(work_order.c.id == order_id).values(scanned_at=NOW, scanned_by=CREW)
    duty.world.database.write_here(lambda tx: tx.execute(mark))


async def walk(duty, order_id, *acts, role="crew", status=200):
    for act in acts:
        if act == "complete" and status == 200:
            prove(duty, order_id)
        answer = await duty.post(f"/api/v1/work-orders/{order_id}/{act}", said(act), role=role, status=status)
    return answer


async def test_an_order_from_its_cause_to_done(duty):
    order_id = await made(duty)
    found = await duty.get(f"/api/v1/work-orders/{order_id}")
    assert (found["state"], found["assigned_to_name"], found["items"], found["title"]["zh"], found["due_at"]) == (
        "assigned",
        "李师傅",
        {"rice": 3},
        "补货",
        NOW + 7_200_000,
    )
    assert found["acts"] == ["accept", "hold"]
    done = await walk(duty, order_id, "accept", "travel", "start", "complete")
    assert (done["state"], done["acts"]) == ("done", ["reopen"])
    assert [step["event"] for step in done["transitions"]] == [
        "release",
        "assign",
        "accept",
        "travel",
        "start",
        "complete",
    ]
    assert [step["actor_name"] for step in done["transitions"]] == [None, None, *["李师傅"] * 4]
    assert len(duty.audited("work_order.accept")) == len(duty.audited("work_order.complete")) == 1
    assert duty.published[-1] == (
        "order",
        {"id": order_id, "device_id": "machine-001", "state": "done", "assigned_to": CREW},
    )
    assert (await duty.get("/api/v1/work-orders"))["total"] == 0
    assert (await duty.get("/api/v1/work-orders?state=done"))["total"] == 1


async def test_every_act_is_possible_exactly_where_the_lifecycle_allows_it(duty):
    for state in OrderState:
        for act in OrderAct:
            order_id = f"{state.value}-{act.value}"
            add_order(duty, order_id, state)
            prove(duty, order_id)
            path = f"/api/v1/work-orders/{order_id}/{act.value}"
            answer = await duty.clients["admin"].post(path, json=said(act.value))
            allowed = ORDER.allows(state, OrderEvent(act.value))
            assert answer.status_code == (200 if allowed else 409), (state, act, answer.text)
            if not allowed:
                assert answer.json()["code"] == "not_in_this_state"
                assert (await duty.get(f"/api/v1/work-orders/{order_id}"))["state"] == state.value


def add_order(duty, order_id, state, assigned_to=CREW):
    duty.world.write(
        work_order,
        id=order_id,
        cause=order_id,
        device_id="bike-001",
        kind="bike",
        skill="repair",
        title_zh="修",
        title_en="Repair",
        items="{}",
        priority="high",
        state=state.value,
        assigned_to=assigned_to,
        created_at=NOW,
        due_at=NOW,
        changed_at=NOW,
    )


async def test_somebody_else_s_order_can_be_seen_but_not_moved(duty):
    duty.world.database.write_here(
        lambda tx: members_repository.add_person(
            tx,
            id="person-crew2",
            login="crew2",
            name="孙师傅",
            role="crew",
            password_hash=HASHER.hash(PASSWORD),
            language="zh_CN",
            created_at=NOW,
        )
    )
    order_id = await made(duty)
    assigned = await duty.post(f"/api/v1/work-orders/{order_id}/assign", {"person_id": "person-crew2"}, role="admin")
    assert (assigned["assigned_to"], assigned["state"]) == ("person-crew2", "assigned")
    assert (await duty.get(f"/api/v1/work-orders/{order_id}"))["acts"] == []
    refused = await duty.post(f"/api/v1/work-orders/{order_id}/accept", status=403)
    assert refused["code"] == "not_yours"
    assert (await duty.get("/api/v1/work-orders/mine"))["orders"] == []
    assert (await duty.get("/api/v1/work-orders"))["total"] == 1
    await walk(duty, order_id, "accept", role="admin")
    await duty.post(f"/api/v1/work-orders/{order_id}/assign", {"person_id": CREW}, role="admin", status=409)


async def test_held_work_comes_back_to_who_held_it_and_given_up_work_waits_for_an_admin(duty):
    order_id = await made(duty)
    await walk(duty, order_id, "accept", "travel", "hold")
    resumed = await walk(duty, order_id, "resume")
    assert (resumed["state"], resumed["assigned_to"]) == ("assigned", CREW)
    await walk(duty, order_id, "accept", "travel", "start")
    given_up = await duty.post(f"/api/v1/work-orders/{order_id}/give_up", {"note": "缺零件", "reason": "part_missing"})
    assert (given_up["state"], given_up["acts"], given_up["transitions"][-1]["note"]) == (
        "cannot_complete",
        [],
        "缺零件",
    )
    await walk(duty, order_id, "release", status=403)
    released = await walk(duty, order_id, "release", role="admin")
    assert released["state"] == "assigned"
    cancelled = await walk(duty, order_id, "cancel", role="admin")
    assert (cancelled["state"], cancelled["acts"]) == ("cancelled", [])


async def test_done_work_can_be_opened_again(duty):
    order_id = await made(duty)
    reopened = await walk(duty, order_id, "accept", "travel", "start", "complete", "reopen")
    assert reopened["state"] == "assigned"


async def test_orders_are_only_given_to_the_crew(duty):
    order_id = await made(duty)
    path = f"/api/v1/work-orders/{order_id}/assign"
    for person_id in ("person-employee", "person-admin", "nobody"):
        refused = await duty.post(path, {"person_id": person_id}, role="admin", status=422)
        assert refused["code"] == "not_crew"


async def test_a_refused_act_leaves_no_trace(duty):
    order_id = await made(duty)
    published = len(duty.published)
    await walk(duty, order_id, "complete", status=409)
    assert duty.audited("work_order.complete") == []
    assert len(duty.published) == published
    assert len((await duty.get(f"/api/v1/work-orders/{order_id}"))["transitions"]) == 2


async def test_the_most_pressing_comes_first(duty):
    duty.plan(need_change(), alarm_change(of=definition(skill="repair")))
    found = await duty.get("/api/v1/work-orders?limit=1")
    assert (found["total"], [order["skill"] for order in found["orders"]]) == (2, ["repair"])
    rest = await duty.get("/api/v1/work-orders?limit=1&offset=1")
    assert [order["skill"] for order in rest["orders"]] == ["restock"]
    assert (await duty.get("/api/v1/work-orders?device_id=bike-001"))["total"] == 1


async def test_unknown_orders_and_acts(duty):
    order_id = await made(duty)
    assert (await duty.clients["crew"].get("/api/v1/work-orders/none")).status_code == 404
    await duty.post("/api/v1/work-orders/none/accept", status=404)
    await duty.post(f"/api/v1/work-orders/{order_id}/vanish", status=422)
    await duty.post(f"/api/v1/work-orders/{order_id}/accept", {"state": "done"}, status=422)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "", {"crew", "admin"}),
        ("GET", "/mine", {"crew", "admin"}),
        ("GET", "/order", {"crew", "admin"}),
        ("POST", "/order/assign", {"admin"}),
        *(("POST", f"/order/{act.value}", {"crew", "admin"}) for act in OrderAct if act not in {"release", "cancel"}),
        ("POST", "/order/release", {"admin"}),
        ("POST", "/order/cancel", {"admin"}),
    ],
)
async def test_work_orders_are_for_those_on_duty(duty, method, path, allowed):
    add_order(duty, "order", OrderState.IN_PROGRESS)
    await refusals(duty, method, f"/api/v1/work-orders{path}", allowed)
