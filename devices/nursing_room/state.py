"""What a room is now, as far as the cloud knows."""

from typing import Any, Final

from msgspec.structs import replace

from fleet.kind import DeviceState

OVERTAKEN_MS_MAX: Final = 600_000
"""An event may be so much older than the press before it by its own time; more is a clock that was set."""


class State(DeviceState, frozen=True, kw_only=True):
    """Times are ms since the epoch in the room's own time; None means "not yet known"."""

    first_reading_at: int | None = None
    open_press_id: str | None = None
    """The press that opened the call, until it is cleared at the origin."""
    open_press_at: int | None = None
    last_press_id: str | None = None
    """The latest press of the open call: what its lights are for."""
    presses_in_call: int = 0
    attended_at: int | None = None
    last_press_at: int | None = None
    last_cleared_at: int | None = None
    proof_tested_at: int | None = None
    """When the button was last known to work: a passed self-test or any press."""
    self_test_failure: str = "none"
    """What the latest self-test found wrong."""
    last_sterilizer_outcome: str | None = None
    last_sterilizer_at: int | None = None
    last_excursion_at: int | None = None
    last_excursion_seconds: int | None = None
    last_excursion_peak_celsius: float | None = None
    last_restart_at: int | None = None
    last_restart_cause: str | None = None
    fridge_changed_at: int | None = None
    """When the fridge's thermometer last gave another value than before."""
    fridge_same_count: int = 0
    """Readings since then with exactly that value."""


def initial(device_id: str) -> State:
    """A room nobody has heard of yet."""
    return State(device_id=device_id)


def apply_reading(state: State, reading: Any) -> State:
    """The state after a reading."""
    first = reading.at if state.first_reading_at is None else state.first_reading_at
    if state.reading is not None and state.reading.fridge_celsius == reading.fridge_celsius:
        same_count = state.fridge_same_count + (reading.at > state.reading.at)
        return replace(state, reading=reading, first_reading_at=first, fridge_same_count=same_count)
    return replace(state, reading=reading, first_reading_at=first, fridge_changed_at=reading.at, fridge_same_count=0)


def apply_event(state: State, event: Any, occurred_at: int) -> State:  # noqa: PLR0911  # one return per event type
    """The state after an event; types that change nothing here leave it as it is."""
    match event.type:
        case "pressed":
            return _pressed(state, event.press_id, occurred_at)
        case "attended":
            return state if _overtaken(state, occurred_at) else replace(state, attended_at=occurred_at)
        case "cleared_at_origin":
            return replace(
                state,
                open_press_id=None,
                open_press_at=None,
                last_press_id=None,
                presses_in_call=0,
                attended_at=None,
                last_cleared_at=occurred_at,
            )
        case "self_test_result":
            tested_at = occurred_at if event.passed else state.proof_tested_at
            return replace(state, self_test_failure=event.failure, proof_tested_at=tested_at)
        case "sterilizer_cycle_finished":
            return replace(state, last_sterilizer_outcome=event.outcome, last_sterilizer_at=occurred_at)
        case "fridge_excursion_ended":
            return replace(
                state,
                last_excursion_at=occurred_at,
                last_excursion_seconds=event.duration_seconds,
                last_excursion_peak_celsius=event.peak_celsius,
            )
        case "restarted":
            return replace(state, last_restart_at=occurred_at, last_restart_cause=event.cause)
        case _:
            return state


def _pressed(state: State, press_id: str, occurred_at: int) -> State:
    opens = state.open_press_id is None
    overtaken = not opens and _overtaken(state, occurred_at)
    return replace(
        state,
        open_press_id=press_id if opens else state.open_press_id,
        open_press_at=occurred_at if opens else state.open_press_at,
        presses_in_call=state.presses_in_call + 1,
        last_press_id=state.last_press_id if overtaken else press_id,
        attended_at=None,
        last_press_at=state.last_press_at if overtaken else occurred_at,
        proof_tested_at=occurred_at,
    )


def _overtaken(state: State, occurred_at: int) -> bool:
    """A press whose number was not the next is acted on at once; what came before it has its turn, but later."""
    return 0 < (state.last_press_at or 0) - occurred_at <= OVERTAKEN_MS_MAX
