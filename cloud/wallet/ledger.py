"""The double-entry ledger. Every function runs inside the caller's transaction.

Accounts are seen from their owner: a debit (positive) adds to an account, a credit (negative) takes
from it; the entries of one transaction sum to zero. Nothing is ever changed or deleted (triggers in
`cloud.tables` refuse it); `ledger_account.balance_fen` is the running sum, kept in the same transaction
and bounded by a CHECK, so that not even two concurrent charges can overdraw a wallet.
"""

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Connection, Row, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from cloud.tables import ledger_account, ledger_entry, ledger_transaction

FUNDING: Final = "funding"
SALES: Final = "sales"
RIDES: Final = "rides"
AMOUNT_FEN_MAX: Final = 100_000_000
ENTRIES_MAX: Final = 16
_NEGATIVE_ALLOWED: Final = frozenset({FUNDING, SALES, RIDES})
"""The union's own accounts; a wallet is never overdrawn."""


class InsufficientFundsError(Exception):
    """An account that may not be negative would be; nothing was changed."""


class LedgerConflictError(Exception):
    """A transaction of this id exists with other entries; nothing was changed."""


def wallet_of(person_id: str) -> str:
    """Account of a person's wallet."""
    return f"wallet:{person_id}"


def open_account(tx: Connection, account_id: str) -> None:
    """Make the account unless it exists."""
    if tx.execute(select(ledger_account.c.id).where(ledger_account.c.id == account_id)).first() is not None:
        return
    try:
        with tx.begin_nested():
            tx.execute(
                insert(ledger_account).values(
                    id=account_id, balance_fen=0, may_be_negative=int(account_id in _NEGATIVE_ALLOWED)
                )
            )
    except IntegrityError:
        return  # somebody else made it in the meantime


def post(tx: Connection, transaction_id: str, cause: str, entries: Mapping[str, int], at: int) -> bool:
    """Book one transaction; False if exactly this one is booked already.

    Args:
        tx: the caller's transaction; on an error it goes on, as if this had not been called.
        transaction_id: derived from the cause, so that a repeat is recognised.
        cause: what it was for (`purchase:<id>`).
        entries: account → fen, debit positive; at least two, none zero, sum zero. Accounts are made as needed.
        at: business ms.

    Raises:
        ValueError: the entries do not balance.
        InsufficientFundsError: a wallet would be overdrawn.
        LedgerConflictError: the id is taken by another transaction.
    """
    if not 2 <= len(entries) <= ENTRIES_MAX or sum(entries.values()) != 0:
        raise ValueError(f"entries of {transaction_id!r} do not balance: {dict(entries)}")
    if any(amount == 0 or abs(amount) > AMOUNT_FEN_MAX for amount in entries.values()):
        raise ValueError(f"amount out of bounds in {transaction_id!r}: {dict(entries)}")
    if _is_booked(tx, transaction_id, entries):
        return False
    for account_id in sorted(entries):
        open_account(tx, account_id)
    try:
        with tx.begin_nested():
            tx.execute(insert(ledger_transaction).values(id=transaction_id, cause=cause, at=at))
            for account_id in sorted(entries):  # one order for everybody: no deadlock between two transactions
                amount = entries[account_id]
                tx.execute(
                    insert(ledger_entry).values(transaction_id=transaction_id, account_id=account_id, amount_fen=amount)
                )
                tx.execute(
                    update(ledger_account)
                    .where(ledger_account.c.id == account_id)
                    .values(balance_fen=ledger_account.c.balance_fen + amount)
                )
    except IntegrityError as error:
        if _is_booked(tx, transaction_id, entries):
            return False
        if "ledger_balance_not_negative" in str(error.orig):
            raise InsufficientFundsError(f"not enough money for {cause}") from error
        raise
    return True


def _is_booked(tx: Connection, transaction_id: str, entries: Mapping[str, int]) -> bool:
    booked = entries_of(tx, transaction_id)
    if not booked:
        return False
    if booked != dict(entries):
        raise LedgerConflictError(f"transaction {transaction_id!r} exists with other entries")
    return True


def entries_of(tx: Connection, transaction_id: str) -> dict[str, int]:
    """Account → fen of one transaction; empty if there is none."""
    query = select(ledger_entry.c.account_id, ledger_entry.c.amount_fen)
    rows = tx.execute(query.where(ledger_entry.c.transaction_id == transaction_id))
    return {row.account_id: row.amount_fen for row in rows}


def balance(tx: Connection, account_id: str) -> int:
    """Fen; zero for an account that was never used."""
    return int(tx.scalar(select(ledger_account.c.balance_fen).where(ledger_account.c.id == account_id)) or 0)


def statement(tx: Connection, account_id: str, before: int | None, limit: int) -> list[Row[Any]]:
    """Entries of one account with `id, amount_fen, cause, at`, newest first; `before` is an entry's id."""
    query = select(ledger_entry.c.id, ledger_entry.c.amount_fen, ledger_transaction.c.cause, ledger_transaction.c.at)
    query = query.join(ledger_transaction, ledger_transaction.c.id == ledger_entry.c.transaction_id)
    query = query.where(ledger_entry.c.account_id == account_id)
    if before is not None:
        query = query.where(ledger_entry.c.id < before)
    return list(tx.execute(query.order_by(ledger_entry.c.id.desc()).limit(limit)))


def problems(tx: Connection) -> list[str]:
    """What does not add up, in words; empty for a sound ledger."""
    total = func.coalesce(func.sum(ledger_entry.c.amount_fen), 0)
    unbalanced = (
        select(ledger_transaction.c.id, total)
        .select_from(
            ledger_transaction.outerjoin(ledger_entry, ledger_entry.c.transaction_id == ledger_transaction.c.id)
        )
        .group_by(ledger_transaction.c.id)
        .having((total != 0) | (func.count(ledger_entry.c.id) < 2))
    )
    drifted = (
        select(ledger_account.c.id, ledger_account.c.balance_fen, total)
        .select_from(ledger_account.outerjoin(ledger_entry, ledger_entry.c.account_id == ledger_account.c.id))
        .group_by(ledger_account.c.id, ledger_account.c.balance_fen)
        .having(total != ledger_account.c.balance_fen)
    )
    found = [f"transaction {row[0]} sums to {row[1]} fen" for row in tx.execute(unbalanced)]
    found += [f"account {row[0]} says {row[1]} fen, its entries {row[2]}" for row in tx.execute(drifted)]
    return found
