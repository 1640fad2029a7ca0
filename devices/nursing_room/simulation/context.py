"""What the parts of a simulated room share."""

from collections.abc import Callable, Mapping
from typing import Any

from devices.nursing_room.simulation import people
from devices.nursing_room.simulation.agenda import Agenda
from devices.nursing_room.simulation.firmware import Firmware, Recorder
from devices.nursing_room.simulation.room import Room
from fleet.messages import Event
from fleet.randomness import Randomness

Action = Callable[..., None]
"""Called as `action(now_ms, **arguments)`."""


class Context:
    """One room's things, controller, agenda and record, and the site facts that steer chance."""

    def __init__(self, device_id: str, randomness: Randomness, facts: Mapping[str, Any], started_ms: int) -> None:
        self.randomness = randomness
        self.room = Room(randomness, started_ms)
        self.agenda = Agenda()
        self.recorder = Recorder(device_id)
        self.firmware = Firmware(self.agenda, self.recorder, randomness, self.room.reading)
        self._facts = facts

    def fact(self, name: str, default: float) -> float:
        """A number from the site facts."""
        return float(self._facts.get(name, default))

    def delay_ms(self, fact: str, low_s: float, high_s: float) -> int:
        """A duration drawn from the range in the site facts, in seconds."""
        return max(1, round(self.randomness.uniform(*self._facts.get(fact, (low_s, high_s))) * 1000))

    def plan_rare(self, name: str, per_day: float, now_ms: int) -> None:
        """Put the next occurrence of something rare on the agenda; never, at a rate of zero."""
        due_ms = people.next_rare_ms(now_ms, per_day, self.randomness)
        if due_ms is not None:
            self.agenda.set(name, due_ms)

    def report(self, now_ms: int, event_type: type[Event], **facts: Any) -> None:
        """The controller makes an event of it."""
        self.firmware.report(event_type(event_id=self.firmware.new_id(), **facts), now_ms)

    def happened(self, now_ms: int, what: str, **facts: Any) -> None:
        """Something the controller cannot know, for the truth log alone."""
        self.recorder.happened(now_ms, what, None, **facts)
