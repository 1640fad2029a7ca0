"""The derived decoder and the pydantic models are one contract (decision 14, ADR 0007).

What the derived struct takes, pydantic takes with equal values, and the other way round. The one exception is
a JSON object that names a key twice: pydantic looks at the last only, so there the slow way has the last word.
"""

import json
import math
from typing import Annotated, Any, Literal

import annotated_types
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import AfterValidator, ConfigDict, Field, ValidationError, field_validator

import devices
from cloud.derived_models import UntranslatableError, struct_of
from cloud.ingest.decoder import PayloadError, decode_envelope, payload_decoder, telemetry_decoder
from fleet.envelope import BOOTS_PER_GENERATION, EnvelopeError, Lane
from fleet.kind import Kind, Text
from fleet.messages import Message, Reading
from tests.device_messages import BIKE
from tests.device_messages import VALID_READINGS as VALID
from tests.devices.device_strategies import instances

KIND_NAMES = sorted(devices.kinds())
SETTINGS = settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
HUGE = "9" * 400

TOKENS = (
    "null", "true", "false", "0", "1", "-1", "0.0", "-0.0", "1.0", "5.0", "1e2", "1E+2", "1e-400", "1e400", "-1e400",
    "NaN", "Infinity", "-Infinity", "01", "1.", ".5", "+1", "0x10", "18446744073709551615", "18446744073709551616",
    HUGE, "-" + HUGE, "9" * 5_000, "253402300799001", "100.00000000000001", '""', '"1"', '"1.5"', '"true"', '"NaN"',
    "[]", "[1]", "[[]]", "{}", '{"x":1}', '"\\ud800"', '"\\u0000"', '"\\x41"', '"\x01"', '"unlocked\\n"',
    '"unlocked"', '"Unlocked"', "",
)  # fmt: skip


class Token(str):
    """JSON text that stands for itself."""

    __slots__ = ()


