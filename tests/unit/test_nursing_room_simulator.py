"""The simulated room: what it does without any network, and what it keeps."""

import random

import pytest

from devices.nursing_room import frames, messages
from devices.nursing_room.frames import FrameType
from devices.nursing_room.simulation import people
from devices.nursing_room.simulation.climate import Air, Excursion, Fridge, Power, Sterilizer
from devices.nursing_room.simulation.firmware import OUTBOX_EVENTS_MAX
from devices.nursing_room.simulator import MISHAPS, RoomSimulator, create, sites
from fleet.framing import FrameReader
from fleet.kind import Site
from fleet.messages import ReplyStatus

FRIDAY_NOON_MS = 1_799_985_600_000
COMMAND_ID = bytes(range(16))
CALM = {"mishap_factor": 0.0, "presses_per_day": 0.0, "visits_per_workday": 0.0}


class Bench:
    """A room on virtual time; the edge is a list of frames until a test answers."""

    def __init__(self, seed=1, **facts):
        self.now_ms = FRIDAY_NOON_MS
        site = Site(38.86, 121.52, "test", {**CALM, **facts})
        self.room = create("room-001", random.Random(seed), site, self.now_ms)
        self.truths, self.frames = [], []
        self._reader = FrameReader()

    def _take(self, output):
        self.truths += output.truths
        self.frames += self._reader.feed(output.to_driver)

    def act(self, action, **arguments):
        self._take(self.room.act(action, self.now_ms, **arguments))

    def tell(self, data):
        self._take(self.room.on_bytes(data, self.now_ms))

    def run(self, seconds):
        self.now_ms += round(seconds * 1000)
        self._take(self.room.advance(self.now_ms))

    def acknowledge_everything(self):
        while self.room.snapshot()["unacknowledged_events"]:
            for event in self.events():
                self.tell(frames.encode_event_ack(bytes.fromhex(event.event_id)))

    def events(self, event_type=messages.Event):
        decoded = [frames.decode_event(body)[1] for frame_type, body in self.frames if frame_type == FrameType.EVENT]
        return [event for event in decoded if isinstance(event, event_type)]

    def last_reading(self):
        return frames.decode_reading([body for frame_type, body in self.frames if frame_type == FrameType.READING][-1])

    def answers(self):
        return [
            frames.decode_progress(body)[1:] for frame_type, body in self.frames if frame_type == FrameType.PROGRESS
        ]

    def told(self, what):
        return [truth for truth in self.truths if truth.what == what]

    @property
    def call_state(self):
        return self.room.snapshot()["call_state"]


@pytest.mark.parametrize("seed", range(20))
def test_a_press_sounds_and_lights_locally_within_200_ms_without_any_network(seed):
    bench = Bench(seed)
    bench.run(60)
    bench.act("press")
    bench.run(0.2)
    (pressed,), (alarm,) = bench.told("pressed"), bench.told("local_alarm")
    assert 0 < alarm.at_ms - pressed.at_ms <= 200
    assert alarm.facts["press_id"] == pressed.facts["press_id"]
    assert pressed.facts["press_id"][12] == "4"  # a version 4 UUID


def test_an_unheard_event_is_repeated_until_it_is_acknowledged():
    bench = Bench()
    bench.act("press")
    bench.run(60)
    repeated = len(bench.events(messages.Pressed))
    assert repeated > 5
    assert len({event.event_id for event in bench.events()}) == 1
    bench.acknowledge_everything()
    bench.run(60)
    assert len(bench.events(messages.Pressed)) == repeated
    assert bench.room.snapshot()["unacknowledged_events"] == 0


def test_events_of_a_lane_leave_in_order_one_at_a_time():
    bench = Bench()
    for action in ("press", "attend", "clear"):
        bench.act(action)
    bench.run(30)
    assert {type(event) for event in bench.events()} == {messages.Pressed}
    bench.acknowledge_everything()
    order = list(dict.fromkeys(event.type for event in bench.events()))
    assert order == ["pressed", "attended", "cleared_at_origin"]


