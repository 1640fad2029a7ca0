"""Reading incidents and acknowledging them with all their alarms; which devices share a site."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, Row

from cloud import audit
from cloud.alarms.lanes import Act, submit_all
from cloud.alarms.service import AlarmService
from cloud.api.access import Person
from cloud.api.paging import mark
from cloud.api.problem import not_found
from cloud.dispatch import incidents as lifecycle
from cloud.incidents import repository
from cloud.incidents.schemas import (
    IncidentAcknowledged,
    IncidentAnswer,
    IncidentKey,
    IncidentLine,
    IncidentList,
    IncidentStep,
    SiteBody,
    SiteLine,
    SiteList,
)
from cloud.ports import Database, LaneIntents, LiveChanges
from cloud.roster import off_duty
from fleet.clock import Clock

ALARMS_LISTED_MAX: Final = 500


class IncidentService:
    """Incidents for those on duty."""

    def __init__(
        self, database: Database, clock: Clock, intents: LaneIntents, alarms: AlarmService, changes: LiveChanges
    ) -> None:
        self._database = database
        self._clock = clock
        self._intents = intents
        self._alarms = alarms
        self._changes = changes

    async def incidents(self, *, is_open: bool, before: str | None, limit: int) -> IncidentList:
        """One page, newest first."""

        def read(tx: Connection) -> tuple[list[Row[Any]], list[Row[Any]]]:
            rows = repository.incidents(tx, is_open=is_open, before=before, limit=limit + 1)
            return rows, repository.keys_of(tx, [row.id for row in rows])

        rows, keys = await self._database.read(read)
        more = len(rows) > limit
        return IncidentList(
            incidents=self._lines(rows[:limit], keys),
            next_before=mark(rows[limit - 1].opened_at, rows[limit - 1].id) if more else None,
        )

    async def incident(self, incident_id: str) -> IncidentAnswer:
        """One incident with its alarms and history; raises ProblemError 404."""
        line = await self._line(incident_id)
        steps = await self._database.read(lambda tx: repository.transitions(tx, incident_id))
        wanted = {"incident_id": incident_id}
        found = await self._alarms.alarms(wanted, is_open=False, before=None, limit=ALARMS_LISTED_MAX)
        transitions = [IncidentStep.model_validate(step) for step in steps]
        return IncidentAnswer(**line.model_dump(), alarms=found.alarms, transitions=transitions)

    async def acknowledge(self, incident_id: str, person: Person, note: str = "") -> IncidentAcknowledged:
        """Somebody has seen it: that acknowledges every alarm of it. Raises ProblemError 404."""
        at = self._clock.now_ms()

        def seen(tx: Connection) -> tuple[list[Row[Any]], bool]:
            if not lifecycle.acknowledge(tx, incident_id, person.id, note, at):
                raise not_found("incident", incident_id)
            unseen = repository.unseen_alarms(tx, incident_id)
            audit.record(tx, at, person.id, "incident.acknowledge", incident_id, {"note": note, "alarms": len(unseen)})
            return unseen, off_duty.note(tx, at, person.id, "incident.acknowledge", incident_id)

        unseen, is_off_duty = await self._database.write(seen)
        self._changes.publish("incident", {"id": incident_id})
        acts: list[Act] = [
            (row.device_id, "acknowledge_alarm", person.id, {"alarm_id": row.id, "note": note}) for row in unseen
        ]
        refusals = await submit_all(self._intents, acts)
        refused = {row.id: refusal for row, refusal in zip(unseen, refusals, strict=True) if refusal}
        line = await self._line(incident_id)
        done = len(unseen) - len(refused)
        return IncidentAcknowledged(
            **line.model_dump(), acknowledged_alarms=done, refused=refused, off_duty=is_off_duty
        )

    async def sites(self) -> SiteList:
        """Every site with its devices."""
        rows = await self._database.read(repository.sites)
        return SiteList(
            sites=[SiteLine(site=row.site, devices=row.devices, open_alarms=row.open_alarms) for row in rows]
        )

    async def set_site(self, body: SiteBody, person: Person) -> SiteList:
        """Put devices at a site. Raises ProblemError 404 and changes nothing when one of them does not exist."""
        at = self._clock.now_ms()

        def write(tx: Connection) -> None:
            known = repository.set_site(tx, body.site, body.device_ids)
            unknown = sorted(set(body.device_ids) - set(known))
            if unknown:
                raise not_found("device", ", ".join(unknown[:5]))
            audit.record(tx, at, person.id, "site.set", body.site, {"devices": sorted(known)})

        await self._database.write(write)
        return await self.sites()

    async def _line(self, incident_id: str) -> IncidentLine:
        def read(tx: Connection) -> tuple[Row[Any] | None, list[Row[Any]]]:
            return repository.incident_by_id(tx, incident_id), repository.keys_of(tx, [incident_id])

        row, keys = await self._database.read(read)
        if row is None:
            raise not_found("incident", incident_id)
        return self._lines([row], keys)[0]

    def _lines(self, rows: Sequence[Row[Any]], keys: Sequence[Row[Any]]) -> list[IncidentLine]:
        by_incident: defaultdict[str, list[IncidentKey]] = defaultdict(list)
        for row in keys:
            title = self._alarms.title(row.kind, row.key)
            counts = {"count": row.count, "open_count": int(row.open_count or 0)}
            by_incident[row.incident_id].append(IncidentKey(key=row.key, title=title, **counts))
        facts = [dict(row._mapping) for row in rows]  # noqa: SLF001  # the documented way to a row's dict
        return [IncidentLine.model_validate({**one, "keys": by_incident[one["id"]]}) for one in facts]
