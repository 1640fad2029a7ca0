"""What the meal machine is: names, messages, rhythm."""

from typing import Final

from devices.meal_machine import messages
from fleet.kind import Kind, Text

KIND: Final = Kind(
    name="meal_machine",
    title=Text(zh="共享售饭机", en="Meal machine"),
    id_prefix="meal",
    reading=messages.MealMachineReading,
    events=messages.EVENTS,
    commands=messages.COMMANDS,
    reading_interval_s=30.0,
    silent_after_s=90.0,
    demo_count=20,
)
