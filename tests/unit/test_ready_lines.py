"""Lines made by passes over the spooled text are those of the long way: same series, values, types and times."""

import re

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.timeseries.lines import encode_each
from cloud.timeseries.points import PointMaker
from cloud.timeseries.ready import LineMaker, body_of
from fleet import envelope

AT_MS = 1_800_000_000_000
FIELD = re.compile(r'([^=,]+)=("(?:[^"\\]|\\.)*"|[^,]*)(?:,|$)')
NUMBER = st.one_of(
    st.integers(-(10**6), 10**6), st.floats(allow_nan=False, allow_infinity=False), st.sampled_from([0.0, -0.0, 1e-7])
)
FIELDS_BY_KIND = {
    "bike": {
        "battery_percent": NUMBER, "latitude": NUMBER, "signal_dbm": NUMBER, "odometer_metres": st.none() | NUMBER,
        "lock_state": st.sampled_from(["locked", "open", "jam 2", 'a"b', "x,y", "车", "a:b", "}]}}", ""]),
    },
    "meal_machine": {
        "chilled_celsius": NUMBER, "door_open": st.booleans(), "stock_count": st.integers(0, 300),
        "heating_queue_count": st.integers(0, 9), "slots": st.lists(st.just({"slot": "A1"}), max_size=3),
    },
    "nursing_room": {
        "fridge_celsius": NUMBER, "occupied": st.booleans() | st.none(), "call_state": st.sampled_from(["idle", "on"]),
        "no_field": st.integers(0, 3),
    },
}  # fmt: skip


@st.composite
def records(draw):
    kind = draw(st.sampled_from(sorted(FIELDS_BY_KIND)))
    fields = draw(st.permutations(sorted(FIELDS_BY_KIND[kind])))
    names = fields[: draw(st.integers(0, len(fields)))]
    reading = st.fixed_dictionaries({name: FIELDS_BY_KIND[kind][name] for name in names})
    readings = [
        {"at": AT_MS + draw(st.integers(0, 10**6))} | draw(reading) for _ in range(draw(st.sampled_from([1, 1, 1, 3])))
    ]
    return raw_of(readings, kind=kind, seq=draw(st.integers(1, 10**9)), generation=draw(st.integers(1, 40)))


def raw_of(readings, kind="bike", seq=7, generation=1, device="x-001.a_b"):
    payload = msgspec.Raw(msgspec.json.encode({"readings": readings}))
    epoch = envelope.boot_epoch(generation, 3)
    return envelope.encode(envelope.Envelope(1, kind, device, epoch, envelope.Lane.TELEMETRY, seq, AT_MS, payload))


def meaning(line):
    """(series, {field: (type, value)}, ns) of a line: read here anew, as InfluxDB documents it."""
    series, rest = line.decode().split(" ", 1)
    fields, at_ns = rest.rsplit(" ", 1)
    values = {}
    for name, text in FIELD.findall(fields):
        assert name not in values
        if text.startswith('"'):
            values[name] = ("text", text)
        elif text in {"true", "false"}:
            values[name] = ("boolean", text)
        else:
            values[name] = ("integer", int(text[:-1])) if text.endswith("i") else ("float", float(text))
    return series, values, int(at_ns)


def long_way(raws):
    return [point for raw in raws for point in PointMaker().points(raw)]


