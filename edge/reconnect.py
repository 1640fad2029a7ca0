"""When to try again, so that a fleet that lost its broker comes back without a stampede (decision 6, ADR 0016).

Everybody loses the connection in the same second. Each device draws one moment inside the next
`reconnect_jitter_s` and, as long as no connection can be made, tries again that long after each attempt:
the draws stay spread evenly however long the broker is away, and once it is back everybody is there after
one turn. Drawing anew after every failure would not do: attempts would then come at twice the rate, and a
broker that was away for a minute would meet more than 50 of them in a second in nearly every run.

A connection that was made and lost again is a new loss, perhaps everybody's: the moment is drawn anew.
"""

from typing import Final

from fleet.randomness import Randomness

KEPT_WITHIN: Final = 0.03
"""Share of the turn by which attempts wander, so that two devices that met once part again."""


def pause_s(turn_s: float, randomness: Randomness, *, failed: bool) -> float:
    """Seconds until the next attempt; `failed`: the attempt just made did not even give a connection."""
    if failed:
        return turn_s * randomness.uniform(1 - KEPT_WITHIN, 1 + KEPT_WITHIN)
    return randomness.uniform(0, turn_s)
