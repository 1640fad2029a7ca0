"""Asking for a ride and following it. What the lock reports comes in through `evidence`."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Row
from sqlalchemy.exc import IntegrityError

from cloud import audit
from cloud.api.access import Person
from cloud.api.changes import RELOAD, Change, Changes
from cloud.api.problem import ProblemError, conflict, not_found
from cloud.model import EventHandler, OutcomeHandler
from cloud.ports import CommandSender, Database
from cloud.rides import fees, repository
from cloud.rides.evidence import LockEvidence, end_revoked, expire
from cloud.rides.lifecycle import RIDE, RideState
from cloud.wallet import ledger
from devices.bike import kind, rules
from devices.bike.messages import Reading, Unlock
from devices.bike.state import State
from fleet.clock import MILLISECONDS_PER_SECOND, Clock

UNLOCK_LIFETIME_S: Final = 10.0
EVIDENCE_WITHIN_S: Final = 30.0
"""Business seconds from asking to the lock's own report; then there was no ride."""
EXPIRE_BATCH_MAX: Final = 200
POLL_S: Final = 1.0
"""Real seconds between looks at the database: the backstop when another process made the commit."""
WAIT_S_MAX: Final = 30.0
LOCK_EVENTS: Final = frozenset({"lock_opened", "lock_closed", "lock_jammed"})


