"""One identity in two places: which hellos raise the alarm, and how few generations two boxes can use up."""

import itertools

import pytest

import devices
from cloud.model import Decisions, DeviceLane
from cloud.rules.conditions import IDENTITY_TWICE, link_alarms
from cloud.rules.desk import decode_desk, encode_desk
from cloud.rules.identities import RETURN_PAUSE_S, STORAGES_MAX, Answer, take_over
from cloud.rules.stage import Rules
from fleet.envelope import Hello
from fleet.incident import AlarmEvent, Priority
from tests.device_messages import NOW_MS, hex_id

RULES = Rules(devices.kinds())


class Site:
    def __init__(self, kind="bike"):
        self.lane = DeviceLane("bike-001", kind, devices.role(kind, "state").initial("bike-001"), RULES.new_desk())
        self.now_ms = NOW_MS
        self.alarms = []
        self._nonces = itertools.count()

    def hello(self, storage, boots=0, boot_id=None, *, after_s=10, nonce=None, temporary=False):
        self.now_ms += round(after_s * 1000)
        hello = Hello(
            1, self.lane.kind, "bike-001", hex_id(storage), self.lane.generation, boots,
            nonce or hex_id("nonce", next(self._nonces)), "", hex_id(boot_id or (storage, boots)), temporary=temporary,
        )  # fmt: skip
        decisions = Decisions()
        answer = RULES.on_hello(self.lane, hello, self.now_ms, decisions)
        take_over(self.lane, hello, answer)
        self.alarms += [(change.definition.key, change.event) for change in decisions.alarms]
        return answer

    def wait(self, seconds):
        self.now_ms += round(seconds * 1000)
        decisions = Decisions()
        RULES.on_timer(self.lane, self.now_ms, None, decisions)
        self.alarms += [(change.definition.key, change.event) for change in decisions.alarms]


RAISED = [(IDENTITY_TWICE, AlarmEvent.ACTIVATE)]


def test_an_ordinary_life_raises_nothing():
    site = Site()
    assert site.hello("a") is Answer.GRANT
    for boots in range(1, 30):
        assert site.hello("a", boots) is Answer.WELCOME
        assert site.hello("a", boots) is Answer.WELCOME, "asks for the time again"
    assert site.hello("b") is Answer.GRANT, "a new box, or one that lost its storage"
    assert (site.alarms, site.lane.generation) == ([], 2)


def test_an_old_storage_that_returns_raises_the_alarm():
    site = Site()
    site.hello("a")
    site.hello("b")
    assert site.alarms == []
    assert site.hello("a", 1, after_s=RETURN_PAUSE_S + 1) is Answer.GRANT
    assert site.alarms == RAISED


def test_a_storage_goes_on_where_it_was_after_a_temporary_one_stood_in():
    site = Site()
    site.hello("a")
    lane = site.lane
    lane.emergency_seq, lane.event_seq, lane.telemetry_seq = 3, 5, 700
    lane.link_boot_epoch = 1
    assert site.hello("memory", temporary=True) is Answer.GRANT
    assert (lane.generation, lane.emergency_seq, lane.telemetry_seq) == (2, 0, 0)
    lane.emergency_seq, lane.link_boot_epoch = 1, 2 << 20
    lane.desk = decode_desk(encode_desk(lane.desk))  # the cloud starts again meanwhile
    assert site.hello("memory two", temporary=True) is Answer.GRANT, "another start on the same full disk"
    assert lane.generation == 3
    assert site.hello("a", 1) is Answer.RESUME
    assert (lane.storage_id, lane.generation, lane.link_boot_epoch) == (hex_id("a"), 1, 0)
    assert (lane.emergency_seq, lane.event_seq, lane.telemetry_seq) == (3, 5, 700)
    assert site.hello("a", 1) is Answer.WELCOME
    assert site.alarms == []
    assert site.hello("b") is Answer.GRANT
    assert lane.generation == 4, "no generation is used twice"


def test_a_new_storage_ends_what_was_suspended():
    site = Site()
    site.hello("a")
    site.hello("memory", temporary=True)
    assert site.hello("b") is Answer.GRANT
    assert site.hello("a", 1, after_s=RETURN_PAUSE_S + 1) is Answer.GRANT, "an old storage is no stand-in's owner"
    assert site.alarms == RAISED


def test_a_clone_that_says_temporary_is_found_when_it_comes_again():
    site = Site()
    site.hello("a")
    assert site.hello("clone", temporary=True) is Answer.GRANT
    assert site.hello("a", 1) is Answer.RESUME
    assert site.alarms == []
    assert site.hello("clone two", temporary=True) is Answer.GRANT
    assert site.alarms == RAISED


def test_the_same_start_counted_twice_raises_the_alarm():
    site = Site()
    site.hello("a", 5, "one")
    site.hello("a", 5, "one")
    assert site.alarms == []
    assert site.hello("a", 5, "two") is Answer.WELCOME
    assert site.alarms == RAISED


def test_a_boot_count_that_goes_backwards_raises_the_alarm():
    site = Site()
    site.hello("a", 9)
    site.hello("a", 7)
    assert site.alarms == RAISED


def test_a_hello_that_comes_twice_or_late_is_no_sign():
    site = Site()
    early = hex_id("early")
    site.hello("a", 3, nonce=early)
    site.hello("a", 4)
    assert site.hello("a", 3, nonce=early) is Answer.WELCOME
    site.hello("b")
    late = site.hello("a", 4, nonce=hex_id("nonce", 0))
    assert late is Answer.NOTHING
    assert site.alarms == []


def test_however_fast_two_boxes_alternate_there_is_one_alarm_and_few_generations():
    site = Site()
    site.hello("a")
    for _ in range(600):
        site.hello("b", after_s=0.5)
        site.hello("a", after_s=0.5)
    assert site.alarms == RAISED
    assert site.lane.generation <= 2 + 600 / RETURN_PAUSE_S
    assert len(site.lane.desk.storages) == 2


def test_the_alarm_ends_an_hour_after_the_last_sign():
    site = Site()
    site.hello("a", 5, "one")
    site.hello("a", 5, "two")
    site.wait(3000)
    site.hello("a", 5, "one", after_s=0)
    site.wait(3000)
    assert site.alarms == RAISED
    due = RULES.next_due(site.lane, None)
    site.now_ms = due
    site.wait(0)
    assert site.alarms == [*RAISED, (IDENTITY_TWICE, AlarmEvent.RETURN)]


def test_who_spoke_is_remembered_over_a_restart_and_bounded():
    site = Site()
    for number in range(3 * STORAGES_MAX):
        site.hello(number)
    assert len(site.lane.desk.storages) == STORAGES_MAX
    site.lane.desk = decode_desk(encode_desk(site.lane.desk))
    site.hello(3 * STORAGES_MAX - 2, 1)
    assert site.alarms == RAISED


def test_a_storage_known_before_storages_were_remembered_counts_as_old_when_it_returns():
    site = Site()
    site.lane.storage_id, site.lane.generation = hex_id("a"), 1
    site.hello("b")
    site.hello("a")
    assert site.alarms == RAISED


@pytest.mark.parametrize("name", sorted(devices.kinds()))
def test_every_kind_has_it_with_words_that_say_what_to_do(name):
    (definition,) = [one for one in link_alarms(devices.kinds()[name]) if one.key == IDENTITY_TWICE]
    assert definition.priority is Priority.HIGH
    assert "revoke" in definition.action.en
    assert "吊销" in definition.action.zh
