"""`cloud.ports.CommandSender`: records, signs, sends and follows commands.

A command is a row before it is a message. It travels once, is never retained, and ends `expired` when
the device did not accept it in time: it can't fire later, because the device checks the same limit by
an authenticated clock and remembers the ids it has seen. No broker keeps it for a device that is away
(sessions end with their connection), so a command given to one that is offline ends `expired`.

| bound | at the bound | metric |
|---|---|---|
| `OPEN_PER_DEVICE_MAX` commands of one device without an end | refused, HTTP 409 | `fleet_commands_refused_total` |
| `OPEN_URGENT_PER_DEVICE_MAX` urgent ones, counted apart | refused and logged | the same, `bound="urgent"` |
| `OPEN_PER_ACTOR_MAX` of one person over all devices | refused, HTTP 429 | the same, `bound="actor"` |
| the link's queue to the broker | the newest is dropped and ends `expired` | `fleet_link_routine_publishes_dropped` |
"""

import asyncio
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final

import msgspec
from sqlalchemy import Connection, RowMapping

import devices
from cloud.device_commands import repository
from cloud.metrics import COMMANDS_ENDED, COMMANDS_REFUSED
from cloud.model import CommandOutcome, Downstream, OutcomeHandler
from cloud.ports import CommandQueueFullError, Database, Publish, SigningKeys
from fleet import topics
from fleet.clock import MILLISECONDS_PER_SECOND, Clock
from fleet.envelope import Acknowledgement, encode
from fleet.kind import literal_of
from fleet.messages import Command, Reply, ReplyStatus
from fleet.signing import CommandOrder, sign_command

OPEN_PER_DEVICE_MAX: Final = 16
OPEN_URGENT_PER_DEVICE_MAX: Final = 16
"""Feedback to somebody who calls for help is not refused because 16 others wait."""
OPEN_PER_ACTOR_MAX: Final = 64
SYSTEM_ACTOR: Final = "system"
AHEAD_S_MAX: Final = 60.0
"""Real seconds: a command from further in the future was issued before our clock was set back."""
NUDGE_S: Final = 2.0
NUDGES_MAX: Final = 200
"""Every so many real seconds so many devices are asked to say hello after the command keys changed …"""
NUDGE_AGAIN_S: Final = 20.0
"""… and those that did not are asked again after so long."""
ACCEPT_GRACE_S: Final = 2.0
"""Business seconds after `not_after` in which an `accepted` that was in flight may still arrive."""
_NEVER_BEGAN: Final = frozenset({ReplyStatus.EXPIRED, ReplyStatus.REFUSED})
"""What a device may still say of a command that the cloud gave up: services learn that nothing moved."""
FINISH_WITHIN_S: Final = 300.0
"""Business seconds from the last sign of progress to giving up on an accepted command."""
SEND_BATCH_MAX: Final = 200
POLL_S: Final = 1.0
"""Real seconds between looks at the database: the backstop when another process orders, or ends a command."""
WAIT_S_MAX: Final = 60.0


