"""The only file that spells an MQTT topic.

    f/<shard>/<device_id>/up/<emergency|event|telemetry|reply|hello|status|certificate>
    f/<shard>/<device_id>/down/<command|ack|certificate>

The shard is a stable hash of the device id. An ingester subscribes to exactly the shards it holds a
lease on, so one device's messages always go one way, in order (decision 4).
"""

import re
import zlib
from dataclasses import dataclass
from enum import StrEnum

SHARD_COUNT = 64
ROOT = "f"
DEVICE_ID_PATTERN = r"^[a-z0-9-]{1,32}$"
_DEVICE_ID = re.compile(DEVICE_ID_PATTERN)
INGESTER_NAME = "fleet.ingester"
"""Who the cloud is to the broker. The dot keeps it out of the device ids: no device can be taken for it."""


class UpChannel(StrEnum):
    """What a device sends; the first three are the lanes of the envelope."""

    EMERGENCY = "emergency"
    EVENT = "event"
    TELEMETRY = "telemetry"
    REPLY = "reply"
    HELLO = "hello"
    STATUS = "status"
    CERTIFICATE = "certificate"


class DownChannel(StrEnum):
    """What the cloud sends to one device."""

    COMMAND = "command"
    ACK = "ack"
    CERTIFICATE = "certificate"


@dataclass(frozen=True, slots=True)
class UpTopic:
    """A parsed topic of a device."""

    shard: int
    device_id: str
    channel: UpChannel


def is_device_id(text: str) -> bool:
    """Whether `text` may name a device: 1 to 32 of a-z, 0-9 and hyphen."""
    return _DEVICE_ID.fullmatch(text) is not None


def shard_of(device_id: str) -> int:
    """Stable shard of a device, 0 ≤ shard < SHARD_COUNT; the same on every machine and release."""
    return zlib.crc32(device_id.encode()) % SHARD_COUNT


def up(device_id: str, channel: UpChannel) -> str:
    """Topic on which `device_id` publishes `channel`."""
    return f"{ROOT}/{shard_of(device_id)}/{device_id}/up/{channel.value}"


def down(device_id: str, channel: DownChannel) -> str:
    """Topic on which the cloud publishes `channel` to `device_id`."""
    return f"{ROOT}/{shard_of(device_id)}/{device_id}/down/{channel.value}"


def up_filter(shard: int, channel: UpChannel) -> str:
    """Subscription of an ingester for one channel of one shard."""
    return f"{ROOT}/{shard}/+/up/{channel.value}"


def broker_acl_patterns() -> tuple[tuple[str, str], ...]:
    """(access, pattern) per device, `%u` being the identity from its certificate; for the broker's ACL file."""
    return (("write", f"{ROOT}/+/%u/up/#"), ("read", f"{ROOT}/+/%u/down/#"))


def broker_acl_ingester() -> tuple[tuple[str, str], ...]:
    """(access, topic) for the cloud's own connections."""
    return (("read", f"{ROOT}/+/+/up/#"), ("write", f"{ROOT}/+/+/down/#"))


def parse_up(topic: str) -> UpTopic:
    """Parse a device's topic.

    Raises:
        ValueError: the text is not a topic of ours, or its shard is not the device's.
    """
    parts = topic.split("/")
    if len(parts) != 5 or parts[0] != ROOT or parts[3] != "up":
        raise ValueError(f"not a device topic: {topic!r}")
    _, shard_text, device_id, _, channel_text = parts
    if not is_device_id(device_id):
        raise ValueError(f"not a device id: {device_id!r}")
    try:
        channel = UpChannel(channel_text)
    except ValueError:
        raise ValueError(f"unknown channel {channel_text!r} in {topic!r}") from None
    shard = shard_of(device_id)
    if shard_text != str(shard):
        raise ValueError(f"{device_id!r} belongs to shard {shard}, not {shard_text}")
    return UpTopic(shard, device_id, channel)
