"""What one person wants to be told, where and when. Emergencies never ask."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, select

from cloud.dispatch.letters import PERSONAL_STAGES
from cloud.tables import notification_preference
from fleet.clock import MILLISECONDS_PER_SECOND
from fleet.incident import Priority

TIME_ZONE: Final = "Asia/Shanghai"
MINUTES_PER_DAY: Final = 24 * 60
DEFAULT_CHANNELS: Final[Mapping[str, tuple[str, ...]]] = {
    Priority.HIGH.value: ("push", "chat", "mail"),
    Priority.MEDIUM.value: ("push", "chat"),
    Priority.LOW.value: (),
}
"""Where notices of each priority go when the person said nothing; the inbox has all of them."""


@dataclass(frozen=True, slots=True)
class Preferences:
    """One person's wishes. Quiet minutes count from local midnight; an end before the begin: over midnight."""

    channels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    quiet_from: int | None = None
    quiet_until: int | None = None
    time_zone: str = TIME_ZONE
    language: str = ""

    def channels_of(self, priority: str) -> tuple[str, ...]:
        """Channels for a priority; an emergency takes all of them."""
        if priority == Priority.EMERGENCY.value:
            return tuple(PERSONAL_STAGES)
        return self.channels.get(priority, DEFAULT_CHANNELS.get(priority, ()))

    def quiet_ends_at(self, now_ms: int) -> int | None:
        """When the quiet hours end that hold now, business ms; None: none hold."""
        if self.quiet_from is None or self.quiet_until is None or self.quiet_from == self.quiet_until:
            return None
        here = datetime.fromtimestamp(now_ms / MILLISECONDS_PER_SECOND, tz=ZoneInfo(self.time_zone))
        minute = here.hour * 60 + here.minute
        over_midnight = self.quiet_until < self.quiet_from
        inside = self.quiet_from <= minute < self.quiet_until
        if over_midnight:
            inside = minute >= self.quiet_from or minute < self.quiet_until
        if not inside:
            return None
        end = here.replace(hour=self.quiet_until // 60, minute=self.quiet_until % 60, second=0, microsecond=0)
        if over_midnight and minute >= self.quiet_from:
            end += timedelta(days=1)  # the local wall clock decides, also where a day has 23 or 25 hours
        return round(end.timestamp() * MILLISECONDS_PER_SECOND)


def load(tx: Connection, person_id: str) -> Preferences:
    """The person's wishes, or what holds without any."""
    c = notification_preference.c
    row = tx.execute(select(notification_preference).where(c.person_id == person_id)).one_or_none()
    if row is None:
        return Preferences()
    channels = {priority: tuple(names) for priority, names in json.loads(row.channels).items()}
    return Preferences(channels, row.quiet_from_minute, row.quiet_until_minute, row.time_zone, row.language)
