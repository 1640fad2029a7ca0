"""Why work stops: the codes that a person must choose from, with a text of their own."""

from collections.abc import Mapping
from typing import Final

from fleet.incident import OrderEvent

HOLD_PAUSES: Final = frozenset({"waiting_part", "waiting_access", "waiting_third_party", "unsafe_now"})
"""On hold for these the clock of the service level stands still: nobody of ours could go on."""

REASONS: Final[Mapping[OrderEvent, tuple[str, ...]]] = {
    OrderEvent.HOLD: (
        "waiting_part",
        "waiting_access",
        "waiting_third_party",
        "unsafe_now",
        "other_work",
        "end_of_shift",
    ),
    OrderEvent.GIVE_UP: ("no_access", "part_missing", "wrong_skill", "unsafe", "not_found", "beyond_repair"),
    OrderEvent.CANCEL: ("not_needed", "duplicate", "wrong_device", "device_retired"),
    OrderEvent.REOPEN: ("not_fixed", "wrong_device"),
}
"""What a person may give as the reason of an event; events that are not listed need none."""

OF_THE_SYSTEM: Final = ("not_normal", "came_back", "not_needed", "device_retired", "off_duty", "round")
"""Reasons of moves that no person asked for."""


def problem_of(event: OrderEvent, reason: str, text: str) -> str:
    """What is wrong with the reason a person gave; empty if nothing is."""
    known = REASONS.get(event)
    if known is None:
        return "" if not reason else f"{event.value} takes no reason."
    if reason not in known:
        return f"{event.value} needs a reason: one of {', '.join(known)}."
    return "" if text.strip() else f"{event.value} needs a few words beside its reason."
