"""`fleet influx init` on InfluxDB 2, of which only a FAKE of its HTTP API runs here; see `influx_two_fake`."""

import json
import stat

import pytest
from influx_two_fake import OPERATOR, READ_ONLY, FakeInfluxTwo
from typer.testing import CliRunner

from cli.influx import app


@pytest.fixture
def fake():
    made = FakeInfluxTwo()
    yield made
    made.close()


def init(fake, folder, *arguments, token=OPERATOR, org="fleet"):
    environment = {"FLEET_INFLUXDB_URL": fake.url, "FLEET_INFLUXDB_TOKEN": token, "FLEET_INFLUXDB_ORG": org}
    return CliRunner().invoke(app, ["init", "--tokens-directory", str(folder), "--json", *arguments], env=environment)


def outcomes(result):
    assert result.exit_code == 0, result.stderr
    return {step["thing"]: step["outcome"] for step in json.loads(result.stdout)["steps"]}


def test_it_makes_buckets_mappings_and_tokens_with_least_rights_once(fake, tmp_path):
    assert set(outcomes(init(fake, tmp_path, "--dry-run")).values()) == {"would make"}
    assert (fake.changes, list(tmp_path.iterdir())) == (0, [])
    assert set(outcomes(init(fake, tmp_path)).values()) == {"made"}
    buckets = {bucket["name"]: bucket for bucket in fake.held["buckets"].values()}
    kept = {name: bucket["retentionRules"][0]["everySeconds"] // 86_400 for name, bucket in buckets.items()}
    assert kept == {"fleet": 30, "fleet_minute": 365, "fleet_hour": 1825}
    mapped = {
        (one["database"], one["retention_policy"]): (one["bucketID"], one["default"])
        for one in fake.held["dbrps"].values()
    }
    assert mapped == {
        ("fleet", "raw"): (buckets["fleet"]["id"], True), ("fleet", "minute"): (buckets["fleet_minute"]["id"], False),
        ("fleet", "hour"): (buckets["fleet_hour"]["id"], False),
    }  # fmt: skip
    rights = {
        one["description"]: {(right["action"], right["resource"]["id"]) for right in one["permissions"]}
        for one in fake.held["authorizations"].values()
    }
    ids = {bucket["id"] for bucket in buckets.values()}
    assert rights["fleet reader"] == {("read", one) for one in ids}
    assert rights["fleet writer"] == {(action, one) for one in ids for action in ("read", "write")}
    for role in ("writer", "reader"):
        file = tmp_path / f"influxdb-{role}"
        assert file.read_text() == f"token-of-fleet-{role}"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    before = fake.changes
    assert set(outcomes(init(fake, tmp_path)).values()) == {"exists"}
    assert fake.changes == before


def test_tokens_are_never_printed(fake, tmp_path):
    result = init(fake, tmp_path)
    assert "token-of" not in result.stdout + result.stderr


def test_a_bucket_kept_longer_is_not_shortened_unless_told(fake, tmp_path):
    fake.put("buckets", orgID="o1", name="fleet", retentionRules=[])
    refused = init(fake, tmp_path)
    assert (refused.exit_code, fake.changes) == (1, 0)
    assert "kept for ever" in refused.stderr
    assert "--shorten" in refused.stderr
    assert outcomes(init(fake, tmp_path, "--raw-days", "30", "--shorten"))["bucket fleet"] == "changed"


def test_a_foreign_mapping_is_left_alone(fake, tmp_path):
    fake.put("dbrps", orgID="o1", database="fleet", retention_policy="raw", bucketID="other", default=True)
    refused = init(fake, tmp_path)
    assert refused.exit_code == 1
    assert "leads to another bucket" in refused.stderr
    assert [one["bucketID"] for one in fake.held["dbrps"].values()] == ["other"]


def test_a_token_with_other_rights_is_said_not_replaced(fake, tmp_path):
    init(fake, tmp_path)
    (reader,) = (one for one in fake.held["authorizations"].values() if one["description"] == "fleet reader")
    reader["permissions"].append({"action": "write", "resource": {"type": "buckets", "orgID": "o1"}})
    refused = init(fake, tmp_path)
    assert refused.exit_code == 1
    assert "1 too many, 0 missing" in refused.stderr


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"token": "wrong"}, "does not know this token (401)"),
        ({"token": READ_ONLY}, "may not do that (403)"),
        ({"org": "nobody"}, "no organisation 'nobody'"),
    ],
)
def test_what_is_in_the_way_is_said_in_one_line(fake, tmp_path, changes, words):
    result = init(fake, tmp_path, **changes)
    assert (result.exit_code, fake.changes) == (1, 0)
    (line,) = result.stderr.splitlines()
    assert words in line


def test_a_folder_for_tokens_that_is_not_there_is_said_before_anything_is_made(fake, tmp_path):
    result = init(fake, tmp_path / "nowhere")
    assert (result.exit_code, fake.changes) == (2, 0)