@settings(max_examples=120, deadline=None)
@given(st.lists(records(), max_size=6))
def test_every_line_means_what_the_long_way_says(raws):
    raws = raws * 2  # what was learnt from the first ones is used for the second ones
    ready = LineMaker(PointMaker()).ready(raws, list(range(len(raws))))
    points = long_way(raws)
    assert [meaning(line) for line in ready.points.lines] == [meaning(line) for line in encode_each(points)]
    assert list(ready.points) == points
    assert ready.points.minutes == {(point.kind, point.at_ns // 60_000_000_000) for point in points}
    numbers = [number for number, raw in enumerate(raws) for _ in PointMaker().points(raw)]
    assert ready.received_at_ms == numbers
    assert ready.unusable == []


def test_the_usual_reading_takes_the_short_way():
    """Else nothing here is any cheaper: the numbers' own texts are in the line."""
    maker = LineMaker(PointMaker())
    first = raw_of([{"at": AT_MS, "battery_percent": 88.50, "lock_state": "locked", "tilt_degrees": -1.0}])
    second = first.replace(b"88.5", b"71.250").replace(b'"seq":7', b'"seq":8')
    maker.ready([first], [1])
    (line,) = maker.ready([second], [2]).points.lines
    assert line == (
        b'bike,device_id=x-001.a_b message_seq=8i,battery_percent=71.250,lock_state="locked",tilt_degrees=-1.0 %d'
        % long_way([second])[0].at_ns
    )


@pytest.mark.parametrize(
    "broken",
    [
        b"", b"{}", b"\xff",
        raw_of([{"at": AT_MS, "battery_percent": 1.5}])[:-1],
        raw_of([{"at": AT_MS, "battery_percent": 1.5}], kind="no_such_kind"),
        raw_of([{"battery_percent": 1.5}]),
        raw_of([{"at": AT_MS, "battery_percent": "full"}]),
    ],
    ids=["empty", "nothing", "no_text", "cut", "kind", "no_time", "type"],
)  # fmt: skip
def test_an_unusable_record_is_named_and_the_others_keep_their_places(broken):
    good = [raw_of([{"at": AT_MS + seq, "battery_percent": 1.5}], seq=seq) for seq in range(1, 4)]
    ready = LineMaker(PointMaker()).ready([good[0], broken, good[1], good[2]], [10, 11, 12, 13])
    assert [number for number, _ in ready.unusable] == [1]
    assert ready.received_at_ms == [10, 12, 13]
    assert [point.fields["message_seq"] for point in ready.points] == [1, 2, 3]


def test_slices_and_other_orders_are_the_same_points():
    raws = [raw_of([{"at": AT_MS + 1000 - seq, "battery_percent": seq / 7}], seq=seq) for seq in range(1, 9)]
    points = LineMaker(PointMaker()).ready(raws, [0] * 8).points
    assert list(points[2:5]) == list(points)[2:5]
    by_time = points.ordered(sorted(range(8), key=points.times_ns().__getitem__))
    assert [point.fields["message_seq"] for point in by_time] == [8, 7, 6, 5, 4, 3, 2, 1]
    assert body_of(by_time).split(b"\n") == points.lines[::-1]


def test_records_of_several_kinds_and_outlines_keep_their_order():
    """A chunk as it really comes: bikes and rooms in turn, one whose outline is new, and one with a digit in a text."""
    raws = []
    for seq in range(1, 40):
        raws.append(raw_of([{"at": AT_MS + seq, "battery_percent": seq / 7, "lock_state": "locked"}], seq=seq))
        raws.append(raw_of([{"at": AT_MS + seq, "occupied": seq % 2 == 0}], "nursing_room", seq, device="room-1"))
    maker = LineMaker(PointMaker())
    maker.ready(raws, [0] * len(raws))
    raws[20] = raw_of([{"at": AT_MS, "lock_state": "jam2", "battery_percent": 1.5}], seq=99)
    raws[30] = raws[0].replace(b'"locked"', b'"locked3"')
    raws[40] = raws[0].replace(b'"at":1', b'"at":-1')
    raws[50] = raws[0].replace(b'"at":18', b'"at":188')
    raws[60] = raws[0].replace(b'"occurred_at":1', b'"occurred_at": 1')
    ready = maker.ready(raws, list(range(len(raws))))
    assert [meaning(line) for line in ready.points.lines] == [meaning(line) for line in encode_each(long_way(raws))]
    assert ready.received_at_ms == list(range(len(raws)))
