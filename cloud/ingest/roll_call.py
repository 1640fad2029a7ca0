"""Tells devices that somebody listens again.

The broker keeps nothing for an ingester that is away, so what was sent meanwhile has to be sent again, and after a
while without an answer devices send only every few seconds. Whoever has an emergency waiting sends it at once when it
hears this; all others merely say hello.
"""

from collections.abc import Mapping
from typing import Final

from cloud.model import DeviceLane, Downstream
from fleet.envelope import Acknowledgement, encode
from fleet.topics import DownChannel, down

TOLD_AT_ONCE_MAX: Final = 500
"""Devices told in one round: each answers with a hello."""


class RollCall:
    """One per pipeline; each device is told once per connection to the broker, and once per owner of its lane."""

    def __init__(self) -> None:
        self._told: set[str] = set()
        self._waiting: list[str] = []
        """Who is to be told next, the last first: all devices are looked through once, and not in every round."""

    def messages(self, lanes: Mapping[str, DeviceLane], *, connected: bool) -> list[Downstream]:
        """For the devices that are to be told now; to be called once a round."""
        if not connected:
            self._told.clear()
            self._waiting.clear()
            return []
        if len(self._told) == len(lanes):
            return []
        if not self._waiting:
            self._told &= lanes.keys()
            self._waiting = [device_id for device_id in lanes if device_id not in self._told][::-1]
        turn = self._waiting[-TOLD_AT_ONCE_MAX:][::-1]
        del self._waiting[-TOLD_AT_ONCE_MAX:]
        wanted = [lanes[device_id] for device_id in turn if device_id in lanes]
        self._told.update(lane.device_id for lane in wanted)
        return [
            Downstream(
                down(lane.device_id, DownChannel.ACK),
                encode(Acknowledgement(generation=lane.generation, marks={}, greet=True)),
            )
            for lane in wanted
            if lane.generation and not lane.retired and not lane.revoked
        ]
