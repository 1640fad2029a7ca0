"""How much alarms ask of people, after the practice of ISA-18.2: what to look at before people stop looking.

An *activation* begins an alarm (or brings a latched one back); it is *announced* unless it was hidden all the time.
*Bad actors* are the alarms of single devices that activate most. *Chattering*: three activations within a minute.
*Fleeting*: over within a minute, without anybody. *Stale*: open for more than a day.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Callable
from typing import Any, Final

from pydantic import BaseModel
from sqlalchemy import Connection, func, select

from cloud.alarms.schemas import TextAnswer
from cloud.tables import alarm, alarm_transition, incident, outbox
from fleet.incident import AlarmEvent, AlarmState, Priority

BAD_ACTORS: Final = 10
CHATTERING_COUNT: Final = 3
CHATTERING_MS: Final = 60_000
FLEETING_MS: Final = 60_000
STALE_MS: Final = 86_400_000
TEN_MINUTES_MS: Final = 600_000
GOAL_PER_DAY: Final = 120
GOAL_PER_PERSON_AND_TEN_MINUTES: Final = 1
ROWS_MAX: Final = 200_000
_LOCAL_MS: Final = 8 * 3_600_000  # days of people in the zone (Asia/Shanghai has no summer time)
_BEGINS: Final = (AlarmState.NORMAL.value, AlarmState.LATCHED_ACKNOWLEDGED.value)

Title = Callable[[str, str], TextAnswer]


class DayLoad(BaseModel):
    """One day in the zone's time; `day` is its first ms."""

    day: int
    activations: int
    announced: int


class Actor(BaseModel):
    """One alarm of one device."""

    device_id: str
    key: str
    title: TextAnswer
    count: int


class PersonLoad(BaseModel):
    """Notifications about alarms that reached one person (or one channel that many read) in ten minutes."""

    recipient: str
    channel: str
    notifications: int
    ten_minutes_max: int
    ten_minutes_mean: float


class AlarmStatistics(BaseModel):
    """What `fleet alarms stats` and the API say. Times are business ms."""

    from_at: int
    until_at: int
    activations: int
    announced: int
    hidden: int
    acknowledged: int
    acknowledge_median_s: float | None
    per_day: list[DayLoad]
    per_day_goal: int = GOAL_PER_DAY
    ten_minutes_max: int
    people: list[PersonLoad]
    per_person_and_ten_minutes_goal: int = GOAL_PER_PERSON_AND_TEN_MINUTES
    by_priority: dict[str, int]
    bad_actors: list[Actor]
    bad_actors_share: float
    chattering: list[Actor]
    fleeting: int
    stale: list[Actor]
    incidents: int
    truncated: bool


