"""A backup put back into a fresh installation: the same devices go on there, and a press is answered."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from installation import Installation

from cli.broker_configuration import BrokerTls
from cloud.identity.pki_folder import PkiFolder
from tests.adapters.postgres_fixture import postgresql_server, postgresql_url  # noqa: F401

pytestmark = [pytest.mark.e2e, pytest.mark.postgresql, pytest.mark.mosquitto, pytest.mark.timeout(240)]
LIMIT_S = 100


def fleet(*arguments, environment):
    own = {name: value for name, value in os.environ.items() if not name.startswith("FLEET_")}
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", *map(str, arguments)], env={**own, **environment}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


class Restored(Installation):
    """The cloud from the archive alone; the devices with what they had: their keys, journals and clocks."""

    def __init__(self, folder, database_url, before, archive):
        self.before = before
        self.restored_environment = {
            "FLEET_DATABASE_URL": database_url, "FLEET_COMMAND_KEY_FILE": str(folder / "command.key"),
            "FLEET_PKI_DIRECTORY": str(folder / "pki"),
        }  # fmt: skip
        arguments = ("backup", "restore", archive, "--data-directory", folder / "data", "--json")
        self.restored = fleet(*arguments, environment=self.restored_environment)
        super().__init__(folder, database_url)
        self.origin_ms = before.origin_ms
        self.environment["FLEET_CLOCK_ORIGIN_MS"] = str(before.origin_ms)

    def _identify(self, _now):
        shutil.copytree(self.before.folder / "identities", self.folder / "identities")
        shutil.copytree(self.before.folder / "sim", self.folder / "sim", ignore=shutil.ignore_patterns("*.jsonl"))
        pki = PkiFolder(self.folder / "pki")
        return BrokerTls(
            pki.root_file("devices"), pki.root_file("services"), *pki.issued_files("broker"), pki.revocation_file
        )

    def __enter__(self):
        self.broker.start()
        self.children["receiver"].start()
        return self


def test_a_button_pressed_in_a_restored_installation_reaches_somebody(postgresql_url, tmp_path):  # noqa: F811
    with Installation(tmp_path / "before", f"sqlite:///{tmp_path / 'before.db'}") as before:
        before.serve("all", "all")
        before.simulate()
        before.wait("a press to be notified", before.notified, LIMIT_S)
        made = fleet(
            "backup", "create", "--data-directory", before.folder / "data", "--directory", tmp_path / "backups",
            "--json", environment=before.environment,
        )  # fmt: skip
        before.stand_still()
        known = {row["event_id"] for row in before.stored_events()}
    assert not (tmp_path / "after").exists()
    with Restored(tmp_path / "after", postgresql_url, before, made["file"]) as after:
        assert after.restored["rows"] == made["rows"]
        after.serve("all", "all")
        after.simulate()
        after.wait("its devices", after.connected, LIMIT_S)
        after.wait("a press that is new to be notified", lambda: set(after.notified()) - known, LIMIT_S)