def text_of(value: Any) -> str:
    """JSON of plain values in which a `Token` is written as it is."""
    if isinstance(value, Token):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(key)}:{text_of(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(text_of, value)) + "]"
    return json.dumps(value)


def paths(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value in it, itself included."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [here, *(path for key, item in inner for path in paths(item, (*here, key)))]


def at_path(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def _near_limits(value: Any) -> list[Any]:
    """Numbers of the other type and just beside; strings with a newline behind."""
    if isinstance(value, bool):
        return [int(value), str(value).lower()]
    if isinstance(value, int):
        return [float(value), value + 0.5, bool(value), str(value), value + 1, value - 1, -value]
    if isinstance(value, float):
        whole = [int(value)] if math.isfinite(value) else []
        return [
            *whole,
            bool(value),
            str(value),
            math.nextafter(value, math.inf),
            math.nextafter(value, -math.inf),
            -value,
        ]
    if isinstance(value, str):
        return [value + "\n", "\n" + value, value + " ", value[:-1], value.upper(), value + "\x00", [value]]
    if isinstance(value, list):
        return [value * 70, value[:1], {"0": value}, *([*value, value[0]] if value else ())]
    return [[value], {}]


@st.composite
def mutated(draw, plain):
    """The JSON of a valid value with up to three places spoilt (or none)."""
    value = json.loads(json.dumps(draw(plain)))
    for _ in range(draw(st.integers(0, 3))):
        path = draw(st.sampled_from(paths(value)))
        before = at_path(value, path)
        if isinstance(before, dict) and draw(st.booleans()):
            after = dict(before)
            if after and draw(st.booleans()):
                del after[draw(st.sampled_from(sorted(after)))]
            else:
                after[draw(st.sampled_from(["extra", "", "At", "at ", "readings", "é", "_at"]))] = 1
        elif isinstance(before, Token):
            continue
        else:
            after = draw(
                st.one_of(
                    st.sampled_from(TOKENS).map(Token),
                    st.sampled_from(_near_limits(before)),
                    st.integers(),
                    st.floats(allow_nan=False, allow_infinity=False),
                )
            )
        if not path:
            value = after
            break
        at_path(value, path[:-1])[path[-1]] = after
    return text_of(value)


def plain(instance: Any) -> Any:
    return instance.model_dump(mode="json")


def exact(value: Any) -> Any:
    """Comparable so that 1, 1.0 and True differ, and -0.0 and 0.0 too."""
    if isinstance(value, dict):
        return {key: exact(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [exact(item) for item in value]
    return type(value).__name__, repr(value)


def pydantic_says(model: Any, text: str) -> Any:
    try:
        return exact(model.model_validate_json(text).model_dump())
    except ValidationError:
        return "refused"


def struct_says(decoder: Any, text: str) -> Any:
    try:
        return exact(msgspec.to_builtins(decoder.decode(text)))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return "refused"


@pytest.mark.parametrize("kind_name", KIND_NAMES)
def test_every_kind_of_ours_takes_the_fast_way(kind_name):
    assert issubclass(struct_of(devices.kind_named(kind_name).reading), msgspec.Struct)


@pytest.mark.parametrize("kind_name", KIND_NAMES)
def test_struct_and_model_accept_the_same_readings_with_equal_values(kind_name):
    model = devices.kind_named(kind_name).reading
    decoder = msgspec.json.Decoder(struct_of(model))

    @SETTINGS
    @given(text=mutated(instances(model).map(plain)))
    def check(text):
        assert struct_says(decoder, text) == pydantic_says(model, text)

    check()


@pytest.mark.parametrize("kind_name", KIND_NAMES)
@pytest.mark.parametrize("token", TOKENS)
def test_every_odd_value_in_every_field_is_judged_alike(kind_name, token):
    model = devices.kind_named(kind_name).reading
    decoder = msgspec.json.Decoder(struct_of(model))
    for path in paths(VALID[kind_name])[1:]:
        value = json.loads(json.dumps(VALID[kind_name]))
        at_path(value, path[:-1])[path[-1]] = Token(token)
        text = text_of(value)
        assert struct_says(decoder, text) == pydantic_says(model, text), (path, token)


@pytest.mark.parametrize("kind_name", KIND_NAMES)
def test_whole_telemetry_messages_are_judged_alike(kind_name):
    kind = devices.kind_named(kind_name)
    fast, payload_of = telemetry_decoder(kind), payload_decoder(kind, Lane.TELEMETRY)
    readings = st.lists(st.just(VALID[kind_name]), min_size=0, max_size=3)
    header = {
        "version": 1, "kind": kind_name, "device_id": "any-001", "boot_epoch": BOOTS_PER_GENERATION,
        "lane": "telemetry", "seq": 7, "occurred_at": 1_800_000_000_000,
    }  # fmt: skip
    messages = st.builds(
        lambda found, evicted: {**header, "payload": {"readings": found}, **evicted},
        readings,
        st.sampled_from([{}, {"evicted_from": 3}, {"evicted_from": None}]),
    )

    def slow(data):
        envelope = decode_envelope(data)
        if (envelope.lane, envelope.kind, envelope.device_id) != (Lane.TELEMETRY, kind_name, "any-001"):
            raise EnvelopeError("not what the topic says")  # the intake compares them on both ways
        return envelope, payload_of(bytes(envelope.payload))

    @SETTINGS
    @given(text=mutated(messages))
    def check(text):
        data = text.encode()
        try:
            envelope, payload = slow(data)
        except (EnvelopeError, PayloadError):
            envelope = None
        try:
            whole = fast(data)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            whole = None
        if whole is not None and (whole.kind, whole.device_id) != (kind_name, "any-001"):
            whole = None
        assert (envelope is None) == (whole is None), text
        if whole is None:
            return
        for name in ("version", "kind", "device_id", "boot_epoch", "seq", "occurred_at", "evicted_from"):
            assert getattr(whole, name) == getattr(envelope, name)
        assert exact(msgspec.to_builtins(whole.payload)) == exact(payload.model_dump())

    check()


def test_a_key_named_twice_goes_the_slow_way():
    kind = devices.kind_named("bike")
    text = json.dumps(BIKE)
    doubled = '{"battery_percent":"x",' + text[1:]
    assert struct_says(msgspec.json.Decoder(struct_of(kind.reading)), doubled) == "refused"
    found = payload_decoder(kind, Lane.TELEMETRY)(b'{"readings":[%s]}' % doubled.encode())
    assert found.readings[0].battery_percent == 80.5


# --- what can't be translated falls back, and is never translated wrongly ---------------------------------------


def _multiple_of_five(value: int) -> int:
    if value % 5:
        raise ValueError("no multiple of five")
    return value


@pytest.mark.parametrize(
    "annotation",
    [
        Annotated[int, Field(multiple_of=5)],
        Annotated[int, AfterValidator(_multiple_of_five)],
        Annotated[int, annotated_types.Predicate(lambda value: value > 3)],
        Annotated[int, Field(strict=False)],
        Annotated[int, Field(validation_alias="y")],
        Annotated[int, Field(alias="y")],
        Annotated[float, Field(allow_inf_nan=True)],
        Annotated[str, Field(pattern="^a$|^b$")],
        Annotated[str, Field(pattern=r"^\d+$")],
        int | str,
        tuple[int, str],
        dict[str, int],
        frozenset[int],
        Any,
    ],
)
def test_what_a_struct_would_not_keep_is_not_derived(annotation):
    model = type("Odd", (Message,), {"__annotations__": {"x": annotation}, "__module__": __name__})
    with pytest.raises(UntranslatableError):
        struct_of(model)


@pytest.mark.parametrize(
    "config",
    [
        {"extra": "ignore"},
        {"strict": False},
        {"str_strip_whitespace": True},
        {"str_max_length": 3},
        {"allow_inf_nan": True},
    ],
)
def test_a_model_with_rules_of_its_own_is_not_derived(config):
    namespace = {"__annotations__": {"x": str}, "model_config": ConfigDict(**config), "__module__": __name__}
    with pytest.raises(UntranslatableError):
        struct_of(type("Odd", (Message,), namespace))


class WholeVolts(Reading):
    volts: Annotated[float, Field(ge=0, le=10)]
    state: Literal["on", "off"] = "off"

    @field_validator("volts")
    @classmethod
    def whole(cls, value: float) -> float:
        if value != int(value):
            raise ValueError("volts are whole")
        return value


def test_a_kind_with_validators_is_decoded_by_pydantic_through_the_same_door():
    slow_kind = Kind(
        name="probe", title=Text("探头", "Probe"), id_prefix="probe", reading=WholeVolts, events=(), commands=(),
        reading_interval_s=1, silent_after_s=3,
    )  # fmt: skip
    decode = telemetry_decoder(slow_kind)
    text = (
        '{"version":1,"kind":"probe","device_id":"probe-001","boot_epoch":0,"lane":"telemetry","seq":1,'
        '"occurred_at":5,"payload":{"readings":[{"at":5,"volts":%s}]}}'
    )
    whole = decode((text % "3.0").encode())
    assert (whole.seq, whole.payload.readings[0].volts, whole.payload.readings[0].state) == (1, 3.0, "off")
    for wrong in ("3.5", "11", "NaN", '"3"'):
        with pytest.raises(msgspec.DecodeError):
            decode((text % wrong).encode())


@pytest.mark.parametrize("kind_name", KIND_NAMES)
@pytest.mark.parametrize("lane", [Lane.EVENT, Lane.EMERGENCY])
def test_events_are_decoded_in_their_own_lane_only(kind_name, lane):
    kind = devices.kind_named(kind_name)
    decode = payload_decoder(kind, lane)

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(event=st.one_of(*(instances(model) for model in kind.events)))
    def check(event):
        data = event.model_dump_json().encode()
        if event.lane is lane:
            assert decode(data) == event
        else:
            with pytest.raises(PayloadError):
                decode(data)

    check()
