"""Identity and rhythm of a nursing room."""

from typing import Final

from devices.nursing_room import messages
from fleet.kind import Kind, Text

KIND: Final = Kind(
    name="nursing_room",
    title=Text("母婴室", "Nursing room"),
    id_prefix="room",
    reading=messages.RoomReading,
    events=messages.EVENTS,
    commands=messages.COMMANDS,
    reading_interval_s=15.0,
    silent_after_s=40.0,
    emergency=True,
    demo_count=190,
)