class RideService:
    """One instance per process; `run` is supervised by the process's task group."""

    def __init__(
        self, database: Database, clock: Clock, commands: CommandSender, changes: Changes, new_id: Callable[[], str]
    ) -> None:
        self._database = database
        self._clock = clock
        self._commands = commands
        self._changes = changes
        self._new_id = new_id
        self._evidence = LockEvidence(commands)
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._asked = asyncio.Event()

    # --- for the pipeline --------------------------------------------------------------------------------------

    @property
    def event_handlers(self) -> Mapping[tuple[str, str], EventHandler]:
        """(kind, event type) → what to do inside the commit."""
        name = kind.KIND.name
        return {
            (name, "lock_opened"): self._evidence.opened,
            (name, "lock_closed"): self._evidence.closed,
            (name, "lock_jammed"): self._evidence.jammed,
        }

    @property
    def outcome_handlers(self) -> Mapping[str, OutcomeHandler]:
        """Command action → what to do inside the commit of its outcome."""
        return {"unlock": self._evidence.answered}

    # --- for riders --------------------------------------------------------------------------------------------

    async def ask(self, device_id: str, person: Person) -> Row[Any]:
        """Order the unlock; the ride starts when the lock reports open.

        The same rider asking again for the bike that is being unlocked gets the same ride.

        Raises:
            ProblemError: 404 no such bike; 409 `ride_open`, `bike_taken`, `bike_offline`, `bike_not_rentable`,
                `bike_busy`; 402 `top_up_first`.
        """
        try:
            ride = await self._database.write(lambda tx: self._ask(tx, device_id, person))
        except IntegrityError:  # somebody asked at the same moment; the database let one of the two through
            raise conflict("bike_taken", "Somebody else is just taking this bike.") from None
        self._commands.after_commit()
        self._asked.set()
        self._announce(ride)
        return ride

    async def ride(self, ride_id: str, person: Person, wait_s: float = 0.0, seen: RideState | None = None) -> Row[Any]:
        """A ride of this person, as soon as its state is another than `seen`, or after `wait_s` real seconds.

        Without `seen` a change counts from now; one that came just before this call is then waited past.

        Raises:
            ProblemError: 404 if there is none, or it is somebody else's.
        """
        news = asyncio.Event()
        self._waiting[ride_id].add(news)  # before reading, so that no change slips in between
        try:
            latest = await self._read(ride_id, person)
            known = latest.state if seen is None else seen.value
            try:
                async with asyncio.timeout(min(wait_s, WAIT_S_MAX)):
                    while latest.state == known and RideState(latest.state) not in RIDE.final:
                        await self._news_or_poll(news)
                        latest = await self._read(ride_id, person)
            except TimeoutError:
                pass  # nothing changed in time: the caller gets the state as it is
            return latest
        finally:
            self._waiting[ride_id].discard(news)
            if not self._waiting[ride_id]:
                del self._waiting[ride_id]

    async def rides(self, person: Person, before: str | None, limit: int) -> list[Row[Any]]:
        """A person's own rides, newest first; `before` is the `cloud.api.paging.mark` of the last one seen."""
        return await self._database.read(lambda tx: repository.of_person(tx, person.id, before, limit))

    async def rentable_bikes(self, limit: int) -> list[tuple[str, Reading]]:
        """Bikes that anybody may take now, with their latest reading."""
        rows = await self._database.read(lambda tx: repository.parked_bikes(tx, kind.KIND.name))
        found: list[tuple[str, Reading]] = []
        for row in rows:
            state = _state_of(row.state)
            if rules.rentable(state) and len(found) < limit:
                found.append((row.device_id, state.reading))
        return found

    def _ask(self, tx: Connection, device_id: str, person: Person) -> Row[Any]:
        bike = repository.bike(tx, device_id)
        if bike is None or bike.kind != kind.KIND.name:
            raise not_found("bike", device_id)
        mine = repository.open_of_person(tx, person.id)
        if mine is not None:
            if mine.device_id == device_id and mine.state == RideState.UNLOCKING:
                return mine
            raise ProblemError(
                409, "ride_open", "Not possible now", "You are in a ride. Lock that bike first.", ride_id=mine.id
            )
        if repository.open_of_bike(tx, device_id) is not None:
            raise conflict("bike_taken", "Somebody is riding this bike.")
        if not bike.online:
            raise conflict("bike_offline", "This bike can't be reached now. Take another one.")
        if not rules.rentable(_state_of(bike.state)):
            raise conflict("bike_not_rentable", "This bike needs the crew first. Take another one.")
        now_ms = self._clock.now_ms()
        self._require_money(tx, person, now_ms)
        try:
            command_id = self._commands.order(tx, device_id, Unlock(), actor=person.id, lifetime_s=UNLOCK_LIFETIME_S)
        except ValueError as error:
            raise conflict("bike_busy", str(error)) from error
        ride_id = self._new_id()
        repository.add(
            tx,
            id=ride_id,
            person_id=person.id,
            device_id=device_id,
            command_id=command_id,
            state=RIDE.initial.value,
            asked_at=now_ms,
            deadline_at=now_ms + round(EVIDENCE_WITHIN_S * MILLISECONDS_PER_SECOND),
            changed_at=now_ms,
        )
        audit.record(tx, now_ms, person.id, "ride.ask", ride_id, {"device_id": device_id, "command_id": command_id})
        ride = repository.one(tx, ride_id, person.id)
        assert ride is not None
        return ride

    @staticmethod
    def _require_money(tx: Connection, person: Person, now_ms: int) -> None:
        for unpaid in repository.unpaid_of_person(tx, person.id):
            if fees.settle(tx, unpaid.id, person.id, now_ms):
                words = [word for word in unpaid.flagged.split() if word != repository.UNPAID]
                repository.set_flags(tx, unpaid.id, " ".join(words), now_ms)
            else:
                raise ProblemError(402, "top_up_first", "Not enough money", "Top up to pay for your last ride first.")
        if ledger.balance(tx, ledger.wallet_of(person.id)) < fees.PERIOD_FEE_FEN:
            raise ProblemError(402, "top_up_first", "Not enough money", "Top up at least the fee of half an hour.")

    async def _read(self, ride_id: str, person: Person) -> Row[Any]:
        found = await self._database.read(lambda tx: repository.one(tx, ride_id, person.id))
        if found is None:
            raise not_found("ride", ride_id)
        return found

    @staticmethod
    async def _news_or_poll(news: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(POLL_S):
                await news.wait()
        except TimeoutError:
            return
        finally:
            news.clear()

    # --- in the background -------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Both of the following: what the only process of an installation does."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.keep_deadlines())
            group.create_task(self.follow_commits())

    async def keep_deadlines(self) -> None:
        """Expire rides without evidence; one process of an installation does, more do no harm."""
        while True:
            self._asked.clear()
            await self._expire_due(self._clock.now_ms())
            deadline = await self._database.read(repository.next_deadline)
            wait_s = POLL_S
            if deadline is not None:
                due_s = (deadline + 1 - self._clock.now_ms()) / MILLISECONDS_PER_SECOND / self._clock.speed
                wait_s = min(POLL_S, max(due_s, 0.01))
            try:
                async with asyncio.timeout(wait_s):
                    await self._asked.wait()
            except TimeoutError:
                continue

    async def _expire_due(self, now_ms: int) -> None:
        def due(tx: Connection) -> bool:
            return bool(repository.overdue(tx, now_ms, 1) or repository.on_revoked_bikes(tx, 1))

        if not await self._database.read(due):
            return
        ended = await self._database.write(
            lambda tx: [*end_revoked(tx, now_ms, EXPIRE_BATCH_MAX), *expire(tx, now_ms, EXPIRE_BATCH_MAX)]
        )
        for ride in ended:
            self._announce(ride)

    async def follow_commits(self) -> None:
        """Tell those who wait in this process what the commits changed; every process with the API does."""
        while True:
            with self._changes.subscribe() as subscription:
                for waiting in self._waiting.values():  # what happened while nobody listened
                    for news in waiting:
                        news.set()
                while (change := await subscription.next()).topic != RELOAD:
                    await self._on_change(change)

    async def _on_change(self, change: Change) -> None:
        facts = change.facts
        if change.topic == "event" and facts.get("kind") == kind.KIND.name and facts.get("type") in LOCK_EVENTS:
            device_id = str(facts["device_id"])
            await self._announce_latest(lambda tx: repository.latest_of_bike(tx, device_id))
        elif change.topic == "ride":  # expired or asked for, maybe in another process
            self._wake(str(facts["id"]))
        elif change.topic == "command":
            command_id = str(facts["id"])
            await self._announce_latest(lambda tx: repository.by_command(tx, command_id))

    async def _announce_latest(self, find: Callable[[Connection], Row[Any] | None]) -> None:
        ride = await self._database.read(find)
        if ride is not None:
            self._wake(ride.id)
            self._changes.publish_here("ride", _facts(ride))  # the others conclude it by themselves

    def _announce(self, ride: Row[Any]) -> None:
        self._wake(ride.id)
        self._changes.publish("ride", _facts(ride))

    def _wake(self, ride_id: str) -> None:
        for news in self._waiting.get(ride_id, ()):
            news.set()


def _facts(ride: Row[Any]) -> dict[str, Any]:
    return {"id": ride.id, "person_id": ride.person_id, "device_id": ride.device_id, "state": ride.state}


def _state_of(text: str | None) -> State:
    """The state in a twin's row; one of a bike that never spoke is rentable to nobody."""
    if text is None:
        return State(device_id="")
    state = msgspec.json.decode(text, type=State)
    if state.reading is None:
        return state
    return msgspec.structs.replace(state, reading=Reading.model_validate(state.reading))
