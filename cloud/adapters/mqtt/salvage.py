"""Reading a PUBLISH by hand when the codec refuses it.

A broker passes on properties that the codec may find malformed. Dropping the connection for that would
let one device silence all others, so topic, packet id and payload are taken out and the message goes on
to be judged (and quarantined) like any other.
"""

from typing import NamedTuple

_TYPE_PUBLISH = 3
_LENGTH_BYTES_MAX = 4


class Salvaged(NamedTuple):
    """The readable part of one packet and the number of bytes it took."""

    topic: str
    payload: bytes
    packet_id: int
    size_bytes: int


def salvage_publish(data: memoryview) -> Salvaged | None:
    """Read one complete PUBLISH at the start of `data`, skipping its properties; None if it is not one."""
    if len(data) < 2 or data[0] >> 4 != _TYPE_PUBLISH:
        return None
    frame = _variable_length(data, 1)
    if frame is None or frame[0] + frame[1] > len(data):
        return None
    position, length = frame
    end = position + length
    try:
        topic_end = position + 2 + int.from_bytes(data[position : position + 2], "big")
        topic = bytes(data[position + 2 : topic_end]).decode(errors="replace")
        packet_id = 0
        if data[0] & 0b0110:
            packet_id = int.from_bytes(data[topic_end : topic_end + 2], "big")
            topic_end += 2
        properties = _variable_length(data, topic_end)
    except IndexError:
        return None
    if properties is None or sum(properties) > end:
        return None
    return Salvaged(topic, bytes(data[sum(properties) : end]), packet_id, end)


def _variable_length(data: memoryview, position: int) -> tuple[int, int] | None:
    """(position after it, value) of a variable byte integer; None if it is cut off or too long."""
    value = 0
    for index in range(_LENGTH_BYTES_MAX):
        if position + index >= len(data):
            return None
        byte = data[position + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return position + index + 1, value
    return None
