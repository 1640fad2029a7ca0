"""Gauges of presence: counted at the scrape, by kind, of devices in service."""

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from rules_cases import Bench

from cloud.presence_metrics import PresenceCollector


class Book:
    def __init__(self, *lanes):
        self.lanes = {lane.device_id: lane for lane in lanes}


@pytest.fixture
def text():
    collector = PresenceCollector()
    registry = CollectorRegistry()
    registry.register(collector)

    def made(*books):
        for book in books:
            collector.books.add(book)
        return generate_latest(registry).decode()

    return made


def lane(device_id, *, online=True):
    bench = Bench()
    bench.lane.device_id, bench.lane.online = device_id, online
    return bench.lane, bench


def test_devices_are_counted_by_what_holds_of_them(text):
    silent, bench = lane("probe-001", online=False)
    bench.reading()
    bench.wait(100, hearing=False)
    healthy, _ = lane("probe-002")
    blind, _ = lane("probe-003")
    blind.presence.lost = {"voltmeter": 5}
    gone, _ = lane("probe-004")
    gone.retired = True
    gone.presence.lost = {"voltmeter": 5}
    first, second = Book(silent, healthy), Book(blind, gone)
    found = text(first, second)
    assert 'fleet_presence_devices{kind="probe",state="silent"} 1.0' in found
    assert 'fleet_presence_devices{kind="probe",state="link_up"} 2.0' in found
    assert 'fleet_presence_devices{kind="probe",state="no_readings"} 0.0' in found
    assert 'fleet_sensors_without_values{kind="probe",sensor="voltmeter"} 1.0' in found


def test_a_book_that_is_gone_is_counted_no_more(text):
    there, _ = lane("probe-001")
    book = Book(there)
    assert 'state="link_up"} 1.0' in text(book)
    del book
    assert "fleet_presence_devices{" not in text()
