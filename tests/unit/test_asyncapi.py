"""`fleet docs asyncapi`: the document is AsyncAPI 3 in structure, complete, and says what the decoders do."""

import json
import re

import msgspec
import pytest
from jsonschema import Draft7Validator
from pydantic import ValidationError

from cli.asyncapi import ASYNCAPI_VERSION, address, document
from devices import kinds
from fleet import topics
from fleet.envelope import VERSION, Envelope, Hello, Lane, Status, encode
from fleet.kind import literal_of
from fleet.topics import DownChannel, UpChannel

# The part of the AsyncAPI 3.0 meta schema that our document uses, closed, so that a misspelt key fails.
REFERENCE = {
    "type": "object", "required": ["$ref"], "additionalProperties": False,
    "properties": {"$ref": {"type": "string", "pattern": "^#/"}},
}  # fmt: skip
EXTENSIONS = {"^x-[\\w.-]+$": {}}
STRUCTURE = {
    "type": "object",
    "required": ["asyncapi", "info"],
    "additionalProperties": False,
    "patternProperties": EXTENSIONS,
    "properties": {
        "asyncapi": {"const": ASYNCAPI_VERSION},
        "id": {"type": "string", "format": "uri"},
        "info": {
            "type": "object",
            "required": ["title", "version"],
            "additionalProperties": False,
            "properties": {
                "title": {"type": "string"},
                "version": {"type": "string"},
                "description": {"type": "string"},
                "license": {"type": "object", "required": ["name"]},
            },
        },
        "defaultContentType": {"const": "application/json"},
        "servers": {
            "additionalProperties": {
                "type": "object",
                "required": ["host", "protocol"],
                "additionalProperties": False,
                "properties": {
                    "host": {"type": "string"},
                    "protocol": {"enum": ["mqtt", "mqtts"]},
                    "protocolVersion": {"const": "5"},
                    "description": {"type": "string"},
                    "security": {"type": "array", "items": REFERENCE},
                    "variables": {"additionalProperties": {"required": ["default"]}},
                },
            }
        },
        "channels": {
            "minProperties": 1,
            "additionalProperties": {
                "type": "object",
                "required": ["address", "messages"],
                "additionalProperties": False,
                "properties": {
                    "address": {"type": "string"},
                    "description": {"type": "string"},
                    "parameters": {"additionalProperties": REFERENCE},
                    "messages": {"minProperties": 1, "additionalProperties": REFERENCE},
                },
            },
        },
        "operations": {
            "minProperties": 1,
            "additionalProperties": {
                "type": "object",
                "required": ["action", "channel"],
                "additionalProperties": False,
                "properties": {
                    "action": {"enum": ["send", "receive"]},
                    "channel": REFERENCE,
                    "summary": {"type": "string"},
                    "bindings": {"type": "object", "required": ["mqtt"]},
                },
            },
        },
        "components": {
            "additionalProperties": False,
            "properties": {
                "messages": {
                    "propertyNames": {"pattern": "^[\\w\\d.\\-_]+$"},
                    "additionalProperties": {
                        "type": "object",
                        "required": ["payload"],
                        "additionalProperties": False,
                        "patternProperties": EXTENSIONS,
                        "properties": {
                            "name": {},
                            "title": {},
                            "summary": {},
                            "contentType": {},
                            "payload": {"type": "object"},
                        },
                    },
                },
                "schemas": {"propertyNames": {"pattern": "^[\\w\\d.\\-_]+$"}},
                "parameters": {
                    "additionalProperties": {"additionalProperties": False, "properties": {"description": {}}}
                },
                "securitySchemes": {"additionalProperties": {"required": ["type"]}},
            },
        },
    },
}


@pytest.fixture(scope="module")
def made():
    return json.loads(json.dumps(document()))


def validator(made, message):
    return Draft7Validator({**made["components"]["messages"][message]["payload"], "components": made["components"]})


def references(node):
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def resolve(made, reference):
    node = made
    for part in reference.removeprefix("#/").split("/"):
        node = node[part]
    return node


def test_its_structure_is_asyncapi_3(made):
    assert [error.message for error in Draft7Validator(STRUCTURE).iter_errors(made)] == []


def test_every_reference_leads_somewhere_and_every_schema_is_valid(made):
    for reference in references(made):
        assert resolve(made, reference) is not None
    for message in made["components"]["messages"].values():
        for key, value in message.items():
            if key == "x-order":
                assert resolve(made, value)
    for schema in made["components"]["schemas"].values():
        Draft7Validator.check_schema(schema)


