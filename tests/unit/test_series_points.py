"""Envelopes become points, points become line protocol; every kind's readings pass."""

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.timeseries.lines import encode_lines
from cloud.timeseries.points import MESSAGES_PER_MILLISECOND, Point, PointMaker, UnusableRecordError, at_ns
from devices import kinds
from fleet import envelope

AT_MS = 1_800_000_000_000


def bike_reading(**changes):
    return {
        "at": AT_MS, "battery_percent": 88.5, "latitude": 38.86, "longitude": 121.52, "accuracy_metres": 5.0,
        "speed_metres_per_second": 0.0, "lock_state": "locked", "tilt_degrees": 1.0, "signal_dbm": -71.0,
        "odometer_metres": 1000.0, "temperature_celsius": 12.0,
    } | changes  # fmt: skip


def record(readings, *, kind="bike", seq=7, generation=1):
    payload = msgspec.Raw(msgspec.json.encode({"readings": readings}))
    return envelope.encode(
        envelope.Envelope(
            1, kind, "bike-001", envelope.boot_epoch(generation, 3), envelope.Lane.TELEMETRY, seq, AT_MS, payload
        )
    )


def test_a_reading_becomes_a_point_with_its_own_time():
    (point,) = PointMaker().points(record([bike_reading()]))
    assert (point.kind, point.device_id, point.at_ns // 1_000_000) == ("bike", "bike-001", AT_MS)
    assert point.fields["battery_percent"] == 88.5
    assert point.fields["lock_state"] == "locked"
    assert point.fields["message_seq"] == 7


def test_a_float_without_a_decimal_point_stays_a_float():
    (point,) = PointMaker().points(record([bike_reading(battery_percent=88, signal_dbm=-71)]))
    assert b"battery_percent=88.0," in encode_lines([point])
    assert b"signal_dbm=-71.0," in encode_lines([point])


def test_the_same_record_makes_the_same_points():
    raw = record([bike_reading(), bike_reading()])
    assert PointMaker().points(raw) == PointMaker().points(raw)


@given(st.integers(1, 3), st.integers(1, 10**9), st.integers(0, 63), st.integers(1, MESSAGES_PER_MILLISECOND - 1))
def test_readings_of_one_millisecond_stay_apart(generation, seq, index, distance):
    first = at_ns(AT_MS, generation, seq, index)
    assert first // 1_000_000 == AT_MS
    assert first != at_ns(AT_MS, generation, seq + distance, index)
    assert first != at_ns(AT_MS, generation, seq, (index + 1) % 64)
    assert first != at_ns(AT_MS, generation + 1, seq, index)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{}",
        b"\xff",
        record([bike_reading()])[:-1],
        record([bike_reading()], kind="no_such_kind"),
        record([{"at": "noon"}]),
        record([{"battery_percent": 1.0}]),
        record([bike_reading(battery_percent="full")]),
        record("nothing"),
    ],
)
def test_an_unusable_record_says_so(raw):
    with pytest.raises(UnusableRecordError):
        PointMaker().points(raw)


@pytest.mark.parametrize("name", sorted(kinds()))
def test_every_kind_offers_fields_of_its_reading(name):
    """Each measured number of the pydantic model is a field: boards draw them by these names."""
    model = kinds()[name].reading
    reading = {"at": AT_MS} | {
        field_name: 1 for field_name, field in model.model_fields.items() if field.annotation in {int, float}
    }
    reading |= {field_name: True for field_name, field in model.model_fields.items() if field.annotation is bool}
    (point,) = PointMaker().points(record([reading], kind=name))
    present = {field_name: type(value) for field_name, value in point.fields.items() if value is not None}
    declared = {
        field_name: field.annotation
        for field_name, field in model.model_fields.items()
        if field_name != "at" and field.annotation in {int, float, bool}
    }
    assert declared
    assert declared.items() <= present.items()
    encode_lines([point])


def test_fields_in_another_order_make_the_same_points():
    raw = record([bike_reading()])
    other = msgspec.json.encode(dict(reversed(msgspec.json.decode(raw).items())))
    assert other != raw
    assert PointMaker().points(other) == PointMaker().points(raw)


def test_a_kind_that_stands_twice_is_not_believed():
    raw = record([bike_reading()])
    assert raw.startswith(b'{"version":1,"kind":"bike",')
    with pytest.raises(UnusableRecordError):
        PointMaker().points(raw[:-1] + b',"kind":"meal_machine"}')


def test_sequences_become_counts():
    slots = [{"slot": "A1", "count": 3}, {"slot": "A2", "count": 0}]
    (point,) = PointMaker().points(record([{"at": AT_MS, "slots": slots}], kind="meal_machine"))
    assert point.fields["slots_count"] == 2
    assert "slots" not in point.fields


def test_lines_are_the_documented_form():
    point = Point("bike", "bike-001", 17, {"a": 1.5, "b": 2, "on": True, "words": 'say "hi" \\', "gone": None})
    assert encode_lines([point]) == b'bike,device_id=bike-001 a=1.5,b=2i,on=true,words="say \\"hi\\" \\\\" 17'


def test_odd_names_are_escaped():
    point = Point("a b,c", "x=y z", 1, {"k,=": 1.0})
    assert encode_lines([point]) == rb"a\ b\,c,device_id=x\=y\ z k\,\==1.0 1"


def test_points_of_many_shapes_keep_their_values():
    points = [
        Point(f"kind{n % 3}", f"d{n}", n, {"x": n / 3, "n": n, "s": f"t{n % 2}"} if n % 2 else {"x": float(n)})
        for n in range(50)
    ]
    lines = encode_lines(points).decode().split("\n")
    assert len(lines) == 50
    for line in lines:
        head, fields, at = line.split(" ")
        n = int(at)
        assert head == f"kind{n % 3},device_id=d{n}"
        assert math.isclose(float(fields.split(",")[0].removeprefix("x=")), n / 3 if n % 2 else n)


def test_what_is_no_value_is_an_error():
    with pytest.raises(TypeError, match="list"):
        encode_lines([Point("bike", "d", 1, {"x": [1]})])
    assert encode_lines([]) == b""
    assert encode_lines([Point("bike", "d", 1, {"x": None})]) == b""
