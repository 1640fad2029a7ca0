"""Which shards an ingester takes when it is not told: an equal share among those that live (ADR 0029).

Each ingester keeps a seat, a row of `shard_lease` beyond the shards with a lease of its own. Who finds that it holds
more shards than its share lets go of the rest; who holds fewer takes what is free. Nobody tells anybody anything: each
looks at the table, a few times per lease. What it sees may be old; that two never own one shard is the fence's doing
(`leases`), not this module's.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final

import structlog
from sqlalchemy import Connection, select, text, update
from sqlalchemy.exc import OperationalError

from cloud.ingest.leases import LEASE_S, RENEW_S, RETRY_S
from cloud.ports import Database
from cloud.tables import shard_lease
from fleet.clock import MILLISECONDS_PER_SECOND
from fleet.topics import SHARD_COUNT

_log = structlog.get_logger(__name__)

SEAT_FIRST: Final = 1000
"""Rows from here on are seats; what lies between is nobody's."""
LOOKS_PER_LEASE: Final = 15
LOOKS_ALIKE: Final = 3
"""So many looks in a row must say the same before anything changes hands: after an outage of the database every lease
has run out, and whoever looks first must not take what the others are about to renew."""
_SEAT_FENCE: Final = 0
"""No shard is ever held by this number, so a seat never counts as a shard of its owner."""

_c = shard_lease.c
_PUT: Final = text("""INSERT INTO shard_lease (shard, owner, fence, lease_until) VALUES (:shard, :owner, :fence, :until)
    ON CONFLICT (shard) DO UPDATE SET owner = :owner, fence = :fence, lease_until = :until""")


@dataclass(frozen=True, slots=True)
class Row:
    """A shard's or a seat's lease."""

    owner: str
    fence: int
    until_ms: int


def share_of(owner: str, rows: Mapping[int, Row], now_ms: int) -> frozenset[int]:
    """The shards that `owner` should hold now: as many as its share, its own before free ones, the lowest first.

    Fewer than its share while others still hold what is to become free. Pure: `rows` by number, seats among them.
    """
    seats = sorted(number for number, row in rows.items() if number >= SEAT_FIRST and row.until_ms >= now_ms)
    mine = [number for number in seats if rows[number].owner == owner]
    if not mine:
        return frozenset()
    each, more = divmod(SHARD_COUNT, len(seats))
    share = each + (seats.index(mine[0]) < more)
    own, free = [], []
    for shard in range(SHARD_COUNT):
        row = rows.get(shard)
        if row is not None and row.owner == owner:
            own.append(shard)
        elif row is None or row.until_ms < now_ms:
            free.append(shard)
    return frozenset([*own, *free][:share])


class Shares:
    """The seat of one ingester, and what it should hold."""

    def __init__(self, database: Database, owner: str, real_now_ms: Callable[[], int], lease_s: float) -> None:
        self._database = database
        self._owner = owner
        self._real_now_ms = real_now_ms
        self._lease_s = lease_s

    async def sit(self) -> None:
        """Take a seat, or renew ours."""
        await self._database.write(self._sit)

    async def keep_seat(self) -> None:
        """`sit` again and again, until cancelled."""
        while True:
            try:
                await self.sit()
            except OperationalError as error:
                _log.warning("seat not renewed", error=str(error))
            await asyncio.sleep(RENEW_S * self._lease_s / LEASE_S)

    async def take(self) -> frozenset[int]:
        """Wait for a share and make it ours; lets go of what we hold beyond it."""
        while True:
            wanted = await self._database.write(self._change)
            if wanted:
                return wanted
            await asyncio.sleep(RETRY_S)

    async def changed(self, held: frozenset[int]) -> None:
        """Return when `held` is not our share any more, and what is to be added can be had at once."""
        before, alike = held, 0
        while alike < LOOKS_ALIKE:
            await asyncio.sleep(self._lease_s / LOOKS_PER_LEASE)
            rows = await self._database.read(_rows)
            wanted = share_of(self._owner, rows, self._real_now_ms())
            alike = alike + 1 if wanted == before else 1
            before = wanted
            if wanted in {held, frozenset()}:  # without a seat of ours nothing can be said
                alike = 0
            elif alike >= LOOKS_ALIKE and not await self._nobody_locks(rows.keys() & wanted - held):
                alike = 0  # its owner was stopped amid a commit: we go on with what we have until the server ends that

    async def _nobody_locks(self, shards: Collection[int]) -> bool:
        found = select(_c.shard).where(_c.shard.in_(shards)).with_for_update(skip_locked=True)
        return len(shards) == len(await self._database.write(lambda tx: tx.execute(found).all()))

    async def leave(self) -> None:
        """Give the seat up, so that the others need not wait until it runs out."""
        mine = (_c.owner == self._owner) & (_c.shard >= SEAT_FIRST)
        try:
            await self._database.write(lambda tx: tx.execute(update(shard_lease).where(mine).values(lease_until=0)))
        except OperationalError as error:
            _log.warning("seat not given up", error=str(error))

    def _sit(self, tx: Connection) -> None:
        rows, now_ms = _rows(tx), self._real_now_ms()
        until_ms = now_ms + round(self._lease_s * MILLISECONDS_PER_SECOND)
        seats = {number: row for number, row in rows.items() if number >= SEAT_FIRST}
        own = [number for number, row in seats.items() if row.owner == self._owner]
        free = [number for number, row in seats.items() if row.until_ms < now_ms]
        number = min(own or free, default=max(seats, default=SEAT_FIRST - 1) + 1)
        tx.execute(_PUT, _row(number, self._owner, _SEAT_FENCE, until_ms))

    def _change(self, tx: Connection) -> frozenset[int]:
        rows, now_ms = _rows(tx), self._real_now_ms()
        wanted = share_of(self._owner, rows, now_ms)
        if not wanted:
            return wanted
        surplus = [
            shard for shard, row in sorted(rows.items())
            if shard < SHARD_COUNT and row.owner == self._owner and shard not in wanted
        ]  # fmt: skip
        if surplus:  # a commit of ours that is still under way is waited for, or fails
            tx.execute(update(shard_lease).where(_c.shard.in_(surplus)).values(owner="", lease_until=0))
        # Ours within the same transaction: of two that saw the same shard free, the second looks again.
        fence = max(row.fence for row in rows.values()) + 1
        until_ms = now_ms + round(self._lease_s * MILLISECONDS_PER_SECOND)
        tx.execute(_PUT, [_row(shard, self._owner, fence, until_ms) for shard in sorted(wanted)])
        return wanted


def _rows(tx: Connection) -> dict[int, Row]:
    return {row.shard: Row(row.owner, row.fence, row.lease_until) for row in tx.execute(select(shard_lease))}


def _row(number: int, owner: str, fence: int, until_ms: int) -> dict[str, int | str]:
    return {"shard": number, "owner": owner, "fence": fence, "until": until_ms}
