"""Presence of all devices as Prometheus gauges, counted when they are scraped: the data's way pays nothing for it."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final, Protocol
from weakref import WeakSet

from prometheus_client import REGISTRY
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cloud.model import DeviceLane

CONDITIONS: Final = ("silent", "no_readings", "unstable_link")
"""Keys of the link alarms every kind has (`cloud.rules.conditions`)."""


class Book(Protocol):
    """Whatever holds lanes."""

    @property
    def lanes(self) -> Mapping[str, DeviceLane]:
        """By device id."""
        ...


class PresenceCollector(Collector):
    """Counts over every book of this process."""

    def __init__(self) -> None:
        self.books: WeakSet[Book] = WeakSet()

    def collect(self) -> Iterable[Metric]:
        """Devices by condition, and sensors that give no values by name."""
        conditions: dict[tuple[str, str], int] = {}
        sensors: Counter[tuple[str, str]] = Counter()
        for lane in (lane for book in list(self.books) for lane in list(book.lanes.values())):
            if lane.retired:
                continue
            kind = lane.kind
            if (kind, "link_up") not in conditions:
                conditions |= {(kind, key): 0 for key in ("link_up", *CONDITIONS)}
            if lane.online:
                conditions[kind, "link_up"] += 1
            if lane.desk.alarms:
                for key in CONDITIONS:
                    status = lane.desk.alarms.get(key)
                    conditions[kind, key] += status is not None and status.condition
            if lane.presence.lost:
                sensors.update((kind, key) for key in list(lane.presence.lost))
        devices = GaugeMetricFamily(
            "fleet_presence_devices", "Devices whose link is up, or for whom this holds", labels=["kind", "state"]
        )
        without = GaugeMetricFamily(
            "fleet_sensors_without_values", "Sensors whose latest value is no good one", labels=["kind", "sensor"]
        )
        for labels, count in sorted(conditions.items()):
            devices.add_metric(labels, count)
        for labels, count in sorted(sensors.items()):
            without.add_metric(labels, count)
        return (devices, without)

    def describe(self) -> Iterable[Metric]:
        """Nothing at the start: names are known without counting anybody."""
        return ()


PRESENCE: Final = PresenceCollector()
REGISTRY.register(PRESENCE)
