"""What modules about work orders share: which states are open, and what one move was."""

from dataclasses import dataclass
from typing import Final

from fleet.incident import OrderState

DISPATCHER: Final = "dispatch"
"""Actor of the transitions that no person asked for."""

OPEN_STATES: Final = tuple(
    state.value
    for state in OrderState
    if state not in {OrderState.DONE, OrderState.CANNOT_COMPLETE, OrderState.CANCELLED}
)


@dataclass(frozen=True, slots=True)
class OrderMove:
    """One transition of one order, for whoever shows it."""

    id: str
    device_id: str
    before: str
    after: str
    assigned_to: str | None
