"""Rosters as files over HTTP: bad lines, dry runs, encodings, calendars, what comes back unchanged."""

import httpx
import pytest

from cloud.tables import person
from tests.api.roster_world import ALL_DAY, CREW, DAY, HOUR, NOW, ROSTER, at, bring, roster_world, rows


@pytest.fixture
async def duty(tmp_path):
    async with roster_world(tmp_path) as world:
        yield world


BAD = """tier,person,crew,from,until,repeat
on_call,nobody,,2027-01-16 08:00,20:00,
on_call,employee,,2027-01-16 08:00,20:00,
on_call,gone,,2027-01-16 08:00,20:00,
boss,crew,,2027-01-16 08:00,20:00,
on_call,crew,,2027-01-16 25:00,20:00,
on_call,crew,,2027-01-16 08:00,2027-01-16 07:00,
on_call,crew,,2027-01-16 08:00,2027-01-26 08:00,
on_call,crew,,2027-01-16 08:00,20:00,FREQ=SECONDLY
on_call,,ghosts,2027-01-16 08:00,20:00,
on_call,crew,north,2027-01-16 08:00,20:00,
second_crew,crew,,2027-01-20 08:00,20:00,
on_call,crew,,2027-01-20 19:59,2027-01-20 23:00,
on_call,,north,2027-01-16 08:00,20:00,
on_call,wu,,1927-01-16 08:00,20:00,
"""


async def test_every_bad_line_is_named_with_its_fix_and_nothing_is_imported(duty):
    duty.world.write(
        person, id="g", login="gone", name="Gone", role="crew", password_hash="", created_at=NOW, disabled_at=NOW
    )
    await duty.clients["admin"].put(f"{ROSTER}/crews/north", json=CREW)
    good = "on_call,sun,,2027-01-16 08:00,20:00,\n"
    problem = await bring(duty, BAD + good, status=422)
    assert problem["code"] == "bad_lines"
    words = {one["line"]: one["why"]["en"] for one in problem["lines"]}
    assert {line: text[:28] for line, text in words.items()} == {
        2: "there is no person 'nobody'",
        3: "'employee' is neither crew n",
        4: "the account of 'gone' is dis",
        5: "unknown tier 'boss'",
        6: "the time '2027-01-16 25:00' ",
        7: "it ends before it begins",
        8: "it is longer than 8 days",
        9: "the rule 'FREQ=SECONDLY' can",
        10: "there is no crew 'ghosts'",
        11: "name either a person or a cr",
        13: "shifts of 'crew' overlap lin",
        14: "the crew 'north' has no memb",
        15: "the time is too far away",
    }
    assert all(one["why"]["zh"] and one["fix"]["zh"] and one["fix"]["en"] for one in problem["lines"])
    assert rows(duty) == []
    assert duty.audited("roster.import") == []
    dry = await bring(duty, BAD + good, dry_run=True)
    assert (dry["imported"], dry["bad"]) == (False, problem["lines"])


async def test_a_dry_run_shows_what_would_change_and_changes_nothing(duty):
    answer = await bring(duty, ALL_DAY, dry_run=True)
    assert (answer["imported"], [one["who"] for one in answer["added"]]) == (False, ["crew", "admin", "wu"])
    assert [(one["tier"], one["until_at"] - one["from_at"]) for one in answer["holes_before"]] == [
        (tier, 14 * DAY) for tier in ("on_call", "second_crew", "duty_manager")
    ]
    assert answer["holes_after"] == []
    assert rows(duty) == []
    await bring(duty, ALL_DAY)
    before = rows(duty)
    again = await bring(duty, ALL_DAY)
    assert (again["unchanged_count"], again["added"], again["changed"]) == (3, [], [])
    assert rows(duty) == before
    changed = await bring(
        duty,
        ALL_DAY.replace("second_crew,wu,,2027-01-01 00:00,24:00", "second_crew,wu,,2027-01-01 00:00,20:00"),
        replace=True,
        dry_run=True,
    )
    assert [one["line"] for one in changed["changed"]] == [4]
    assert [one["tier"] for one in changed["holes_after"]] == ["second_crew"] * 14
    fewer = "\n".join(ALL_DAY.splitlines()[:3])
    assert (await bring(duty, fewer, dry_run=True))["removed"] == []
    duty.world.clock.advance(seconds=3600)
    removed = await bring(duty, fewer, replace=True)
    assert [one["who"] for one in removed["removed"]] == ["person-wu"]
    assert [(row.from_at, row.until_at) for row in rows(duty) if row.person_id == "person-wu"] == [(NOW, NOW + HOUR)]


async def test_what_is_planned_already_is_in_the_way_of_a_second_file(duty):
    await bring(duty, ALL_DAY)
    problem = await bring(duty, "tier,person,from,until\nsecond_crew,crew,2027-02-20 23:00,01:00\n", status=422)
    (line,) = problem["lines"]
    assert (line["line"], "on_call" in line["why"]["en"]) == (2, True)
    # Next to each other is no overlap.
    await bring(
        duty, "id,tier,person,from,until\na,on_call,sun,2027-02-20 08:00,20:00\nb,on_call,sun,2027-02-20 20:00,23:00\n"
    )