class DeviceCommands:
    """One instance per process. Every process orders; who holds the link sends; one kind of process expires."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        publish: Publish,
        keys: SigningKeys,
        new_id: Callable[[], str],
        outcome_handlers: Mapping[str, Sequence[OutcomeHandler]] | None = None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._publish = publish
        self._keys = keys
        self._nudged: dict[str, float] = {}
        self._nudged_s = -math.inf
        self._looked_ms: int | None = None
        self._new_id = new_id
        self._handlers = {} if outcome_handlers is None else outcome_handlers  # filled after we are made
        self._wake = asyncio.Event()
        self._waiting: dict[str, set[asyncio.Future[tuple[str, str] | None]]] = defaultdict(set)
        self.mine: Callable[[str], bool] = lambda _device_id: True
        """Whether this process sends to that device; an ingester sets it to the shards it holds."""
        self.link_is_up: Callable[[], bool] = lambda: True
        """Whether the broker takes something now; while it does not, commands stay queued."""

    def order(
        self, tx: Connection, device_id: str, command: Command, *, actor: str, lifetime_s: float | None = None
    ) -> str:
        """Record a command inside the caller's transaction; see `cloud.ports.CommandSender`."""
        row = repository.device_of(tx, device_id)
        if row is None or row["retired_at"] is not None or row["revoked_at"] is not None:
            raise LookupError(f"no device {device_id!r} in service")
        kind = devices.kind_named(row["kind"])
        if type(command) not in kind.commands:
            raise ValueError(f"a {kind.name} knows no {command.action!r}")
        self._refuse_beyond_bounds(tx, device_id, command, actor)
        now_ms = self._clock.now_ms()
        # Their order at the device is that of `issued_at`, so no two share one; a clock that was set counts anew.
        last_ms = repository.last_issued_at(tx, device_id)
        issued_at = last_ms + 1 if now_ms <= last_ms < now_ms + MILLISECONDS_PER_SECOND else now_ms
        limit_s = min(lifetime_s or command.lifetime_s_max, command.lifetime_s_max)
        command_id = self._new_id()
        repository.insert(
            tx,
            {
                "id": command_id,
                "device_id": device_id,
                "action": literal_of(type(command), "action"),
                "arguments": command.model_dump_json(),
                "actor": actor,
                "issued_at": issued_at,
                "not_after": now_ms + round(limit_s * MILLISECONDS_PER_SECOND),
                "generation": row["generation"],
                "status": repository.QUEUED,
                "reason": "",
                "changed_at": now_ms,
                "urgent": int(command.urgent),
            },
        )
        return command_id

    @staticmethod
    def _refuse_beyond_bounds(tx: Connection, device_id: str, command: Command, actor: str) -> None:
        bound, most = ("urgent", OPEN_URGENT_PER_DEVICE_MAX) if command.urgent else ("device", OPEN_PER_DEVICE_MAX)
        if repository.open_count(tx, device_id, urgent=command.urgent) >= most:
            COMMANDS_REFUSED.labels(bound).inc()
            raise CommandQueueFullError(bound, f"{device_id} has {most} unanswered commands; wait until they end")
        if actor != SYSTEM_ACTOR and repository.open_count_of(tx, actor) >= OPEN_PER_ACTOR_MAX:
            COMMANDS_REFUSED.labels("actor").inc()
            raise CommandQueueFullError(
                "actor", f"{OPEN_PER_ACTOR_MAX} of your commands have not ended yet; wait until they do"
            )

    async def cancel(self, command_id: str, also: Callable[[Connection], None]) -> bool:
        """End a command that has not left yet; False if it has, or is unknown or over. See `cloud.ports`."""
        now_ms = self._clock.now_ms()

        def end(tx: Connection) -> list[CommandOutcome]:
            row = repository.cancel_queued(tx, command_id, now_ms)
            if row is None:
                return []
            also(tx)
            status, reason = ReplyStatus.REFUSED.value, "cancelled"
            outcome = CommandOutcome(command_id, row["device_id"], row["action"], status, reason, now_ms)
            return [self._settle(tx, outcome)]

        outcomes = await self._database.write(end)
        self.settled(outcomes)
        return bool(outcomes)

    @staticmethod
    def record_keys(tx: Connection, said: Sequence[tuple[str, Sequence[str]]]) -> None:
        """Part of the pipeline's commit: which command keys devices said they trust."""
        for device_id, key_ids in said:
            repository.save_trusted(tx, device_id, " ".join(sorted(key_ids)))

    def after_commit(self) -> None:
        """Wake the sender of this process; call it when the transaction that ordered a command is committed."""
        self._wake.set()

    def record_replies(self, tx: Connection, replies: Sequence[Reply], now_ms: int) -> list[CommandOutcome]:
        """Part of the pipeline's commit: store what devices answered and let the services act on it."""
        outcomes = []
        for reply in replies:
            row = repository.advance(
                tx, reply.command_id, reply.status.value, reply.reason, now_ms, said_by=reply.device_id
            )
            if row is None and reply.status in _NEVER_BEGAN:
                row = repository.given_up(tx, reply.command_id, reply.device_id)
            if row is not None:
                outcomes.append(
                    self._settle(
                        tx,
                        CommandOutcome(
                            row["id"],
                            row["device_id"],
                            row["action"],
                            reply.status.value,
                            reply.reason,
                            now_ms,
                            by_device=True,
                        ),
                    )
                )
        return outcomes

    def _settle(self, tx: Connection, outcome: CommandOutcome) -> CommandOutcome:
        if outcome.status in repository.FINAL:
            COMMANDS_ENDED.labels(outcome.status, outcome.reason).inc()
        for handler in self._handlers.get(outcome.action, ()):
            handler(tx, outcome)
        return outcome

    def settled(self, outcomes: Sequence[CommandOutcome]) -> None:
        """After the commit: tell those who wait."""
        for outcome in outcomes:
            if outcome.status not in repository.FINAL:
                continue
            for future in self._waiting.pop(outcome.command_id, ()):
                if not future.done():
                    future.set_result((outcome.status, outcome.reason))

    def settled_elsewhere(self, ids: str | None) -> None:
        """Another process ended these commands (joined by spaces); None: it may have been any."""
        for command_id in list(self._waiting) if ids is None else ids.split():
            for future in self._waiting.pop(command_id, ()):
                if not future.done():
                    future.set_result(None)

    async def outcome(self, command_id: str, wait_s: float) -> tuple[str, str]:
        """(status, reason) now, or as soon as it is final within `wait_s` real seconds. Raises LookupError."""
        until_s = self._clock.monotonic_s() + min(wait_s, WAIT_S_MAX)
        while True:
            left_s = until_s - self._clock.monotonic_s()
            found = await self._outcome_within(command_id, min(left_s, POLL_S))
            if found[0] in repository.FINAL or left_s <= POLL_S:
                return found

    async def _outcome_within(self, command_id: str, wait_s: float) -> tuple[str, str]:
        """One look at the row, then up to `wait_s` for news, then another look unless the news said it all."""
        future: asyncio.Future[tuple[str, str] | None] = asyncio.get_running_loop().create_future()
        self._waiting[command_id].add(future)  # before reading, so that no outcome slips in between
        try:
            found = await self._database.read(lambda tx: repository.outcome(tx, command_id))
            if found is None:
                raise LookupError(f"no command {command_id!r}")
            if found[0] in repository.FINAL or wait_s <= 0:
                return found
            done, _ = await asyncio.wait({future}, timeout=wait_s)
            told = future.result() if done else None
            return told or await self._database.read(lambda tx: repository.outcome(tx, command_id)) or found
        finally:
            waiting = self._waiting.get(command_id)
            if waiting is not None:
                waiting.discard(future)
                if not waiting:
                    del self._waiting[command_id]

    async def run(self, *, sends: bool = True, expires: bool = True) -> None:
        """Send what is queued as soon as it is committed; expire what was not answered."""
        while True:
            if self._keys.refresh():
                self._nudged.clear()  # there is news again for those that were asked
            if sends:
                await self._send_queued()
                await self._tell_of_keys()
            due = await self._expire() if expires else POLL_S
            with suppress(TimeoutError):  # no `wait_for`: in Python 3.11 it may swallow the cancellation that ends us
                async with asyncio.timeout(min(POLL_S, due)):
                    await self._wake.wait()
            self._wake.clear()

    async def _send_queued(self) -> None:
        if not self.link_is_up():
            return  # an outage of ours: they stay queued, can be cancelled, and expire in their time
        now_ms, now_s = self._clock.now_ms(), self._clock.monotonic_s()

        def take(tx: Connection) -> list[Downstream]:
            rows = repository.queued(tx, SEND_BATCH_MAX, self.mine)
            repository.mark_sent(tx, [row["id"] for row in rows], now_ms)
            return [
                Downstream(
                    topics.down(row["device_id"], topics.DownChannel.COMMAND),
                    self._signed(row),
                    expires_s=now_s + (row["not_after"] - now_ms) / MILLISECONDS_PER_SECOND / self._clock.speed,
                )
                for row in rows
                if row["not_after"] >= now_ms
            ]

        if not await self._database.read(lambda tx: bool(repository.queued(tx, 1, self.mine))):
            return
        messages = await self._database.write(take)
        if messages:
            self._publish(messages)

    def _signed(self, row: RowMapping) -> bytes:
        order = CommandOrder(
            id=row["id"],
            device_id=row["device_id"],
            generation=row["generation"],
            issued_at=row["issued_at"],
            not_after=row["not_after"],
            command=msgspec.Raw(row["arguments"].encode()),
        )
        return sign_command(order, *self._keys.for_command(row["trusted"].split()))

    async def _tell_of_keys(self) -> None:
        """Ask connected devices that trust other keys than announced to say hello: the welcome tells them."""
        now_s = self._clock.monotonic_s()
        if not self._keys.version or now_s - self._nudged_s < NUDGE_S or not self.link_is_up():
            return
        self._nudged_s = now_s
        self._nudged = {who: at_s for who, at_s in self._nudged.items() if now_s - at_s < NUDGE_AGAIN_S}
        announced, most = " ".join(self._keys.announced_ids), NUDGES_MAX + len(self._nudged)
        rows = await self._database.read(lambda tx: repository.not_informed(tx, announced, most))
        messages = []
        for row in rows:
            device_id = row["device_id"]
            if device_id in self._nudged or not self.mine(device_id):
                continue
            self._nudged[device_id] = now_s
            nudge = Acknowledgement(generation=row["generation"], marks={}, greet=True)
            messages.append(Downstream(topics.down(device_id, topics.DownChannel.ACK), encode(nudge)))
        if messages:
            self._publish(messages)

    def _clock_went_back(self, now_ms: int) -> bool:
        """Since the last look; at the start it may have, while nobody looked."""
        before_ms, self._looked_ms = self._looked_ms, now_ms
        return before_ms is None or now_ms < before_ms

    async def _expire(self) -> float:
        """End overdue commands; real seconds until the next one may be."""
        now_ms = self._clock.now_ms()
        not_accepted = now_ms - round(ACCEPT_GRACE_S * MILLISECONDS_PER_SECOND)
        unfinished = now_ms - round(FINISH_WITHIN_S * MILLISECONDS_PER_SECOND)
        ahead_ms = round(AHEAD_S_MAX * MILLISECONDS_PER_SECOND * self._clock.speed)
        if self._clock_went_back(now_ms):
            await self._database.write(lambda tx: repository.follow_clock(tx, now_ms, ahead_ms))
        found, limit = await self._database.read(
            lambda tx: (
                bool(repository.overdue(tx, not_accepted, unfinished)),
                repository.next_overdue_at(tx, now_ms - not_accepted, now_ms - unfinished),
            )
        )
        if found:

            def end(tx: Connection) -> list[CommandOutcome]:
                ended = []
                for row in repository.overdue(tx, not_accepted, unfinished):
                    waiting = row["status"] in {repository.QUEUED, repository.SENT}
                    status = ReplyStatus.EXPIRED.value if waiting else ReplyStatus.FAILED.value
                    reason = "expired" if waiting else "unknown"
                    if repository.advance(tx, row["id"], status, reason, now_ms) is not None:
                        outcome = CommandOutcome(row["id"], row["device_id"], row["action"], status, reason, now_ms)
                        ended.append(self._settle(tx, outcome))
                return ended

            self.settled(await self._database.write(end))
        if limit is None:
            return POLL_S
        wait_ms = max(limit - now_ms, 0)
        return max(wait_ms / MILLISECONDS_PER_SECOND / self._clock.speed, 0.05)
