"""Places in an order in which neighbours follow each other."""

import math
import random
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from cloud.work_orders.areas import shares_along

PLACES = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=6),
    st.none() | st.tuples(st.floats(38.8, 38.9), st.floats(121.4, 121.6)),
    max_size=60,
)


@given(PLACES)
def test_every_place_has_a_share_of_its_own_and_they_are_even(places):
    rows = [(name, *(place or (None, None))) for name, place in places.items()]
    shares = shares_along(rows)
    assert sorted(shares.values()) == [rank / len(places) for rank in range(len(places))]
    assert shares == shares_along(reversed(rows))
    with_position = [shares[name] for name, place in places.items() if place is not None]
    without = [shares[name] for name, place in places.items() if place is None]
    assert max(with_position, default=0.0) <= min(without, default=1.0)


def test_a_seventh_of_the_curve_is_an_area_and_no_scattering():
    randomness = random.Random(7)
    places = {f"room-{n:03}": (38.86 + randomness.random() / 20, 121.5 + randomness.random() / 20) for n in range(190)}
    shares = shares_along((name, *place) for name, place in places.items())
    in_order = sorted(places, key=shares.__getitem__)

    def way(names):
        return sum(math.dist(places[one], places[other]) for one, other in pairwise(names))

    scattered = list(places)
    days = [in_order[day * 27 : day * 27 + 27] for day in range(7)]
    assert sum(map(way, days)) < 0.25 * way(scattered)
