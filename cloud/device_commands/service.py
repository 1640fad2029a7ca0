"""`cloud.ports.CommandSender`: records, signs, sends and follows commands.

A command is a row before it is a message. It travels once, is never retained, and ends `expired` when
the device did not accept it in time: it can't fire later, because the device checks the same limit by
an authenticated clock and remembers the ids it has seen.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final

import msgspec
from sqlalchemy import Connection, RowMapping

import devices
from cloud.device_commands import repository
from cloud.model import CommandOutcome, Downstream, OutcomeHandler
from cloud.ports import Database, Publish
from fleet import topics
from fleet.clock import MILLISECONDS_PER_SECOND, Clock
from fleet.kind import literal_of
from fleet.messages import Command, Reply, ReplyStatus
from fleet.signing import CommandOrder, Signer, sign_command

OPEN_PER_DEVICE_MAX: Final = 16
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
        key_id: str,
        signer: Signer,
        new_id: Callable[[], str],
        outcome_handlers: Mapping[str, Sequence[OutcomeHandler]] | None = None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._publish = publish
        self._key_id = key_id
        self._signer = signer
        self._new_id = new_id
        self._handlers = {} if outcome_handlers is None else outcome_handlers  # filled after we are made
        self._wake = asyncio.Event()
        self._waiting: dict[str, set[asyncio.Future[tuple[str, str] | None]]] = defaultdict(set)
        self.mine: Callable[[str], bool] = lambda _device_id: True
        """Whether this process sends to that device; an ingester sets it to the shards it holds."""

    def order(
        self, tx: Connection, device_id: str, command: Command, *, actor: str, lifetime_s: float | None = None
    ) -> str:
        """Record a command inside the caller's transaction; see `cloud.ports.CommandSender`."""
        row = repository.device_of(tx, device_id)
        if row is None or row["retired_at"] is not None:
            raise LookupError(f"no device {device_id!r} in service")
        kind = devices.kind_named(row["kind"])
        if type(command) not in kind.commands:
            raise ValueError(f"a {kind.name} knows no {command.action!r}")
        if repository.open_count(tx, device_id) >= OPEN_PER_DEVICE_MAX:
            raise ValueError(f"{device_id} has {OPEN_PER_DEVICE_MAX} unanswered commands; wait until they end")
        now_ms = self._clock.now_ms()
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
                "issued_at": now_ms,
                "not_after": now_ms + round(limit_s * MILLISECONDS_PER_SECOND),
                "generation": row["generation"],
                "status": repository.QUEUED,
                "reason": "",
                "changed_at": now_ms,
            },
        )
        return command_id

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
            if sends:
                await self._send_queued()
            due = await self._expire() if expires else POLL_S
            with suppress(TimeoutError):  # no `wait_for`: in Python 3.11 it may swallow the cancellation that ends us
                async with asyncio.timeout(min(POLL_S, due)):
                    await self._wake.wait()
            self._wake.clear()

    async def _send_queued(self) -> None:
        now_ms = self._clock.now_ms()

        def take(tx: Connection) -> list[Downstream]:
            rows = repository.queued(tx, SEND_BATCH_MAX, self.mine)
            repository.mark_sent(tx, [row["id"] for row in rows], now_ms)
            return [
                Downstream(topics.down(row["device_id"], topics.DownChannel.COMMAND), self._signed(row))
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
        return sign_command(order, self._key_id, self._signer)

    async def _expire(self) -> float:
        """End overdue commands; real seconds until the next one may be."""
        now_ms = self._clock.now_ms()
        not_accepted = now_ms - round(ACCEPT_GRACE_S * MILLISECONDS_PER_SECOND)
        unfinished = now_ms - round(FINISH_WITHIN_S * MILLISECONDS_PER_SECOND)
        found, limit = await self._database.read(
            lambda tx: (bool(repository.overdue(tx, not_accepted, unfinished)), repository.next_not_after(tx))
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
        wait_ms = max(limit - not_accepted, 0)
        return max(wait_ms / MILLISECONDS_PER_SECOND / self._clock.speed, 0.05)
