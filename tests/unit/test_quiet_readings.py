"""The short cut of the hot path: a reading from which nothing follows is told apart without the rules themselves."""

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import devices
from cli.bench.load import reading
from cloud.model import Decisions
from cloud.rules.supervised import SupervisedRules
from cloud.tables import twin as twin_table
from cloud.twin.repository import _COLUMNS
from cloud.twin.stage import Twin
from tests.device_messages import NOW_MS
from tests.devices.device_strategies import instances

KINDS = devices.kinds()
KIND_NAMES = sorted(KINDS)
TWIN = Twin(KINDS)
RULES = SupervisedRules(KINDS)


def lane_after(kind_name, first):
    lane = TWIN.new_lane(f"{kind_name.replace('_', '-')}-001", kind_name)
    lane.desk = RULES.new_desk()
    lane.desk.button.watched_since = NOW_MS
    TWIN.on_reading(lane, first, NOW_MS)
    return lane


def parked_bike(**changed):
    return KINDS["bike"].reading.model_validate({**reading(NOW_MS, 100, 1), **changed})


@pytest.mark.parametrize("kind_name", KIND_NAMES)
def test_it_is_quiet_exactly_when_the_rules_find_nothing(kind_name):
    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def check(data):
        lane = lane_after(kind_name, data.draw(instances(KINDS[kind_name].reading)))
        at = lane.state.reading.at
        quiet = RULES.quiet[kind_name](lane, at)
        before, decided = msgspec.json.encode(lane.desk), Decisions()
        RULES.on_reading(lane, at, NOW_MS, decided)
        assert quiet == (msgspec.json.encode(lane.desk) == before and not decided and not decided.attention)

    check()


def test_a_parked_bike_is_quiet():
    lane = lane_after("bike", parked_bike())
    assert RULES.quiet["bike"](lane, NOW_MS)


@pytest.mark.parametrize(
    "changed",
    [{"battery_percent": 9.9}, {"temperature_celsius": None}, {"temperature_celsius": 60.1}, {"latitude": 39.5},
     {"lock_state": "unlocked"}, {"signal_dbm": -115.5}, {"tilt_degrees": 80.0}, {"fix_age_seconds": 20_000.0}],
    ids=str,
)  # fmt: skip
def test_whatever_raises_an_alarm_or_asks_for_work_is_not(changed):
    lane = lane_after("bike", parked_bike(**changed))
    assert not RULES.quiet["bike"](lane, NOW_MS)


def test_a_bike_with_anything_open_is_not():
    for change in ({"mask": 1}, {"missed": True}, {"needs": {"battery_swap": NOW_MS}}):
        lane = lane_after("bike", parked_bike())
        for name, value in change.items():
            setattr(lane.desk, name, value)
        assert not RULES.quiet["bike"](lane, NOW_MS), change


def test_a_room_whose_button_is_not_supervised_yet_is_not():
    lane = TWIN.new_lane("room-001", "nursing_room")
    lane.desk = RULES.new_desk()
    assert not RULES.quiet["nursing_room"](lane, NOW_MS)


def test_a_row_of_a_twin_has_all_columns_of_its_table():
    assert set(_COLUMNS) == set(twin_table.c.keys())
    assert len(_COLUMNS) == len(twin_table.c)
