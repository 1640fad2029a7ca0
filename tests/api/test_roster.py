"""People on duty over HTTP, on real SQLite: who is on call, holes, swaps, hand-overs, crews, calendars."""

import json

import icalendar
import pytest
from sqlalchemy import update

from cloud.roster.duty import SKILLS
from cloud.tables import contact_point, person
from tests.api.duty_world import refusals
from tests.api.roster_world import ALL_DAY, CREW, DAY, HOUR, NOW, ROSTER, at, bring, roster_world, rows
from tests.unit.dispatch_cases import alarm_change, press
from tests.web.world import add_order


@pytest.fixture
async def duty(tmp_path):
    async with roster_world(tmp_path) as world:
        yield world


async def test_without_a_roster_everybody_is_on_call_and_nothing_is_wrong(duty):
    now = await duty.get(f"{ROSTER}/now")
    assert now["planned"] is False
    people = {tier["tier"]: [one["person_id"] for one in tier["people"]] for tier in now["tiers"]}
    assert people == {
        "on_call": ["person-crew", "person-sun", "person-wu"], "second_crew": [], "duty_manager": ["person-admin"],
    }  # fmt: skip
    assert (await duty.get(f"{ROSTER}/check"))["ok"] is True


async def test_an_imported_roster_says_who_is_on_call_until_when_and_who_comes_next(duty):
    text = """tier,person,crew,from,until,repeat
on_call,crew,,2027-01-15 08:00,20:00,daily
on_call,李师傅,,2027-01-15 20:00,08:00,
当班,wu,,2027-01-16 20:00,08:00,daily
"""
    answer = await bring(duty, text)
    assert (answer["imported"], len(answer["added"]), answer["bad"]) == (True, 3, [])
    now = await duty.get(f"{ROSTER}/now")
    tier = now["tiers"][0]
    # It is 16:00 on 15 January 2027 in Dalian.
    assert [(one["name"], one["from_at"], one["until_at"]) for one in tier["people"]] == [
        ("李师傅", NOW, at("2027-01-15T20:00"))
    ]
    assert (tier["next_at"], tier["next_names"]) == (at("2027-01-15T20:00"), ["李师傅"])
    assert duty.audited("roster.import")[0][0] == "person-admin"
    assert duty.published[-1] == ("roster", {"id": "roster"})
    # A hole is what is left between, to the minute, and both tiers without anybody are one hole each.
    check = await duty.get(f"{ROSTER}/check")
    assert [(one["tier"], one["from_at"], one["until_at"]) for one in check["findings"] if one["is_hole"]] == [
        ("duty_manager", NOW, NOW + 14 * DAY), ("second_crew", NOW, NOW + 14 * DAY),
    ]  # fmt: skip


async def test_the_check_is_content_when_all_is_covered_and_names_each_hole_and_person_else(duty):
    await bring(duty, ALL_DAY)
    assert await duty.get(f"{ROSTER}/check") == {
        "from_at": NOW, "until_at": NOW + 14 * DAY, "planned": True, "ok": True, "findings": [],
    }  # fmt: skip
    world = duty.world
    world.database.write_here(
        lambda tx: tx.execute(update(contact_point).where(contact_point.c.id == "contact-wu").values(failing_since=NOW))
    )
    world.database.write_here(
        lambda tx: tx.execute(update(person).where(person.c.id == "person-crew").values(disabled_at=NOW))
    )
    found = {
        (one["what"], one["tier"], one["person_id"]) for one in (await duty.get(f"{ROSTER}/check", "admin"))["findings"]
    }
    assert found == {
        ("uncovered", "on_call", ""), ("unreached", "second_crew", ""),
        ("disabled", "on_call", "person-crew"), ("unreachable", "second_crew", "person-wu"),
    }  # fmt: skip
    # Neither makes anything else stand still: the disabled one is simply not there.
    now = await duty.get(f"{ROSTER}/now", "admin")
    assert [len(tier["people"]) for tier in now["tiers"]] == [0, 1, 1]
    assert now["tiers"][1]["people"][0]["unreachable"]["zh"] == "联系方式全部失败"