def test_a_brown_out_keeps_the_call_its_light_and_its_events():
    bench = Bench()
    bench.act("press")
    bench.tell(frames.encode_command(COMMAND_ID, "show_received"))
    before = len(bench.frames)
    bench.act("brown_out")
    bench.run(1)
    assert len(bench.frames) == before, "without power it is silent"
    bench.run(9)
    assert bench.call_state == "received"
    assert bench.last_reading().call_state == "received"
    press_id = bench.told("pressed")[0].facts["press_id"]
    assert bench.events(messages.Pressed)[-1].press_id == press_id
    bench.acknowledge_everything()
    (restarted,) = {event.event_id: event for event in bench.events(messages.Restarted)}.values()
    assert restarted.call_restored
    assert restarted.cause == "brown_out"
    assert len(bench.told("local_alarm")) == 1, "the sound that the brown-out cut short is given after the start"


def test_a_press_during_a_brown_out_is_not_lost():
    bench = Bench()
    bench.act("brown_out")
    bench.act("press")
    assert not bench.told("pressed")
    bench.run(10)
    assert bench.told("press_latched")
    assert len(bench.told("pressed")) == 1
    assert bench.call_state == "calling"


def test_a_dead_button_is_reported_at_once_and_a_press_stays_unheard():
    bench = Bench()
    bench.run(20)
    bench.act("break_button")
    assert not bench.last_reading().button_link_ok
    bench.act("press")
    assert bench.told("press_unheard")
    assert bench.call_state == "idle"
    bench.act("repair_button")
    bench.act("press")
    assert bench.call_state == "calling"


def test_help_comes_because_the_light_says_so_and_clears_at_the_origin():
    bench = Bench(crew_travel_s=(120.0, 130.0), at_scene_s=(20.0, 25.0))
    bench.act("press")
    bench.run(300)
    assert not bench.told("helper_arrived"), "nobody was told yet"
    bench.tell(frames.encode_command(COMMAND_ID, "show_help_coming"))
    assert bench.call_state == "help_coming"
    bench.run(119)
    assert not bench.told("helper_arrived")
    bench.run(60)
    assert [truth.facts["who"] for truth in bench.told("helper_arrived")] == ["crew"]
    (pressed,), (attended,), (cleared,) = map(bench.told, ("pressed", "attended", "cleared_at_origin"))
    assert pressed.facts["press_id"] == attended.facts["press_id"] == cleared.facts["press_id"]
    assert pressed.at_ms < attended.at_ms < cleared.at_ms
    assert bench.call_state == "idle"


def test_without_the_cloud_somebody_nearby_looks_in_after_a_while():
    bench = Bench(bystander_after_s=(900.0, 901.0))
    bench.act("press")
    bench.run(1_100)
    assert [truth.facts["who"] for truth in bench.told("helper_arrived")] == ["bystander"]
    assert bench.call_state == "idle"


def test_received_lights_for_the_press_it_is_for():
    bench = Bench()
    bench.act("press")
    bench.act("press")
    first, second = (bytes.fromhex(truth.facts["press_id"]) for truth in bench.told("pressed"))
    bench.tell(frames.encode_command(first, "show_received", first))
    assert bench.call_state == "calling"
    bench.tell(frames.encode_command(second, "show_received", second))
    assert bench.call_state == "received"
    assert bench.answers() == [(ReplyStatus.FAILED, "not_possible"), (ReplyStatus.SUCCEEDED, "")]


def test_help_coming_that_is_late_for_an_older_press_does_not_answer_a_newer_one():
    bench = Bench()
    bench.act("press")
    bench.act("press")
    first, second = (bytes.fromhex(truth.facts["press_id"]) for truth in bench.told("pressed"))
    bench.tell(frames.encode_command(b"1" * 16, "show_help_coming", first))
    assert bench.call_state == "calling"
    bench.tell(frames.encode_command(b"2" * 16, "show_help_coming", second))
    assert bench.call_state == "help_coming"
    bench.tell(frames.encode_command(b"3" * 16, "show_help_coming", first))
    assert bench.answers() == [
        (ReplyStatus.FAILED, "not_possible"), (ReplyStatus.SUCCEEDED, ""), (ReplyStatus.FAILED, "not_possible"),
    ]  # fmt: skip


