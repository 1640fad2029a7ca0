"""What the cloud of a demo holds about rides, sales, calls, orders and readings: its two databases, only read.

The API tells people their own part; the comparison asks for everybody's, with the ledger's bookings.
"""

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cloud.adapters.sql.database import SqlDatabase
from cloud.wallet import ledger
from fleet.incident import OrderState

NANOSECONDS_PER_MILLISECOND: Final = 1_000_000
ORDERS_OVER: Final = frozenset({OrderState.DONE.value, OrderState.CANNOT_COMPLETE.value, OrderState.CANCELLED.value})

Readings = dict[str, dict[int, list[dict[str, Any]]]]
"""device → business ms → the fields of each stored point of that millisecond."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ride:
    """`begun`: the cloud says that the lock opened."""

    id: str
    command_id: str
    begun: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Purchase:
    """`charged` and `net_fen` are the ledger's: whether it was paid, and what the buyer's wallet lost in the end."""

    id: str
    state: str
    charged: bool
    net_fen: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """One look at the cloud's state."""

    rides: tuple[Ride, ...]
    purchases: tuple[Purchase, ...]
    press_event_ids: tuple[str, ...]
    """Event id of each `press` transition of all calls."""
    open_order_needs: tuple[str, ...]
    """What each open order is for, without the moment at which the need arose."""
    order_causes: tuple[str, ...]
    ledger_problems: tuple[str, ...]


def read_holdings(state_file: Path) -> Holdings:
    """Look into the cloud's database, on one snapshot."""
    with _opened(state_file) as state:
        state.execute("BEGIN")
        wallets = dict(
            state.execute(
                "SELECT transaction_id, sum(amount_fen) FROM ledger_entry WHERE account_id LIKE 'wallet:%'"
                " AND (transaction_id LIKE 'purchase:%' OR transaction_id LIKE 'refund:%') GROUP BY transaction_id"
            )
        )
        orders = list(state.execute("SELECT cause, state FROM work_order"))
        return Holdings(
            rides=tuple(
                Ride(id=row[0], command_id=row[1], begun=row[2] is not None)
                for row in state.execute("SELECT id, command_id, started_at FROM ride")
            ),
            purchases=tuple(
                Purchase(
                    id=row[0],
                    state=row[1],
                    charged=f"purchase:{row[0]}" in wallets,
                    net_fen=-wallets.get(f"purchase:{row[0]}", 0) - wallets.get(f"refund:{row[0]}", 0),
                )
                for row in state.execute("SELECT id, state FROM purchase")
            ),
            press_event_ids=tuple(
                row[0] for row in state.execute("SELECT event_id FROM call_transition WHERE step = 'press'")
            ),
            open_order_needs=tuple(
                cause.rpartition(":")[0]
                for cause, order_state in orders
                if cause.startswith("need:") and order_state not in ORDERS_OVER
            ),
            order_causes=tuple(cause for cause, _ in orders),
            ledger_problems=tuple(_ledger_problems(state_file)),
        )


def series_caught_up(state_file: Path) -> bool:
    """Whether everything that is in the twins is in the series too."""
    positions: defaultdict[str, dict[str, int]] = defaultdict(dict)
    with _opened(state_file) as state:
        for spool, name, position in state.execute("SELECT spool, name, position FROM spool_mark"):
            positions[spool][name] = position
    return all(found.get("series", 0) >= found.get("twin", 0) for found in positions.values())


def has_points(series_file: Path) -> bool:
    """Whether the series holds a first reading."""
    try:
        with _opened(series_file) as series:
            return series.execute("SELECT 1 FROM point LIMIT 1").fetchone() is not None
    except sqlite3.OperationalError:  # the file or its tables are not there yet
        return False


def read_readings(series_file: Path, kind: str) -> Readings:
    """All points of one kind."""
    readings: Readings = {}
    with _opened(series_file) as series:
        rows = series.execute(
            "SELECT device_id, at_ns, fields FROM point JOIN series ON series.id = series_id WHERE kind = ?", (kind,)
        )
        for device_id, at_ns, fields in rows:
            of_device = readings.setdefault(device_id, {})
            of_device.setdefault(at_ns // NANOSECONDS_PER_MILLISECOND, []).append(json.loads(fields))
    return readings


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=5)) as connection:
        yield connection


def _ledger_problems(state_file: Path) -> list[str]:
    database = SqlDatabase(f"sqlite:///{state_file.resolve()}")
    try:
        return database.read_here(ledger.problems)
    finally:
        database.close()
