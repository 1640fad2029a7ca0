"""What members got, looked at from outside: machines that had nothing to sell, boxes thrown away, tests made."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from cli.week.hardware import Hardware
from fleet.kind import DriverOutput


class Watch:
    """Hears what the devices say, before the cloud does."""

    def __init__(self, hardware: Hardware, now_ms: Callable[[], int]) -> None:
        self.counts: Counter[str] = Counter()
        self.empty_ms: Counter[str] = Counter()
        self.tested: set[str] = set()
        """Rooms whose button was tested by a person."""
        self._empty_since: dict[str, int] = {}
        self._hardware = hardware
        self._now_ms = now_ms

    def hear(self, device_id: str, output: DriverOutput) -> None:
        """One output of one device."""
        if self._hardware.units[device_id].kind != "meal_machine":
            return
        for reading in output.readings:
            self._stock(device_id, reading)
        for _, event in output.events:
            lines: Sequence[Any] = getattr(event, "lines", ()) if event.type == "restocked" else ()
            self.counts["restocks"] += bool(lines)
            self.counts["boxes_added"] += sum(line.added_count for line in lines)
            self.counts["boxes_thrown_away"] += sum(line.removed_count for line in lines)

    def _stock(self, device_id: str, reading: Any) -> None:
        since = self._empty_since.pop(device_id, None)
        if since is not None:
            self.empty_ms[device_id] += reading.at - since
        if reading.stock_count == 0 and not reading.locked_out:
            self._empty_since[device_id] = reading.at
            if since is None:
                self.counts["sold_out"] += 1
