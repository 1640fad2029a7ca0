"""Telemetry in fewer bytes, for devices that pay for each: zlib with a dictionary both sides know.

A message that is worth it begins with zlib's first byte, which no JSON document does, and names its dictionary by
checksum. A dictionary is never changed: a better one is added in front, and the older ones stay readable.
"""

import zlib
from typing import Final

from fleet.envelope import MESSAGE_BYTES_MAX

MARK: Final = b"\x78"
_DICTIONARIES: Final = (
    (
        b'{"version":1,"kind":"nursing_room","device_id":"room-001","kind":"meal_machine","device_id":"meal-001",'
        b'{"version":1,"kind":"bike","device_id":"bike-001","boot_epoch":1048577,"lane":"telemetry","seq":1,'
        b'"occurred_at":1800000000000,"payload":{"readings":[{"at":1800000000000,"battery_percent":87.25,'
        b'"latitude":38.8612345,"longitude":121.5212345,"accuracy_metres":4.5,"speed_metres_per_second":0.0,'
        b'"lock_state":"unlocked","tilt_degrees":7.0,"signal_dbm":-81.0,"odometer_metres":123456.0,'
        b'"temperature_celsius":21.5,"fix_age_seconds":0.0},{"at":1800000030000,"battery_percent":87.2,'
        b'"lock_state":"locked","tilt_degrees":7.0,"signal_dbm":-79.0,"fix_age_seconds":0.0}]}}'
    ),
)
_BY_CHECKSUM: Final = {zlib.adler32(dictionary): dictionary for dictionary in _DICTIONARIES}


def packed(message: bytes) -> bytes:
    """The message in fewer bytes, or as it is when that would not help."""
    packer = zlib.compressobj(level=9, zdict=_DICTIONARIES[0])
    data = packer.compress(message) + packer.flush()
    return data if len(data) < len(message) else message


def unpacked(data: bytes) -> bytes:
    """What `packed` was given. Anything that is no packed message, or would grow beyond a message, stays as it is."""
    if len(data) < 6 or data[:1] != MARK:
        return data
    dictionary = _BY_CHECKSUM.get(int.from_bytes(data[2:6], "big"))
    if dictionary is None:
        return data
    unpacker = zlib.decompressobj(zdict=dictionary)
    try:
        message = unpacker.decompress(data, MESSAGE_BYTES_MAX + 1)
    except zlib.error:
        return data
    return message if unpacker.eof and not unpacker.unused_data and len(message) <= MESSAGE_BYTES_MAX else data
