"""A device's sensors, each with an age of its own: a machine that talks may be blind.

A kind lists them in `rules.py` as `SENSORS` and puts `no_values_alarm` of each into its `ALARMS`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from fleet.incident import Priority
from fleet.kind import NOT_HEARD, AlarmDefinition, Condition, Skill, Text

ALARM_PREFIX: Final = "sensor_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensor:
    """One sensor: what it gives, and when what it gives is too old to be believed. Times in business seconds.

    `missing` holds while the latest reading has no good value of it: a field that is None, a fix that is too
    old, a value that has not moved for longer than physics allows. `stale_after_s` is how old its last good
    value may be, and at least as long as the kind may be silent: what is not heard has no sensor trouble of its own.
    """

    key: str
    title: Text
    fields: tuple[str, ...]
    missing: Condition
    stale_after_s: float
    age_field: str = ""
    """Field of the reading that says how many seconds ago the value was good; without it, as old as the reading."""
    good_at: Callable[[Any], int | None] | None = None
    """From the kind's state: when the value was last good; without it, that is the reading before the first bad one."""

    alarm: str = ""
    """Key of an alarm of the kind that says already that this sensor is missing; its condition is `missing`."""

    @property
    def alarm_key(self) -> str:
        """Key of the alarm that names it."""
        return self.alarm or ALARM_PREFIX + self.key


def no_values_alarm(
    sensor: Sensor, *, priority: Priority, consequence: Text, action: Text, respond_within_s: float,
    skill: Skill | None = "repair",
) -> AlarmDefinition:  # fmt: skip
    """“<sensor> gives no values”, after it gave none for `stale_after_s`; over after a minute of good values."""
    return AlarmDefinition(
        key=sensor.alarm_key,
        title=Text(f"{sensor.title.zh}无有效读数", f"{sensor.title.en} gives no values"),
        priority=priority,
        condition=sensor.missing,
        cause=Text(
            "传感器损坏、断线、无信号，或读数长时间不变",
            "Sensor or its wire broken, no signal, or stuck at one value",
        ),
        consequence=consequence,
        action=action,
        respond_within_s=respond_within_s,
        on_delay_s=0.0 if sensor.age_field else sensor.stale_after_s,  # such a condition waits for the age itself
        off_delay_s=60.0,
        skill=skill,
        suppressed_by=NOT_HEARD,
    )
