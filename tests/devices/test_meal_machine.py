"""The meal machine's hardware, line and driver together: what is sold, what fails, and what survives."""

import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from meal_machine_bench import NO_FAULTS, START_MS, Bench, hex_id

from devices.meal_machine import driver, frames, messages, simulator, state
from fleet.kind import Site

DELIVERED = ["sale_reserved", "sale_heating", "sale_dispensing", "sale_delivered"]


def test_a_sale_goes_through_every_step_and_ends_with_the_drop_sensor():
    bench = Bench()
    bench.run(5)
    stock_before = bench.readings[-1].stock_count
    bench.buy()
    bench.run(100)
    assert bench.types() == DELIVERED
    assert bench.statuses() == [("accepted", ""), ("executing", ""), ("succeeded", "")]
    heating = bench.of_type(messages.SaleHeating)[0]
    assert 60 <= heating.heating_seconds <= 75
    assert bench.simulator.snapshot()["outcomes"] == {hex_id(1001): "box"}
    assert bench.readings[-1].stock_count == stock_before - 1
    assert bench.readings[-1].heater_celsius > 70


def test_first_expired_first_out_across_slots_and_never_an_expired_box():
    bench = Bench(stock_share=0.0)
    bench.act("restock", items={"mapo-tofu": 5}, visit_s=60)
    bench.run(24 * 3600)
    bench.act("restock", visit_s=60)
    bench.run(120)
    bench.buy()
    bench.run(120)
    sold = bench.of_type(messages.SaleDelivered)[0]
    lots = {
        lot.lot: lot.expires_at for slot in bench.readings[-1].slots if slot.sku == "mapo-tofu" for lot in slot.lots
    }
    assert len(lots) == 2
    assert sold.lot == min(lots, key=lambda lot: lots[lot])
    bench.run(49 * 3600)
    assert bench.readings[-1].stock_count == 0
    bench.buy(2)
    bench.run(10)
    assert bench.statuses(hex_id(2)) == [("refused", "lot_expired")]


@pytest.mark.parametrize(
    ("fault", "reason", "event"),
    [
        ("jam_per_sale", "jam", "lane_jammed"),
        ("missed_drop_per_sale", "unknown", None),
        ("heater_fault_per_sale", "heater_fault", "heater_fault"),
    ],
)
def test_each_fault_has_its_own_reason(fault, reason, event):
    bench = Bench(faults={fault: 1.0})
    bench.buy()
    bench.run(120)
    assert [item.reason for item in bench.of_type(messages.SaleFailed)] == [reason]
    assert bench.statuses()[-1] == ("failed", reason)
    assert event is None or event in bench.types()
    assert "sale_delivered" not in bench.types()


def test_a_jam_locks_the_slot_until_repaired_and_unlocked():
    bench = Bench()
    bench.act("jam", slot="A4")
    bench.buy(1, slot="A4")
    bench.run(5)
    assert bench.statuses() == [("refused", "jam")]
    bench.act("repair")
    bench.command(messages.UnlockAfterService(), hex_id(2))
    bench.buy(3, slot="A4")
    bench.run(120)
    assert bench.statuses(hex_id(3))[-1] == ("succeeded", "")


def test_an_occupied_output_stops_the_motor_and_fails_the_sale_in_time():
    bench = Bench()
    bench.buy()
    bench.run(30)
    bench.act("leave_box")
    bench.run(150)
    failed = bench.of_type(messages.SaleFailed)
    assert [item.reason for item in failed] == ["output_not_empty"]
    assert bench.simulator.snapshot()["motor_runs"] == {}
    (failed_at,) = (at for at, event in bench.events if event.type == "sale_failed")
    assert failed_at - START_MS <= 170_000  # the cloud refunds at 180 s


def test_cancelling_while_heating_keeps_the_motor_still_and_the_half_heated_box_unsold():
    bench = Bench()
    bench.buy()
    bench.run(20)
    bench.command(messages.Cancel(purchase_id=hex_id(1001)), hex_id(2))
    bench.run(120)
    assert bench.of_type(messages.SaleFailed)[0].reason == "cancelled"
    assert bench.statuses(hex_id(2)) == [("succeeded", "")]
    assert bench.simulator.snapshot()["motor_runs"] == {}
    assert bench.readings[-1].stock_count == 79
    assert bench.simulator.snapshot()["boxes"] == 80


@pytest.mark.parametrize("seconds", [1, 30, 66, 69, 72, 75, 78, 81, 85])
def test_after_a_brown_out_no_motor_moves_again_and_the_sale_has_one_end(seconds):
    bench = Bench()
    bench.buy()
    bench.run(seconds)
    bench.act("brown_out")
    bench.run(300)
    ends = [event for event in bench.events if event[1].type in {"sale_delivered", "sale_failed"}]
    assert len(ends) == 1
    runs = bench.simulator.snapshot()["motor_runs"]
    assert sum(runs.values()) <= 1
    end = ends[0][1]
    if end.type == "sale_failed":
        assert end.reason == ("unknown" if runs else "power_lost")
    assert bench.statuses()[-1][0] in {"succeeded", "failed"}


