"""Reading the fleet, ordering commands, enrolling and retiring."""

import json
from collections import OrderedDict
from collections.abc import AsyncIterator, Collection
from typing import Any, Final

from pydantic import ValidationError
from sqlalchemy import Connection, Row
from sqlalchemy.exc import IntegrityError

import devices
from cloud import audit
from cloud.api.access import Person, Role
from cloud.api.problem import ProblemError, conflict, not_found
from cloud.devices import repository
from cloud.devices.link_rows import LinkRows, Moment, read_link
from cloud.devices.schemas import EnrolBody
from cloud.ports import (
    CommandQueueFullError,
    CommandSender,
    Database,
    IntentRefusedError,
    LaneIntents,
    SeriesError,
    SeriesStore,
)
from devices import UnknownKindError
from fleet.clock import MILLISECONDS_PER_SECOND, Clock
from fleet.kind import Kind
from fleet.messages import Command

TWIN_DELAY_S: Final = 2.0
"""Real seconds that a reading may need to reach its twin; on a fast clock this is not nothing."""
SERIES_POINTS_MAX: Final = 5000
EXPORT_ROWS: Final = 1000
COMMAND_WAIT_S_MAX: Final = 30.0
SAME_LOOK_S: Final = 600.0
LOOKS_MAX: Final = 1000


