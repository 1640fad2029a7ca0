"""The web inbox: what people were told can be read again, in the API and on the page."""

import pytest

from cloud.adapters.notify.inbox import InboxChannel
from cloud.api.changes import Changes
from cloud.dispatch import notices
from cloud.inbox.service import InboxService
from cloud.tables import outbox
from tests.api.duty_world import on_duty, refusals
from tests.unit.dispatch_cases import definition, press, rows


@pytest.fixture
async def duty(tmp_path):
    async with on_duty(tmp_path, {"silent": definition(skill="repair")}) as world:
        yield world


async def deliver(duty, *changes):
    """What the outbox's worker does with the inbox's rows."""
    duty.plan(*changes)
    channel = InboxChannel(duty.world.database, Changes())
    for row in duty.world.database.read_here(lambda tx: rows(tx, outbox)):
        await channel.send(notices.decode(row["notification"]), delivery_id=row["delivery_id"])


async def test_what_the_channel_took_is_read_newest_first_page_by_page(duty):
    assert await duty.get("/api/v1/inbox") == {"notices": [], "next_before": None}
    await deliver(duty, *(press(number) for number in range(1, 6)))
    seen, mark = [], ""
    for _ in range(3):
        page = await duty.get(f"/api/v1/inbox?limit=2{mark}")
        seen += [found["reference"] for found in page["notices"]]
        mark = f"&before={page['next_before']}"
    assert seen == [f"call-{number}" for number in range(5, 0, -1)]
    assert page["next_before"] is None
    (first,) = page["notices"]
    assert first["title"]["en"].startswith("Emergency call")
    assert first["title"]["zh"].startswith("紧急呼叫")
    assert (first["kind_of"], first["device_id"], first["audience"]) == ("call", "room-001", "on_call")
    # Looking back is looking at the history of rooms.
    assert [line[0] for line in duty.audited("notice.view_history")] == ["person-crew"] * 2


async def test_the_inbox_is_for_those_on_duty(duty):
    await refusals(duty, "GET", "/api/v1/inbox", {"crew", "admin"})


async def test_a_process_without_the_role_says_so_instead_of_failing(duty):
    del duty.world.services._by_type[InboxService]
    answer = await duty.clients["crew"].get("/api/v1/inbox")
    assert (answer.status_code, answer.json()["code"]) == (503, "role_not_here")
    page = await duty.clients["crew"].get("/alarms")
    assert page.status_code == 503
    assert "本服务器不提供此功能" in page.text


async def test_the_page_of_alarms_lists_notices_in_both_languages_and_leads_to_older_ones(duty):
    crew = duty.clients["crew"]
    assert "还没有通知" in (await crew.get("/alarms")).text
    await deliver(duty, *(press(number) for number in range(1, 23)))
    page = (await crew.get("/alarms")).text
    assert 'data-topics="call alarm inbox incident hiding"' in page
    listed = page[page.index("notices-title") :]
    assert listed.count("<li id=") == 20
    assert "紧急呼叫" in listed
    assert "notices=3#" in listed
    older = (await crew.get("/alarms?notices=3")).text
    assert [f'id="notice-{number}"' in older for number in (1, 2, 3)] == [True, True, False]
    await crew.post("/language", data={"language": "en"})
    listed = (await crew.get("/alarms")).text
    assert "Emergency call (on-call crew): room-022" in listed[listed.index("notices-title") :]