async def test_crews_have_a_base_members_and_skills_and_their_shifts_follow_the_members(duty):
    admin = duty.clients["admin"]
    assert (await admin.put(f"{ROSTER}/crews/north", json=CREW)).status_code == 200
    assert (
        await admin.put(f"{ROSTER}/members/wu", json={"crew_id": "north", "skills": ["battery"]})
    ).status_code == 200
    await bring(duty, "tier,crew,from,until,repeat\non_call,北区,2027-01-01 08:00,20:00,daily\n")
    answer = await admin.put(f"{ROSTER}/members/sun", json={"crew_id": "north"})
    (north,) = answer.json()["crews"]
    assert [(one["login"], one["skills"]) for one in north["members"]] == [("sun", sorted(SKILLS)), ("wu", ["battery"])]
    assert (north["name"], north["vehicle_capacity"]) == ({"zh": "北区", "en": "North"}, 40)
    now = await duty.get(f"{ROSTER}/now")
    assert [(one["name"], one["crew_id"]) for one in now["tiers"][0]["people"]] == [
        ("孙师傅", "north"),
        ("吴师傅", "north"),
    ]
    duty.world.clock.advance(seconds=3600)
    await admin.put(f"{ROSTER}/members/wu", json={"crew_id": None})
    now = await duty.get(f"{ROSTER}/now")
    assert [one["name"] for one in now["tiers"][0]["people"]] == ["孙师傅"]
    # What wu did until now stays on the record.
    assert [(row.from_at, row.until_at) for row in rows(duty) if row.person_id == "person-wu"] == [(NOW, NOW + HOUR)]
    assert (await admin.delete(f"{ROSTER}/crews/north")).json()["code"] == "crew_in_use"


async def test_nobody_is_in_two_crews_nor_on_duty_twice_through_one(duty):
    admin = duty.clients["admin"]
    for name in ("north", "south"):
        await admin.put(f"{ROSTER}/crews/{name}", json=CREW)
        login = {"north": "wu", "south": "sun"}[name]
        await admin.put(f"{ROSTER}/members/{login}", json={"crew_id": name})
    await bring(duty, "tier,crew,from,until,repeat\non_call,north,2027-01-01 08:00,20:00,daily\n")
    await bring(duty, "id,tier,person,from,until\nx,second_crew,sun,2027-01-16 12:00,13:00\n")
    answer = await admin.put(f"{ROSTER}/members/sun", json={"crew_id": "north"})
    assert (answer.status_code, answer.json()["code"]) == (409, "on_duty_already")
    crews = (await duty.get(f"{ROSTER}/crews"))["crews"]
    assert [[one["login"] for one in crew["members"]] for crew in crews] == [["wu"], ["sun"]]
    await admin.put(f"{ROSTER}/members/wu", json={"crew_id": "south"})
    crews = (await duty.get(f"{ROSTER}/crews"))["crews"]
    assert [[one["login"] for one in crew["members"]] for crew in crews] == [[], ["sun", "wu"]]


async def test_the_rest_of_a_shift_is_taken_over_and_stands_in_the_audit(duty):
    await bring(duty, ALL_DAY)
    end = at("2027-01-16T00:00")
    later = NOW + HOUR
    answer = await duty.post(f"{ROSTER}/take-over", {"from_person": "crew", "to_person": "sun", "at": later}, "admin")
    assert [
        (one["person_id"], one["from_at"], one["until_at"], one["stands_in_for_name"]) for one in answer["shifts"]
    ] == [("person-sun", later, end, "李师傅")]
    mine = [(row.person_id, row.from_at, row.until_at) for row in rows(duty) if row.tier == "on_call"][:3]
    assert mine == [("person-crew", NOW, later), ("person-sun", later, end), ("person-crew", end, end + DAY)]
    ((actor, whose, detail),) = duty.audited("roster.take_over")
    assert (actor, whose, json.loads(detail)) == (
        "person-admin",
        "person-crew",
        {"from_person": "person-crew", "to_person": "person-sun", "at": later, "until": end, "tiers": ["on_call"]},
    )
    # An import that changes this plan says that the swap would be lost.
    text = ALL_DAY.replace(
        "on_call,crew,,2027-01-01 00:00,24:00,daily", 'on_call,crew,,2027-01-01 00:00,24:00,"MO,FR,SA"'
    )
    assert (await bring(duty, text, dry_run=True))["take_overs_lost"] == 1
    # A part of a part goes back to whom it was.
    await duty.post(
        f"{ROSTER}/take-over",
        {"from_person": "sun", "to_person": "crew", "at": later + HOUR, "until": later + 2 * HOUR},
        "admin",
    )
    parts = [(row.person_id, row.stands_in_for) for row in rows(duty) if row.tier == "on_call"][:4]
    assert parts == [
        ("person-crew", None),
        ("person-sun", "person-crew"),
        ("person-crew", None),
        ("person-sun", "person-crew"),
    ]
    check = await duty.get(f"{ROSTER}/check")
    assert check["ok"] is True


