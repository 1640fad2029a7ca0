"""Brings a file into the roster: all of it or nothing, and first on paper.

`compare` says what an import would change, and names every line that stands in its way; `apply` does it. Both run
in the transaction of their caller. Time that has passed is never changed.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, Row, delete, insert, select, update

from cloud.roster import calendars, coverage, rows
from cloud.roster.calendars import CalendarError
from cloud.roster.coverage import Stretch
from cloud.roster.drafts import TIER_TEXTS, BadLine, Draft, Reading
from cloud.roster.duty import TIERS
from cloud.tables import crew, duty_plan, person
from fleet.kind import Text

ON_DUTY_ROLES = ("crew", "admin")
BAD_LINES_MAX = 200


@dataclass(frozen=True, slots=True)
class Planned:
    """A draft whose person or crew is known, with its occurrences from now on."""

    draft: Draft
    person_id: str | None
    crew_id: str | None
    times: Sequence[Stretch]

    def row(self) -> dict[str, Any]:
        """As `rows.unroll` wants a plan."""
        return {
            "id": self.draft.id, "tier": self.draft.tier, "person_id": self.person_id, "crew_id": self.crew_id,
        }  # fmt: skip


@dataclass(slots=True)
class Comparison:
    """What an import would do. `removed` are ids of plans; `take_overs_lost` counts agreed swaps that would go."""

    bad: list[BadLine]
    added: list[Planned] = field(default_factory=list)
    changed: list[Planned] = field(default_factory=list)
    unchanged: list[Planned] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    take_overs_lost: int = 0
    holes_before: dict[str, list[Stretch]] = field(default_factory=dict)
    holes_after: dict[str, list[Stretch]] = field(default_factory=dict)


def compare(
    tx: Connection, reading: Reading, now_ms: int, check_ms: int, *, replace: bool, zone: ZoneInfo
) -> Comparison:
    """What importing this would change.

    Args:
        tx: reading suffices.
        reading: the file.
        now_ms: business time; nothing before it changes.
        check_ms: how far ahead holes are compared.
        replace: plans that the file does not have end.
        zone: of the times in messages.
    """
    bad = list(reading.bad)
    planned = _resolve(tx, reading.drafts, now_ms, bad)
    existing = {row.id: row for row in rows.plans(tx)}
    found = Comparison(bad)
    _sort(planned, reading.drafts, existing, found, replace=replace)
    gone = {one.draft.id for one in found.changed} | set(found.removed)
    members = rows.members_by_crew(tx)
    stay = [dict(row._mapping) for row in rows.in_time(tx, now_ms, now_ms + rows.AHEAD_MS)]  # noqa: SLF001
    found.take_overs_lost = sum(row["plan_id"] in gone and row["stands_in_for"] is not None for row in stay)
    stay += rows.not_unrolled_yet(tx, now_ms)
    kept = [row for row in stay if row["plan_id"] not in gone]
    new = [
        (one, row)
        for one in (*found.added, *found.changed)
        for row in rows.unroll(one.row(), one.times, members, now_ms)
    ]
    _refuse_overlaps(kept, new, bad, zone)
    until = now_ms + check_ms
    found.holes_before = _holes(stay, now_ms, until)
    found.holes_after = _holes([*kept, *(row for _, row in new)], now_ms, until)
    bad.sort(key=lambda one: one.line)
    del bad[BAD_LINES_MAX:]
    return found


def _holes(shifts: Iterable[Mapping[str, Any]], now_ms: int, until_ms: int) -> dict[str, list[Stretch]]:
    by_tier: dict[str, list[Stretch]] = defaultdict(list)
    for row in shifts:
        if row.get("disabled_at") is None:
            by_tier[row["tier"]].append((row["from_at"], row["until_at"]))
    return {tier: coverage.holes(by_tier[tier], now_ms, until_ms) for tier in TIERS}


def _sort(
    planned: Sequence[Planned], drafts: Sequence[Draft], existing: Mapping[str, Row[Any]], found: Comparison,
    *, replace: bool,
) -> None:  # fmt: skip
    for one in planned:
        old = existing.get(one.draft.id)
        if one.draft.cancelled:
            if old is not None:
                found.removed.append(old.id)
        elif old is None:
            found.added.append(one)
        else:
            new = (one.draft.tier, one.person_id, one.crew_id, one.draft.calendar)
            same = new == (old.tier, old.person_id, old.crew_id, old.calendar)
            (found.unchanged if same else found.changed).append(one)
    if replace:
        named = {draft.id for draft in drafts}
        found.removed += [identity for identity in existing if identity not in named]


# --- who is meant ------------------------------------------------------------------------------------------------


def _resolve(tx: Connection, drafts: Sequence[Draft], now_ms: int, bad: list[BadLine]) -> list[Planned]:
    people = _by_words(tx.execute(select(person)).all(), ("id", "login", "name")) if drafts else {}
    crews = _by_words(tx.execute(select(crew)).all(), ("id", "name_zh", "name_en")) if drafts else {}
    members = rows.members_by_crew(tx)
    first: dict[str, int] = {}
    found: list[Planned] = []
    for draft in drafts:
        problem = None
        if draft.id in first:
            problem = (
                Text(f"与第 {first[draft.id]} 行的编号相同", f"it has the same id as line {first[draft.id]}"),
                Text("请删除重复行或修改编号", "remove one of them, or give it another id"),
            )
        first.setdefault(draft.id, draft.line)
        person_id = crew_id = None
        if problem is None and not draft.cancelled:
            person_id, crew_id, problem = _who(draft, people, crews, members)
        if problem is not None:
            bad.append(BadLine(draft.line, *problem))
            continue
        try:
            calendars.refuse_far(draft.calendar, now_ms)
            times = calendars.occurrences(draft.calendar, now_ms, now_ms + rows.AHEAD_MS)
        except CalendarError as error:
            bad.append(BadLine(draft.line, error.why, error.fix))
            continue
        found.append(Planned(draft, person_id, crew_id, times))
    return found


def _by_words(found: Sequence[Row[Any]], columns: Sequence[str]) -> dict[str, list[Row[Any]]]:
    """Rows by whatever people may call them; the id and the login win over a name."""
    by_word: dict[str, list[Row[Any]]] = {}
    for column in columns:
        new: dict[str, list[Row[Any]]] = defaultdict(list)
        for row in found:
            new[str(getattr(row, column)).lower()].append(row)
        for word, those in new.items():
            by_word.setdefault(word, those)
    return by_word


_Problem = tuple[Text, Text]


def _who(
    draft: Draft, people: dict[str, list[Row[Any]]], crews: dict[str, list[Row[Any]]], members: dict[str, list[str]]
) -> tuple[str | None, str | None, _Problem | None]:
    word = draft.person or draft.crew
    found = (people if draft.person else crews).get(word.lower(), [])
    if draft.person:
        found = [row for row in found if row.disabled_at is None] or found
    if len(found) != 1:
        return None, None, _not_one(draft, word, found)
    row = found[0]
    if draft.crew:
        if not members.get(row.id):
            return None, None, (
                Text(f"班组 {word} 没有成员", f"the crew {word!r} has no members"),
                Text("请先在“值班”页为班组添加成员", "add people to it first: fleet roster member"),
            )  # fmt: skip
        return None, row.id, None
    if row.disabled_at is not None:
        return None, None, (
            Text(f"{word} 的账号已停用", f"the account of {word!r} is disabled"),
            Text("请改派其他人", "plan somebody else"),
        )  # fmt: skip
    if row.role not in ON_DUTY_ROLES:
        return None, None, (
            Text(f"{word} 不是维护人员或管理员", f"{word!r} is neither crew nor admin"),
            Text("请改派维护人员或管理员", "plan a member of the crew or an admin"),
        )  # fmt: skip
    return row.id, None, None


def _not_one(draft: Draft, word: str, found: Sequence[Row[Any]]) -> _Problem:
    what = Text("人员", "person") if draft.person else Text("班组", "crew")
    if not found:
        command = "fleet people list" if draft.person else "fleet roster crews"
        return (
            Text(f"没有{what.zh} {word}", f"there is no {what.en} {word!r}"),
            Text("请核对登录名或编号", f"write the login or the id, see: {command}"),
        )
    choices = ", ".join(sorted(row.login if draft.person else row.id for row in found)[:5])
    return (
        Text(f"{word} 不唯一", f"{word!r} may be several"),
        Text(f"请改写为其中之一：{choices}", f"write one of: {choices}"),
    )


# --- nobody twice at once ----------------------------------------------------------------------------------------


def _refuse_overlaps(
    kept: Sequence[Mapping[str, Any]],
    new: Sequence[tuple[Planned, Mapping[str, Any]]],
    bad: list[BadLine],
    zone: ZoneInfo,
) -> None:
    """Name each line whose shifts overlap others of the same person, once per person and other plan."""
    by_person: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    for mark, row in enumerate(kept):
        by_person[row["person_id"]].append((row["from_at"], row["until_at"], -mark - 1))
    for mark, (_, fresh) in enumerate(new):
        by_person[fresh["person_id"]].append((fresh["from_at"], fresh["until_at"], mark))
    said: set[tuple[int, str, str]] = set()
    for person_id, stretches in by_person.items():
        for one, other in coverage.overlaps(stretches):
            if one < 0 and other < 0:
                continue  # an old overlap, not this file's: the check names it
            mine, against = (other, one) if other >= 0 else (one, other)
            planned, fresh = new[mine]
            if against < 0:
                old = kept[-against - 1]
                tier = TIER_TEXTS[old["tier"]]
                place = Text(f"已有的{tier.zh}班次", f"a shift as {old['tier']} that is planned already")
                key = (planned.draft.line, person_id, old["plan_id"])
            else:
                line = new[against][0].draft.line
                place = Text(f"第 {line} 行", f"line {line}")
                key = (planned.draft.line, person_id, str(line))
            if key in said:
                continue
            said.add(key)
            who = planned.draft.person or person_id
            when = f"{calendars.moment_of(fresh['from_at'], zone):%m-%d %H:%M}"
            why = Text(f"{who} 的班次与{place.zh}重叠（{when}）", f"shifts of {who!r} overlap {place.en} ({when})")
            bad.append(BadLine(planned.draft.line, why, _OVERLAP_FIX))


_OVERLAP_FIX: Final = Text(
    "一人同一时间只能有一个班次：请更正时间或人员",
    "nobody is on duty twice at once: change the times or the person",
)


# --- doing it ----------------------------------------------------------------------------------------------------


def apply(tx: Connection, found: Comparison, actor: str, now_ms: int) -> None:
    """Make the roster what `compare` said; it must have found nothing bad, in the same transaction.

    Shifts are written for `rows.FIRST_MS`; `rows.keep_ahead` writes the later ones.
    """
    if found.bad:
        raise ValueError("a file with bad lines is not imported")
    gone = [one.draft.id for one in found.changed] + found.removed
    if gone:
        rows.end_from(tx, gone, now_ms)
    if found.removed:
        tx.execute(update(duty_plan).where(duty_plan.c.id.in_(found.removed)).values(ended_at=now_ms))
    members = rows.members_by_crew(tx)
    until = now_ms + rows.FIRST_MS
    plans: list[dict[str, Any]] = []
    shifts: list[dict[str, Any]] = []
    for one in (*found.added, *found.changed):
        plans.append(
            {**one.row(), "calendar": one.draft.calendar, "expanded_until": until, "created_at": now_ms,
             "created_by": actor, "ended_at": None}
        )  # fmt: skip
        shifts += rows.unroll(one.row(), [time for time in one.times if time[0] < until], members, now_ms)
    if plans:  # also those that ended once and are back
        tx.execute(delete(duty_plan).where(duty_plan.c.id.in_([one["id"] for one in plans])))
        tx.execute(insert(duty_plan), plans)
    rows.add(tx, shifts)
