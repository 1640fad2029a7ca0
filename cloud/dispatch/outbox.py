"""Delivers what the outbox holds, after the commit that put it there.

Three loops lease rows: emergencies, what became of them, and all else. Each attempt is a task of its own, and each
channel has its own room, so neither a full queue nor a hanging channel delays another. Right before it is sent a row
is looked at once more: whoever was told that somebody took over is not paged. A finished attempt
is written together with all others that finished meanwhile. Whoever is killed leaves leases that run out;
the rows are then delivered again under the same delivery id.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import structlog
from sqlalchemy import Connection

from cloud.dispatch import attempts, late, leases, metrics, outages
from cloud.dispatch.leases import Leased, Moment, Outcome
from cloud.dispatch.letters import EMERGENCY, FOLLOW_UP, ORDINARY, PERSON
from cloud.metrics import NOTIFY_SECONDS
from cloud.ports import AddressRefusedError, Database, NotDeliveredError, NotificationChannel, PersonalChannel
from cloud.synthetic import PROBE_CHANNEL
from fleet.clock import MILLISECONDS_PER_SECOND, Clock
from fleet.milestones import reached
from fleet.randomness import Randomness

log = structlog.get_logger(__name__)

HELD_BACK_S_MAX: Final = 600.0
"""Business seconds that dispatch may hold a notice back (the last digest of a flood)."""
ERROR_CHARACTERS_MAX: Final = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Urgency:
    """How a loop treats its rows. Times in real seconds.

    `in_hand_max`: rows per channel that may be on their way at the same time.
    """

    in_hand_max: int
    timeout_s: float
    lease_s: float
    backoff_s_first: float
    backoff_s_max: float
    attempts_max: int

    def backoff_s(self, attempt: int, randomness: Randomness) -> float:
        """Wait after the failed `attempt` (from 1): doubling up to the maximum, half of it jitter."""
        doublings = min(attempt - 1, 32)
        return min(self.backoff_s_max, self.backoff_s_first * 2.0**doublings) * randomness.uniform(0.5, 1.0)


EMERGENCIES: Final = Urgency(
    in_hand_max=64, timeout_s=4.0, lease_s=8.0, backoff_s_first=0.2, backoff_s_max=2.0, attempts_max=500
)
FOLLOW_UPS: Final = Urgency(
    in_hand_max=64, timeout_s=10.0, lease_s=20.0, backoff_s_first=0.2, backoff_s_max=60.0, attempts_max=30
)
ALL_ELSE: Final = Urgency(
    in_hand_max=8, timeout_s=15.0, lease_s=30.0, backoff_s_first=1.0, backoff_s_max=300.0, attempts_max=20
)


class _Loop:
    def __init__(self, urgency: Urgency, urgent: int) -> None:
        self.urgency = urgency
        self.urgent = urgent
        self.woken = asyncio.Event()
        self.in_hand: Counter[str] = Counter()


class Outbox:
    """The workers of one process."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        channels: Sequence[NotificationChannel],
        *,
        real_now_ms: Callable[[], int],
        randomness: Randomness,
        owner: str,
        sole_owner: bool = False,
        poll_s: float = 1.0,
        personal: Sequence[PersonalChannel] = (),
        emergencies: Urgency = EMERGENCIES,
        follow_ups: Urgency = FOLLOW_UPS,
        all_else: Urgency = ALL_ELSE,
    ) -> None:
        """Nothing runs before `run`.

        Args:
            database: where the outbox is.
            clock: business time of the rows, and real seconds.
            channels: what rows can be delivered through; rows of other channels wait for a process that has them.
            personal: the same for rows that name a person.
            real_now_ms: wall clock of this machine, for leases.
            randomness: jitter of the waits between attempts.
            owner: names this process and start; no two may share it.
            sole_owner: no other process delivers from this database (SQLite): leases left by a killed
                predecessor are freed at the start.
            poll_s: real seconds between looks without being woken.
            emergencies: treatment of urgent rows.
            follow_ups: treatment of what became of them.
            all_else: treatment of the others.
        """
        self._database = database
        self._clock = clock
        self._channels = {channel.name: channel for channel in channels}
        self._personal = {channel.name: channel for channel in personal}
        self._names = (*self._channels, *self._personal)
        self._real_now_ms = real_now_ms
        self._randomness = randomness
        self._owner = owner
        self._sole_owner = sole_owner
        self._poll_s = poll_s
        self._loops = (_Loop(emergencies, EMERGENCY), _Loop(follow_ups, FOLLOW_UP), _Loop(all_else, ORDINARY))
        self._leases_taken = 0
        self._outcomes: list[tuple[_Loop, Outcome]] = []  # bounded by the rooms of all channels
        self._something_finished = asyncio.Event()
        self._asked: list[tuple[Leased, asyncio.Future[bool]]] = []  # bounded like the outcomes
        self._something_asked = asyncio.Event()

    def wake(self) -> None:
        """There may be something new: call it after the commit, on the event loop's thread."""
        for loop in self._loops:
            loop.woken.set()

    async def run(self) -> None:
        """Deliver until cancelled. Raises what the database raises: the process is then to be started again."""
        if self._sole_owner:
            freed = await self._database.write(leases.release_all)
            if freed:
                log.info("outbox_leases_freed", rows=freed)
        async with asyncio.TaskGroup() as tasks:
            for loop in self._loops:
                tasks.create_task(self._serve(loop, tasks))
            tasks.create_task(self._write_outcomes())
            tasks.create_task(self._look_again())

    async def _serve(self, loop: _Loop, tasks: asyncio.TaskGroup) -> None:
        while True:
            loop.woken.clear()
            leased, wait_s = await self._lease(loop)
            for row in leased:
                tasks.create_task(self._deliver(loop, row))
            if leased:
                continue  # there may be more
            try:
                async with asyncio.timeout(wait_s):
                    await loop.woken.wait()
            except TimeoutError:
                continue

    async def _lease(self, loop: _Loop) -> tuple[list[Leased], float]:
        """Rows to deliver now; without any, how many real seconds to wait at most."""
        urgency = loop.urgency
        room = {name: urgency.in_hand_max - loop.in_hand[name] for name in self._names}
        for name, free in room.items():
            if free <= 0:
                metrics.SATURATED.labels(name).inc()
        room = {name: free for name, free in room.items() if free > 0}
        if not room:
            return [], self._poll_s
        moment = self._moment(urgency)
        due_ms = await self._database.read(
            lambda tx: leases.next_due_ms(tx, moment, urgent=loop.urgent, channels=list(room))
        )
        if due_ms is None:
            return [], self._poll_s
        if due_ms > moment.now_ms:
            real_s = (due_ms - moment.now_ms) / MILLISECONDS_PER_SECOND / self._clock.speed
            return [], min(self._poll_s, real_s)
        self._leases_taken += 1
        token = f"{self._owner}:{self._leases_taken}"
        until_ms = moment.real_ms + round(urgency.lease_s * MILLISECONDS_PER_SECOND)
        leased = await self._database.write(
            lambda tx: leases.lease(tx, moment, urgent=loop.urgent, room=room, token=token, until_ms=until_ms)
        )
        reached("dispatch.after_lease")
        loop.in_hand.update(row.channel for row in leased)
        return leased, self._poll_s

    def _moment(self, urgency: Urgency) -> Moment:
        delay_s = max(HELD_BACK_S_MAX, urgency.backoff_s_max * self._clock.speed)
        return Moment(
            now_ms=self._clock.now_ms(),
            real_ms=self._real_now_ms(),
            delay_ms_max=round(delay_s * MILLISECONDS_PER_SECOND),
            lease_ms_max=round(urgency.lease_s * MILLISECONDS_PER_SECOND),
        )

    async def _deliver(self, loop: _Loop, leased: Leased) -> None:
        urgency = loop.urgency
        if not await self._is_still_wanted(leased):
            metrics.RECALLED.labels(leased.channel).inc()
            self._finished(loop, Outcome(leased, self._clock.now_ms(), result=leases.RECALLED))
            return
        started_s = self._clock.monotonic_s()
        error: str | None = None
        result = attempts.DELIVERED
        reached("dispatch.before_delivery")
        try:
            async with asyncio.timeout(urgency.timeout_s):
                await self._send(leased)
            reached("dispatch.after_delivery")
        except TimeoutError:
            error, result = f"no answer within {urgency.timeout_s:g} s", attempts.TIMED_OUT
        except AddressRefusedError as refusal:
            error, result = str(refusal) or "address refused", attempts.REFUSED
        except NotDeliveredError as refusal:
            error, result = str(refusal) or "not accepted", attempts.FAILED
        except Exception as failure:
            # A defect in one channel must not stop the others: the row is tried again, and then given up loudly.
            log.exception("outbox_channel_failed", channel=leased.channel, delivery_id=leased.delivery_id)
            error, result = repr(failure), attempts.FAILED
        took_s = self._clock.monotonic_s() - started_s
        metrics.SEND_SECONDS.labels(leased.channel).observe(took_s)
        outcome = self._outcome(urgency, leased, error, result)
        self._finished(loop, replace(outcome, duration_ms=round(took_s * MILLISECONDS_PER_SECOND)))

    async def _send(self, leased: Leased) -> None:
        if leased.channel in self._channels:
            await self._channels[leased.channel].send(leased.notification(), delivery_id=leased.delivery_id)
            return
        recipient = leased.recipient
        if recipient is None or not (recipient.address or leased.channel == PERSON):
            raise AddressRefusedError("this contact point was removed")
        await self._personal[leased.channel].send_to(leased.notification(), recipient, delivery_id=leased.delivery_id)

    def _finished(self, loop: _Loop, outcome: Outcome) -> None:
        self._outcomes.append((loop, outcome))
        self._something_finished.set()

    async def _is_still_wanted(self, leased: Leased) -> bool:
        asked: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._asked.append((leased, asked))
        self._something_asked.set()
        return await asked

    async def _look_again(self) -> None:
        """One look at the database for all attempts that are about to begin."""
        while True:
            await self._something_asked.wait()
            self._something_asked.clear()
            asked, self._asked = self._asked, []
            wanted = await self._database.read(partial(leases.still_wanted, rows=[leased for leased, _ in asked]))
            for leased, answer in asked:
                if not answer.done():
                    answer.set_result(leased.id in wanted)

    def _outcome(self, urgency: Urgency, leased: Leased, error: str | None, result: str) -> Outcome:
        now_ms = self._clock.now_ms()
        if error is None:
            if leased.channel == PERSON:  # it was brought into the outbox again, in a commit that ended this row
                return Outcome(leased, now_ms, result=leases.ROUTED)
            metrics.DELIVERED.labels(leased.channel).inc()
            # People are measured, not the probe, and not what was to wait for an earlier channel.
            if leased.urgent == EMERGENCY and leased.stage == 0 and leased.channel != PROBE_CHANNEL:
                waited_s = (now_ms - leased.created_at) / MILLISECONDS_PER_SECOND / self._clock.speed
                NOTIFY_SECONDS.observe(max(0.0, waited_s))
            return Outcome(leased, now_ms, result=result)
        error = error[:ERROR_CHARACTERS_MAX]
        metrics.FAILED.labels(leased.channel).inc()
        if leased.attempt >= urgency.attempts_max or result == attempts.REFUSED:
            metrics.GIVEN_UP.labels(leased.channel).inc()
            log.error("outbox_given_up", channel=leased.channel, delivery_id=leased.delivery_id, error=error)
            ended = attempts.REFUSED if result == attempts.REFUSED else attempts.GIVEN_UP
            return Outcome(leased, now_ms, error, result=ended)
        wait_s = urgency.backoff_s(leased.attempt, self._randomness) * self._clock.speed
        return Outcome(leased, now_ms, error, now_ms + round(wait_s * MILLISECONDS_PER_SECOND), result)

    async def _write_outcomes(self) -> None:
        while True:
            await self._something_finished.wait()
            self._something_finished.clear()
            batch, self._outcomes = self._outcomes, []
            outcomes = [outcome for _, outcome in batch]
            reached("dispatch.before_delivered_mark")
            fenced, not_recalled = await self._database.write(partial(self._finish, outcomes=outcomes))
            reached("dispatch.after_delivered_mark")
            metrics.NOT_RECALLED.inc(not_recalled)
            if fenced:
                metrics.FENCED.inc(fenced)
                log.warning("outbox_fenced", rows=fenced)
            for loop, outcome in batch:
                loop.in_hand[outcome.leased.channel] -= 1
            self.wake()  # there is room again, and a retry may be due earlier than the loops know

    def _finish(self, tx: Connection, outcomes: Sequence[Outcome]) -> tuple[int, int]:
        outcomes = late.ended(outcomes)
        fenced = leases.finish(tx, outcomes)
        not_recalled = attempts.settle(tx, outcomes)
        late.remember(tx, outcomes)
        ended = [outcome for outcome in outcomes if outcome.result not in leases.NOT_WRITTEN]
        outages.announce(tx, ended, self._names, self._clock.speed)
        return fenced, not_recalled