def test_mains_lost_in_mid_sale_is_told_from_the_battery():
    bench = Bench()
    bench.buy()
    bench.run(20)
    bench.act("power_off")
    bench.run(10)
    assert bench.readings[-1].mains_power is False
    assert bench.of_type(messages.SaleFailed)[0].reason == "power_lost"
    bench.buy(2)
    assert bench.statuses(hex_id(2)) == [("refused", "power_lost")]
    bench.act("power_on")
    bench.buy(3)
    bench.run(120)
    assert bench.statuses(hex_id(3))[-1] == ("succeeded", "")


def test_a_warm_machine_locks_itself_until_serviced_and_restocked():
    bench = Bench()
    bench.run(30)
    bench.act("open_door")
    bench.run(75 * 60)
    assert bench.readings[-1].locked_out
    assert bench.readings[-1].stock_count == 0
    assert bench.types().count("lanes_locked") == 1
    bench.act("close_door")
    bench.buy(1)
    assert bench.statuses(hex_id(1)) == [("refused", "locked_out")]
    bench.run(3600)
    bench.command(messages.UnlockAfterService(), hex_id(2))
    assert bench.readings[-1].locked_out, "serviced, but the warm boxes are still inside"
    bench.act("restock", visit_s=60)
    bench.run(120)
    visit = bench.of_type(messages.Restocked)[0]
    assert {line.removed_reason for line in visit.lines} == {"excursion"}
    assert not bench.readings[-1].locked_out
    assert bench.readings[-1].stock_count == 80


def test_a_restock_is_a_counted_visit():
    bench = Bench(stock_share=0.3, faults={"missed_drop_per_sale": 1.0})
    bench.run(10)
    before = bench.readings[-1]
    bench.act("restock")
    bench.run(300)
    visit = bench.of_type(messages.Restocked)[0]
    assert sum(line.expected_count for line in visit.lines) == before.stock_count
    assert sum(line.found_count for line in visit.lines) == before.stock_count
    assert sum(line.added_count for line in visit.lines) == 80 - before.stock_count
    assert bench.types() == ["door_opened", "restocked", "door_closed"]
    assert bench.readings[-1].stock_count == 80


def test_set_menu_is_refused_while_other_meals_are_inside():
    bench = Bench()
    bench.command(messages.SetMenu(slot="A1", sku="eel-rice", price_fen=3000), hex_id(1))
    bench.command(messages.SetMenu(slot="A1", sku="braised-pork-rice", price_fen=1800), hex_id(2))
    bench.run(1)
    assert bench.statuses(hex_id(1)) == [("refused", "not_possible")]
    assert bench.statuses(hex_id(2)) == [("succeeded", "")]
    assert bench.readings[-1].slots[0].price_fen == 1800


def test_at_most_two_sales_wait_and_the_third_is_told_busy():
    bench = Bench()
    for number in (1, 2, 3):
        bench.buy(number)
    assert bench.statuses(hex_id(3)) == [("refused", "busy")]
    bench.run(200)
    assert bench.types().count("sale_delivered") == 2


def test_events_are_repeated_until_the_journal_has_them_and_reported_once():
    bench = Bench(commit=False)
    bench.act("open_door")
    bench.run(60)
    assert bench.types() == ["door_opened"]
    assert len(bench.simulator.snapshot()["unacknowledged_events"]) == 1
    bench.commit = True
    bench.run(120)
    assert bench.types() == ["door_opened"]
    assert bench.simulator.snapshot()["unacknowledged_events"] == ()


def test_a_new_driver_gets_again_what_was_never_acknowledged():
    bench = Bench(commit=False)
    bench.act("open_door")
    bench.driver, bench.commit = driver.create("meal-001"), True
    bench._to_hardware(bench.driver.on_start(bench.now_ms))
    bench.run(5)
    assert bench.types() == ["door_opened", "door_opened"]  # the journal drops the second by its event id
    assert len({event.event_id for _, event in bench.events}) == 1


def test_a_dead_line_ends_a_command_as_hardware_silent():
    machine = driver.create("meal-001")
    machine.on_command(hex_id(1), messages.Reboot(), 0)
    progress = []
    while machine.next_due_ms is not None:
        progress += machine.on_timer(machine.next_due_ms).progress
    assert [(item.status.value, item.reason) for item in progress] == [("failed", "hardware_silent")]


@pytest.mark.parametrize("seed", range(5))
def test_a_bad_line_loses_no_event_doubles_none_and_vends_nothing_twice(seed):
    bench = Bench(seed=seed, faults={"crc_error_per_frame": 0.2, "dropped_byte_per_frame": 0.2, "jam_per_sale": 0.1})
    for number in range(1, 16):
        bench.buy(number, sku=random.Random(seed + number).choice(["mapo-tofu", "eel-rice", "curry-chicken"]))
        bench.run(95)
    bench.run(600)
    true_ids = [truth.event_id for truth in bench.truths if truth.event_id]
    assert sorted(event.event_id for _, event in bench.events) == sorted(true_ids)
    assert all(runs == 1 for runs in bench.simulator.snapshot()["motor_runs"].values())
    assert bench.driver.frame_errors > 0
    finals = [item for item in bench.progress if item.status.value in {"succeeded", "failed", "refused"}]
    assert sorted(item.command_id for item in finals) == [hex_id(number) for number in range(1, 16)]


