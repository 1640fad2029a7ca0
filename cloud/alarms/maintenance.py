"""Maintenance windows and outages: people hide the alarms of what they work on. Calls for help know none of this.

A window is planned once and enters the lane of each device it covers; a device that is enrolled later is not in it.
"""

from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import Connection, insert, update

from cloud import audit
from cloud.alarms import repository
from cloud.alarms.lanes import submit_all
from cloud.alarms.schemas import OutageBody, WindowAnswer, WindowBody, WindowLine, WindowList
from cloud.api.access import Person, Role
from cloud.api.problem import ProblemError, conflict, not_found
from cloud.ports import Database, IntentRefusedError, LaneIntents
from cloud.rules.hiding import WINDOW_AHEAD_S_MAX, WINDOW_S_MAX
from cloud.tables import maintenance_window
from fleet.clock import MILLISECONDS_PER_SECOND, Clock

LISTED_MAX: Final = 200


class MaintenanceService:
    """For those on duty; windows for a whole kind or site are the admins'."""

    def __init__(self, database: Database, clock: Clock, intents: LaneIntents, new_id: Callable[[], str]) -> None:
        self._database = database
        self._clock = clock
        self._intents = intents
        self._new_id = new_id

    async def windows(self) -> WindowList:
        """Newest first."""
        rows = await self._database.read(lambda tx: repository.windows(tx, None, LISTED_MAX))
        return WindowList(windows=[WindowLine.model_validate(row) for row in rows])

    async def plan(self, body: WindowBody, person: Person) -> WindowAnswer:
        """Make a window. Raises ProblemError 403, 404 without any device, 422 for bad times."""
        if body.scope != "device" and person.role is not Role.ADMIN:
            raise ProblemError(403, "not_allowed", "Not allowed", "A window for a kind or a site is made by an admin.")
        now_ms = self._clock.now_ms()
        _check_times(body, now_ms)
        covered = await self._database.read(lambda tx: repository.window_devices(tx, body.scope, body.target))
        if not covered:
            raise not_found(f"{body.scope} with devices in service", body.target)
        window_id = self._new_id()
        row = {"id": window_id, **body.model_dump(), "actor": person.id, "created_at": now_ms}

        def make(tx: Connection) -> None:
            tx.execute(insert(maintenance_window).values(row))
            audit.record(
                tx, now_ms, person.id, "maintenance.plan", window_id, {**body.model_dump(), "devices": covered}
            )

        await self._database.write(make)
        arguments = {
            "window_id": window_id, "from_at": body.from_at, "until_at": body.until_at, "reason": body.reason,
        }  # fmt: skip
        acts = [(device_id, "out_of_service", person.id, arguments) for device_id in covered]
        refusals = await submit_all(self._intents, acts)
        refused = {device_id: why for device_id, why in zip(covered, refusals, strict=True) if why}
        if len(refused) == len(covered):
            await self._end(window_id, person, "no device took it")
        return await self._answer(window_id, refused)

    async def end(self, window_id: str, person: Person, reason: str) -> WindowAnswer:
        """End it before its time. Raises ProblemError 404, or 409 when it is over."""
        (row, *_) = [*await self._database.read(lambda tx: repository.windows(tx, window_id, 1)), None]
        if row is None:
            raise not_found("maintenance window", window_id)
        if row.ended_at is not None or row.until_at <= self._clock.now_ms():
            raise conflict("window_over", "This maintenance window is over.")
        if row.scope != "device" and person.role is not Role.ADMIN:
            raise ProblemError(403, "not_allowed", "Not allowed", "This window was made by an admin, who ends it.")
        covered = await self._database.read(lambda tx: repository.devices_in_window(tx, window_id))
        arguments = {"window_id": window_id, "reason": reason}
        refusals = await submit_all(
            self._intents, [(device_id, "in_service", person.id, arguments) for device_id in covered]
        )
        refused = {device_id: why for device_id, why in zip(covered, refusals, strict=True) if why}
        if not refused:
            await self._end(window_id, person, reason)
        return await self._answer(window_id, refused)

    async def out_of_service(self, body: OutageBody, person: Person) -> dict[str, Any]:
        """Until somebody puts it back. Raises ProblemError 409."""
        return await self._submit("out_of_service", body, person)

    async def in_service(self, body: OutageBody, person: Person) -> dict[str, Any]:
        """Back in service. Raises ProblemError 409."""
        return await self._submit("in_service", body, person)

    async def end_hiding(self, hiding_id: str, person: Person, reason: str) -> dict[str, Any]:
        """Show again what one shelf, outage or window of one device hides. Raises ProblemError 404, 409."""
        row = await self._database.read(lambda tx: repository.hiding_by_id(tx, hiding_id))
        if row is None:
            raise not_found("shelf, window or outage", hiding_id)
        arguments = {"key": row.key, "reason": reason}
        if row.form == "window":
            arguments["window_id"] = row.window_id
        act = "unshelve_alarm" if row.form == "shelf" else "in_service"
        try:
            answer = await self._intents.submit(row.device_id, act, person.id, arguments)
        except IntentRefusedError as refusal:
            raise conflict("not_possible", str(refusal)) from refusal
        at, detail = self._clock.now_ms(), {**arguments, "device_id": row.device_id, "form": row.form}
        await self._database.write(lambda tx: audit.record(tx, at, person.id, "hiding.end", hiding_id, detail))
        return answer

    async def _submit(self, act: str, body: OutageBody, person: Person) -> dict[str, Any]:
        arguments = {"key": body.key, "reason": body.reason}
        try:
            answer = await self._intents.submit(body.device_id, act, person.id, arguments)
        except IntentRefusedError as refusal:
            raise conflict("not_possible", str(refusal)) from refusal
        at = self._clock.now_ms()
        await self._database.write(
            lambda tx: audit.record(tx, at, person.id, f"device.{act}", body.device_id, arguments)
        )
        return answer

    async def _end(self, window_id: str, person: Person, reason: str) -> None:
        at = self._clock.now_ms()

        def end(tx: Connection) -> None:
            mine = (maintenance_window.c.id == window_id) & maintenance_window.c.ended_at.is_(None)
            tx.execute(update(maintenance_window).where(mine).values(ended_at=at, ended_by=person.id))
            audit.record(tx, at, person.id, "maintenance.end", window_id, {"reason": reason})

        await self._database.write(end)

    async def _answer(self, window_id: str, refused: dict[str, str]) -> WindowAnswer:
        (row,) = await self._database.read(lambda tx: repository.windows(tx, window_id, 1))
        return WindowAnswer(**WindowLine.model_validate(row).model_dump(), refused=refused)


def _check_times(body: WindowBody, now_ms: int) -> None:
    begins = max(body.from_at, now_ms)
    problem = ""
    if body.until_at <= begins:
        problem = "It ends after it begins, and later than now."
    elif body.until_at - begins > WINDOW_S_MAX * MILLISECONDS_PER_SECOND:
        problem = f"It lasts at most {WINDOW_S_MAX / 3600:g} h."
    elif begins - now_ms > WINDOW_AHEAD_S_MAX * MILLISECONDS_PER_SECOND:
        problem = f"Plan it at most {WINDOW_AHEAD_S_MAX / 86_400:g} days ahead."
    if problem:
        raise ProblemError(422, "invalid_window", "Not a maintenance window", problem)
