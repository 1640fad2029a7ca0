"""Who is told: people on duty, and through which of their own channels.

    an emergency       the audience of its level (`AUDIENCES`), each person over the own channels, stage after stage
    what came of it    everybody and every channel that was paged for it
    all else           people on duty one by one (`recipients`), as each of them wants it (`personal`)

A person can be reached who has a contact point that was verified, does not fail, and whose channel this
installation has. Channels that many read (inbox, webhook, group bots) carry every emergency in any case.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection, exists, select

from cloud.dispatch.letters import EMERGENCY, PERSON, PERSONAL_STAGES, row_of
from cloud.model import Notification
from cloud.roster import duty
from cloud.tables import contact_point, outbox, person
from fleet.clock import MILLISECONDS_PER_SECOND
from fleet.incident import Priority
from fleet.kind import Text

AUDIENCES: Final = {
    "on_call": Text("当班人员", "on-call crew"),
    "second_crew": Text("第二梯队", "second crew"),
    "duty_manager": Text("值班经理", "duty manager"),
    "everybody": Text("所有人", "everybody"),
}
"""Who is to act at each level of an escalation; the last one repeats."""
EVERYBODY: Final = "everybody"

STAGES_AFTER_S: Final = (0.0, 20.0, 40.0)
"""Business seconds after the page: push, chat and mail; SMS; voice. Somebody without one of them gets the next one
in its place, and so does somebody whose every earlier channel failed."""

_c = contact_point.c


@dataclass(frozen=True, slots=True)
class Contact:
    """One way to one person. `works`: verified there, and the latest attempts did not show it to be wrong."""

    id: str
    person_id: str
    channel: str
    works: bool


@dataclass(frozen=True, slots=True)
class Page:
    """Whom a page asks: the audience, its people, their contacts, and which audiences were passed over and why."""

    audience: str
    people: tuple[duty.OnDuty, ...] = ()
    contacts: tuple[Contact, ...] = ()
    passed_over: Mapping[str, str] = field(default_factory=dict)


def on_duty(tx: Connection, audience: str, at_ms: int) -> list[duty.OnDuty]:
    """The people of one audience, by id."""
    if audience != EVERYBODY:
        return duty.on_duty(tx, audience, at_ms)
    columns = (person.c.id, person.c.name, person.c.language)
    statement = select(*columns).where(person.c.role.in_(("crew", "admin")), person.c.disabled_at.is_(None))
    return [
        duty.OnDuty(row.id, row.name, row.language, None, duty.SKILLS)
        for row in tx.execute(statement.order_by(person.c.id))
    ]


def contacts(tx: Connection, people: Iterable[str], channels: Collection[str]) -> list[Contact]:
    """Verified ways to these people over channels that there are, by person and id."""
    wanted, ways = sorted(set(people)), sorted(PERSONAL_STAGES.keys() & set(channels))
    if not wanted or not ways:
        return []
    statement = (
        select(_c.id, _c.person_id, _c.channel, _c.failing_since)
        .where(_c.person_id.in_(wanted), _c.channel.in_(ways), _c.verified_at.is_not(None))
        .order_by(_c.person_id, _c.id)
    )
    return [Contact(row.id, row.person_id, row.channel, row.failing_since is None) for row in tx.execute(statement)]


def reachable(
    tx: Connection, people: Iterable[str], channels: Collection[str] = tuple(PERSONAL_STAGES)
) -> frozenset[str]:
    """Those of the people who have at least one contact point that works."""
    return frozenset(contact.person_id for contact in contacts(tx, people, channels) if contact.works)


def is_personal(tx: Connection, channels: Collection[str]) -> bool:
    """Whether anybody ever said how to be reached; until then the channels that many read are all there is."""
    ways = sorted(PERSONAL_STAGES.keys() & set(channels))
    known = select(_c.id).where(_c.verified_at.is_not(None), _c.channel.in_(ways))
    return bool(ways) and bool(tx.scalar(select(exists(known))))


def page(tx: Connection, level: int, channels: Collection[str], at_ms: int) -> Page:
    """Whom an emergency asks at this level. An audience that is empty or can't be reached is bridged by the next.

    Contacts of people that were passed over are tried all the same: they may work again.
    """
    names = list(AUDIENCES)[min(level, len(AUDIENCES) - 1) :]
    personal = is_personal(tx, channels)
    passed_over: dict[str, str] = {}
    tried: dict[str, Contact] = {}
    for name in names:
        people = tuple(on_duty(tx, name, at_ms))
        ways = contacts(tx, [one.person_id for one in people], channels)
        tried |= {way.id: way for way in ways}
        if people and (not personal or any(way.works for way in ways)):
            return Page(name, people, tuple(tried.values()), passed_over)
        passed_over[name] = "nobody can be reached" if people else "nobody is on duty"
    return Page(names[0], (), tuple(tried.values()), passed_over)


def personal_rows(
    notification: Notification, step: str, ways: Sequence[Contact], available_at: int, *, urgent: int = EMERGENCY
) -> list[dict[str, Any]]:
    """Rows that bring an emergency to people: stage after stage while nobody takes over (see `STAGES_AFTER_S`)."""
    by_person: defaultdict[str, list[Contact]] = defaultdict(list)
    for way in ways:
        by_person[way.person_id].append(way)
    rows = []
    for person_id, own in by_person.items():
        place = _places(own)
        for way in own:
            stage = PERSONAL_STAGES[way.channel]
            at = available_at + round(STAGES_AFTER_S[place[stage]] * MILLISECONDS_PER_SECOND)
            rows.append(
                row_of(
                    notification, step, way.channel, urgent=urgent, available_at=at, recipient=person_id,
                    contact_id=way.id, stage=stage,
                )
            )  # fmt: skip
    return rows


def _places(own: Sequence[Contact]) -> dict[int, int]:
    """Stage → which of the times it gets: a stage in which nothing works holds no later one back."""
    places: dict[int, int] = {}
    place = 0
    for stage in sorted({PERSONAL_STAGES[way.channel] for way in own}):
        places[stage] = place
        if any(way.works for way in own if PERSONAL_STAGES[way.channel] == stage):
            place += 1
    return places


def paged(tx: Connection, reference: str) -> list[Contact]:
    """Whom an emergency was brought to so far, or may have been: what became of it goes the same ways."""
    c = outbox.c
    statement = (
        select(c.contact_id, c.recipient, c.channel)
        .where(c.reference == reference, c.urgent == EMERGENCY, c.attempts > 0, c.contact_id != "")
        .distinct()
        .order_by(c.recipient, c.contact_id)
    )
    return [Contact(row.contact_id, row.recipient, row.channel, works=True) for row in tx.execute(statement)]


def recipients(tx: Connection, notification: Notification, at_ms: int) -> list[str]:
    """Who is to be told, one by one, of something that is no emergency; empty: the common channels are enough.

    An order goes to whom it was given, else like an alarm to those on call who have its skill; without anybody on
    call to the next audience that has people. Low priorities stay in the inbox.
    """
    if notification.priority == Priority.LOW.value:
        return []
    assigned = notification.facts.get("assigned_to")
    if assigned:
        return [str(assigned)]
    if notification.kind_of == "system":
        return [one.person_id for one in _first_with_people(tx, ("duty_manager", EVERYBODY), at_ms)]
    people = _first_with_people(tx, AUDIENCES, at_ms)
    skill = notification.facts.get("skill")
    able = [one for one in people if skill is None or skill in one.skills]
    return [one.person_id for one in able or people]


def system_rows(
    tx: Connection, notification: Notification, step: str, channels: Sequence[str], *, urgent: bool
) -> list[dict[str, Any]]:
    """Rows of a notice that the system itself needs people: for the duty manager, besides the common channels."""
    at = notification.created_at
    rows = [
        row_of(notification, step, channel, urgent=urgent, available_at=at)
        for channel in channels
        if channel != PERSON and channel not in PERSONAL_STAGES
    ]
    if PERSON not in channels:
        return rows
    people = [one.person_id for one in _first_with_people(tx, ("duty_manager", EVERYBODY), at)]
    if not urgent:
        return rows + [row_of(notification, step, PERSON, urgent=0, available_at=at, recipient=one) for one in people]
    # Nobody can acknowledge it, so it does not climb on to voices: all that is quiet goes at once.
    ways = [way for way in contacts(tx, people, channels) if way.channel != "voice"]
    return rows + [{**row, "available_at": at} for row in personal_rows(notification, step, ways, at)]


def _first_with_people(tx: Connection, audiences: Iterable[str], at_ms: int) -> list[duty.OnDuty]:
    for name in audiences:
        if people := on_duty(tx, name, at_ms):
            return people
    return []