def test_same_seed_same_bytes():
    def day(seed: int) -> list[bytes]:
        machine = simulator.create("meal-001", random.Random(seed), Site(0, 0, "x", {"stock_share": 0.5}), START_MS)
        return [machine.advance(START_MS + step * 60_000).to_driver for step in range(240)]

    assert day(3) == day(3)
    assert day(3) != day(4)


def test_sites_are_seeded_and_some_start_nearly_empty():
    sites = simulator.sites(20, random.Random(1))
    assert sites == simulator.sites(20, random.Random(1))
    assert sum(site.facts["stock_share"] < 0.2 for site in sites) == 6
    assert all(38.84 <= site.latitude <= 38.89 and 121.48 <= site.longitude <= 121.56 for site in sites)
    with pytest.raises(ValueError, match="unknown faults"):
        simulator.create("meal-001", random.Random(1), Site(0, 0, "x", {"faults": {"jams": 1}}), START_MS)


@given(st.binary(max_size=300))
@settings(max_examples=100)
def test_noise_never_raises(noise):
    machine = driver.create("meal-001")
    machine.on_bytes(noise, 0)
    output = machine.on_bytes(b"\x00" + frames.encode_event(messages.DoorOpened(event_id=hex_id(7)), 5), 0)
    assert [event.event_id for _, event in output.events] == [hex_id(7)]


@given(st.sampled_from(range(1, 20)), st.binary(max_size=60))
def test_frames_with_a_good_checksum_and_absurd_content_are_counted(number, body):
    from fleet.framing import encode_frame

    machine = driver.create("meal-001")
    output = machine.on_bytes(encode_frame(frames.FrameType.EVENT, bytes(24) + bytes((number,)) + body), 0)
    assert machine.frame_errors + len(output.events) == 1


def test_the_fullest_reading_fits_one_frame():
    bench = Bench()
    bench.run(5)
    lots = tuple(messages.Lot(lot=f"L202611210{n}", expires_at=START_MS, count=5) for n in range(4))
    slots = tuple(
        messages.SlotStock(
            slot=f"{'AB'[n // 8]}{n % 8 + 1}",
            sku="x" * 18,
            price_fen=1,
            status="ready",
            capacity_count=20,
            count=20,
            lots=lots,
        )
        for n in range(16)
    )
    reading = bench.readings[-1].model_copy(update={"slots": slots})
    output = driver.create("meal-001").on_bytes(frames.encode_reading(reading), 0)
    assert output.readings == (reading,)


def test_state_survives_its_json():
    bench = Bench(stock_share=0.1)
    bench.run(10)
    bench.buy()
    bench.run(100)
    now = state.initial("meal-001")
    for reading in bench.readings:
        now = state.apply_reading(now, reading)
    for at, event in bench.events:
        now = state.apply_event(now, event, at)
    without_reading = msgspec.structs.replace(now, reading=None)
    assert msgspec.json.decode(msgspec.json.encode(without_reading), type=state.State) == without_reading
    assert now.sold_count in {0, 1}


def test_no_fault_names_are_missing_from_the_bench():
    assert set(NO_FAULTS) == set(simulator.Machine("x", random.Random(1), {}, 0).faults.__dataclass_fields__)


def test_a_lock_remembers_the_lots_inside_until_the_counted_visit():
    bench = Bench()
    bench.run(5)
    now = state.apply_reading(state.initial("meal-001"), bench.readings[-1])
    inside = {lot.lot for slot in bench.readings[-1].slots for lot in slot.lots}
    locked = state.apply_event(now, messages.LanesLocked(event_id=hex_id(1), chilled_celsius=12.0), START_MS)
    assert set(locked.blocked_lots) == inside
    visited = state.apply_event(locked, messages.Restocked(event_id=hex_id(2), lines=()), START_MS)
    assert visited.blocked_lots == ()
    assert visited.cycle == locked.cycle + 1


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("action", ["brown_out", "power_off"])
def test_power_lost_while_the_motor_may_be_moving_is_unknown_and_never_vended_again(seed, action):
    bench = Bench(seed=seed)
    bench.buy()
    while "sale_dispensing" not in bench.types():
        bench.run(0.5)
    bench.act(action)
    bench.act("power_on")
    bench.run(300)
    assert [item.reason for item in bench.of_type(messages.SaleFailed)] == ["unknown"]
    assert bench.simulator.snapshot()["motor_runs"] == {hex_id(1): 1}
    assert "sale_delivered" not in bench.types()
    assert bench.readings[-1].stock_count == 79, "a box that may have left is not offered again"
    bench.act("restock")
    bench.run(300)
    visit = bench.of_type(messages.Restocked)[0]
    found = sum(line.found_count - line.expected_count for line in visit.lines)
    assert found == (1 if bench.simulator.snapshot()["outcomes"][hex_id(1001)] == "none" else 0)
