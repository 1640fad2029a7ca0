"""Wallets as people see them, and topping them up. Charges and refunds are made by the services that sell."""

from typing import Any, Final

from sqlalchemy import Connection, Row, select

from cloud import audit
from cloud.api.access import Person
from cloud.api.problem import not_found
from cloud.ports import Database
from cloud.tables import person as person_table
from cloud.wallet import idempotency, ledger
from cloud.wallet.schemas import TopUpAnswer, TopUpBody
from fleet.clock import MILLISECONDS_PER_SECOND, Clock

CREATED: Final = 201


def top_up(tx: Connection, person_id: str, amount_fen: int, top_up_id: str, at: int) -> bool:
    """Move money of the union into a wallet; False if this top-up is booked already."""
    entries = {ledger.wallet_of(person_id): amount_fen, ledger.FUNDING: -amount_fen}
    return ledger.post(tx, f"top_up:{top_up_id}", f"top_up:{top_up_id}", entries, at)


class WalletService:
    """Reads wallets and tops them up."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def wallet(self, person_id: str, before: int | None, limit: int) -> tuple[int, list[Row[Any]]]:
        """(balance in fen, entries newest first) on one snapshot."""
        account = ledger.wallet_of(person_id)
        return await self._database.read(
            lambda tx: (ledger.balance(tx, account), ledger.statement(tx, account, before, limit))
        )

    async def top_up(self, person_id: str, body: TopUpBody, key: str, admin: Person) -> idempotency.FirstAnswer:
        """Put money into somebody's wallet, once per key.

        Raises:
            ProblemError: 404 for an unknown person; 409 and 422 as in `idempotency.claim`.
        """
        now_ms = self._clock.now_ms()
        take_over = now_ms - round(idempotency.TAKE_OVER_AFTER_S * self._clock.speed * MILLISECONDS_PER_SECOND)
        body_hash = idempotency.fingerprint(f"top_up:{person_id}", body.model_dump())

        def work(tx: Connection) -> idempotency.FirstAnswer:
            first = idempotency.claim(tx, admin.id, key, body_hash, now_ms=now_ms, take_over_before_ms=take_over)
            if first is not None:
                return first
            if tx.execute(select(person_table.c.id).where(person_table.c.id == person_id)).first() is None:
                raise not_found("person", person_id)
            top_up_id = idempotency.object_id(admin.id, key)
            top_up(tx, person_id, body.amount_fen, top_up_id, now_ms)
            audit.record(tx, now_ms, admin.id, "wallet.top_up", person_id, body.model_dump())
            answer = TopUpAnswer(
                id=top_up_id,
                person_id=person_id,
                amount_fen=body.amount_fen,
                balance_fen=ledger.balance(tx, ledger.wallet_of(person_id)),
                at=now_ms,
            ).model_dump()
            idempotency.settle(tx, admin.id, key, CREATED, answer)
            return idempotency.FirstAnswer(CREATED, answer)

        return await self._database.write(work)
