"""What a ride costs, and how it is booked. Integer fen; a ride that never began costs nothing."""

from typing import Final

from sqlalchemy import Connection

from cloud.wallet import ledger

PERIOD_MS: Final = 30 * 60_000
PERIOD_FEE_FEN: Final = 100
FEE_FEN_MAX: Final = 2_000
"""Nobody pays more for one ride, however long a lock was forgotten: `left_unlocked` alarms the crew long before."""


def fee_fen(duration_ms: int) -> int:
    """Fee of a ride by started half hours; even the shortest has started one."""
    periods = max(1, -(-duration_ms // PERIOD_MS))
    return min(periods * PERIOD_FEE_FEN, FEE_FEN_MAX)


def charge(tx: Connection, ride_id: str, person_id: str, fee: int, at: int) -> int:
    """Book the fee of an ended ride once; returns the fen that the wallet could not pay.

    It runs inside the pipeline's commit, so a poor wallet must not stop it: the union advances the
    rest, and `settle` takes it from the wallet before the next ride.
    """
    wallet = ledger.wallet_of(person_id)
    paid = max(0, min(fee, ledger.balance(tx, wallet)))
    try:
        _post(tx, ride_id, wallet, fee, paid, at)
    except ledger.InsufficientFundsError:  # spent elsewhere in between
        paid = 0
        _post(tx, ride_id, wallet, fee, paid, at)
    return fee - paid


def _post(tx: Connection, ride_id: str, wallet: str, fee: int, paid: int, at: int) -> None:
    entries = {ledger.RIDES: fee, wallet: -paid, ledger.FUNDING: paid - fee}
    booked = {account: amount for account, amount in entries.items() if amount}
    ledger.post(tx, f"ride:{ride_id}", f"ride:{ride_id}", booked, at)


def settle(tx: Connection, ride_id: str, person_id: str, at: int) -> bool:
    """Pay back what the union advanced for a ride; False if the wallet still can't."""
    advanced = -ledger.entries_of(tx, f"ride:{ride_id}").get(ledger.FUNDING, 0)
    if advanced <= 0:
        return True
    wallet = ledger.wallet_of(person_id)
    entries = {ledger.FUNDING: advanced, wallet: -advanced}
    try:
        ledger.post(tx, f"ride_rest:{ride_id}", f"ride_rest:{ride_id}", entries, at)
    except ledger.InsufficientFundsError:
        return False
    return True
