"""Leases on shards with a fencing token: two ingesters never own one device (decision 4).

The lease time is real time. An owner that was killed and comes back takes its own leases again at once;
anybody else waits until they run out, or until an owner that ends lets them go. A commit by an ingester that
lost its lease fails: `check` locks the leases until that commit is through, so whoever takes them over reads
lanes that nobody changes any more (ADR 0008).
"""

import asyncio
from collections.abc import Callable, Collection
from typing import Final

import structlog
from sqlalchemy import Connection, bindparam, select, text, update
from sqlalchemy.exc import OperationalError

from cloud.ports import Database
from cloud.tables import shard_lease
from fleet.clock import MILLISECONDS_PER_SECOND

_log = structlog.get_logger(__name__)

LEASE_S: Final = 15.0
"""Unless told otherwise (`FLEET_LEASE_S`)."""
RENEW_S: Final = 4.0
"""For a lease of `LEASE_S`; in proportion for others."""
RETRY_S: Final = 0.5

_c = shard_lease.c
_held = (_c.owner == bindparam("b_owner")) & (_c.fence == bindparam("b_fence"))
# Locked in one order by everybody, so that nobody waits in a circle; SQLite has one writer and needs no lock.
_CHECK: Final = select(_c.shard).where(_held).order_by(_c.shard).with_for_update(read=True)
_SET_UNTIL: Final = update(shard_lease).where(_held).values(lease_until=bindparam("b_until"))


class LeaseLostError(Exception):
    """Another ingester owns our shards now; nothing was committed and this process must end."""


class _HeldError(Exception):
    """Somebody else's lease has not run out yet."""


class Leases:
    """The shards of one ingester. `owner` is stable across its restarts (it names the spool)."""

    def __init__(
        self, database: Database, owner: str, real_now_ms: Callable[[], int], lease_s: float = LEASE_S
    ) -> None:
        self._lease_ms = round(lease_s * MILLISECONDS_PER_SECOND)
        self._database = database
        self._owner = owner
        self._real_now_ms = real_now_ms
        self._fence = 0
        self.shards: frozenset[int] = frozenset()

    async def take(self, shards: Collection[int], given_up: Callable[[], bool] = lambda: False) -> bool:
        """Wait until all of `shards` are ours; False, with nothing changed, if they were `given_up` meanwhile.

        Who shares must be able to give up: another may hold what it asks for as its own share, and for ever.
        """
        wanted = sorted(shards)
        waited = False
        while not given_up():
            try:
                await self._database.read(lambda tx: self._require_free(tx, wanted))  # a look disturbs nobody's commits
                self._fence = await self._database.write(lambda tx: self._try_take(tx, wanted))
            except _HeldError:
                if not waited:
                    _log.warning("another ingester holds our shards; waiting for its lease to run out")
                    waited = True
                await asyncio.sleep(RETRY_S)
            else:
                self.shards = frozenset(wanted)
                return True
        return False

    def _require_free(self, tx: Connection, shards: list[int]) -> None:
        foreign = (_c.owner != self._owner) & (_c.lease_until >= self._real_now_ms())
        if tx.execute(select(_c.shard).where(_c.shard.in_(shards), foreign).limit(1)).first() is not None:
            raise _HeldError

    def _try_take(self, tx: Connection, shards: list[int]) -> int:
        now_ms = self._real_now_ms()
        tx.execute(
            text("""INSERT INTO shard_lease (shard, owner, fence, lease_until) VALUES (:shard, '', 0, 0)
                    ON CONFLICT (shard) DO NOTHING"""),
            [{"shard": shard} for shard in shards],
        )
        fence = int(tx.execute(text("SELECT max(fence) FROM shard_lease")).scalar_one()) + 1
        taken = 0
        for shard in shards:
            taken += tx.execute(
                text("""UPDATE shard_lease SET owner = :owner, fence = :fence, lease_until = :until
                        WHERE shard = :shard AND (owner = :owner OR lease_until < :now)"""),
                {
                    "owner": self._owner,
                    "fence": fence,
                    "until": now_ms + self._lease_ms,
                    "shard": shard,
                    "now": now_ms,
                },
            ).rowcount
        if taken < len(shards):
            raise _HeldError  # rolls back: all shards or none
        return fence

    def check(self, tx: Connection) -> None:
        """Part of every commit: raises LeaseLostError unless every shard is ours until that commit is through."""
        self._require_all(len(tx.execute(_CHECK, self._names()).all()))

    def _require_all(self, held: int) -> None:
        if held != len(self.shards):
            raise LeaseLostError(f"{self._owner} holds {held} of {len(self.shards)} shards")

    def _names(self) -> dict[str, str | int]:
        return {"b_owner": self._owner, "b_fence": self._fence}

    async def keep(self) -> None:
        """Renew until cancelled. A database that is away for a while ends nothing: the fence decides, not the clock."""
        while True:
            await asyncio.sleep(RENEW_S * self._lease_ms / MILLISECONDS_PER_SECOND / LEASE_S)
            try:
                await self._database.write(self._renew)
            except OperationalError as error:
                _log.warning("leases not renewed", error=str(error))

    async def release(self) -> None:
        """Let go of everything, so that the next owner need not wait. Nothing may be committed afterwards."""
        if not self.shards:
            return
        try:
            await self._database.write(lambda tx: tx.execute(_SET_UNTIL, {**self._names(), "b_until": 0}))
        except OperationalError as error:  # they run out by themselves
            _log.warning("leases not released", error=str(error))

    def _renew(self, tx: Connection) -> None:
        self.check(tx)
        tx.execute(_SET_UNTIL, {**self._names(), "b_until": self._real_now_ms() + self._lease_ms})