def test_addresses_are_those_of_the_topics(made):
    for channel in (*UpChannel, *DownChannel):
        filled = address(channel).format(shard=topics.shard_of("room-007"), device_id="room-007")
        spelled = topics.up if isinstance(channel, UpChannel) else topics.down
        assert filled == spelled("room-007", channel)
    assert {channel["address"] for channel in made["channels"].values()} == set(
        map(address, (*UpChannel, *DownChannel))
    )
    for channel in made["channels"].values():
        assert set(re.findall(r"{(\w+)}", channel["address"])) == channel["parameters"].keys()


def test_every_message_is_used_and_every_operation_has_its_direction(made):
    used = {reference for channel in made["channels"].values() for reference in references(channel["messages"])}
    assert used == {f"#/components/messages/{name}" for name in made["components"]["messages"]}
    for operation in made["operations"].values():
        up = operation["channel"]["$ref"].startswith("#/channels/up.")
        assert operation["action"] == ("receive" if up else "send")
        assert operation["bindings"]["mqtt"]["retain"] is False


@pytest.mark.parametrize("kind", kinds().values(), ids=lambda kind: kind.name)
def test_everything_a_kind_says_and_understands_is_there(made, kind):
    for event in kind.events:
        name = f"{kind.name}.{literal_of(event, 'type')}"
        assert name in made["channels"][f"up.{event.lane.value}"]["messages"]
    for command in kind.commands:
        name = f"{kind.name}.command.{literal_of(command, 'action')}"
        message = made["components"]["messages"][name]
        assert name in made["channels"]["down.command"]["messages"]
        assert message["x-lifetime-seconds-max"] == command.lifetime_s_max
        assert message["x-roles"] == sorted(command.roles)
    assert f"{kind.name}.telemetry" in made["channels"]["up.telemetry"]["messages"]


@pytest.mark.parametrize("kind", kinds().values(), ids=lambda kind: kind.name)
def test_every_number_of_a_reading_has_unit_bounds_and_chinese_name(made, kind):
    schema = made["components"]["schemas"][f"{kind.name}.{kind.reading.__name__}"]
    for name, field in schema["properties"].items():
        if field.get("type") in {"number", "integer"} and name != "at":
            assert {"x-unit", "x-title-zh", "minimum", "maximum"} <= field.keys(), name


def enveloped(kind_name, lane, payload):
    envelope = Envelope(
        version=VERSION, kind=kind_name, device_id="bike-001", boot_epoch=1 << 20, lane=lane, seq=1,
        occurred_at=1_800_000_000_000, payload=msgspec.Raw(json.dumps(payload).encode()),
    )  # fmt: skip
    return json.loads(encode(envelope))


def opened(**changes):
    return {
        "type": "lock_opened", "event_id": "0" * 32, "latitude": 38.86, "longitude": 121.52, "accuracy_metres": 4.0,
        "command_id": None, **changes,
    }  # fmt: skip


def test_what_the_models_accept_the_document_accepts(made):
    payload = opened()
    kinds()["bike"].event_type("lock_opened").model_validate_json(json.dumps(payload))
    validator(made, "bike.lock_opened").validate(enveloped("bike", Lane.EVENT, payload))


@pytest.mark.parametrize(
    "payload",
    [
        opened(latitude=91.0),
        opened(event_id="x"),
        opened(extra=1),
        opened(type="lock_closed"),
        opened(latitude="38.86"),
    ],
)
def test_what_the_models_refuse_the_document_refuses(made, payload):
    with pytest.raises(ValidationError):
        kinds()["bike"].event_type("lock_opened").model_validate_json(json.dumps(payload))
    assert not validator(made, "bike.lock_opened").is_valid(enveloped("bike", Lane.EVENT, payload))


def test_the_envelope_is_part_of_every_device_message(made):
    check = validator(made, "bike.lock_opened")
    good = enveloped("bike", Lane.EVENT, opened())
    for changes in ({"lane": "telemetry"}, {"kind": "meal_machine"}, {"seq": 0}, {"device_id": "Bike 1"}, {"more": 1}):
        assert not check.is_valid(good | changes)
    without_type = opened()
    del without_type["type"]
    assert not check.is_valid(enveloped("bike", Lane.EVENT, without_type))


def test_telemetry_holds_one_to_many_readings_of_its_kind(made):
    schema = made["components"]["schemas"]["bike.Telemetry"]["properties"]["readings"]
    assert (schema["minItems"], schema["maxItems"]) == (1, 64)
    assert schema["items"]["$ref"].endswith(f"/bike.{kinds()['bike'].reading.__name__}")


def test_hello_and_status_are_what_the_edge_encodes(made):
    hello = Hello(VERSION, "bike", "bike-001", "0" * 32, 0, 3, "1" * 32, "1.0", "2" * 32)
    validator(made, "hello").validate(json.loads(encode(hello)))
    validator(made, "status").validate(json.loads(encode(Status("bike-001", 1, 1, online=False))))
    assert not validator(made, "hello").is_valid({})
