"""What the API says and accepts about wallets."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

TOP_UP_FEN_MAX = 100_000


class TopUpBody(BaseModel):
    """Money that the union puts into a wallet."""

    model_config = ConfigDict(extra="forbid", strict=True)

    amount_fen: Annotated[int, Field(ge=1, le=TOP_UP_FEN_MAX)]
    note: Annotated[str, Field(max_length=100)] = ""


class WalletEntry(BaseModel):
    """One movement; positive adds to the wallet. `cause` is `purchase:<id>`, `refund:<id>` or `top_up:<id>`."""

    id: int
    amount_fen: int
    cause: str
    at: int


class WalletAnswer(BaseModel):
    """A wallet; `next_before` is None on the last page."""

    person_id: str
    balance_fen: int
    entries: list[WalletEntry]
    next_before: int | None


class TopUpAnswer(BaseModel):
    """A top-up as it was booked."""

    id: str
    person_id: str
    amount_fen: int
    balance_fen: int
    at: int
