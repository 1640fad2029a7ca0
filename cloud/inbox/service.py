"""Reading what people were told."""

from typing import Any

from sqlalchemy import Row

from cloud import audit
from cloud.alarms.schemas import TextAnswer
from cloud.api.access import Person
from cloud.dispatch.notices import decode
from cloud.inbox import repository
from cloud.inbox.schemas import NoticeLine, NoticeList
from cloud.ports import Database
from fleet.clock import Clock


class InboxService:
    """Notices for those on duty; nobody changes or removes one."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def notices(self, person: Person, *, before: int | None, limit: int) -> NoticeList:
        """One page, newest first. Notices tell of calls in rooms, so looking back through them is written down."""
        if before is not None:
            at, detail = self._clock.now_ms(), {"before": before}
            await self._database.write(lambda tx: audit.record(tx, at, person.id, "notice.view_history", "", detail))
        rows = await self._database.read(lambda tx: repository.notices(tx, before, limit + 1))
        more = len(rows) > limit
        return NoticeList(
            notices=[_line(row) for row in rows[:limit]], next_before=rows[limit - 1].id if more else None
        )


def _line(row: Row[Any]) -> NoticeLine:
    notification = decode(row.notification)
    return NoticeLine(
        id=row.id,
        kind_of=notification.kind_of,
        reference=notification.reference,
        priority=notification.priority,
        device_id=notification.device_id,
        title=TextAnswer(zh=notification.title_zh, en=notification.title_en),
        audience=notification.audience,
        facts=notification.facts,
        created_at=row.created_at,
    )
