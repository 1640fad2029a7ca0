"""The wire as an AsyncAPI 3 document, made from the models that check the wire: `fleet docs asyncapi`.

The application described is the cloud: it receives on `up` channels and sends on `down` channels. Envelopes come
from `fleet.envelope` and `fleet.signing` (msgspec), payloads from every known kind (pydantic), addresses from
`fleet.topics`.
"""

from collections.abc import Iterator
from importlib import metadata
from typing import Any, Final

import msgspec
from pydantic import BaseModel, Field, create_model

from devices import kinds
from fleet import topics
from fleet.credentials import CertificateGrant, CertificateRefusal, CertificateRequest
from fleet.envelope import (
    ACCEPTED_VERSIONS,
    READINGS_PER_MESSAGE_MAX,
    Acknowledgement,
    Envelope,
    Hello,
    Lane,
    Status,
    Welcome,
)
from fleet.kind import Kind, literal_of
from fleet.messages import Command, Reply, Telemetry
from fleet.signing import CommandOrder, SignedCommand
from fleet.topics import DEVICE_ID_PATTERN, ROOT, SHARD_COUNT, DownChannel, UpChannel

ASYNCAPI_VERSION: Final = "3.0.0"
SCHEMAS: Final = "#/components/schemas/"
WIRE: Final = (
    Envelope, Hello, Status, Acknowledgement, Welcome, SignedCommand, CommandOrder, CertificateRequest,
    CertificateGrant, CertificateRefusal,
)  # fmt: skip
MQTT_BINDING_VERSION: Final = "0.2.0"
_WORDS: Final = {
    "up.emergency": "Presses and what ends a call; queues behind nothing.",
    "up.event": "What happened once, in order.",
    "up.telemetry": "Measured values, several readings per message; "
    "may be packed: zlib with the dictionary of fleet/compact.py.",
    "up.reply": "How far a command came; the final reply is repeated until acknowledged.",
    "up.hello": "First message of every connection: asks for time, storage generation and marks.",
    "up.status": "Link state; `online: false` is the last will.",
    "up.certificate": "Asks for a certificate for a new key of the device.",
    "down.command": "Signed, expiring, made for one device; never retained.",
    "down.certificate": "The renewed certificate, or why there is none.",
    "down.ack": "Application acknowledgements and the answer to a hello.",
}

Document = dict[str, Any]


def document() -> Document:
    """The AsyncAPI 3 document of every kind known to this process."""
    schemas = _wire_schemas()
    messages: Document = {
        "hello": _message("Hello", _ref("Hello"), "A device presents itself."),
        "status": _message("Status", _ref("Status"), "A device's link came up, or its last will."),
        "reply": _message("Reply", _ref("Reply"), "Answer to a command."),
        "acknowledgement": _message("Acknowledgement", _ref("Acknowledgement"), "Committed up to these marks."),
        "welcome": _message("Welcome", _ref("Welcome"), "Answer to a hello, signed."),
        "certificate_request": _message(
            "CertificateRequest", _ref("CertificateRequest"), "A device has a new key and wants it certified."
        ),
        "certificate_granted": _message("CertificateGrant", _ref("CertificateGrant"), "The certificate for that key."),
        "certificate_refused": _message("CertificateRefusal", _ref("CertificateRefusal"), "No certificate, and why."),
    }
    channels: Document = {_key(channel): _channel(channel) for channel in (*UpChannel, *DownChannel)}
    for channel, names in _FIXED:
        _publish(channels, channel, names)
    for kind in kinds().values():
        for channel, name, message in _messages_of(kind, schemas):
            messages[name] = message
            _publish(channels, channel, [name])
    channels = {key: channel for key, channel in channels.items() if channel["messages"]}
    return {
        "asyncapi": ASYNCAPI_VERSION,
        "id": "urn:gaoxin-fleet:wire",
        "info": _info(),
        "defaultContentType": "application/json",
        "servers": {"broker": _server()},
        "channels": channels,
        "operations": _operations(channels),
        "components": {
            "messages": messages,
            "schemas": dict(sorted(_tidied(schemas).items())),
            "parameters": _parameters(),
            "securitySchemes": {"deviceCertificate": {"type": "X509", "description": "CN is the device id."}},
        },
    }


