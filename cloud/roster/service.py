"""People on duty: reading the roster, importing it, swapping, handing over. Writes are one transaction each."""

import hashlib
import secrets
from collections.abc import Callable, Sequence
from typing import Any, Final
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, Row, delete, func, insert, or_, select

from cloud import audit
from cloud.api.access import Person, Role
from cloud.api.changes import Changes
from cloud.api.problem import ProblemError, conflict, not_found
from cloud.dispatch.letters import INBOX
from cloud.ports import Database
from cloud.roster import (
    calendar_file,
    check,
    crews,
    duty,
    exports,
    handover,
    imports,
    rows,
    swaps,
    table_file,
    told,
    views,
)
from cloud.roster.crews import Crew, TwiceOnDutyError
from cloud.roster.drafts import BYTES_MAX, Reading
from cloud.roster.schemas import (
    CheckAnswer,
    CrewBody,
    CrewList,
    FeedAnswer,
    FileFormat,
    HandoverAnswer,
    HandoverList,
    ImportAnswer,
    MemberBody,
    NowAnswer,
    RosterAnswer,
    TakeOverBody,
)
from cloud.tables import audit as audit_lines
from cloud.tables import calendar_feed, person
from fleet.clock import Clock

TOPIC: Final = "roster"
DEFAULT_ZONE: Final = ZoneInfo("Asia/Shanghai")
FEED_PAST_MS: Final = 30 * rows.DAY_MS
CREWS_MAX: Final = 200
LOOKS_MAX: Final = 3
CHANGING: Final = ("roster.import", "roster.take_over", "crew.", "person.")


