"""What prepares the deployment's InfluxDB, run as its container does against a real one."""

import subprocess
import sys

import pytest

from scripts import tidy
from tests.adapters.influx_fixture import TOKEN, influx  # noqa: F401

pytestmark = pytest.mark.influxdb


def test_days_that_somebody_set_by_hand_stay_and_all_else_is_prepared(influx, tmp_path):  # noqa: F811
    (tmp_path / "bin").mkdir()
    fleet = tmp_path / "bin/fleet"
    fleet.write_text(f'#!/bin/sh\nPYTHONPATH="{tidy.ROOT}" exec "{sys.executable}" -m cli.main "$@"\n')
    fleet.chmod(0o755)
    (tmp_path / "operator").write_text(TOKEN)
    for name in ("tokens/fleet_influxdb_token", "reader/fleet_influxdb_reader_token"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(TOKEN)  # InfluxDB 1.6.7 has none to give

    def prepared(*options):
        places = (tmp_path / "tokens", tmp_path / "reader", tmp_path / "operator", "2")
        return subprocess.run(
            ["/bin/sh", tidy.ROOT / "deploy/prepare_influxdb.sh", *places, *options], capture_output=True, text=True,
            env={"PATH": f"{fleet.parent}:/usr/bin:/bin", "FLEET_INFLUXDB_URL": influx.url}, check=True, cwd=tmp_path,
        )  # fmt: skip

    prepared("--raw-days", "60", "--minute-days", "400")
    done = prepared("--raw-days", "30", "--minute-days", "365", "--hour-days", "2000")
    assert [line for line in done.stderr.splitlines() if line.startswith("kept as it is")] == [
        "kept as it is: 60 days",
        "kept as it is: 400 days",
    ]
    assert "going on with the tokens" not in done.stderr
    assert "2000 days" in done.stdout, "the level that is to be kept longer is"
    done = prepared("--raw-days", "30", "--shorten")
    assert "raw: 60 days, default → 30 days" in " ".join(done.stdout.split())
