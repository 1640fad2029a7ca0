"""apprise against a real HTTP receiver on loopback, and the words people read."""

import json

import pytest

from cloud.adapters.notify import apprise_channel, words
from cloud.model import Notification
from cloud.ports import NotDeliveredError
from tests.adapters.http_receiver import http_receiver
from tests.unit.dispatch_cases import NOW

CALL = Notification(
    "call",
    "call-1",
    "emergency",
    "room-001",
    "紧急呼叫：1 号楼",
    "Emergency call: Building 1",
    {"call_id": "call-1", "device_id": "room-001", "device_name": "1 号楼", "state": "calling", "latitude": None},
    NOW,
)
ALARM = Notification(
    "alarm", "alarm-1", "high", "bike-001", "设备失联：001", "Device silent: 001",
    {"device_id": "bike-001", "device_name": "001", "cause": {"zh": "断电", "en": "no power"},
     "consequence": {"zh": "看不到", "en": "unseen"}, "action": {"zh": "去看", "en": "go there"},
     "respond_within_s": 10_800}, NOW,
)  # fmt: skip
FLOOD = Notification(
    "alarm",
    "flood:1",
    "high",
    "",
    "30 项",
    "30 alarms",
    {"count": 30, "alarms": [{"device_id": f"bike-{n}", "device_name": f"车 {n}"} for n in range(30)]},
    NOW,
)
ORDER = Notification(
    "order",
    "o",
    "low",
    "meal-001",
    "补货",
    "Restock",
    {"device_id": "meal-001", "device_name": "大堂", "items": {"rice": 3, "soup": 1}, "due_within_s": 5400},
    NOW,
)


@pytest.fixture
async def receiver():
    async with http_receiver() as opened:
        yield opened


def address(receiver):
    return f"json://{receiver.url.removeprefix('http://')}/hook"


async def test_a_service_gets_title_and_body_in_both_languages(receiver):
    (channel,) = apprise_channel.channels([address(receiver)])
    await channel.send(CALL, delivery_id="d")
    channel.close()
    sent = json.loads(receiver.got[0].body)
    assert sent["title"] == "紧急呼叫：1 号楼 / Emergency call: Building 1"
    assert sent["message"] == words.body(CALL)
    assert sent["type"] == "failure"


@pytest.mark.parametrize("status", [403, 500])
async def test_a_service_that_refuses_is_no_delivery(receiver, status):
    receiver.answers = [status]
    (channel,) = apprise_channel.channels([address(receiver)])
    with pytest.raises(NotDeliveredError, match="failure"):
        await channel.send(CALL, delivery_id="d")
    channel.close()


def test_each_address_is_a_channel_with_a_stable_name_without_its_secrets(receiver):
    addresses = [f"{address(receiver)}?+token=hidden", "json://127.0.0.1:9/"]
    channels = apprise_channel.channels([*addresses, addresses[0]])
    assert [channel.name for channel in channels] == [apprise_channel.name_of(url) for url in addresses]
    assert len({channel.name for channel in channels}) == 2
    assert all(channel.name.startswith("json-") and "hidden" not in channel.name for channel in channels)


def test_an_unknown_service_is_named_without_its_secrets():
    with pytest.raises(ValueError, match="nosuch") as refused:
        apprise_channel.channels(["nosuch://token@host"])
    assert "token" not in str(refused.value)


def test_words_for_people():
    assert words.body(CALL).splitlines() == [
        "紧急呼叫：1 号楼", "地点：1 号楼（room-001）", "状态：等待接警", "呼叫编号：call-1", "",
        "Emergency call: Building 1", "Where: 1 号楼 (room-001)", "State: nobody has answered yet", "Call: call-1",
    ]  # fmt: skip
    assert "处理：去看\n时限：3 小时" in words.body(ALARM)
    assert "What to do: go there\nWithin: 3 h" in words.body(ALARM)
    assert "携带：rice × 3, soup × 1\n时限：90 分钟" in words.body(ORDER)
    flood = words.body(FLOOD)
    assert flood.count("车 ") == 40
    assert "……另有 10 项" in flood
    assert "… and 10 more" in flood


def test_facts_that_are_missing_leave_their_line_out():
    bare = Notification("alarm", "a", "high", "", "题", "Title", {}, NOW)
    assert words.body(bare) == "题\n\nTitle"
    assert words.body(Notification("system", "c", "high", "", "题", "Title", {"error": "HTTP 410"}, NOW)).endswith(
        "Title\nReason: HTTP 410"
    )
