"""Which time of a stretch nobody covers: pure, exact to the millisecond."""

from collections.abc import Iterable
from typing import TypeAlias

Stretch: TypeAlias = tuple[int, int]
"""(from, until): `until` is the first ms that is no longer part of it."""


def holes(covered: Iterable[Stretch], from_ms: int, until_ms: int) -> list[Stretch]:
    """The parts of `from_ms`..`until_ms` in none of `covered`, in order; they neither touch nor overlap."""
    found: list[Stretch] = []
    reached = from_ms
    for begin, end in sorted(covered):
        if begin >= until_ms:
            break
        if begin > reached:
            found.append((reached, begin))
        reached = max(reached, end)
    if reached < until_ms:
        found.append((reached, until_ms))
    return found


def overlaps(stretches: Iterable[tuple[int, int, int]]) -> list[tuple[int, int]]:
    """Pairs of marks of stretches that overlap, given as (from, until, mark).

    Each stretch that overlaps one before it is there once, with the one that lasts longest.
    """
    found: list[tuple[int, int]] = []
    longest: tuple[int, int] | None = None  # (until, mark)
    for begin, end, mark in sorted(stretches):
        if longest is not None and begin < longest[0]:
            found.append((longest[1], mark))
        if longest is None or end > longest[0]:
            longest = (end, mark)
    return found
