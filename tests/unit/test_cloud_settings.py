"""Settings that are more than a value: shards, the data directory, what the series keeps."""

import pytest
from pydantic import ValidationError

from cloud.data_directory import InUseError, sole_owner, stable_name
from cloud.ports import SeriesError
from cloud.settings import CloudSettings, parse_shards
from cloud.timeseries.retention import prune
from fleet.topics import SHARD_COUNT


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("0-63", range(64)), ("0-1,5", (0, 1, 5)), (" 7 , 6-7", (6, 7)), ("63", (63,))],
)
def test_shards_are_numbers_and_ranges(text, numbers):
    assert parse_shards(text) == frozenset(numbers)


@pytest.mark.parametrize("text", ["", "64", "0-64", "5-3", "-1", "a", "0-", "1,,2", "0..3", "²"])
def test_shards_that_do_not_exist_are_refused(text):
    with pytest.raises(ValidationError, match=r"0-63|0 to 63"):
        CloudSettings(shards=text)


def test_all_shards_are_the_default():
    assert len(CloudSettings().shard_numbers()) == SHARD_COUNT


def test_one_process_per_role_and_directory(tmp_path):
    with sole_owner(tmp_path, ("ingest",)):
        with sole_owner(tmp_path, ("dispatch",)):
            pass
        with pytest.raises(InUseError, match="ingest"), sole_owner(tmp_path, ("dispatch", "ingest", "api")):
            pass
    with sole_owner(tmp_path, ("dispatch", "ingest", "api")):
        pass


def test_the_name_of_a_directory_lasts(tmp_path):
    name = stable_name(tmp_path / "ingester-id", lambda: "a" * 32)
    assert stable_name(tmp_path / "ingester-id", lambda: "b" * 32) == name == "ingester-" + "a" * 12


class Noon:
    speed = 1.0

    def now_ms(self):
        return 100 * 86_400_000

    def monotonic_s(self):
        return 0.0


class Store:
    def __init__(self, error=None):
        self.asked = []
        self.error = error

    async def delete_before(self, at_ms):
        self.asked.append(at_ms)
        if self.error:
            raise self.error
        return 5


async def test_old_points_are_deleted_by_business_days():
    store = Store()
    await prune(store, 30, Noon())
    assert store.asked == [70 * 86_400_000]


async def test_a_series_that_is_busy_ends_nothing():
    store = Store(SeriesError("locked", retry_after_s=5.0))
    await prune(store, 1, Noon())
    assert store.asked