def statistics(tx: Connection, from_ms: int, until_ms: int, title: Title) -> AlarmStatistics:
    """Count what began between the two moments (`until_ms` excluded), by our clock."""
    begun = _activations(tx, from_ms, until_ms)
    announced = [row for row in begun if row.told_at is not None]
    actors = Counter((row.device_id, row.kind, row.key) for row in begun)
    days = Counter((row.received_at + _LOCAL_MS) // 86_400_000 for row in begun)
    told_days = Counter((row.received_at + _LOCAL_MS) // 86_400_000 for row in announced)
    waits = sorted(row.acknowledged_at - row.activated_at for row in begun if row.acknowledged_at is not None)
    top = actors.most_common(BAD_ACTORS)
    return AlarmStatistics(
        from_at=from_ms,
        until_at=until_ms,
        activations=len(begun),
        announced=len(announced),
        hidden=len(begun) - len(announced),
        acknowledged=len(waits),
        acknowledge_median_s=max(0, waits[len(waits) // 2]) / 1000 if waits else None,
        per_day=[
            DayLoad(day=day * 86_400_000 - _LOCAL_MS, activations=days[day], announced=told_days[day])
            for day in sorted(days)
        ],
        ten_minutes_max=max(Counter(row.received_at // TEN_MINUTES_MS for row in announced).values(), default=0),
        people=_people(tx, from_ms, until_ms),
        by_priority={one.value: sum(row.priority == one.value for row in begun) for one in list(Priority)[1:]},
        bad_actors=[_actor(who, count, title) for who, count in top],
        bad_actors_share=round(sum(count for _, count in top) / len(begun), 3) if begun else 0.0,
        chattering=[_actor(who, count, title) for who, count in _chattering(begun)],
        fleeting=sum(_is_fleeting(row) for row in begun),
        stale=_stale(tx, until_ms, title),
        incidents=tx.scalar(
            select(func.count()).where(incident.c.opened_at >= from_ms, incident.c.opened_at < until_ms)
        )
        or 0,
        truncated=len(begun) == ROWS_MAX,
    )


def _activations(tx: Connection, from_ms: int, until_ms: int) -> list[Any]:
    step = alarm_transition.c
    columns = (
        alarm.c.device_id, alarm.c.kind, alarm.c.key, alarm.c.priority, alarm.c.told_at, alarm.c.activated_at,
        alarm.c.acknowledged_at, alarm.c.returned_at, step.received_at, step.before,
    )  # fmt: skip
    statement = select(*columns).join(alarm, alarm.c.id == step.alarm_id)
    chosen = statement.where(
        step.event == AlarmEvent.ACTIVATE.value, step.received_at >= from_ms, step.received_at < until_ms
    )
    return list(tx.execute(chosen.order_by(step.received_at, step.id).limit(ROWS_MAX)))


def _people(tx: Connection, from_ms: int, until_ms: int) -> list[PersonLoad]:
    """What was delivered about alarms, per recipient and channel."""
    columns = outbox.c
    statement = select(columns.recipient, columns.channel, columns.delivered_at).where(
        columns.delivered_at >= from_ms,
        columns.delivered_at < until_ms,
        columns.notification.like('%"kind_of":"alarm"%'),
    )
    buckets: defaultdict[tuple[str, str], Counter[int]] = defaultdict(Counter)
    for recipient, channel, at in tx.execute(statement.limit(ROWS_MAX)):
        buckets[recipient, channel][at // TEN_MINUTES_MS] += 1
    spans = max(1, (until_ms - from_ms) // TEN_MINUTES_MS)
    return [
        PersonLoad(
            recipient=recipient,
            channel=channel,
            notifications=found.total(),
            ten_minutes_max=max(found.values()),
            ten_minutes_mean=round(found.total() / spans, 4),
        )
        for (recipient, channel), found in sorted(buckets.items())
    ]


def _chattering(begun: list[Any]) -> list[tuple[tuple[str, str, str], int]]:
    """Alarms that activated `CHATTERING_COUNT` times within `CHATTERING_MS`, and how often they did so."""
    latest: defaultdict[tuple[str, str, str], deque[int]] = defaultdict(lambda: deque(maxlen=CHATTERING_COUNT))
    found: Counter[tuple[str, str, str]] = Counter()
    for row in begun:
        times = latest[row.device_id, row.kind, row.key]
        times.append(row.received_at)
        if len(times) == CHATTERING_COUNT and times[-1] - times[0] <= CHATTERING_MS:
            found[row.device_id, row.kind, row.key] += 1
            times.clear()
    return found.most_common(BAD_ACTORS)


def _is_fleeting(row: Any) -> bool:
    if row.returned_at is None or row.before not in _BEGINS:
        return False
    unseen = row.acknowledged_at is None or row.acknowledged_at >= row.returned_at
    return bool(unseen and row.returned_at - row.activated_at < FLEETING_MS)


def _stale(tx: Connection, now_ms: int, title: Title) -> list[Actor]:
    """Open for more than a day, the oldest first; `count` is for how many hours."""
    columns = alarm.c
    open_for_long = (columns.state != AlarmState.NORMAL.value) & (columns.activated_at < now_ms - STALE_MS)
    rows = tx.execute(select(alarm).where(open_for_long).order_by(columns.activated_at).limit(100))
    return [_actor((row.device_id, row.kind, row.key), (now_ms - row.activated_at) // 3_600_000, title) for row in rows]


def _actor(who: tuple[str, str, str], count: int, title: Title) -> Actor:
    device_id, kind, key = who
    return Actor(device_id=device_id, key=key, title=title(kind, key), count=count)
