"""Alert rules of the platform: files as the code says, fields that there are, nothing that Grafana would replace."""

import re

import pytest
import yaml

from cloud.platform_alerts.service import SEVERITIES
from dashboards import alert_rules
from dashboards.alert_rules import RULES
from fleet.series import PLATFORM
from scripts import tidy

ROOT = tidy.ROOT


def test_the_files_are_what_the_code_says():
    present = {path.name: path.read_text(encoding="utf-8") for path in alert_rules.FOLDER.glob("*.yaml")}
    assert present == alert_rules.files(), "run `make boards` and commit what it writes"


def test_the_files_mean_what_was_meant():
    documents = {name: yaml.safe_load(text) for name, text in alert_rules.files().items()}
    (group,) = documents["rules.yaml"]["groups"]
    assert group["rules"] == [alert_rules.rule_model(rule) for rule in RULES]
    (point,) = documents["contact-points.yaml"]["contactPoints"]
    (policy,) = documents["policies.yaml"]["policies"]
    assert policy["receiver"] == point["name"]
    (receiver,) = point["receivers"]
    assert receiver["type"] == "webhook"
    assert receiver["settings"]["authorization_scheme"] == "Bearer"


def test_grafana_replaces_nothing_but_the_secret():
    for name, text in alert_rules.files().items():
        assert re.findall(r"\$\S*", text) == (
            ['$__file{/run/secrets/fleet_platform_alert_secret}"'] if name == "contact-points.yaml" else []
        )


def test_every_rule_reads_a_field_of_the_platform_and_says_what_to_do():
    assert len({rule.uid for rule in RULES}) == len(RULES)
    for rule in RULES:
        PLATFORM.field_named(rule.field)
        assert f'"{rule.field}"' in rule.query
        assert '"raw"."platform"' in rule.query
        assert rule.severity in SEVERITIES
        assert len(rule.uid) <= 40
        assert all((rule.title.zh, rule.title.en, rule.action.zh, rule.action.en))


def test_everything_that_was_promised_is_watched():
    fields = {rule.field for rule in RULES}
    assert fields >= {
        "broker_held", "broker_connected", "disk_free_percent", "outbox_oldest_ms", "series_state", "synthetic_age_ms",
        "uptime_s", "spool_fill_percent", "history_lag_ms",
    }  # fmt: skip


def test_the_guide_lists_every_rule():
    text = (ROOT / "docs/boards.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(fleet-[a-z-]+)` \((\w+)\)", text, re.MULTILINE) == [
        (rule.uid, rule.severity) for rule in RULES
    ]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.uid)
def test_a_rule_fires_beyond_its_limit_only(rule):
    beyond = rule.limit + (1 if rule.comparison == "gt" else -1)
    assert rule.fires([rule.limit, beyond])
    assert not rule.fires([rule.limit])
    assert rule.fires([]) == (rule.without_data == "Alerting")
