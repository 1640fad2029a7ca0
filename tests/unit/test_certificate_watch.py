"""Dates that lock somebody out are numbers, notices and words before they do it."""

import datetime as dt

import pytest

from cloud.bootstrap.identity import (
    open_identity,
    reload_of,
    watch_authorities,
    watch_folder,
    watch_identity,
    watch_own_certificate,
)
from cloud.identity.files import ConfigurationError, own_certificate_problem
from cloud.identity.pki_folder import PkiFolder
from cloud.identity.revocation_list import CommandReload, SignalReload, WatchedReload
from cloud.settings import CloudSettings
from cloud.watch import Numbers

NOW = dt.datetime(2027, 1, 15, 12, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)


class Watch:
    def __init__(self):
        self.numbers, self.conditions = Numbers(), []

    def held(self):
        return {condition.name for condition in self.conditions if condition.holds()}


class Clock:
    def __init__(self):
        self.now = NOW

    def __call__(self):
        return int(self.now.timestamp() * 1000)


@pytest.fixture
def folder(tmp_path):
    made = PkiFolder(tmp_path / "pki")
    made.initialise(NOW)
    made.issue_service("fleet.ingester", NOW)
    return made


def settings(folder, **changes):
    return CloudSettings(
        pki_directory=folder.directory, broker_certificate_file=folder.issued_files("fleet.ingester")[0], **changes
    )


def test_our_own_certificate_is_announced_two_weeks_before_its_end(folder):
    watch, clock = Watch(), Clock()
    watch_own_certificate(watch, settings(folder), clock)
    _, left_s = watch.numbers.single["fleet_broker_certificate_left_s"]
    assert (watch.held(), left_s()) == (set(), 90 * 86_400)
    clock.now = NOW + 77 * DAY
    assert watch.held() == {"broker_certificate"}
    assert "ends in 13 days" in own_certificate_problem(settings(folder), clock.now)
    ended = own_certificate_problem(settings(folder), NOW + 91 * DAY)
    assert "has ended" in ended
    assert "fleet pki service fleet.ingester --replace" in ended
    folder.issue_service("fleet.ingester", clock.now, replace=True)
    assert watch.held() == set()


def test_without_a_certificate_nothing_is_watched():
    watch = Watch()
    watch_own_certificate(watch, CloudSettings(), Clock())
    assert watch.conditions == []
    assert watch.numbers.single == {}


def test_a_list_that_nobody_refreshes_is_announced_before_it_locks_devices_out(folder):
    watch, clock = Watch(), Clock()
    identity = open_identity(settings(folder), clock, database=None)
    watch_identity(watch, identity.keeper)
    _, left_s = watch.numbers.single["fleet_revocation_list_left_s"]
    assert (watch.held(), left_s()) == (set(), 7 * 86_400)
    clock.now = NOW + 3.5 * DAY
    assert watch.held() == {"revocation_list"}
    folder.refresh_list(clock.now)
    assert watch.held() == set()
    folder.revocation_file.write_bytes(b"garbage")
    assert (watch.held(), left_s()) == ({"revocation_list"}, 0.0)


def test_a_wrong_folder_ends_the_start_with_the_fix(tmp_path):
    with pytest.raises(ConfigurationError, match=r"FLEET_PKI_DIRECTORY") as told:
        open_identity(CloudSettings(pki_directory=tmp_path), Clock(), database=None)
    assert "fleet pki init" in str(told.value)
    assert open_identity(CloudSettings(), Clock(), database=None) is None


@pytest.mark.parametrize("damaged", ["online/devices.key", "online/devices.pem", "trust/services.pem"])
def test_a_damaged_folder_is_told_of_and_does_not_keep_the_process_from_starting(folder, damaged):
    watch = Watch()
    checks = watch_folder(watch, settings(folder))
    assert (checks["identity"](), watch.held()) == ("ok", set())
    whole = (folder.directory / damaged).read_bytes()
    (folder.directory / damaged).write_bytes(b"garbage")
    identity = open_identity(settings(folder), Clock(), database=None)
    assert identity is not None
    assert watch.held() == {"pki_folder"}
    assert damaged in checks["identity"]()
    assert "backup" in checks["identity"]() or "right file" in checks["identity"]()
    (folder.directory / damaged).write_bytes(whole)  # mended: signing goes on by itself
    assert (checks["identity"](), watch.held()) == ("ok", set())


def test_how_the_broker_is_told(tmp_path):
    assert isinstance(reload_of(CloudSettings()), WatchedReload)
    assert isinstance(reload_of(CloudSettings(broker_reload_command="systemctl reload mosquitto")), CommandReload)
    assert isinstance(reload_of(CloudSettings(broker_pid_file=tmp_path / "pid")), SignalReload)


def test_what_every_device_depends_on_is_announced_before_it_ends(folder):
    """Devices refuse a broker whose certificate has ended, and it is as short as any."""
    watch, clock = Watch(), Clock()
    folder.issue_server(["localhost"], NOW)
    folder.issue_device("room-007", NOW - 80 * DAY)
    watch_authorities(watch, settings(folder), clock)
    folder.refresh_list(clock.now)
    assert watch.held() == set(), "a device's own end is its own matter"
    clock.now = NOW + 61 * DAY
    folder.refresh_list(clock.now)
    assert watch.held() == {"authorities"}
    folder.issue_server(["localhost"], clock.now, replace=True)
    folder.issue_service("fleet.ingester", clock.now, replace=True)
    assert watch.held() == set()
    folder.root_file("devices").unlink()
    assert watch.held() == {"authorities"}


def test_without_a_folder_no_authority_is_watched():
    watch = Watch()
    watch_authorities(watch, CloudSettings(), Clock())
    assert watch.conditions == []
