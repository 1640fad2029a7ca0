"""Grafana's alerts of the platform: only with the secret, each outbreak and its end told once, nothing unbounded."""

import httpx
import pytest

from cloud.adapters.notify.inbox import InboxChannel
from cloud.dispatch import notices
from cloud.platform_alerts.service import PlatformAlertService
from cloud.tables import outbox
from dashboards.alert_rules import RULES, rule_model
from tests.unit.dispatch_cases import rows
from tests.web.world import make_world

SECRET = "of " + "grafana"
PATH = "/api/v1/platform-alerts"
CHANNEL = InboxChannel.name


@pytest.fixture
def world(tmp_path):
    made = make_world(tmp_path)
    service = PlatformAlertService(made.database, made.clock)
    service.secret, service.channels = SECRET, [CHANNEL]
    service.woken = 0

    def wake():
        service.woken += 1

    service.wake_outbox = wake
    made.services.add(service)
    yield made
    made.database.close()


def alert(rule, status="firing", starts_at="2026-05-04T02:00:00Z", process="ingest"):
    """As Grafana 11 sends it, further keys included."""
    model = rule_model(rule)
    return {
        "status": status,
        "labels": {"alertname": model["title"], "grafana_folder": "Fleet", "process": process, **model["labels"]},
        "annotations": model["annotations"],
        "startsAt": starts_at,
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "http://grafana:3000/alerting/grafana/x/view",
        "fingerprint": f"{abs(hash((rule.uid, process))):016x}",
        "silenceURL": "http://grafana:3000/alerting/silence/new",
        "dashboardURL": "", "panelURL": "", "values": {"B": 3}, "valueString": "[ var='B' value=3 ]", "orgId": 1,
    }  # fmt: skip


def post_of(*alerts):
    return {
        "receiver": "fleet",
        "status": "firing",
        "version": "1",
        "orgId": 1,
        "externalURL": "http://grafana:3000/",
        "groupKey": "{}",
        "truncatedAlerts": 0,
        "title": "t",
        "state": "alerting",
        "alerts": list(alerts),
    }


async def send(world, content, secret=SECRET):
    transport = httpx.ASGITransport(app=world.app)
    headers = {} if secret is None else {"authorization": f"Bearer {secret}".encode()}
    async with httpx.AsyncClient(transport=transport, base_url="http://fleet") as client:
        return await client.post(PATH, json=content, headers=headers)


def told(world):
    return [
        (notices.decode(row["notification"]), row["urgent"])
        for row in world.database.read_here(lambda tx: rows(tx, outbox))
    ]


async def test_an_outbreak_and_its_end_are_told_once_whatever_grafana_repeats(world):
    rule = next(rule for rule in RULES if rule.severity == "emergency")
    for _ in range(3):
        answer = await send(world, post_of(alert(rule)))
        assert answer.status_code == 200
    assert answer.json() == {"alerts": 1, "new": 0}
    await send(world, post_of(alert(rule, "resolved"), alert(rule, "resolved")))
    again = await send(world, post_of(alert(rule, starts_at="2026-05-04T09:00:00Z")))
    assert again.json() == {"alerts": 1, "new": 1}
    (first, urgent), (over, calm), (second, _) = told(world)
    assert (first.title_zh, first.title_en) == (f"{rule.title.zh}（ingest）", f"{rule.title.en} (ingest)")
    assert (first.kind_of, first.priority, bool(urgent)) == ("system", "emergency", True)
    assert first.facts["action_en"] == rule.action.en
    assert (over.title_en, over.priority, bool(calm)) == (f"Over: {rule.title.en} (ingest)", "low", False)
    assert first.reference == over.reference == second.reference
    assert world.services.get(PlatformAlertService).woken == 3


async def test_every_rule_becomes_a_notice_of_its_severity(world):
    answer = await send(world, post_of(*map(alert, RULES)))
    assert answer.json() == {"alerts": len(RULES), "new": len(RULES)}
    assert sorted(notice.priority for notice, _ in told(world)) == sorted(rule.severity for rule in RULES)


async def test_a_rule_of_somebody_else_is_told_by_its_name(world):
    foreign = {"status": "firing", "fingerprint": "ab12", "labels": {"alertname": "Disk of the proxy"}}
    assert (await send(world, {"alerts": [foreign]})).json()["new"] == 1
    ((notice, _),) = told(world)
    assert (notice.title_zh, notice.title_en, notice.priority) == ("Disk of the proxy", "Disk of the proxy", "high")


@pytest.mark.parametrize("secret", [None, "", "wrong", SECRET + "x", SECRET[:-1], "ä"])
async def test_without_the_secret_nothing_is_taken_nor_read(world, secret):
    content = {"nonsense": "x" * 10_000}
    answer = await send(world, content, secret)
    assert (answer.status_code, answer.json()["code"]) == (401, "wrong_secret")
    assert told(world) == []


async def test_without_a_secret_set_nobody_is_let_in(world):
    world.services.get(PlatformAlertService).secret = ""
    for secret in (None, "", SECRET):
        answer = await send(world, post_of(alert(RULES[0])), secret)
        assert (answer.status_code, answer.json()["code"]) == (503, "not_set_up")
    assert told(world) == []


@pytest.mark.parametrize(
    "change",
    [
        {"alerts": []},
        {"alerts": [{"status": "firing"}]},
        {"alerts": [{"status": "maybe", "fingerprint": "a"}]},
        {"alerts": [{"status": "firing", "fingerprint": "a b"}]},
        {"alerts": [{"status": "firing", "fingerprint": "a", "labels": {"alertname": "x" * 501}}]},
        {"alerts": [{"status": "firing", "fingerprint": "a"}] * 101},
        {"alerts": "many"},
    ],
    ids=lambda change: str(change)[:40],
)
async def test_what_is_malformed_or_too_much_is_refused_whole(world, change):
    answer = await send(world, change)
    assert answer.status_code == 422
    assert told(world) == []
