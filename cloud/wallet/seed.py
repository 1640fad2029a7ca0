"""Money for a demo's people."""

from collections.abc import Iterable
from typing import Final

from sqlalchemy import Connection

from cloud.wallet.service import top_up

DEMO_BALANCE_FEN: Final = 20_000


def seed_demo(tx: Connection, person_ids: Iterable[str], now_ms: int, amount_fen: int = DEMO_BALANCE_FEN) -> None:
    """Give each person `amount_fen`, once however often it is called."""
    for person_id in person_ids:
        top_up(tx, person_id, amount_fen, f"demo-{person_id}", now_ms)