_FIXED: Final[tuple[tuple[UpChannel | DownChannel, list[str]], ...]] = (  # no mapping: equal names are equal keys
    (UpChannel.REPLY, ["reply"]),
    (UpChannel.HELLO, ["hello"]),
    (UpChannel.STATUS, ["status"]),
    (DownChannel.ACK, ["acknowledgement", "welcome"]),
    (UpChannel.CERTIFICATE, ["certificate_request"]),
    (DownChannel.CERTIFICATE, ["certificate_granted", "certificate_refused"]),
)


def _info() -> Document:
    accepted = ", ".join(map(str, sorted(ACCEPTED_VERSIONS)))
    return {
        "title": "Gaoxin fleet: devices and cloud",
        "version": metadata.version("gaoxin-fleet") if _is_installed() else "0",
        "description": (
            "MQTT 5 between the connected devices and the cloud. A message's key is (device_id, boot_epoch, lane, seq)"
            "; it is repeated until an application acknowledgement covers it. "
            f"Accepted envelope versions: {accepted}."
        ),
        "license": {"name": "Apache-2.0"},
    }


def _is_installed() -> bool:
    try:
        metadata.version("gaoxin-fleet")
    except metadata.PackageNotFoundError:
        return False
    return True


def _server() -> Document:
    return {
        "host": "{host}:{port}",
        "protocol": "mqtts",
        "protocolVersion": "5",
        "description": "The broker. TLS with a client certificate for devices; `/up/` may be written, `/down/` read.",
        "variables": {"host": {"default": "localhost"}, "port": {"default": "8883"}},
        "security": [{"$ref": "#/components/securitySchemes/deviceCertificate"}],
    }


def _parameters() -> Document:
    return {
        "shard": {
            "description": f"Stable hash of the device id, 0 to {SHARD_COUNT - 1} (CRC-32 modulo {SHARD_COUNT})."
        },
        "device_id": {"description": f"Identity from the device's certificate, {DEVICE_ID_PATTERN}"},
    }


def _channel(channel: UpChannel | DownChannel) -> Document:
    return {
        "address": address(channel),
        "description": _WORDS[_key(channel)],
        "parameters": {name: {"$ref": f"#/components/parameters/{name}"} for name in ("shard", "device_id")},
        "messages": {},
    }


def address(channel: UpChannel | DownChannel) -> str:
    """The topic of a channel with `{shard}` and `{device_id}` in place of one device's, spelled by `fleet.topics`."""
    sample = "sample"
    spelled = topics.up(sample, channel) if isinstance(channel, UpChannel) else topics.down(sample, channel)
    prefix = f"{ROOT}/{topics.shard_of(sample)}/{sample}/"
    assert spelled.startswith(prefix)
    return f"{ROOT}/{{shard}}/{{device_id}}/{spelled.removeprefix(prefix)}"


def _key(channel: UpChannel | DownChannel) -> str:
    return f"{'up' if isinstance(channel, UpChannel) else 'down'}.{channel.value}"


def _publish(channels: Document, channel: UpChannel | DownChannel, names: list[str]) -> None:
    for name in names:
        channels[_key(channel)]["messages"][name] = {"$ref": f"#/components/messages/{name}"}


def _operations(channels: Document) -> Document:
    operations: Document = {}
    for key in channels:
        up = key.startswith("up.")
        operations[f"{'receive' if up else 'send'}.{key}"] = {
            "action": "receive" if up else "send",
            "channel": {"$ref": f"#/channels/{key}"},
            "summary": channels[key]["description"],
            "bindings": {"mqtt": {"qos": 1, "retain": False, "bindingVersion": MQTT_BINDING_VERSION}},
        }
    return operations


def _message(title: str, payload: Document, summary: str) -> Document:
    return {"name": title, "title": title, "summary": summary, "contentType": "application/json", "payload": payload}


