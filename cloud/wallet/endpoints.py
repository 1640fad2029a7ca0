"""Wallets over HTTP."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from cloud.api.access import Person, allow
from cloud.api.services import service
from cloud.wallet.idempotency import IdempotencyKey
from cloud.wallet.schemas import TopUpAnswer, TopUpBody, WalletAnswer, WalletEntry
from cloud.wallet.service import WalletService

router = APIRouter(prefix="/api/v1", tags=["wallet"])

Wallets = Annotated[WalletService, Depends(service(WalletService))]
Anybody = Annotated[Person, Depends(allow("employee", "crew", "admin"))]
Admin = Annotated[Person, Depends(allow("admin"))]


@router.get("/wallet")
async def own_wallet(
    wallets: Wallets,
    person: Anybody,
    before: Annotated[int | None, Query(ge=1)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> WalletAnswer:
    """The asker's balance and latest movements; `before` is `next_before` of the page before."""
    balance, rows = await wallets.wallet(person.id, before, limit + 1)
    return WalletAnswer(
        person_id=person.id,
        balance_fen=balance,
        entries=[WalletEntry.model_validate(row, from_attributes=True) for row in rows[:limit]],
        next_before=rows[limit - 1].id if len(rows) > limit else None,
    )


@router.post("/wallets/{person_id}/top-ups", status_code=201)
async def top_up(person_id: str, body: TopUpBody, key: IdempotencyKey, wallets: Wallets, admin: Admin) -> TopUpAnswer:
    """Put the union's money into somebody's wallet, once per `Idempotency-Key`."""
    return TopUpAnswer.model_validate((await wallets.top_up(person_id, body, key, admin)).body)
