"""Leases on shards with a fencing token: two ingesters never own one device (decision 4).

The lease time is real time. An owner that was killed and comes back takes its own leases again at once;
anybody else waits until they run out. A commit by an ingester that lost its lease fails.
"""

import asyncio
from collections.abc import Callable, Collection
from typing import Final

import structlog
from sqlalchemy import Connection, text

from cloud.ports import Database

_log = structlog.get_logger(__name__)

LEASE_S: Final = 15.0
RENEW_S: Final = 4.0
RETRY_S: Final = 0.5


class LeaseLostError(Exception):
    """Another ingester owns our shards now; nothing was committed and this process must end."""


class _HeldError(Exception):
    """Somebody else's lease has not run out yet."""


class Leases:
    """The shards of one ingester. `owner` is stable across its restarts (it names the spool)."""

    def __init__(self, database: Database, owner: str, real_now_ms: Callable[[], int]) -> None:
        self._database = database
        self._owner = owner
        self._real_now_ms = real_now_ms
        self._fence = 0
        self.shards: frozenset[int] = frozenset()

    async def take(self, shards: Collection[int]) -> None:
        """Wait until all of `shards` are ours."""
        wanted = sorted(shards)
        waited = False
        while True:
            try:
                self._fence = await self._database.write(lambda tx: self._try_take(tx, wanted))
                break
            except _HeldError:
                if not waited:
                    _log.warning("another ingester holds our shards; waiting for its lease to run out")
                    waited = True
                await asyncio.sleep(RETRY_S)
        self.shards = frozenset(wanted)

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
                    "until": now_ms + round(LEASE_S * 1000),
                    "shard": shard,
                    "now": now_ms,
                },
            ).rowcount
        if taken < len(shards):
            raise _HeldError  # rolls back: all shards or none
        return fence

    def check(self, tx: Connection) -> None:
        """Part of every commit: raises LeaseLostError unless every shard is still ours."""
        held = tx.execute(
            text("SELECT count(*) FROM shard_lease WHERE owner = :owner AND fence = :fence"),
            {"owner": self._owner, "fence": self._fence},
        ).scalar_one()
        if held != len(self.shards):
            raise LeaseLostError(f"{self._owner} holds {held} of {len(self.shards)} shards")

    async def keep(self) -> None:
        """Renew until cancelled."""
        while True:
            await asyncio.sleep(RENEW_S)
            await self._database.write(self._renew)

    def _renew(self, tx: Connection) -> None:
        self.check(tx)
        tx.execute(
            text("UPDATE shard_lease SET lease_until = :until WHERE owner = :owner AND fence = :fence"),
            {"until": self._real_now_ms() + round(LEASE_S * 1000), "owner": self._owner, "fence": self._fence},
        )
