"""Holes and overlaps against a model that asks minute by minute; times of day across midnight and clock changes."""

from datetime import datetime
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.roster import calendars, coverage, table_file

SHANGHAI = ZoneInfo("Asia/Shanghai")
MINUTES = 300
HOUR = 3_600_000

minutes = st.integers(-20, MINUTES + 20)
stretches = st.lists(st.tuples(minutes, st.integers(1, 80)).map(lambda pair: (pair[0], pair[0] + pair[1])), max_size=12)


@given(stretches)
@settings(max_examples=300, deadline=None)
def test_holes_are_exactly_the_minutes_nobody_covers(covered):
    found = coverage.holes(covered, 0, MINUTES)
    bare = {minute for minute in range(MINUTES) if not any(begin <= minute < end for begin, end in covered)}
    assert {minute for begin, end in found for minute in range(begin, end)} == bare
    assert all(begin < end for begin, end in found)
    assert all(one[1] < other[0] for one, other in pairwise(found)), "they neither touch nor overlap"


@given(stretches)
@settings(max_examples=300, deadline=None)
def test_overlaps_are_found_exactly_where_a_minute_is_covered_twice(found):
    marked = [(begin, end, mark) for mark, (begin, end) in enumerate(found)]
    twice = any(sum(begin <= minute < end for begin, end in found) > 1 for minute in range(-20, MINUTES + 101))
    pairs = coverage.overlaps(marked)
    assert bool(pairs) == twice
    for one, other in pairs:
        assert found[one][0] < found[other][1]
        assert found[other][0] < found[one][1]
    # Taking away the later one of every pair leaves nobody on duty twice.
    later = {other for _, other in pairs}
    assert coverage.overlaps([item for item in marked if item[2] not in later]) == []


def read(zone, *lines):
    return table_file.read(("tier,person,from,until,repeat,repeat_until,except\n" + "\n".join(lines)).encode(), zone)


def times(zone, line, from_text, days):
    (draft,) = read(zone, line).drafts
    begin = at(zone, from_text)
    return [
        tuple(f"{calendars.moment_of(moment, zone):%m-%d %H:%M}" for moment in one)
        for one in calendars.occurrences(draft.calendar, begin, begin + days * 24 * HOUR)
    ]


def at(zone, text):
    return calendars.ms_of(datetime.fromisoformat(text).replace(tzinfo=zone))


def test_a_night_shift_ends_on_the_next_day_and_one_that_runs_at_midnight_counts():
    line = "on_call,li,2027-01-04 20:00,08:00,daily,,2027-01-05"
    assert times(SHANGHAI, line, "2027-01-05 00:00", 2) == [
        ("01-04 20:00", "01-05 08:00"),
        ("01-06 20:00", "01-07 08:00"),
    ]


def test_a_whole_day_ends_at_24_00_and_the_last_day_of_a_rule_is_part_of_it():
    line = "on_call,li,2027-01-04 00:00,24:00,每天,2027-01-06,"
    assert times(SHANGHAI, line, "2027-01-04 00:00", 5) == [
        ("01-04 00:00", "01-05 00:00"), ("01-05 00:00", "01-06 00:00"), ("01-06 00:00", "01-07 00:00"),
    ]  # fmt: skip


def test_a_week_that_repeats_every_second_week():
    line = "on_call,li,2027-01-04 08:00,2027-01-11 08:00,FREQ=WEEKLY;INTERVAL=2,,"
    assert times(SHANGHAI, line, "2027-01-04 00:00", 28) == [
        ("01-04 08:00", "01-11 08:00"),
        ("01-18 08:00", "01-25 08:00"),
    ]


def test_shifts_keep_the_wall_clock_where_clocks_change():
    berlin = ZoneInfo("Europe/Berlin")  # 28 March 2027, 02:00 → 03:00
    line = "on_call,li,2027-03-26 20:00,08:00,daily,,"
    assert times(berlin, line, "2027-03-27 12:00", 3)[:2] == [
        ("03-27 20:00", "03-28 08:00"),
        ("03-28 20:00", "03-29 08:00"),
    ]
    (draft,) = read(berlin, line).drafts
    night = calendars.occurrences(draft.calendar, at(berlin, "2027-03-27 20:00"), at(berlin, "2027-03-28 08:00"))
    assert night[0][1] - night[0][0] == 11 * HOUR, "an hour of this night does not exist"


def test_a_cell_that_a_spreadsheet_would_run_is_made_harmless():
    text = table_file.write([{"id": "=HYPERLINK(1)", "person": "li"}]).decode("utf-8-sig")
    assert "'=HYPERLINK(1)" in text


@given(st.binary(max_size=400))
@settings(max_examples=200, deadline=None)
def test_no_file_makes_reading_fail(raw):
    from cloud.roster import calendar_file

    for module in (table_file, calendar_file):
        reading = module.read(raw, SHANGHAI)
        assert all(one.line >= 1 and one.why.zh and one.fix.en for one in reading.bad)


@given(
    st.lists(
        st.sampled_from(["on_call", "li", "2027-01-01 08:00", "20:00", "FREQ=DAILY", "FREQ=WEEKLY;BYDAY=MO;COUNT=0",
                         "2027-13-01", "周一", '"', "", "FREQ=DAILY;UNTIL=2027", "FREQ=YEARLY;BYMONTHDAY=99"]),
        min_size=6, max_size=8,
    )
)  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_no_line_makes_reading_or_unrolling_fail(cells):
    reading = read(SHANGHAI, ",".join(cells))
    for draft in reading.drafts:
        calendars.occurrences(draft.calendar, at(SHANGHAI, "2027-01-01"), at(SHANGHAI, "2027-02-26"))
    assert reading.drafts or reading.bad or not any(cells)


def test_the_example_of_the_docs_can_be_read():
    example = Path(__file__).parents[2] / "docs/roster-example.csv"
    reading = table_file.read(example.read_bytes(), SHANGHAI)
    assert (len(reading.drafts), reading.bad) == (6, [])