def _messages_of(kind: Kind, schemas: Document) -> Iterator[tuple[UpChannel | DownChannel, str, Document]]:
    """(channel, key, message) of everything a kind says and understands; its schemas are added to `schemas`."""
    title = kind.title.en
    telemetry = _add(schemas, kind, _telemetry_of(kind))
    payload = _enveloped(kind, Lane.TELEMETRY, telemetry)
    yield (
        UpChannel.TELEMETRY,
        f"{kind.name}.telemetry",
        _message(f"{title}: telemetry", payload, _summary(kind.reading)),
    )
    for event in kind.events:
        name = literal_of(event, "type")
        payload = _enveloped(kind, event.lane, _add(schemas, kind, event))
        yield UpChannel(event.lane.value), f"{kind.name}.{name}", _message(f"{title}: {name}", payload, _summary(event))
    for command in kind.commands:
        name = literal_of(command, "action")
        order = {"allOf": [_ref("CommandOrder"), {"properties": {"command": _add(schemas, kind, command)}}]}
        schemas[f"{kind.name}.{name}.order"] = order
        signed = {"allOf": [_ref("SignedCommand")], "x-order": f"{SCHEMAS}{kind.name}.{name}.order"}
        message = _message(f"{title}: {name}", signed, _summary(command))
        yield DownChannel.COMMAND, f"{kind.name}.command.{name}", message | _limits(command)


def _limits(command: type[Command]) -> Document:
    """What the schema cannot say of a command."""
    return {"x-lifetime-seconds-max": command.lifetime_s_max, "x-roles": sorted(command.roles)}


def _summary(model: type[BaseModel]) -> str:
    return (model.__doc__ or model.__name__).strip().splitlines()[0]


def _telemetry_of(kind: Kind) -> type[BaseModel]:
    """The telemetry payload narrowed to the kind's reading; the base model says the rest."""
    items: Any = tuple[kind.reading, ...]  # type: ignore[name-defined]  # the class is only known at run time
    readings: Any = (items, Field(min_length=1, max_length=READINGS_PER_MESSAGE_MAX))
    return create_model(
        "Telemetry", __base__=Telemetry, __doc__=f"Readings of a {kind.title.en.lower()}.", readings=readings
    )


def _enveloped(kind: Kind, lane: Lane, payload: Document) -> Document:
    narrowed = {"kind": {"const": kind.name}, "lane": {"const": lane.value}, "payload": payload}
    return {"allOf": [_ref("Envelope"), {"type": "object", "properties": narrowed}]}


def _add(schemas: Document, kind: Kind, model: type[BaseModel]) -> Document:
    """Put a model's schema and what it refers to under the kind's name; returns a reference to it."""
    schema = model.model_json_schema(ref_template=f"{SCHEMAS}{kind.name}.{{model}}")
    for name, part in schema.pop("$defs", {}).items():
        schemas[f"{kind.name}.{name}"] = part
    for tag in ("type", "action"):  # has a default in Python; on the wire it says what the message is
        if schema.get("properties", {}).get(tag, {}).get("const"):
            schema["required"] = [tag, *schema.get("required", [])]
    schemas[f"{kind.name}.{model.__name__}"] = schema
    return _ref(f"{kind.name}.{model.__name__}")


def _wire_schemas() -> Document:
    _, schemas = msgspec.json.schema_components(WIRE, ref_template=f"{SCHEMAS}{{name}}")
    reply = Reply.model_json_schema(ref_template=f"{SCHEMAS}{{model}}")
    return {**schemas, **reply.pop("$defs", {}), "Reply": reply}


def _ref(name: str) -> Document:
    return {"$ref": f"{SCHEMAS}{name}"}


_EXTENSIONS: Final = {"unit": "x-unit", "zh": "x-title-zh"}


def _tidied(schemas: Document) -> Document:
    """Schemas with our own keywords spelled as extensions."""
    return {name: _renamed(schema) for name, schema in schemas.items()}


def _renamed(node: Any, *, names: bool = False) -> Any:
    """`names`: the keys of this object are names of properties, not keywords."""
    if isinstance(node, list):
        return [_renamed(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        (key if names else _EXTENSIONS.get(key, key)): _renamed(value, names=not names and key == "properties")
        for key, value in node.items()
    }