@pytest.mark.parametrize("light", ["show_received", "show_help_coming"])
def test_no_command_opens_or_ends_a_call(light):
    bench = Bench()
    bench.tell(frames.encode_command(COMMAND_ID, light))
    assert bench.call_state == "idle"
    assert bench.answers() == [(ReplyStatus.FAILED, "not_possible")]
    bench.act("press")
    for number, action in enumerate(frames.COMMAND_CODES):
        bench.tell(frames.encode_command(number.to_bytes(16, "big"), action))
        bench.run(10)
        assert bench.call_state != "idle"
    assert bench.answers()[-2:] == [(ReplyStatus.REFUSED, "busy")] * 2  # self-test and restart wait for the call's end


def test_a_command_id_is_carried_out_once_and_answered_every_time():
    bench = Bench()
    for _ in range(3):
        bench.tell(frames.encode_command(COMMAND_ID, "start_self_test"))
    bench.run(10)
    bench.tell(frames.encode_command(COMMAND_ID, "start_self_test"))
    assert len(bench.told("self_test_result")) == 1
    assert bench.answers() == [(ReplyStatus.EXECUTING, "")] * 3 + [(ReplyStatus.SUCCEEDED, "")] * 2


def test_a_reboot_by_command_answers_after_the_start():
    bench = Bench()
    bench.tell(frames.encode_command(COMMAND_ID, "reboot"))
    assert bench.answers() == [(ReplyStatus.EXECUTING, "")]
    bench.run(10)
    assert bench.answers()[-1] == (ReplyStatus.SUCCEEDED, "")
    assert bench.told("restarted")[0].facts["cause"] == "command"


def test_the_weekly_self_test_finds_a_torn_cord():
    bench = Bench()
    bench.act("remove_cord")
    bench.run(7 * 86_400)
    (result,) = bench.told("self_test_result")
    assert result.facts == {"passed": False, "failure": "cord"}


def test_an_open_fridge_door_ends_in_a_logged_excursion():
    bench = Bench()
    bench.run(300)
    assert bench.last_reading().fridge_celsius < 4.0
    bench.act("open_fridge_door")
    bench.run(900)
    assert bench.last_reading().fridge_celsius > 8.0
    assert bench.last_reading().fridge_door_open
    bench.act("close_fridge_door")
    bench.run(3_600)
    (excursion,) = bench.told("fridge_excursion_ended")
    assert excursion.facts["duration_seconds"] >= 900
    assert 8.0 < excursion.facts["peak_celsius"] < 20.0
    assert bench.last_reading().fridge_celsius <= 3.5


def test_a_power_cut_runs_on_the_battery_until_that_is_empty():
    bench = Bench()
    bench.act("start_sterilizer")
    bench.run(300)
    bench.act("cut_mains")
    assert bench.told("mains_lost")
    assert bench.told("sterilizer_cycle_finished")[0].facts["outcome"] == "aborted"
    bench.run(4 * 3_600)
    assert 40 <= bench.last_reading().backup_battery_percent <= 60
    assert bench.last_reading().fridge_celsius > 8.0
    bench.run(5 * 3_600)
    assert not bench.room.snapshot()["running"]
    bench.act("restore_mains")
    bench.run(20)
    assert bench.last_reading().mains_power
    assert bench.told("restarted")[0].facts["cause"] == "power_on"


