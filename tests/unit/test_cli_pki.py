"""`fleet pki` through its own door: what it prints, refuses and exits with."""

import datetime as dt
import json
import os
import signal
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.app import app
from cloud.identity import pki
from cloud.identity.pki_folder import PkiFolder

LONG = "a long enough passphrase"


def fleet(*arguments, **options):
    return CliRunner().invoke(app, ["pki", *map(str, arguments)], **options)


@pytest.fixture
def directory(tmp_path):
    done = fleet("init", "--directory", tmp_path / "pki", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["offline"] == str(tmp_path / "pki" / "offline")
    return tmp_path / "pki"


def told(done):
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_init_says_what_to_carry_away_and_never_replaces_an_authority(tmp_path):
    first = fleet("init", "--directory", tmp_path)
    assert "Carry" in first.stderr
    before = (tmp_path / "trust" / "devices.pem").read_bytes()
    again = fleet("init", "--directory", tmp_path)
    assert again.exit_code == 1
    assert "never replaced" in again.stderr
    assert (tmp_path / "trust" / "devices.pem").read_bytes() == before


def test_broker_service_and_device_get_what_they_need(directory):
    for arguments in (
        ("server", "--host", "fleet.example.org", "--host", "127.0.0.1"),
        ("service", "fleet.ingester"),
        ("device", "bike-001"),
    ):
        answer = told(fleet(*arguments, "--directory", directory, "--json"))
        assert stat.S_IMODE(Path(answer["key"]).stat().st_mode) == 0o600
        certificate = pki.load_certificate(Path(answer["certificate"]).read_bytes())
        assert answer["serial"] == pki.serial_hex(certificate)
        assert dt.datetime.fromisoformat(answer["not_after"]) == certificate.not_valid_after_utc
        refused = fleet(*arguments, "--directory", directory)
        assert refused.exit_code == 1
        assert "--replace" in refused.stderr
        renewed = told(fleet(*arguments, "--directory", directory, "--replace", "--json"))
        assert renewed["serial"] != answer["serial"]


def test_a_devices_own_request_brings_a_certificate_and_no_key(directory, tmp_path):
    key = pki.new_key()
    (tmp_path / "request.pem").write_bytes(pki.make_request("anything", key))
    answer = told(fleet("device", "bike-001", "--csr", tmp_path / "request.pem", "--directory", directory, "--json"))
    assert answer["key"] is None
    certificate = pki.load_certificate(Path(answer["certificate"]).read_bytes())
    assert (pki.common_name(certificate), certificate.public_key()) == ("bike-001", key.public_key())
    assert not list(directory.rglob("bike-001.key"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("device", "Bike 1"), "no device id"),
        (("device", "bike-001", "--csr", "/no/such/file"), "No such file"),
        (("device", "bike-001", "--csr", "/dev/null"), "P-256"),
        (("service", "ingester"), "fleet."),
        (("server", "--host", "a b"), "no host"),
    ],
    ids=["id", "missing request", "empty request", "service", "host"],
)
def test_bad_input_is_refused_in_one_line(directory, arguments, words):
    done = fleet(*arguments, "--directory", directory)
    assert done.exit_code == 1
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""


def test_a_passphrase_comes_from_a_file_or_the_terminal(tmp_path):
    (tmp_path / "passphrase").write_text(f"{LONG}\n")
    (tmp_path / "short").write_text("short")
    refused = fleet("init", "--directory", tmp_path / "pki", "--passphrase-file", tmp_path / "short")
    assert "characters" in refused.stderr
    assert not (tmp_path / "pki" / "trust").exists()
    told(fleet("init", "--directory", tmp_path / "pki", "--passphrase-file", tmp_path / "passphrase", "--json"))
    without = fleet("renew-intermediate", "devices", "--directory", tmp_path / "pki")
    assert without.exit_code == 1
    assert "passphrase" in without.stderr
    typed = fleet(
        "renew-intermediate", "devices", "--directory", tmp_path / "pki", "--passphrase-file", "-", "--json",
        input=f"{LONG}\n",
    )  # fmt: skip
    assert told(typed)["domain"] == "devices"
    assert LONG not in typed.output


def test_crl_writes_the_list_and_tells_the_broker(directory, tmp_path, monkeypatch):
    heard = []
    monkeypatch.setattr(signal, "SIGHUP", signal.SIGUSR2)
    old = signal.signal(signal.SIGUSR2, lambda *_: heard.append(True))
    try:
        (tmp_path / "pid").write_text(str(os.getpid()))
        monkeypatch.setenv("FLEET_BROKER_PID_FILE", str(tmp_path / "pid"))
        first = told(fleet("crl", "--directory", directory, "--json"))
        second = told(fleet("crl", "--directory", directory, "--json"))
    finally:
        signal.signal(signal.SIGUSR2, old)
    assert second["number"] == first["number"] + 1
    assert len(heard) == 2
    monkeypatch.setenv("FLEET_BROKER_PID_FILE", str(tmp_path / "nobody"))
    refused = fleet("crl", "--directory", directory)
    assert refused.exit_code == 1
    assert "FLEET_BROKER_PID_FILE" in refused.stderr


def test_status_lists_what_ends_and_exits_with_3_when_somebody_has_to_act(directory):
    told(fleet("service", "fleet.ingester", "--directory", directory, "--json"))
    answer = told(fleet("status", "--directory", directory, "--json"))
    assert answer["healthy"]
    assert len(answer["offline_keys_here"]) == 2
    assert {one["what"] for one in answer["expiries"]} >= {"devices root", "revocation list", "fleet.ingester"}
    PkiFolder(directory).issue_service("fleet.ingester", dt.datetime.now(dt.UTC) - dt.timedelta(days=80), replace=True)
    done = fleet("status", "--directory", directory, "--json")
    assert done.exit_code == 3
    (asked,) = [one for one in json.loads(done.stdout)["expiries"] if one["act"]]
    assert asked["what"] == "fleet.ingester"
    assert "--replace" in asked["fix"]
    assert 9 < asked["days_left"] < 11


def test_a_folder_that_is_none_names_the_fix(tmp_path):
    for command in (("status",), ("crl",), ("service", "fleet.ingester")):
        done = fleet(*command, "--directory", tmp_path / "nowhere")
        assert done.exit_code == 1
        assert "fleet pki init" in done.stderr
