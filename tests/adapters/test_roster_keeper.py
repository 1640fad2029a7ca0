"""Announcing holes, each stage once, on both databases; unrolling plans ahead; nothing of it in the way of a call."""

from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import func, insert, select, update

from cloud.api.access import Person, Role
from cloud.api.changes import Changes
from cloud.api.problem import ProblemError
from cloud.dispatch.planner import Dispatch
from cloud.roster import duty, rows
from cloud.roster.keeper import RosterKeeper
from cloud.roster.schemas import FileFormat, TakeOverBody
from cloud.roster.service import RosterService
from cloud.tables import contact_point, duty_finding, duty_plan, outbox, person, shift
from fleet.clock import ManualClock
from tests.unit.dispatch_cases import add_people

pytest_plugins = ("tests.adapters.postgres_fixture",)

NOW = 1_800_000_000_000  # 2027-01-15 16:00 in Dalian
ZONE = ZoneInfo("Asia/Shanghai")
ADMIN = Person("zhang", "zhang", "Zhang", Role.ADMIN, "zh_CN")
HOUR_S = 3600
WHOLE = "tier,person,from,until,repeat,repeat_until\n" + "".join(
    f"{tier},{who},2027-01-01 00:00,24:00,daily,{{}}\n"
    for tier, who in (("on_call", "li"), ("second_crew", "an"), ("duty_manager", "zhang"))
)


class Desk:
    """The roster's service and keeper on one database, with what they told."""

    def __init__(self, database):
        self.database = database
        self.clock = ManualClock(NOW)
        self.service = RosterService(database, self.clock, Changes(), ZONE)
        self.woken = 0
        self.keeper = self.start()

    def start(self):
        """A keeper as after a start: it remembers nothing but what is stored."""
        return RosterKeeper(self.database, self.clock, Dispatch().system, self._wake, ZONE)

    def _wake(self):
        self.woken += 1

    async def bring(self, text, **options):
        wanted = {"dry_run": False, "replace": True, **options}
        return await self.service.import_file(text.encode(), FileFormat.CSV, ADMIN, **wanted)

    async def told(self):
        """(urgent, stage, what) of every notice until now, oldest first."""
        await self.keeper.tick()
        query = select(outbox.c.urgent, outbox.c.notification).order_by(outbox.c.id)
        from cloud.dispatch.notices import decode

        found = []
        for urgent, text in await self.database.read(lambda tx: [tuple(row) for row in tx.execute(query)]):
            facts = decode(text).facts
            found.append((urgent, facts["stage"], [(hole["what"], hole["tier"]) for hole in facts["holes"]]))
        return found


@pytest.fixture
async def desk(database):
    def people(tx):
        add_people(tx, ("li", "crew"), ("an", "crew"), ("sun", "crew"), ("zhang", "admin"))
        tx.execute(
            insert(contact_point),
            [
                {"id": name, "person_id": name, "channel": "sms", "address": "1", "created_at": 0, "verified_at": 0}
                for name in ("li", "an", "sun", "zhang")
            ],
        )

    await database.write(people)
    return Desk(database)


async def test_without_a_roster_nothing_is_announced(desk):
    assert await desk.told() == []


async def test_a_hole_is_announced_when_found_a_day_before_and_urgently_when_it_begins_each_once(desk):
    await desk.bring(WHOLE.format("2027-01-20", "", ""))  # nobody on call from 21 January 00:00 on
    found = [(0, "found", [("uncovered", "on_call")])]
    assert await desk.told() == found
    assert desk.woken == 1
    desk.keeper = desk.start()
    desk.clock.advance(seconds=24 * HOUR_S)
    assert await desk.told() == found, "neither a restart nor a day repeats it"
    desk.clock.advance(seconds=3 * 24 * HOUR_S + 8 * HOUR_S)
    found.append((0, "soon", [("uncovered", "on_call")]))
    assert await desk.told() == found
    desk.keeper = desk.start()
    assert await desk.told() == found
    desk.clock.advance(seconds=24 * HOUR_S)
    found.append((1, "begun", [("uncovered", "on_call")]))
    assert await desk.told() == found
    desk.clock.advance(seconds=HOUR_S)
    desk.keeper = desk.start()
    assert await desk.told() == found
    # Mended, and broken again: that is news.
    await desk.bring(WHOLE.format("", "", ""))
    assert await desk.told() == found
    assert await desk.database.read(lambda tx: tx.scalar(select(duty_finding.c.ended_at))) is not None
    await desk.bring("\n".join(line for line in WHOLE.format("", "", "").splitlines() if "li" not in line))
    found.append((1, "begun", [("uncovered", "on_call")]))
    assert await desk.told() == found