def test_a_full_outbox_gives_up_the_oldest_event_and_says_so():
    bench = Bench()
    bench.act("press")
    for _ in range(OUTBOX_EVENTS_MAX // 2):
        bench.act("remove_cord")
        bench.act("replace_cord")
    evicted = bench.told("event_evicted")
    assert [truth.facts["evicted"] for truth in evicted] == ["cord_removed"]
    assert evicted[0].event_id == bench.told("cord_removed")[0].event_id
    assert bench.room.snapshot()["unacknowledged_events"] == OUTBOX_EVENTS_MAX


def test_what_happens_does_not_depend_on_how_often_it_is_looked_at():
    def log(step_s):
        facts = {"mishap_factor": 50.0, "presses_per_day": 20.0, "visits_per_workday": 9.0}
        bench = Bench(7, **facts)
        for _ in range(7_200 // step_s):
            bench.run(step_s)
        return bench.truths, bench.frames

    assert log(1) == log(900)


def test_presses_and_mishaps_happen_by_themselves_at_the_rates_of_the_site():
    bench = Bench(3, presses_per_day=24.0, mishap_factor=20.0)
    bench.run(10 * 86_400)
    assert 180 <= len(bench.told("pressed")) <= 300
    mains = len(bench.told("mains_lost"))
    assert mains >= 1
    assert mains - len(bench.told("mains_restored")) in (0, 1)


def test_every_action_and_every_mishap_is_known():
    bench = Bench()
    assert set(bench.room.ACTIONS) == set(bench.room._actions)
    assert {mishap.action for mishap in MISHAPS} <= set(RoomSimulator.ACTIONS)
    with pytest.raises(ValueError, match="press"):
        bench.act("dance")


def test_rooms_stand_in_the_zone_and_differ():
    placed = sites(190, random.Random(1))
    assert len({place.name for place in placed}) == 190
    assert all(38.84 <= place.latitude <= 38.89 and 121.48 <= place.longitude <= 121.56 for place in placed)


def test_rooms_are_used_at_work_and_hardly_at_night():
    visits = [0] * 24
    randomness = random.Random(1)
    at_ms = FRIDAY_NOON_MS
    for _ in range(3_000):
        at_ms = people.next_visit_ms(at_ms, 6.0, randomness)
        visits[people.local_hour(at_ms)] += not people.is_weekend(at_ms)
    assert sum(visits[9:18]) > 0.8 * sum(visits)
    assert sum(visits[0:6]) == 0
    assert people.local_hour(FRIDAY_NOON_MS) == 12
    assert not people.is_weekend(FRIDAY_NOON_MS)
    assert people.is_weekend(FRIDAY_NOON_MS + 86_400_000)


def test_the_fridge_holds_its_temperature_for_a_day():
    fridge, warmest, coldest = Fridge(3.0), 0.0, 9.0
    for _ in range(24 * 240):
        fridge.step(15.0, 24.0, powered=True)
        warmest, coldest = max(warmest, fridge.celsius), min(coldest, fridge.celsius)
    assert 2.0 < coldest < 2.3
    assert 3.1 < warmest < 3.5


def test_a_fridge_without_power_warms_towards_the_room_and_not_beyond():
    fridge = Fridge(3.0)
    fridge.step(30 * 86_400, 24.0, powered=False)
    assert fridge.celsius == pytest.approx(24.0)


def test_a_short_excursion_is_not_logged():
    excursion = Excursion()
    assert excursion.watch(4.2, 0) is None
    assert excursion.watch(3.4, 59_999) is None
    assert excursion.watch(4.2, 100_000) is None
    assert excursion.watch(3.4, 160_000) == (60_000, 4.2)


def test_the_sterilizer_interlock():
    sterilizer = Sterilizer(lamp_hours=10.0, door_open=True)
    assert not sterilizer.start(0)
    sterilizer.door_open = False
    assert sterilizer.start(0)
    assert not sterilizer.start(1)
    assert sterilizer.stop(1_800_000, aborted=True) == 1_800_000
    assert sterilizer.state == "aborted"
    assert sterilizer.lamp_hours == pytest.approx(10.5)


def test_air_and_power_stay_within_physical_bounds():
    air, power, randomness = Air(23.0, 42.0), Power(), random.Random(1)
    for _ in range(10_000):
        air.step(15.0, randomness, occupied=True)
    assert 20.0 < air.celsius < 28.0
    assert 5.0 <= air.humidity_percent <= 95.0
    power.mains = False
    power.step(9 * 3_600)
    assert (power.backup_percent, power.available) == (0.0, False)
