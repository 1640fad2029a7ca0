"""Puts places into an order in which neighbours follow each other, so that work of one day lies in one area."""

from collections.abc import Iterable
from typing import Final

_BITS: Final = 12
"""Cells per side of the area as a power of two: 4,096, a few metres each in a district."""
_CELLS: Final = 1 << _BITS


def shares_along(places: Iterable[tuple[str, float | None, float | None]]) -> dict[str, float]:
    """Share in [0, 1) of each (id, latitude, longitude) on a Hilbert curve through all of them.

    Evenly spaced, so an even share of the curve is an even share of the work. A place without a position comes last.
    """
    known, unknown = [], []
    for name, latitude, longitude in places:
        if latitude is None or longitude is None:
            unknown.append(name)
        else:
            known.append((name, latitude, longitude))
    ordered: list[tuple[int, str]] = []
    if known:
        south, west = min(place[1] for place in known), min(place[2] for place in known)
        size = max(max(place[1] for place in known) - south, max(place[2] for place in known) - west) or 1.0
        for name, latitude, longitude in known:
            east = min(_CELLS - 1, int((longitude - west) / size * _CELLS))
            north = min(_CELLS - 1, int((latitude - south) / size * _CELLS))
            ordered.append((_hilbert_number(east, north), name))
    names = [name for _, name in sorted(ordered)] + sorted(unknown)
    return {name: rank / len(names) for rank, name in enumerate(names)}


def _hilbert_number(x: int, y: int) -> int:
    """Distance of a cell from the curve's begin: quadrant by quadrant, each turned so that the ends meet."""
    number = 0
    side = _CELLS >> 1
    while side:
        right, upper = int(x & side > 0), int(y & side > 0)
        number += side * side * ((3 * right) ^ upper)
        if not upper:
            if right:
                x, y = _CELLS - 1 - x, _CELLS - 1 - y
            x, y = y, x
        side >>= 1
    return number
