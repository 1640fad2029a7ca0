"""An equal share of the shards for each ingester that lives; nobody is told, everybody looks."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.ingest.shares import SEAT_FIRST, Row, share_of
from cloud.settings import CloudSettings
from fleet.topics import SHARD_COUNT

NOW_MS = 1_000_000
ALIVE, DEAD = NOW_MS + 5_000, NOW_MS - 1


def seats(*owners, until=ALIVE):
    return {SEAT_FIRST + number: Row(owner, 0, until) for number, owner in enumerate(owners)}


def held(owner, shards, until=ALIVE):
    return {shard: Row(owner, 1, until) for shard in shards}


def test_the_only_one_takes_everything():
    assert share_of("a", seats("a"), NOW_MS) == frozenset(range(SHARD_COUNT))


def test_who_has_no_seat_takes_nothing():
    assert share_of("b", seats("a"), NOW_MS) == frozenset()


def test_who_holds_more_than_its_share_keeps_the_lowest_and_the_other_waits_for_the_rest():
    rows = {**seats("a", "b"), **held("a", range(SHARD_COUNT))}
    assert share_of("a", rows, NOW_MS) == frozenset(range(32))
    assert share_of("b", rows, NOW_MS) == frozenset()
    rows |= held("", range(32, 64), until=0)
    assert share_of("b", rows, NOW_MS) == frozenset(range(32, 64))


def test_what_a_dead_one_held_falls_to_the_others_when_its_lease_and_its_seat_have_run_out():
    rows = {**seats("a", "b"), **held("a", range(32)), **held("b", range(32, 64))}
    assert share_of("a", rows, NOW_MS) == frozenset(range(32))
    rows |= {SEAT_FIRST + 1: Row("b", 0, DEAD), **held("b", range(32, 64), until=DEAD)}
    assert share_of("a", rows, NOW_MS) == frozenset(range(SHARD_COUNT))


def test_one_that_is_back_in_time_has_its_own_again():
    rows = {**seats("a", "b"), **held("a", range(32)), **held("b", range(32, 64), until=DEAD)}
    assert share_of("b", rows, NOW_MS) == frozenset(range(32, 64))


def test_more_ingesters_than_shards_leave_some_waiting():
    names = [f"i{number:03}" for number in range(SHARD_COUNT + 2)]
    rows = seats(*names)
    assert [len(share_of(name, rows, NOW_MS)) for name in names] == [1] * SHARD_COUNT + [0, 0]


@pytest.mark.parametrize("static", [range(10), range(30, 64)], ids=["few", "many"])
def test_one_that_was_told_its_shards_keeps_them(static):
    rows = {**seats("a"), **held("told", static)}
    assert share_of("a", rows, NOW_MS) == frozenset(range(SHARD_COUNT)) - frozenset(static)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.sampled_from("abcdef"), unique=True, min_size=1), st.data())
def test_whoever_looks_in_whatever_order_all_shards_have_one_owner_in_the_end(members, data):
    """From any table, with others dead or gone; one round is enough to let go, one to take."""
    owners = st.sampled_from([*members, "dead", ""])
    rows = seats(*members)
    for shard in range(SHARD_COUNT):
        if data.draw(st.booleans()):
            owner = data.draw(owners)
            rows[shard] = Row(owner, 1, ALIVE if owner in members else DEAD)
    for _ in range(2):
        for name in data.draw(st.permutations(members)):
            wanted = share_of(name, rows, NOW_MS)
            mine = {shard for shard, row in rows.items() if shard < SHARD_COUNT and row.owner == name}
            assert all(rows[shard].owner == name or rows[shard].until_ms < NOW_MS for shard in wanted if shard in rows)
            rows |= held("", mine - wanted, until=0)
            rows |= held(name, wanted)
    counts = {name: sum(rows[shard].owner == name for shard in range(SHARD_COUNT)) for name in members}
    assert sum(counts.values()) == SHARD_COUNT
    assert max(counts.values()) - min(counts.values()) <= 1


def test_the_setting_is_a_range_or_a_share():
    assert CloudSettings(shards="share").shard_numbers() == frozenset(range(SHARD_COUNT))
    assert CloudSettings(shards="0-1").shard_numbers() == {0, 1}
    for wrong in ("shares", "0-64", ""):
        with pytest.raises(ValueError, match="shards"):
            CloudSettings(shards=wrong)


def test_a_lease_has_a_least_length():
    with pytest.raises(ValueError, match="lease_s"):
        CloudSettings(lease_s=1)
