"""Crews, what their members can do, who is on duty when, and what was handed over.

A plan is what was imported or entered, a shift is one person's time on duty that follows from it. Nobody is on duty
twice at once, whatever the tier; `cloud.roster` keeps that.
"""

from sqlalchemy import CheckConstraint, Column, ForeignKey, Index, Integer, Text, text

from cloud.tables.base import Ms, Real, table

crew = table(
    "crew",
    Column("id", Text, primary_key=True),
    Column("name_zh", Text, nullable=False),
    Column("name_en", Text, nullable=False),
    Column("latitude", Real, nullable=False),  # home base, WGS-84: where its rounds begin and end
    Column("longitude", Real, nullable=False),
    Column("vehicle_capacity", Integer, nullable=False),  # boxes, or batteries
    Column("created_at", Ms, nullable=False),
    CheckConstraint("vehicle_capacity >= 0", name="crew_capacity_positive"),
)

crew_member = table(  # at most one crew each; a person without a row has every skill and no crew
    "crew_member",
    Column("person_id", Text, ForeignKey("person.id"), primary_key=True),
    Column("crew_id", Text, ForeignKey("crew.id"), index=True),
    Column("skills", Text, nullable=False),  # comma-separated, as in fleet.kind.Skill
)

duty_plan = table(
    "duty_plan",
    Column("id", Text, primary_key=True),  # UID of the calendar, or made from the line of the table
    Column("tier", Text, nullable=False),
    Column("person_id", Text, ForeignKey("person.id"), index=True),
    Column("crew_id", Text, ForeignKey("crew.id"), index=True),
    Column("calendar", Text, nullable=False),  # iCalendar, with the rule and the exceptions
    Column("expanded_until", Ms, nullable=False),  # shifts exist up to here; moved on by the roster's keeper
    Column("created_at", Ms, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("ended_at", Ms),  # no shift follows from it any more
    CheckConstraint("(person_id IS NULL) <> (crew_id IS NULL)", name="duty_plan_of_one"),
)

shift = table(
    "shift",
    Column("id", Text, primary_key=True),
    Column("plan_id", Text, nullable=False, index=True),
    Column("tier", Text, nullable=False),
    Column("person_id", Text, ForeignKey("person.id"), nullable=False),
    Column("crew_id", Text),  # of whose shift it is a part; None: the person's own
    Column("from_at", Ms, nullable=False),
    Column("until_at", Ms, nullable=False),  # the first ms that is no longer covered
    Column("stands_in_for", Text),  # the person who was planned, after a take-over
    CheckConstraint("until_at > from_at", name="shift_lasts"),
    CheckConstraint("tier IN ('on_call', 'second_crew', 'duty_manager')", name="shift_tier_known"),
    Index("shift_by_tier", "tier", "from_at", "until_at", "person_id"),
    Index("shift_by_person", "person_id", "from_at"),
)

duty_handover = table(
    "duty_handover",
    Column("id", Text, primary_key=True),
    Column("tier", Text, nullable=False),
    Column("left_by", Text, ForeignKey("person.id"), nullable=False),
    Column("left_at", Ms, nullable=False),
    Column("note", Text, nullable=False),
    Column("open_items", Text, nullable=False),  # JSON list: calls, alarms and orders that were open then
    Column("confirmed_by", Text),
    Column("confirmed_at", Ms),
    Index("duty_handover_by_time", "left_at"),
)

duty_finding = table(  # what the check found wrong, and what of it people were told
    "duty_finding",
    Column("what", Text, primary_key=True),  # uncovered, unreachable
    Column("tier", Text, primary_key=True),
    Column("person_id", Text, primary_key=True, server_default=text("''")),
    Column("from_at", Ms, primary_key=True),
    Column("until_at", Ms, nullable=False),
    Column("announced_at", Ms, nullable=False),
    Column("reminded_at", Ms),
    Column("begun_at", Ms),
    Column("ended_at", Ms),
)

calendar_feed = table(  # the address under which somebody's calendar program reads their shifts
    "calendar_feed",
    Column("person_id", Text, ForeignKey("person.id"), primary_key=True),
    Column("token_hash", Text, nullable=False, unique=True),
    Column("made_at", Ms, nullable=False),
)
