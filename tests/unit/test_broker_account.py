"""Mosquitto started by root reads its key as another account: that this account can."""

import datetime as dt
import json
import os
import pwd
from types import SimpleNamespace

import pytest
from cli_support import fleet

from cli import broker_account
from cli.broker_account import let_read
from cli.broker_configuration import BrokerTls
from cloud.identity.pki_folder import PkiFolder

NOW = dt.datetime.now(dt.UTC)
STRANGER = SimpleNamespace(pw_uid=4_000_001, pw_gid=4_000_002)


@pytest.fixture
def pki(tmp_path):
    folder = PkiFolder(tmp_path / "pki")
    folder.initialise(NOW)
    folder.issue_server(["localhost"], NOW)
    return folder


@pytest.fixture
def tls(pki):
    return BrokerTls(
        pki.root_file("devices"), pki.root_file("services"), *pki.issued_files("broker"), pki.revocation_file
    )


@pytest.fixture
def as_root(monkeypatch):
    """Groups given, as root would; the files keep ours."""
    given = {}
    monkeypatch.setattr(broker_account.os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "chown", lambda path, _uid, gid: given.__setitem__(path, gid))
    monkeypatch.setattr(pwd, "getpwnam", lambda name: {"mosquitto": STRANGER}[name])
    return given


def test_the_brokers_key_is_given_to_its_group_and_to_nobody_else(tls, as_root):
    told = list(let_read("mosquitto", tls))
    assert as_root == {tls.key: STRANGER.pw_gid, tls.key.parent: STRANGER.pw_gid}
    assert tls.key.stat().st_mode & 0o777 == 0o640
    assert tls.key.parent.stat().st_mode & 0o777 == 0o710
    assert told, "chown did nothing here, and the temporary folder is ours alone: it is said"
    assert all(line.startswith("mosquitto can't read ") and "chmod o+rX" in line for line in told)
    assert len({line.split("chmod")[1] for line in told}) == len(told), "each place once"


def test_another_account_or_none_is_said(tls, as_root):
    (told,) = let_read("nobody-here", tls)
    assert "--user" in told
    assert list(let_read("root", tls)) == []
    assert as_root == {}


def test_who_is_not_root_changes_nothing(tls, monkeypatch):
    monkeypatch.setattr(broker_account.os, "geteuid", lambda: 1000)
    assert list(let_read("mosquitto", tls)) == []
    assert tls.key.stat().st_mode & 0o777 == 0o600


def test_a_renewed_key_can_be_read_by_whom_the_former_one_could(pki, tls):
    tls.key.chmod(0o640)
    before = tls.key.read_bytes()
    pki.issue_server(["localhost"], NOW, replace=True)
    assert tls.key.read_bytes() != before
    assert tls.key.stat().st_mode & 0o777 == 0o640
    pki.issue_service("fleet.ingester", NOW)
    assert pki.issued_files("fleet.ingester")[1].stat().st_mode & 0o777 == 0o600


@pytest.mark.usefixtures("as_root")
def test_config_says_it_and_writes_the_files_all_the_same(pki, tmp_path):
    out = tmp_path / "out"
    result = fleet("broker", "config", "--directory", out, "--pki", pki.directory, "--user", "nobody-here", "--json")
    assert result.exit_code == 0
    assert "--user" in json.loads(result.stdout)["warnings"][0]
    assert "log_dest stderr" in (out / "mosquitto.conf").read_text(), "its stdout is held back by 4 KB"