class RosterService:
    """One per process. `on_changed` wakes whoever unrolls and checks the roster, `wake_outbox` whoever tells people."""

    def __init__(self, database: Database, clock: Clock, changes: Changes, zone: ZoneInfo = DEFAULT_ZONE) -> None:
        self._database = database
        self._clock = clock
        self._changes = changes
        self.zone = zone
        self.on_changed: Callable[[], None] = lambda: None
        self.wake_outbox: Callable[[], None] = lambda: None
        self.channels: Sequence[str] = (INBOX,)

    # --- reading ---------------------------------------------------------------------------------------------

    async def now(self) -> NowAnswer:
        """Who is on call now, and who comes next."""
        at = self._clock.now_ms()
        return await self._database.read(lambda tx: views.now(tx, at))

    async def roster(self, days: int, from_ms: int | None = None, person_id: str | None = None) -> RosterAnswer:
        """Shifts from now (or `from_ms`) on; of everybody or of one person."""
        begin = self._clock.now_ms() if from_ms is None else from_ms
        return await self._database.read(lambda tx: views.roster(tx, begin, begin + days * rows.DAY_MS, person_id))

    async def check(self, days: int = check.DAYS) -> CheckAnswer:
        """Whether the next days are covered by people who can be reached."""
        at = self._clock.now_ms()
        return views.checked(await self._database.read(lambda tx: check.check(tx, at, at + days * rows.DAY_MS)))

    # --- files -----------------------------------------------------------------------------------------------

    async def import_file(
        self, raw: bytes, file_format: FileFormat, actor: Person, *, dry_run: bool, replace: bool
    ) -> ImportAnswer:
        """Compare a file with the roster, and take it over unless `dry_run`: all of it or nothing.

        Raises:
            ProblemError: 413 too large; 422 with `lines` when a line is bad (not for a dry run, whose answer has them).
        """
        if len(raw) > BYTES_MAX:
            raise ProblemError(413, "too_large", "Too large", f"Send at most {BYTES_MAX} bytes.")
        for _ in range(LOOKS_MAX):
            answer = await self._try_import(raw, file_format, actor, dry_run=dry_run, replace=replace)
            if answer is not None:
                break
        else:
            raise conflict("roster_busy", "Somebody else changes the roster at this moment; try again.")
        if answer.imported:
            await rows.keep_ahead(self._database, self._clock.now_ms())
            self._changed()
        return answer

    async def _try_import(
        self, raw: bytes, file_format: FileFormat, actor: Person, *, dry_run: bool, replace: bool
    ) -> ImportAnswer | None:
        """None: the roster changed between looking and writing.

        Looking takes a while with a large file, so it happens in a reading transaction, off the event loop; the writing
        one, which the commits of calls may have to wait for, only makes sure that nothing has changed since.
        """
        at = self._clock.now_ms()

        def look(tx: Connection) -> tuple[imports.Comparison, dict[str, Row[Any]], int]:
            existing = {row.id: row for row in rows.plans(tx)}
            reading = self._read(raw, file_format)
            found = imports.compare(tx, reading, at, check.DAYS * rows.DAY_MS, replace=replace, zone=self.zone)
            return found, existing, tx.scalar(select(func.max(audit_lines.c.id))) or 0

        found, existing, last_line = await self._database.read(look)
        answer = views.imported(found, existing, done=not dry_run and not found.bad)
        if dry_run:
            return answer
        if answer.bad:
            raise _bad_lines(answer)

        def work(tx: Connection) -> ImportAnswer | None:
            # Whatever people do to a roster stands in the audit.
            newer = (audit_lines.c.id > last_line) & or_(*(audit_lines.c.action.startswith(one) for one in CHANGING))
            if tx.scalar(select(audit_lines.c.id).where(newer).limit(1)) is not None:
                return None
            imports.apply(tx, found, actor.id, at)
            facts = {
                "format": file_format.value, "replace": replace, "added": [one.id for one in answer.added],
                "changed": [one.id for one in answer.changed], "removed": found.removed,
                "unchanged": answer.unchanged_count, "sha256": hashlib.sha256(raw).hexdigest(),
            }  # fmt: skip
            audit.record(tx, at, actor.id, "roster.import", "roster", facts)
            return answer

        return await self._database.write(work)

    def _read(self, raw: bytes, file_format: FileFormat) -> Reading:
        if file_format is FileFormat.ICAL:
            return calendar_file.read(raw, self.zone)
        return table_file.read(raw, self.zone)

    async def export(self, file_format: FileFormat) -> bytes:
        """All plans, as `import_file` takes them back."""
        if file_format is FileFormat.ICAL:
            return await self._database.read(exports.as_calendar)
        at = self._clock.now_ms()
        return await self._database.read(lambda tx: exports.as_table(tx, self.zone, at))

    # --- swaps and hand-overs ----------------------------------------------------------------------------------

    async def take_over(self, body: TakeOverBody, actor: Person) -> RosterAnswer:
        """Somebody does (the rest of) another's shift; members of the crew take over for themselves alone.

        Whoever's shift it is and did not ask for it is told. Returns who is planned in that time now.

        Raises:
            ProblemError: 403, 404, 409 or 422, each with its reason.
        """
        at = self._clock.now_ms()

        def work(tx: Connection) -> RosterAnswer:
            giver = _person(tx, body.from_person)
            taker = _person(tx, body.to_person) if body.to_person else _person(tx, actor.id)
            if actor.role is not Role.ADMIN and taker.id != actor.id:
                raise ProblemError(403, "not_your_shift", "Not allowed", "Take over shifts yourself, or ask an admin.")
            begin, end, tiers = swaps.take_over(tx, giver, taker, body.at, body.until, at, self.zone)
            facts = {"from_person": giver.id, "to_person": taker.id, "at": begin, "until": end, "tiers": tiers}
            audit.record(tx, at, actor.id, "roster.take_over", giver.id, facts)
            told.swap(tx, giver, taker, actor.id, tiers, (begin, end), at, self.zone, self.channels)
            return views.roster(tx, begin, end, taker.id)

        answer = await self._database.write(work)
        self.wake_outbox()
        self._changed()
        return answer

    async def leave(self, tier: str, note: str, actor: Person) -> HandoverAnswer:
        """Hand over: what is open is listed by itself.

        Raises:
            ProblemError: 409 for somebody who is not, and was not lately, on duty in that tier.
        """
        at = self._clock.now_ms()
        identity = secrets.token_hex(16)

        def work(tx: Connection) -> HandoverAnswer:
            if actor.role is not Role.ADMIN and not swaps.was_on_duty(tx, actor.id, tier, at):
                raise conflict("not_on_duty", f"You are not on duty as {tier}.")
            handover.leave(tx, identity, tier, actor.id, note, at)
            audit.record(tx, at, actor.id, "roster.leave", identity, {"tier": tier, "note": note})
            row = handover.one(tx, identity)
            assert row is not None, "it was written by this transaction"
            return views.handover(row)

        answer = await self._database.write(work)
        self._changed(identity)
        return answer

    async def confirm(self, identity: str, actor: Person) -> HandoverAnswer:
        """The next one has read it.

        Raises:
            ProblemError: 404; 409 when it is confirmed, one's own, or the asker is not on duty in that tier.
        """
        at = self._clock.now_ms()

        def work(tx: Connection) -> HandoverAnswer:
            row = handover.one(tx, identity)
            if row is None:
                raise not_found("hand-over", identity)
            if row.left_by == actor.id:
                raise conflict("own_handover", "Who goes can't confirm; the one who comes does.")
            if actor.role is not Role.ADMIN and not swaps.is_on_duty(tx, actor.id, row.tier, at):
                raise conflict("not_on_duty", f"You are not on duty as {row.tier}.")
            if not handover.confirm(tx, identity, actor.id, at):
                raise conflict("confirmed_already", f"{row.confirmed_by_name or 'Somebody'} has confirmed it already.")
            audit.record(tx, at, actor.id, "roster.confirm", identity, {"tier": row.tier})
            done = handover.one(tx, identity)
            assert done is not None, "it is there"
            return views.handover(done)

        answer = await self._database.write(work)
        self._changed(identity)
        return answer

    async def handovers(self) -> HandoverList:
        """The latest first."""
        found = await self._database.read(handover.latest)
        return HandoverList(handovers=[views.handover(row) for row in found])

    # --- crews -----------------------------------------------------------------------------------------------

    async def crews(self) -> CrewList:
        """Crews and members."""
        return await self._database.read(views.crew_list)

    async def put_crew(self, crew_id: str, body: CrewBody, actor: Person) -> CrewList:
        """Make or change a crew. Raises ProblemError 409 at the bound."""
        at = self._clock.now_ms()

        def work(tx: Connection) -> CrewList:
            known = crews.crews(tx)
            if len(known) >= CREWS_MAX and crew_id not in {one.id for one in known}:
                raise conflict("too_many_crews", f"There are {CREWS_MAX} crews already.")
            new = crews.put_crew(tx, Crew(id=crew_id, **body.model_dump()), at)
            audit.record(tx, at, actor.id, "crew.create" if new else "crew.change", crew_id, body.model_dump())
            return views.crew_list(tx)

        return await self._write_crews(work)

    async def remove_crew(self, crew_id: str, actor: Person) -> CrewList:
        """Remove an empty crew that was never planned; raises ProblemError 404 or 409."""
        at = self._clock.now_ms()

        def work(tx: Connection) -> CrewList:
            if crews.in_use(tx, crew_id):
                raise conflict("crew_in_use", "It has members, or stands in the roster: take them out first.")
            if not crews.remove_crew(tx, crew_id):
                raise not_found("crew", crew_id)
            audit.record(tx, at, actor.id, "crew.remove", crew_id, {})
            return views.crew_list(tx)

        return await self._write_crews(work)

    async def put_member(self, word: str, body: MemberBody, actor: Person) -> CrewList:
        """Set somebody's crew and skills; they gain and lose the crews' shifts from now on.

        Raises:
            ProblemError: 404; 409 when they would be on duty twice at once; 422 for employees.
        """
        at = self._clock.now_ms()

        def work(tx: Connection) -> CrewList:
            row = _person(tx, word)
            if body.crew_id is not None and body.crew_id not in {one.id for one in crews.crews(tx)}:
                raise not_found("crew", body.crew_id)
            swaps.refuse_unfit(row)
            skills = duty.SKILLS if body.skills is None else body.skills
            try:
                crews.put_member(tx, row.id, body.crew_id, sorted(skills), at)
            except TwiceOnDutyError as twice:
                raise swaps.twice(row.name, twice.row, self.zone) from None
            audit.record(tx, at, actor.id, "crew.member", row.id, {"crew": body.crew_id, "skills": sorted(skills)})
            return views.crew_list(tx)

        return await self._write_crews(work)

    async def _write_crews(self, work: Callable[[Connection], CrewList]) -> CrewList:
        answer = await self._database.write(work)
        self._changed()
        return answer

    # --- calendars ---------------------------------------------------------------------------------------------

    async def new_feed(self, actor: Person) -> FeedAnswer:
        """A new secret address of one's own shifts; the one before ends."""
        at = self._clock.now_ms()
        token = secrets.token_urlsafe(32)

        def work(tx: Connection) -> None:
            tx.execute(delete(calendar_feed).where(calendar_feed.c.person_id == actor.id))
            tx.execute(insert(calendar_feed).values(person_id=actor.id, token_hash=_hash(token), made_at=at))
            audit.record(tx, at, actor.id, "roster.feed", actor.id, {})

        await self._database.write(work)
        return FeedAnswer(path=f"/api/v1/roster/calendar.ics?token={token}")

    async def feed(self, token: str) -> bytes:
        """The shifts of who owns this address; raises ProblemError 404 for any other, and for closed accounts."""
        at = self._clock.now_ms()

        def read(tx: Connection) -> bytes:
            joined = calendar_feed.join(person, person.c.id == calendar_feed.c.person_id)
            mine = (calendar_feed.c.token_hash == _hash(token)) & person.c.disabled_at.is_(None)
            row = tx.execute(select(person).select_from(joined).where(mine)).one_or_none()
            if row is None:
                raise not_found("calendar", "with this token")
            found = rows.of_person(tx, row.id, at - FEED_PAST_MS, at + rows.AHEAD_MS)
            shifts = ((one.id, one.tier, one.from_at, one.until_at) for one in found)
            return calendar_file.feed(shifts, self.zone, row.language)

        return await self._database.read(read)

    def _changed(self, identity: str = "roster") -> None:
        self._changes.publish(TOPIC, {"id": identity})
        self.on_changed()


def _bad_lines(answer: ImportAnswer) -> ProblemError:
    first = answer.bad[0]
    detail = f"line {first.line}: {first.why.en}; {first.fix.en}. Nothing was imported."
    lines = [one.model_dump() for one in answer.bad]
    return ProblemError(422, "bad_lines", "The file can't be imported", detail, lines=lines)


def _person(tx: Connection, word: str) -> Row[Any]:
    """Somebody by id or login; raises ProblemError 404."""
    found = tx.execute(select(person).where(or_(person.c.id == word, person.c.login == word))).all()
    if len(found) != 1:
        raise not_found("person", word)
    return found[0]


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
