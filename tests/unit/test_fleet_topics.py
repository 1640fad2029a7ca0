"""Topics: what is spelled is parsed back, everything else is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet import topics
from fleet.topics import DownChannel, UpChannel

device_ids = st.from_regex(topics.DEVICE_ID_PATTERN, fullmatch=True)
SHARDS = {"bike-001": 7, "meal-001": 8, "room-001": 1}


@given(device_id=device_ids, channel=st.sampled_from(UpChannel))
def test_a_topic_is_parsed_back(device_id, channel):
    parsed = topics.parse_up(topics.up(device_id, channel))
    assert (parsed.device_id, parsed.channel, parsed.shard) == (device_id, channel, topics.shard_of(device_id))
    assert 0 <= parsed.shard < topics.SHARD_COUNT


@given(text=st.text(max_size=60))
def test_any_other_text_is_refused(text):
    try:
        parsed = topics.parse_up(text)
    except ValueError:
        return
    assert topics.up(parsed.device_id, parsed.channel) == text


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "f/1/bike-001/up",
        "g/1/bike-001/up/event",
        "f/1/Bike-001/up/event",
        "f/1/bike-001/down/command",
        "f/1/bike-001/up/secrets",
        "f/1/+/up/event",
        "f/1/#",
        "f/1/bike-001\n/up/event",
        f"f/{(topics.shard_of('bike-001') + 1) % topics.SHARD_COUNT}/bike-001/up/event",
        f"f/0{topics.shard_of('bike-001')}/bike-001/up/event",
    ],
)
def test_foreign_topics_are_refused(topic):
    with pytest.raises(ValueError, match=r"."):
        topics.parse_up(topic)


def test_shards_are_the_same_for_ever():
    assert {name: topics.shard_of(name) for name in ("bike-001", "meal-001", "room-001")} == SHARDS


def test_the_demo_fleet_spreads_over_the_shards():
    shards = [topics.shard_of(f"bike-{number:03}") for number in range(1, 181)]
    assert len(set(shards)) > topics.SHARD_COUNT // 2


@pytest.mark.parametrize("name", ["", "a" * 33, "bike_001", "BIKE", "bike/1", "bike-001\n", "单车"])
def test_ids_that_no_device_may_have(name):
    assert not topics.is_device_id(name)


def test_filters_and_access_rules_cover_what_is_published():
    device_id = "bike-001"
    assert topics.up(device_id, UpChannel.EVENT).replace(device_id, "+") == topics.up_filter(
        topics.shard_of(device_id), UpChannel.EVENT
    )
    patterns = dict(topics.broker_acl_patterns())
    assert patterns["write"].replace("%u", device_id).split("/")[2:4] == [device_id, "up"]
    assert patterns["read"].replace("%u", device_id).split("/")[2:4] == [device_id, "down"]
    assert topics.down(device_id, DownChannel.COMMAND).split("/")[2:] == [device_id, "down", "command"]