REFUSED_SWAPS = [
        ({"from_person": "crew", "to_person": "wu"}, "admin", 409, "on_duty_already"),
        ({"from_person": "sun", "to_person": "crew"}, "admin", 409, "nothing_to_take_over"),
        ({"from_person": "crew", "to_person": "employee"}, "admin", 422, "not_fit_for_duty"),
        ({"from_person": "crew", "to_person": "nobody"}, "admin", 404, "not_found"),
        ({"from_person": "crew", "to_person": "crew"}, "admin", 422, "same_person"),
        ({"from_person": "crew", "to_person": "sun", "at": NOW - 1}, "admin", 422, "in_the_past"),
        ({"from_person": "crew", "to_person": "sun", "until": NOW}, "admin", 422, "times_wrong"),
        ({"from_person": "wu", "to_person": "sun"}, "crew", 403, "not_your_shift"),
    ]  # fmt: skip


async def test_a_swap_that_can_not_be_is_refused_with_its_reason_and_changes_nothing(duty):
    await bring(duty, ALL_DAY)
    before = rows(duty)
    for body, role, status, code in REFUSED_SWAPS:
        assert (await duty.post(f"{ROSTER}/take-over", body, role, status))["code"] == code
    assert rows(duty) == before


async def test_who_goes_leaves_a_note_with_what_is_open_and_who_comes_confirms(duty):
    await bring(duty, ALL_DAY)
    duty.plan(press(), alarm_change())
    add_order(duty.world, "order-1", "bike-001", "bike")
    left = await duty.post(f"{ROSTER}/handovers", {"note": "钥匙在前台"}, status=201)
    sorts = [one["sort"] for one in left["open_items"]]
    assert (left["note"], left["left_by_name"], sorts[:2], "order" in sorts) == (
        "钥匙在前台",
        "李师傅",
        ["call", "alarm"],
        True,
    )
    path = f"{ROSTER}/handovers/{left['id']}/confirm"
    duty.world.clock.advance(seconds=3600)
    assert (await duty.post(path, role="crew", status=409))["code"] == "own_handover"
    await duty.post(f"{ROSTER}/take-over", {"from_person": "crew", "to_person": "sun"}, "admin")
    done = await duty.post(path, role="admin")
    assert (done["confirmed_by_name"], done["confirmed_at"]) == ("张管理", NOW + HOUR)
    assert (await duty.post(path, role="admin", status=409))["code"] == "confirmed_already"
    assert (await duty.get(f"{ROSTER}/handovers"))["handovers"][0]["confirmed_by"] == "person-admin"
    assert len(duty.audited("roster.leave")) == len(duty.audited("roster.confirm")) == 1
    # Who went off duty just now may still write one; who was never on duty in that tier may not.
    await duty.post(f"{ROSTER}/handovers", {"tier": "on_call"}, status=201)
    assert (await duty.post(f"{ROSTER}/handovers", {"tier": "duty_manager"}, status=409))["code"] == "not_on_duty"


async def test_a_calendar_program_reads_its_owners_shifts_and_nobody_elses(duty):
    await bring(duty, ALL_DAY)
    path = (await duty.post(f"{ROSTER}/calendar"))["path"]
    anybody = duty.clients["nobody"]
    answer = await anybody.get(path)
    assert answer.headers["content-type"].startswith("text/calendar")
    events = icalendar.Calendar.from_ical(answer.text).walk("VEVENT")
    assert [str(event["SUMMARY"]) for event in events] == ["当班"] * len(events)
    assert len(events) > 10
    newer = (await duty.post(f"{ROSTER}/calendar"))["path"]
    assert (await anybody.get(path)).status_code == 404
    assert (await anybody.get(newer)).status_code == 200
    assert (await anybody.get(f"{ROSTER}/calendar.ics?token={'x' * 40}")).status_code == 404
    duty.world.database.write_here(
        lambda tx: tx.execute(update(person).where(person.c.id == "person-crew").values(disabled_at=NOW))
    )
    assert (await anybody.get(newer)).status_code == 404


ALLOWED = [
        ("GET", "/now", {"crew", "admin"}), ("GET", "", {"crew", "admin"}), ("GET", "/check", {"crew", "admin"}),
        ("GET", "/crews", {"crew", "admin"}), ("GET", "/handovers", {"crew", "admin"}),
        ("GET", "/export?format=csv", {"crew", "admin"}), ("POST", "/import?format=csv", {"admin"}),
        ("POST", "/take-over", {"crew", "admin"}), ("PUT", "/crews/north", {"admin"}),
        ("DELETE", "/crews/north", {"admin"}), ("PUT", "/members/wu", {"admin"}),
    ]  # fmt: skip


async def test_who_may(duty):
    for method, path, allowed in ALLOWED:
        await refusals(duty, method, ROSTER + path, allowed)