@pytest.mark.parametrize("encoding", ["gb18030", "utf-16"])
async def test_a_table_comes_in_any_encoding_a_spreadsheet_writes(duty, encoding):
    text = "梯队;人员;班组;开始;结束;重复\n当班;李师傅;;2027/1/16 8:00;20:00;周六，周日\n"
    answer = await bring(duty, text.encode(encoding))
    assert [one["who"] for one in answer["added"]] == ["李师傅"]
    found = rows(duty)
    assert [(row.from_at, row.until_at) for row in found[:2]] == [
        (at("2027-01-16T08:00"), at("2027-01-16T20:00")), (at("2027-01-17T08:00"), at("2027-01-17T20:00")),
    ]  # fmt: skip


@pytest.mark.parametrize("file_format", ["csv", "ical"])
async def test_what_is_exported_comes_back_unchanged(duty, file_format):
    await bring(
        duty,
        "id,tier,person,from,until,repeat,repeat_until,except\n"
        'early,on_call,crew,2027-01-01 08:00,20:00,"MO,TU",2027-06-30,2027-01-18\n'
        "late,on_call,wu,2027-01-16 20:00,08:00,daily,,\n"
        "once,duty_manager,admin,2027-01-20 00:00,2027-01-27 00:00,,,\n",
    )
    answer = await duty.clients["crew"].get(f"{ROSTER}/export?format={file_format}")
    assert answer.headers["content-disposition"].startswith("attachment")
    again = await bring(duty, answer.content, file_format=file_format, replace=True)
    assert (again["unchanged_count"], again["added"], again["changed"], again["removed"]) == (3, [], [], [])


CALENDAR = """BEGIN:VCALENDAR
VERSION:2.0
PRODID:-//x//y//EN
BEGIN:VEVENT
UID:week@x
SUMMARY:当班：crew
DTSTART;TZID=Asia/Shanghai:20270118T080000
DTEND;TZID=Asia/Shanghai:20270118T200000
RRULE:FREQ=WEEKLY;BYDAY=MO,TU
EXDATE;TZID=Asia/Shanghai:20270119T080000
END:VEVENT
BEGIN:VEVENT
UID:week@x
SUMMARY:当班：crew
RECURRENCE-ID;TZID=Asia/Shanghai:20270125T080000
DTSTART:20270125T020000Z
DTEND:20270125T120000Z
END:VEVENT
BEGIN:VEVENT
UID:whole-day
SUMMARY:duty_manager: admin
DTSTART;VALUE=DATE:20270120
DTEND;VALUE=DATE:20270121
END:VEVENT
END:VCALENDAR
"""


async def test_a_calendar_brings_rules_exceptions_moved_times_and_whole_days(duty):
    await bring(duty, CALENDAR, file_format="ical")
    found = [(row.person_id, row.from_at, row.until_at) for row in rows(duty)]
    assert found[:3] == [
        ("person-crew", at("2027-01-18T08:00"), at("2027-01-18T20:00")),
        ("person-admin", at("2027-01-20T00:00"), at("2027-01-21T00:00")),
        ("person-crew", at("2027-01-25T10:00"), at("2027-01-25T20:00")),
    ]
    assert found[3][1] == at("2027-01-26T08:00")
    cancelled = CALENDAR.replace("UID:whole-day", "UID:whole-day\nSTATUS:CANCELLED")
    answer = await bring(duty, cancelled, file_format="ical")
    assert [one["id"] for one in answer["removed"]] == ["whole-day"]
    assert "person-admin" not in {row.person_id for row in rows(duty)}


UNUSABLE = [
        (("SUMMARY:当班：crew", "SUMMARY:Lunch"), 4, "does not say who"),
        (("RRULE:FREQ=WEEKLY;BYDAY=MO,TU", "RRULE:FREQ=MINUTELY"), 4, "rule"),
        (("END:VCALENDAR", ""), 1, "calendar"),
        (("DTEND;VALUE=DATE:20270121", "DTEND;VALUE=DATE:20270120"), 19, "ends before"),
        (("DTSTART;TZID=Asia/Shanghai:20270118T080000", "DTSTART;TZID=Moon:20270118T080000"), 4, "Moon"),
        (("UID:whole-day\n", ""), 19, "UID"),
        (("RECURRENCE-ID;TZID=Asia/Shanghai:20270125T080000\n", ""), 4, "RECURRENCE-ID"),
    ]  # fmt: skip


async def test_a_calendar_that_can_not_be_used_is_named_by_its_line(duty):
    for change, line, words in UNUSABLE:
        problem = await bring(duty, CALENDAR.replace(*change), file_format="ical", status=422)
        assert line in [one["line"] for one in problem["lines"]], change
        assert words in problem["lines"][0]["why"]["en"], change
    assert rows(duty) == []


RUBBISH = (b"", b"\xff\xfe\x00", b"tier,person\n", b'tier,person,from,until\n"on_call', b"\x00" * 40, b"a;b\n1;2\n")


async def test_rubbish_is_refused_in_words(duty):
    for raw in RUBBISH:
        for file_format in ("csv", "ical"):
            answer = await bring(duty, raw, file_format=file_format, dry_run=True)
            assert answer["added"] == []
            assert answer["bad"] or (raw, file_format) == (b"", "ical"), (raw, file_format)


async def test_a_file_beyond_the_bound_is_refused(duty):
    client: httpx.AsyncClient = duty.clients["admin"]
    answer = await client.post(f"{ROSTER}/import?format=csv", content=b"x" * 1_000_001)
    assert answer.status_code == 413
