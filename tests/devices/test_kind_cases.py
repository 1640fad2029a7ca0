"""Recorded input and expected output of every kind, from `devices/<kind>/cases/*.json`.

{"device_id": …, "steps": [{"at": ms, "reading": {…}} | {"at": ms, "event": {…}}],
 "expect": {"state": {subset}, "alarms": [keys whose condition holds], "needs": [causes]}}
"""

import json
from pathlib import Path

import msgspec
import pytest
from device_line import condition_holds
from pydantic import TypeAdapter

import devices


def folder_of(kind_name):
    return Path(devices.role(kind_name, "kind").__file__).parent / "cases"


CASES = [(name, path) for name in sorted(devices.kinds()) for path in sorted(folder_of(name).glob("*.json"))]


@pytest.mark.parametrize("kind_name", sorted(devices.kinds()))
def test_every_kind_has_cases(kind_name):
    assert any(name == kind_name for name, _ in CASES)


@pytest.mark.parametrize(
    ("kind_name", "path"), CASES, ids=lambda value: value.stem if isinstance(value, Path) else value
)
def test_recorded_case(kind_name, path):
    case = json.loads(path.read_text(encoding="utf-8"))
    kind = devices.kind_named(kind_name)
    state_role = devices.role(kind_name, "state")
    rules = devices.role(kind_name, "rules")
    state = state_role.initial(case["device_id"])
    for step in case["steps"]:
        if "reading" in step:
            reading = kind.reading.model_validate_json(json.dumps({"at": step["at"], **step["reading"]}))
            state = state_role.apply_reading(state, reading)
        else:
            model = kind.event_type(step["event"]["type"])
            event = TypeAdapter(model).validate_json(json.dumps(step["event"]))
            state = state_role.apply_event(state, event, step["at"])
    expected = case["expect"]
    held = msgspec.json.decode(msgspec.json.encode(msgspec.structs.replace(state, reading=None)))
    assert {name: held[name] for name in expected["state"]} == expected["state"]
    alarms = sorted(alarm.key for alarm in rules.ALARMS if condition_holds(alarm.condition, state))
    assert alarms == sorted(expected["alarms"])
    needs = sorted(need.cause for need in rules.needs(state, case["steps"][-1]["at"]))
    assert needs == sorted(expected["needs"])