async def test_many_holes_found_together_are_one_notice(desk):
    await desk.bring(
        WHOLE.format("", "", "").replace("on_call,li,2027-01-01 00:00,24:00", "on_call,li,2027-01-01 08:00,20:00")
    )
    ((urgent, stage, holes),) = [one for one in await desk.told() if one[1] == "found"]
    assert (urgent, stage, set(holes)) == (0, "found", {("uncovered", "on_call")})
    total = await desk.database.read(lambda tx: tx.scalar(select(func.count()).select_from(duty_finding)))
    assert total == 14
    before = await desk.told()
    desk.clock.advance(seconds=60)
    assert await desk.told() == before


async def test_people_out_of_reach_and_closed_accounts_are_told_once_and_again_when_they_come_back(desk):
    await desk.bring(WHOLE.format("", "", ""))
    assert await desk.told() == []
    await desk.database.write(
        lambda tx: tx.execute(update(contact_point).where(contact_point.c.id == "an").values(failing_since=NOW))
    )
    assert sorted(await desk.told()) == [
        (0, "found", [("unreachable", "second_crew")]),
        (1, "begun", [("unreached", "second_crew")]),
    ]
    await desk.database.write(
        lambda tx: tx.execute(update(contact_point).where(contact_point.c.id == "an").values(failing_since=None))
    )
    assert len(await desk.told()) == 2
    desk.clock.advance(seconds=60)
    await desk.database.write(lambda tx: tx.execute(update(person).where(person.c.id == "an").values(disabled_at=NOW)))
    assert min(await desk.told()) == (0, "found", [("disabled", "second_crew")])
    assert await desk.database.read(lambda tx: duty.on_duty(tx, duty.SECOND_CREW, desk.clock.now_ms())) == []


async def test_plans_are_unrolled_ahead_in_bounded_steps_and_go_on_for_ever(desk):
    await desk.bring(WHOLE.format("", "", ""))
    longest = select(func.max(shift.c.until_at))
    assert await desk.database.read(lambda tx: tx.scalar(longest)) >= NOW + rows.AHEAD_MS - 2 * rows.DAY_MS
    for _ in range(20):  # a hundred days on, no day is missing and none is there twice
        desk.clock.advance(seconds=5 * 24 * HOUR_S)
        await desk.keeper.tick()
    assert await desk.told() == []
    starts = await desk.database.read(
        lambda tx: list(tx.scalars(select(shift.c.from_at).where(shift.c.person_id == "li").order_by(shift.c.from_at)))
    )
    assert len(starts) == len(set(starts))
    assert {later - earlier for earlier, later in pairwise(starts[1:])} == {rows.DAY_MS}


async def test_an_overlap_beyond_the_first_days_is_refused_before_the_keeper_came_that_far(desk):
    await desk.bring(WHOLE.format("", "", ""))
    with pytest.raises(ProblemError) as refused:
        await desk.bring("tier,person,from,until\nsecond_crew,li,2027-02-25 08:00,20:00\n", replace=False)
    assert refused.value.code == "bad_lines"
    assert await desk.database.read(lambda tx: tx.scalar(select(func.count()).select_from(duty_plan))) == 3


async def test_a_take_over_counts_for_the_next_call_at_once(desk):
    await desk.bring(WHOLE.format("", "", ""))

    async def on_call():
        at = desk.clock.now_ms()
        return [one.person_id for one in await desk.database.read(lambda tx: duty.on_duty(tx, duty.ON_CALL, at))]

    assert await on_call() == ["li"]
    body = TakeOverBody(from_person="li", to_person="sun", until=NOW + 2 * HOUR_S * 1000)
    await desk.service.take_over(body, ADMIN)
    assert await on_call() == ["sun"]
    desk.clock.advance(seconds=2 * HOUR_S)
    assert await on_call() == ["li"]


async def test_a_broken_plan_is_a_hole_and_stops_neither_the_other_plans_nor_calls(desk):
    await desk.bring(WHOLE.format("", "", ""))
    await desk.database.write(
        lambda tx: tx.execute(update(duty_plan).where(duty_plan.c.person_id == "an").values(calendar="not a calendar"))
    )
    assert await desk.told() == []
    desk.clock.advance(seconds=50 * 24 * HOUR_S)
    assert await desk.told() == [(0, "found", [("uncovered", "second_crew")])]
    answer = await desk.bring("tier,person,from,until\non_call,sun,2027-04-20 08:00,20:00\n", replace=False)
    assert answer.imported
    on_call = await desk.database.read(lambda tx: duty.on_duty(tx, duty.ON_CALL, desk.clock.now_ms()))
    assert [one.person_id for one in on_call] == ["li"]
