"""The vocabulary of the series is closed, bounded, and what the code and the page about it say."""

import re
from typing import get_args

import pytest

from cli import series_docs
from cloud.history.samples import SAMPLERS
from cloud.history.steps import SOURCES
from cloud.meals.lifecycle import SaleStep
from cloud.settings import CloudSettings
from cloud.tables.supervision import PURPOSES
from cloud.timeseries.levels import is_copied
from devices import kinds
from devices.meal_machine.messages import RemovalReason
from fleet import series
from fleet.messages import Reason

NAME = re.compile(r"[a-z][a-z0-9_]*")
EVERY = sorted(series.MEASUREMENTS, key=lambda one: one.name)
SERIES_MAX = 1_000_000
"""What an InfluxDB 1.8 takes by default."""


def named(measurement):
    return measurement.name


def test_names_are_unique_and_no_kind_is_called_like_a_measurement():
    names = [one.name for one in series.MEASUREMENTS]
    assert len(set(names)) == len(names)
    assert not set(names) & set(kinds())
    assert all(series.measurement_named(name).name == name for name in names)


@pytest.mark.parametrize("measurement", EVERY, ids=named)
def test_no_tag_can_grow_without_bound(measurement):
    for tag in measurement.tags:
        assert measurement.bound_of(tag) in get_args(series.TagBound)
        assert not tag.endswith("_id") or tag == "device_id"
    assert set(measurement.values) <= set(measurement.tags)
    fields = {one.name for one in measurement.fields}
    assert not fields & set(measurement.tags), "a name that is tag and field cannot be queried"


@pytest.mark.parametrize("measurement", EVERY, ids=named)
def test_names_units_and_words(measurement):
    names = [one.name for one in measurement.fields]
    assert len(set(names)) == len(names)
    for one in measurement.fields:
        assert NAME.fullmatch(one.name)
        assert one.unit in get_args(series.SeriesUnit)
        assert one.description.zh
        assert one.description.en
        assert one.is_number is (one.value_type in {int, float})
        assert not one.values or one.unit == "text"
        if one.unit == "ms":
            assert one.name.endswith("_ms") or "_ms_" in one.name
        if one.unit in {"bytes", "percent", "hours", "per_hour"}:
            assert one.name.removesuffix("_total").endswith(one.unit)
    assert all(isinstance(value, str) and value for values in measurement.values.values() for value in values)


def test_closed_lists_are_those_of_the_code():
    assert set(series.PURCHASE_STEPS) == {step.value for step in SaleStep}
    assert {reason for reason in get_args(Reason) if reason} < set(series.PURCHASE_REASONS)
    assert set(series.WASTE_REASONS) == set(get_args(RemovalReason)) - {""}
    assert set(series.CALL_PURPOSES) == set(PURPOSES) - {"synthetic"}


def test_steps_come_from_followed_tables_and_samples_from_samplers():
    sampled = {one.name for one in series.MEASUREMENTS if not one.is_step}
    steps = {one.name for one in series.MEASUREMENTS if one.is_step}
    found = {"firmware_step", "waste_step"}  # no table of their own tells of them
    assert set(SAMPLERS) == sampled - {"platform"} | found
    assert len(SOURCES) == len(steps - found) + 1  # and the samples on their way
    assert all(is_copied(name) for name in steps)
    assert not any(is_copied(name) for name in sampled)


def test_the_bound_on_series_follows_from_devices_and_lists_alone():
    by_kind = series_docs.population(390)
    assert by_kind == dict(series_docs.TYPICAL)
    calls = series_docs.series_count(series.CALL_STEP, by_kind)
    assert calls == 190 * 5 * 2
    assert series_docs.series_count(series.PLATFORM, by_kind) == 4 * series.INSTANCES_MAX
    assert series_docs.series_count(series.FLEET_STATE, by_kind) == len(kinds())
    doubled = {name: 2 * count for name, count in by_kind.items()}
    assert series_docs.series_count(series.CALL_STEP, doubled) == 2 * calls
    total = 390 + sum(series_docs.series_count(one, by_kind) for one in series.MEASUREMENTS)
    assert total < SERIES_MAX / 4


def test_the_number_of_a_process_is_bounded():
    with pytest.raises(ValueError, match="less than 16"):
        CloudSettings(instance=series.INSTANCES_MAX)
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        CloudSettings(instance=-1)


def test_the_page_names_every_measurement_tag_and_field():
    page = series_docs.page()
    for measurement in series.MEASUREMENTS:
        assert f"## `{measurement.name}`" in page
        for name in (*measurement.tags, *(one.name for one in measurement.fields)):
            assert f"| `{name}` |" in page
    for kind in kinds().values():
        for name in kind.reading.model_fields:
            assert name == "at" or f"| `{name}` |" in page
