"""A box that is enrolled anew keeps its settings, its journal and whose its files are."""

import os
import tomllib

import pytest
from cli_support import fleet, one_line

from edge import enrolled_before
from edge.enrolled_before import Former, drop_renewal, write_like_before
from edge.enrolment import Box, Enrolment, EnrolmentError
from fleet.claim import Claim

SETTINGS = """# Written by hand.
device_id = "room-007"
kind = "nursing_room"
transport = "bridge:edge.hardware.room:create"
data_directory = "/var/lib/fleet-edge/room-007"
kind_folders = [
  "kinds",
]

[broker]
host = "old.example.org"
port = 1884
authority = "authority.pem"
certificate = "device.crt"
private_key = "device.key"
compact = false

[command_keys]
old = "command-old.pem"

[bounds]
journal_mb = 16

[hardware.button]
chip = "/dev/gpiochip0"
"""
CLAIM = Claim(bytes(10), bytes(10))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "edge.toml").write_text(SETTINGS)
    return tmp_path


def enrolment(folder, *, anew, transport=""):
    return Enrolment(Box("https://fleet.example.org", CLAIM, "FB-1", folder, transport, anew))


def answer(device_id="room-007"):
    return {"device_id": device_id, "kind": "nursing_room", "broker_host": "new.example.org", "broker_port": 8883,
            "authority": "root", "command_keys": {"fresh": "pem"}, "chain": "chain"}  # fmt: skip


@pytest.fixture(autouse=True)
def any_certificate_fits(monkeypatch):
    """The chain is checked elsewhere; here it stands for itself."""
    monkeypatch.setattr("edge.keys.fingerprint_of_certificate", lambda _: "ours")


def test_nothing_of_the_box_is_lost(folder):
    made = enrolment(folder, anew=True)
    made.fingerprint = "ours"
    values = tomllib.loads(made.install(answer()).read_text())
    assert values == {
        "device_id": "room-007",
        "kind": "nursing_room",
        "transport": "bridge:edge.hardware.room:create",
        "data_directory": "/var/lib/fleet-edge/room-007",
        "kind_folders": ["kinds"],
        "broker": {
            "host": "new.example.org", "port": 8883, "authority": "authority.pem", "compact": False,
            "certificate": "data/identity/device.pem", "private_key": "data/identity/device.pem",
        },
        "command_keys": {"fresh": "command-fresh.pem"},
        "bounds": {"journal_mb": 16},
        "hardware": {"button": {"chip": "/dev/gpiochip0"}},
    }  # fmt: skip


def test_a_line_that_is_given_wins(folder):
    made = enrolment(folder, anew=True, transport="tcp://127.0.0.1:7000")
    made.fingerprint = "ours"
    assert tomllib.loads(made.install(answer()).read_text())["transport"] == "tcp://127.0.0.1:7000"


def test_the_journal_of_one_device_is_never_sent_as_another(folder):
    made = enrolment(folder, anew=True)
    made.fingerprint = "ours"
    with pytest.raises(EnrolmentError, match=r"belongs to room-007.*enrol room-008 in another --directory"):
        made.install(answer("room-008"))
    assert (folder / "edge.toml").read_text() == SETTINGS
    assert not (folder / "data").exists()


def test_without_the_option_an_enrolled_box_stays_and_the_option_is_named(folder):
    with pytest.raises(EnrolmentError, match="add --anew"):
        enrolment(folder, anew=False)
    result = fleet(
        "edge", "enrol", "--server", "https://127.0.0.1:9", "--claim", CLAIM.text, "--serial", "FB-1",
        "--directory", folder,
    )  # fmt: skip
    assert "--anew" in one_line(result)
    assert (folder / "edge.toml").read_text() == SETTINGS


@pytest.mark.parametrize("text", ["", "garbage = ", "[broker\n"])
def test_anew_without_usable_settings_is_one_line(tmp_path, text):
    if text:
        (tmp_path / "edge.toml").write_text(text)
    with pytest.raises(EnrolmentError, match="leave --anew out") as caught:
        enrolment(tmp_path, anew=True)
    assert "\n" not in str(caught.value)


def test_files_stay_with_the_account_that_reads_them(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(os, "chown", lambda path, uid, gid: given.append((path.name, uid, gid)))
    monkeypatch.setattr(enrolled_before.os, "geteuid", lambda: -1)
    identity = tmp_path / "device.pem"
    write_like_before(identity, b"1", 0o600)
    assert identity.stat().st_mode & 0o777 == 0o600
    assert given == []
    identity.chmod(0o640)
    (tmp_path / "device.pem.next").write_text("a renewal of the former one")
    drop_renewal(identity)
    write_like_before(identity, b"2", 0o600)
    assert identity.read_bytes() == b"2"
    assert identity.stat().st_mode & 0o777 == 0o640
    assert given == [("device.pem", identity.stat().st_uid, identity.stat().st_gid)]
    assert [path.name for path in tmp_path.iterdir()] == ["device.pem"]


def test_a_box_from_enrolment_alone_has_nothing_but_its_line_and_folder(tmp_path):
    made = Enrolment(Box("https://fleet.example.org", CLAIM, "FB-1", tmp_path, "tcp://h:1"))
    made.fingerprint = "ours"
    found = Former.read(made.install(answer()))
    assert (found.top, found.broker, found.tables) == ("", "", "")
    assert (found.transport, found.data_directory) == ("tcp://h:1", "data")
