"""A revocation list that was lost comes back from the database, and if it can't, that is said aloud."""

import datetime as dt
import json

import pytest
from cli_support import fleet

from cloud import tables
from cloud.adapters.sql.database import SqlDatabase
from cloud.adapters.sql.migrate import upgrade
from cloud.identity.pki_folder import PkiFolder
from cloud.identity.revocation_list import Revoked, read_list

NOW = dt.datetime.now(dt.UTC)
NOW_MS = round(NOW.timestamp() * 1000)


@pytest.fixture
def pki(tmp_path):
    folder = PkiFolder(tmp_path / "pki")
    folder.initialise(NOW)
    return folder


@pytest.fixture
def serial(tmp_path, pki):
    """Of a device that the database holds as revoked."""
    issued = pki.issue_device("bike-001", NOW)
    url = f"sqlite:///{tmp_path / 'state.db'}"
    upgrade(url)
    database = SqlDatabase(url)
    row = {"serial": issued.serial, "device_id": "bike-001", "origin": "enrolment",
           "issued_at": NOW_MS, "expires_at": NOW_MS + 90 * 86_400_000, "revoked_at": NOW_MS,
           "revoked_reason": "stolen", "fingerprint": "0" * 64, "chain": ""}  # fmt: skip
    try:
        database.write_here(lambda tx: tx.execute(tables.certificate.insert().values(row)))
    finally:
        database.close()
    return issued.serial


def crl(pki, **settings):
    return fleet("pki", "crl", "--directory", pki.directory, "--json", **settings)


@pytest.mark.parametrize("lost", ["garbage", "missing"])
def test_a_lost_list_comes_back_from_the_database(pki, serial, tmp_path, lost):
    if lost == "missing":
        pki.revocation_file.unlink()
    else:
        pki.revocation_file.write_text("garbage")
    result = crl(pki, FLEET_DATA_DIRECTORY=str(tmp_path))
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["complete"] is True
    assert [one.serial for one in read_list(pki.revocation_file.read_bytes()).revoked] == [serial]


def test_a_lost_list_without_a_database_is_no_success(pki, tmp_path):
    pki.refresh_list(NOW, [Revoked("77aa", NOW)])
    nowhere = {"FLEET_DATA_DIRECTORY": str(tmp_path / "nowhere")}
    kept = crl(pki, **nowhere)
    assert (kept.exit_code, json.loads(kept.stdout)["entries"]) == (0, 1), "what can be read keeps its entries"
    pki.revocation_file.write_text("garbage")
    result = crl(pki, **nowhere)
    assert result.exit_code == 3
    assert json.loads(result.stdout)["complete"] is False
    assert "FLEET_DATA_DIRECTORY" in result.stderr
