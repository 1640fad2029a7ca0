"""Every kind found by folder offers every role, and what it declares is complete and consistent."""

import typing
from collections import Counter

import pytest
from device_strategies import bounds_of
from pydantic import BaseModel

import devices
from fleet.envelope import Lane
from fleet.incident import Priority
from fleet.kind import Flag, Panel, Text, Threshold, When, literal_of
from fleet.messages import Command, Event, Reading
from fleet.series import measurement_named
from fleet.topics import is_device_id
from fleet.units import UNITS, label_of

KIND_NAMES = sorted(devices.kinds())
# Coordinates keep the names that every map knows; their unit is degrees, WGS-84.
NAMES_WITHOUT_UNIT = {"latitude", "longitude"}
IDENTITY = {"at", "type", "action"}


def models_of(kind_name):
    kind = devices.kind_named(kind_name)
    return (kind.reading, *kind.events, *kind.commands)


def fields_of(model, seen=()):
    """(model, name, field) of a model and of every model nested in it."""
    for name, field in model.model_fields.items():
        yield model, name, field
        for nested in nested_models(field.annotation):
            if nested not in seen:
                yield from fields_of(nested, (*seen, nested))


def nested_models(annotation):
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from nested_models(argument)


def is_number(annotation):
    candidates = typing.get_args(annotation) if typing.get_origin(annotation) is not typing.Literal else ()
    return annotation in (int, float) or any(argument in (int, float) for argument in candidates)


def assert_both_languages(text: Text):
    assert text.zh.strip()
    assert text.en.strip()
    assert any("\u4e00" <= character <= "\u9fff" for character in text.zh), f"no Chinese in {text.zh!r}"
    assert not any("\u4e00" <= character <= "\u9fff" for character in text.en), f"Chinese in {text.en!r}"


def test_the_first_three_kinds_are_found():
    assert {"bike", "meal_machine", "nursing_room"} <= set(KIND_NAMES)


@pytest.mark.parametrize("kind_name", KIND_NAMES)
@pytest.mark.parametrize("role_name", devices.ROLES)
def test_every_role_is_importable(kind_name, role_name):
    assert devices.role(kind_name, role_name) is not None


@pytest.mark.parametrize("kind_name", KIND_NAMES)
def test_identity_and_rhythm(kind_name):
    kind = devices.kind_named(kind_name)
    assert kind.name == kind_name
    assert is_device_id(f"{kind.id_prefix}-001")
    assert_both_languages(kind.title)
    assert issubclass(kind.reading, Reading)
    assert 0 < kind.reading_interval_s < kind.silent_after_s
    assert kind.keep_alive_s > 0
    assert kind.readings_per_message >= 1
    assert kind.demo_count > 0


def test_prefixes_are_not_shared():
    prefixes = Counter(kind.id_prefix for kind in devices.kinds().values())
    assert max(prefixes.values()) == 1


@pytest.mark.parametrize("kind_name", KIND_NAMES)
def test_event_types_and_actions_are_unique_single_literals(kind_name):
    kind = devices.kind_named(kind_name)
    for models, base, tag in ((kind.events, Event, "type"), (kind.commands, Command, "action")):
        names = [literal_of(model, tag) for model in models]
        assert len(names) == len(set(names)), names
        for model, name in zip(models, names, strict=True):
            assert issubclass(model, base)
            assert typing.get_origin(model.model_fields[tag].annotation) is typing.Literal
            assert len(typing.get_args(model.model_fields[tag].annotation)) == 1
            assert model.model_fields[tag].default == name, f"{model.__name__}.{tag} has no default"
    assert all(model.lane in (Lane.EVENT, Lane.EMERGENCY) for model in kind.events)
    assert kind.emergency == any(model.lane is Lane.EMERGENCY for model in kind.events)
    for model in kind.commands:
        assert model.lifetime_s_max > 0
        assert model.roles <= {"employee", "crew", "admin"}


@pytest.mark.parametrize("kind_name", KIND_NAMES)
def test_every_field_is_labelled_and_every_number_has_bounds_and_its_unit_last(kind_name):
    for root in models_of(kind_name):
        for model, name, field in fields_of(root):
            if name in IDENTITY or name.endswith("_id") or nested_models_present(field):
                continue
            where = f"{model.__name__}.{name}"
            assert label_of(field, "zh"), f"{where} has no Chinese label"
            assert label_of(field, "en"), f"{where} has no English label"
            extra = field.json_schema_extra
            unit = extra.get("unit")
            assert unit in UNITS, f"{where}: unit {unit!r}"
            if is_number(field.annotation):
                bounds = bounds_of(field.metadata)
                for argument in typing.get_args(field.annotation):
                    if typing.get_origin(argument) is typing.Annotated:
                        bounds |= bounds_of(typing.get_args(argument)[1:])
                assert "low" in bounds, f"{where} has no lower bound"
                assert "high" in bounds, f"{where} has no upper bound"
                # A count says what is counted (`expected`, `found`, `capacity`); no unit could be mistaken.
                if unit not in ("none", "count") and name not in NAMES_WITHOUT_UNIT:
                    assert name == unit or name.endswith(f"_{unit}"), f"{where} does not end in its unit {unit}"