class DeviceService:
    """Devices as people see them. What changes a device's state goes through its lane, never through here."""

    def __init__(
        self, database: Database, clock: Clock, series: SeriesStore, commands: CommandSender, intents: LaneIntents
    ) -> None:
        self._database = database
        self._clock = clock
        self._series = series
        self._commands = commands
        self._intents = intents
        self._looks: OrderedDict[tuple[str, str], float] = OrderedDict()

    def now_ms(self) -> int:
        """Business time."""
        return self._clock.now_ms()

    def heard_since(self) -> dict[str, int]:
        """Kind → the moment since which a device must have been heard not to count as silent."""
        now_ms = self._clock.now_ms()
        delay_s = TWIN_DELAY_S * self._clock.speed
        return {
            name: now_ms - round((kind.silent_after_s + delay_s) * MILLISECONDS_PER_SECOND)
            for name, kind in devices.kinds().items()
        }

    async def counts(self) -> tuple[dict[str, tuple[int, int]], tuple[int, int, int]]:
        """(kind → (total, online), (open calls, alarms, orders)) on one snapshot."""
        heard_since = self.heard_since()
        return await self._database.read(
            lambda tx: (repository.count_by_kind(tx, heard_since), repository.count_open(tx))
        )

    async def lines(self, *, kind: str, words: str, status: str, after: str, limit: int) -> list[Row[Any]]:
        """One page of devices; see `repository.lines`."""
        heard_since = self.heard_since()
        return await self._database.read(
            lambda tx: repository.lines(
                tx, heard_since, kind=kind, words=words, status=status, after=after, limit=limit
            )
        )

    def moment(self) -> Moment:
        """Now, and how far what is stored may be behind."""
        return Moment(self._clock.now_ms(), round(TWIN_DELAY_S * MILLISECONDS_PER_SECOND * self._clock.speed))

    async def link_rows(self, device_id: str) -> LinkRows:
        """What is stored about a device's data link; raises ProblemError 404."""
        rows = await self._database.read(lambda tx: read_link(tx, device_id))
        if rows is None:
            raise not_found("device", device_id)
        return rows

    async def everything_about(
        self, device_id: str
    ) -> tuple[Row[Any], list[Row[Any]], list[Row[Any]], list[Row[Any]], Moment]:
        """(device with twin, open calls, alarms, orders, when that was); raises ProblemError 404."""
        heard_since = self.heard_since()

        def read(tx: Connection) -> tuple[Row[Any] | None, list[Row[Any]], list[Row[Any]], list[Row[Any]]]:
            return (
                repository.line(tx, heard_since, device_id),
                repository.open_calls(tx, device_id),
                repository.open_alarms(tx, device_id),
                repository.open_orders(tx, device_id),
            )

        row, calls, alarms, orders = await self._database.read(read)
        if row is None:
            raise not_found("device", device_id)
        return row, calls, alarms, orders, self.moment()

    async def series(
        self, device_id: str, field: str, from_ms: int, to_ms: int, step_s: int
    ) -> tuple[str, list[tuple[int, float]]]:
        """(unit, buckets of means). Raises ProblemError 404, 422 for a wrong field or range, 503 without the store."""
        kind = await self.kind_of(device_id)
        unit = numeric_fields(kind).get(field)
        if unit is None:
            raise ProblemError(
                422, "unknown_field", "No such field", f"Numbers of {kind.name}: {', '.join(numeric_fields(kind))}."
            )
        step_ms = step_s * MILLISECONDS_PER_SECOND
        if to_ms <= from_ms or (to_ms - from_ms) // step_ms > SERIES_POINTS_MAX:
            raise ProblemError(
                422, "bad_range", "Range not usable", f"from < to, and at most {SERIES_POINTS_MAX} steps between them."
            )
        try:
            return unit, await self._series.read(kind.name, device_id, field, from_ms, to_ms, step_ms)
        except SeriesError as error:
            raise ProblemError(503, "series_unavailable", "The time series do not answer", str(error)) from error

    async def events(self, device_id: str, before: int | None, limit: int, person: Person) -> list[Row[Any]]:
        """Events newest first. Looking at the history of a place with a call button is audited."""
        kind = await self.kind_of(device_id)
        if kind.emergency and self._is_news(person.id, device_id):
            now_ms = self._clock.now_ms()
            await self._database.write(
                lambda tx: audit.record(tx, now_ms, person.id, "device.view_history", device_id, {})
            )
        return await self._database.read(lambda tx: repository.events_of(tx, device_id, before, limit))

    def _is_news(self, person_id: str, device_id: str) -> bool:
        """Whether this look is worth a line: an open page that refreshes itself is one look."""
        now_s = self._clock.monotonic_s()
        looked_s = self._looks.pop((person_id, device_id), None)
        same_look = looked_s is not None and now_s - looked_s < SAME_LOOK_S
        self._looks[person_id, device_id] = looked_s if looked_s is not None and same_look else now_s
        while len(self._looks) > LOOKS_MAX:  # what is forgotten is written down once more, never left out
            self._looks.popitem(last=False)
        return not same_look

    async def note_export(self, person: Person) -> None:
        """Write down who takes every device's history away, the rooms' among it; before the first line leaves."""
        at = self._clock.now_ms()
        await self._database.write(lambda tx: audit.record(tx, at, person.id, "event.export", "*", {}))

    async def export_events(self) -> AsyncIterator[bytes]:
        """Every event as one JSON object per line, in the order stored; pages of `EXPORT_ROWS`."""
        after = 0
        while rows := await self._events_after(after):
            yield b"".join(json.dumps(dict(row._mapping)).encode() + b"\n" for row in rows)  # noqa: SLF001  # SQLAlchemy's public name
            after = rows[-1].id

    async def _events_after(self, after: int) -> list[Row[Any]]:
        return await self._database.read(lambda tx: repository.events_after(tx, after, EXPORT_ROWS))

    async def kind_of(self, device_id: str) -> Kind:
        """Raises ProblemError 404 for an unknown device or one whose kind is not installed here."""
        row = await self._database.read(lambda tx: repository.device_row(tx, device_id))
        if row is None:
            raise not_found("device", device_id)
        try:
            return devices.kind_named(row.kind)
        except UnknownKindError:
            raise not_found("kind", row.kind) from None

    # --- commands ----------------------------------------------------------------------------------------------

    async def command(self, device_id: str, body: dict[str, Any], person: Person) -> str:
        """Order a command; returns its id.

        Raises:
            ProblemError: 404, 403 for a role that may not, 422 for wrong arguments, 409 when the device can't take
                it, 429 when too many of this person's commands have no end yet.
        """
        kind = await self.kind_of(device_id)
        command = parse_command(kind, body)
        if person.role.value not in command.roles:
            raise ProblemError(
                403,
                "not_allowed",
                "Not allowed",
                f"{command.action} needs the role {' or '.join(sorted(command.roles))}.",
            )
        now_ms = self._clock.now_ms()

        def order(tx: Connection) -> str:
            row = repository.device_row(tx, device_id)
            if row is None or row.retired_at is not None:
                raise conflict("retired", f"{device_id} is retired and takes no commands.")
            if row.revoked_at is not None:
                raise conflict("revoked", f"{device_id} is revoked and takes no commands; enrol it anew.")
            command_id = self._commands.order(tx, device_id, command, actor=person.id)
            detail = {"action": command.action, "command_id": command_id}
            audit.record(tx, now_ms, person.id, "device.command", device_id, detail)
            return command_id

        try:
            command_id = await self._database.write(order)
        except LookupError:
            raise not_found("device", device_id) from None
        except CommandQueueFullError as error:
            if error.bound == "actor":
                raise ProblemError(429, "too_many_commands", "Too many commands", str(error)) from error
            raise conflict("not_taken", str(error)) from error
        except ValueError as error:
            raise conflict("not_taken", str(error)) from error
        self._commands.after_commit()
        return command_id

    async def command_row(self, command_id: str, person: Person, wait_s: float = 0.0) -> Row[Any]:
        """A command, waiting up to `wait_s` real seconds for its end. Employees see their own only."""
        heard_since = self.heard_since()
        row = await self._database.read(lambda tx: repository.command_row(tx, heard_since, command_id))
        if row is None or (person.role == Role.EMPLOYEE and row.actor != person.id):
            raise not_found("command", command_id)
        if wait_s > 0:
            await self._commands.outcome(command_id, min(wait_s, COMMAND_WAIT_S_MAX))
            heard_since = self.heard_since()
            row = await self._database.read(lambda tx: repository.command_row(tx, heard_since, command_id))
            assert row is not None
        return row

    async def commands_of(
        self, device_id: str, limit: int, *, before: int | None = None, statuses: Collection[str] = (), action: str = ""
    ) -> list[Row[Any]]:
        """A device's commands, newest first; see `repository.commands_of`."""
        heard_since = self.heard_since()
        return await self._database.read(
            lambda tx: repository.commands_of(
                tx, heard_since, device_id, before, limit, statuses=statuses, action=action
            )
        )

    async def cancel_command(self, command_id: str, person: Person) -> Row[Any]:
        """End a command that has not left for its device; one's own, or as admin anybody's.

        Raises:
            ProblemError: 404, 403, 409 when it has left or is over.
        """
        row = await self.command_row(command_id, person)
        if person.role is not Role.ADMIN and row.actor != person.id:
            raise ProblemError(403, "not_allowed", "Not allowed", "Only who sent a command, or an admin, cancels it.")
        now_ms = self._clock.now_ms()

        def note(tx: Connection) -> None:
            audit.record(tx, now_ms, person.id, "device.cancel_command", row.device_id, {"command_id": command_id})

        if not await self._commands.cancel(command_id, note):
            raise conflict(
                "already_sent", "It has left for the device, or is over already; see how it ended at its address."
            )
        return await self.command_row(command_id, person)

    # --- administration ----------------------------------------------------------------------------------------

    async def quarantined(self, before: int | None, limit: int) -> list[Row[Any]]:
        """Messages that could not be used, newest first."""
        return await self._database.read(lambda tx: repository.quarantined(tx, before, limit))

    async def enrol(self, body: EnrolBody, person: Person) -> None:
        """Take a device in. Raises ProblemError 422 for an unknown kind, 409 for a taken id."""
        if body.kind not in devices.kinds():
            raise ProblemError(422, "unknown_kind", "No such kind", f"Known: {', '.join(devices.kinds())}.")
        now_ms = self._clock.now_ms()

        def add(tx: Connection) -> None:
            repository.add_device(tx, enrolled_at=now_ms, **body.model_dump())
            audit.record(tx, now_ms, person.id, "device.enrol", body.device_id, {"kind": body.kind})

        try:
            await self._database.write(add)
        except IntegrityError:
            raise conflict("device_exists", f"{body.device_id} is enrolled already.") from None

    async def retire(self, device_id: str, person: Person) -> None:
        """Take a device out of service; its history stays.

        The act enters the device's lane, which refuses it while a call is open; the row is marked only
        then, and once more only without an open call.

        Raises:
            ProblemError: 404, 409.
        """
        row = await self._database.read(lambda tx: repository.device_row(tx, device_id))
        if row is None:
            raise not_found("device", device_id)
        if row.retired_at is not None:
            return
        if await self._database.read(lambda tx: repository.open_calls(tx, device_id)):
            raise _call_open(device_id)
        try:
            await self._intents.submit(device_id, "retire", person.id, {})
        except IntentRefusedError as error:
            raise conflict("not_retired", str(error)) from error
        now_ms = self._clock.now_ms()

        def mark(tx: Connection) -> bool:
            if not repository.retire(tx, device_id, now_ms):
                return False
            audit.record(tx, now_ms, person.id, "device.retire", device_id, {})
            return True

        if not await self._database.write(mark):
            raise _call_open(device_id)


def _call_open(device_id: str) -> ProblemError:
    return conflict(
        "call_open", f"{device_id} has an open emergency call; it can be retired when that is cleared there."
    )


def numeric_fields(kind: Kind) -> dict[str, str]:
    """Fields of a kind's reading that can be plotted → unit."""
    return {
        name: unit
        for name, info in kind.reading.model_fields.items()
        if name != "at"
        for annotation, unit in [(info.annotation, _unit(info.json_schema_extra))]
        if annotation in {int, float, int | None, float | None}
    }


def _unit(extra: Any) -> str:
    return str(extra.get("unit", "none")) if isinstance(extra, dict) else "none"


def parse_command(kind: Kind, body: dict[str, Any]) -> Command:
    """The kind's command from JSON values; raises ProblemError 422."""
    action = str(body.get("action", ""))
    try:
        return kind.command_type(action).model_validate_json(json.dumps(body))
    except KeyError:
        known = ", ".join(str(model.model_fields["action"].default or "") for model in kind.commands)
        raise ProblemError(422, "unknown_action", "No such command", f"{kind.name} understands: {known}.") from None
    except ValidationError as error:
        detail = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:5])
        raise ProblemError(422, "invalid_arguments", "Arguments not valid", detail) from None