def nested_models_present(field):
    return next(nested_models(field.annotation), None) is not None


@pytest.mark.parametrize("kind_name", KIND_NAMES)
def test_unknown_fields_and_wrong_types_are_refused(kind_name):
    for model in models_of(kind_name):
        assert model.model_config["extra"] == "forbid"
        assert model.model_config["strict"]
        assert model.model_config["frozen"]


@pytest.mark.parametrize("kind_name", KIND_NAMES)
def test_alarms_are_complete(kind_name):
    alarms = devices.role(kind_name, "rules").ALARMS
    keys = [alarm.key for alarm in alarms]
    assert keys
    assert len(keys) == len(set(keys))
    for alarm in alarms:
        for text in (alarm.title, alarm.cause, alarm.consequence, alarm.action):
            assert_both_languages(text)
        assert alarm.respond_within_s > 0, alarm.key
        assert alarm.on_delay_s >= 0
        assert alarm.off_delay_s >= 0
        assert alarm.priority is not Priority.EMERGENCY, f"{alarm.key}: an emergency is a call, never an alarm"


@pytest.mark.parametrize("kind_name", KIND_NAMES)
def test_conditions_refer_to_real_fields(kind_name):
    fields = devices.kind_named(kind_name).reading.model_fields
    for alarm in devices.role(kind_name, "rules").ALARMS:
        condition = alarm.condition
        if isinstance(condition, Threshold):
            assert condition.field in fields, alarm.key
            assert is_number(fields[condition.field].annotation), alarm.key
            assert (condition.above is None) != (condition.below is None), alarm.key
            assert condition.deadband >= 0
            bounds = bounds_of(fields[condition.field].metadata)
            limit = condition.above if condition.above is not None else condition.below
            if {"low", "high"} <= bounds.keys():
                assert bounds["low"] <= limit <= bounds["high"], f"{alarm.key} can never hold"
        elif isinstance(condition, Flag):
            assert condition.field in fields, alarm.key
        else:
            assert isinstance(condition, When)
            assert callable(condition.predicate)


@pytest.mark.parametrize("kind_name", KIND_NAMES)
def test_panels_refer_to_real_fields(kind_name):
    fields = devices.kind_named(kind_name).reading.model_fields
    role = devices.role(kind_name, "panels")
    assert role.PANELS
    for panel in (*role.PANELS, *getattr(role, "DEVICE_PANELS", ())):
        assert isinstance(panel, Panel)
        assert_both_languages(panel.title)
        assert_both_languages(panel.description)
        assert bool(panel.fields) != bool(panel.groups)
        for group in panel.groups:
            assert_both_languages(group.title)
            assert {where.name for where in group.where} <= fields.keys()
        if panel.measurement:
            known = {field.name for field in measurement_named(panel.measurement).fields}
            assert set(panel.fields) <= known, panel.title.en
            continue
        for name in panel.fields:
            assert name in fields, f"{panel.title.en}: {name}"
            numeric = is_number(fields[name].annotation) or fields[name].annotation is bool
            assert numeric or panel.aggregate in ("last", "count"), f"{panel.title.en}: {panel.aggregate} of {name}"


@pytest.mark.parametrize("kind_name", KIND_NAMES)
def test_call_steps_name_real_events(kind_name):
    kind = devices.kind_named(kind_name)
    rules = devices.role(kind_name, "rules")
    names = {literal_of(model, "type") for model in kind.events}
    assert set(rules.call_steps()) <= names
    assert bool(rules.call_steps()) == kind.emergency
    state = devices.role(kind_name, "state").initial(f"{kind.id_prefix}-001")
    for acknowledged in (False, True):
        feedback = rules.call_feedback(state, acknowledged=acknowledged)
        assert feedback is None or type(feedback) in kind.commands


def test_an_unknown_kind_or_role_is_named_in_the_error():
    with pytest.raises(devices.UnknownKindError, match="hovercraft"):
        devices.kind_named("hovercraft")
    with pytest.raises(ValueError, match="unknown role"):
        devices.role(KIND_NAMES[0], "secrets")
