"""Alert rules of Grafana for the platform itself: what the application cannot say when it is the one that fails.

Devices and people are the application's alarms; these rules read the measurement `platform` alone. The files that
Grafana is provisioned with are made from here (`python -m dashboards.alert_rules`). No query uses a `$`: Grafana
replaces variables of the environment in these files.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from fleet.kind import Text
from fleet.series import PLATFORM, measurement_named

FOLDER: Final = Path(__file__).resolve().parent.parent / "deploy" / "grafana" / "alerting"
SOURCE_UID: Final = "fleet"
GROUP: Final = "platform"
GRAFANA_FOLDER: Final = "Fleet"
LOOK_S: Final = 30
RECEIVER: Final = "fleet"
RECEIVER_URL: Final = "http://api:8000/api/v1/platform-alerts"
RECEIVER_SECRET_FILE: Final = "/run/secrets/fleet_platform_alert_secret"  # noqa: S105  # where it lies
EXPRESSION: Final = "__expr__"
NOTICE: Final = "# Made by `make boards` from dashboards/alert_rules.py; do not edit.\n"

Severity = Literal["emergency", "high", "low"]
Comparison = Literal["gt", "lt"]


@dataclass(frozen=True, slots=True)
class Rule:
    """One alert rule: it fires for each series of `query` whose last value is beyond `limit` for `for_s` long.

    `without_data`: what no series at all means; "Alerting" where silence is the fault itself. `field`: what it reads.
    """

    uid: str
    title: Text
    action: Text
    query: str
    field: str
    comparison: Comparison
    limit: float
    for_s: int
    severity: Severity
    without_data: Literal["OK", "Alerting"] = "OK"

    def fires(self, values: Sequence[float]) -> bool:
        """Whether it fires (when that lasts) for these last values of its series; none: as `without_data` says."""
        if not values:
            return self.without_data == "Alerting"
        return any(value > self.limit if self.comparison == "gt" else value < self.limit for value in values)


def _recent(field: str, aggregate: str, seconds: int, condition: str = "", *, by_process: bool = True) -> str:
    where = f"time > now() - {seconds}s" + (f" AND {condition}" if condition else "")
    by = ' GROUP BY "process"' if by_process else ""
    return f'SELECT {aggregate}("{field}") AS "value" FROM "raw"."platform" WHERE {where}{by}'


def _growth(field: str, seconds: int) -> str:
    """How much a counter grew, whether or not its process started again in between."""
    steps = (
        f'SELECT non_negative_difference(last("{field}")) AS "step" FROM "raw"."platform" '
        f'WHERE time > now() - {seconds}s GROUP BY time(10s), "process" fill(none)'
    )
    return f'SELECT sum("step") AS "value" FROM ({steps}) WHERE time > now() - {seconds}s GROUP BY "process"'


def _silent(role: str, zh: str, en: str) -> Rule:
    """No sample from any process that has this role: it is down, or the series do not flow."""
    return Rule(
        f"fleet-{role}-silent",
        Text(f"{zh}没有运行数据", f"No word from {en}"),
        Text(
            "检查该进程是否运行、InfluxDB 是否可写：fleet doctor",
            "See whether the process runs and InfluxDB takes writes: fleet doctor",
        ),
        _recent("uptime_s", "count", 120, f'"process" =~ /^(all|{role})/', by_process=False),
        "uptime_s", "lt", 1, 60, "emergency", "Alerting",
    )  # fmt: skip


RULES: Final[tuple[Rule, ...]] = (
    _silent("ingest", "接入进程", "ingest"),
    _silent("dispatch", "派单进程", "dispatch"),
    _silent("api", "网页与接口进程", "pages and API"),
    Rule(
        "fleet-calls-unproven",
        Text("自检呼叫超过 60 秒未送达", "The deployment's own test call has not come through for 60 s"),
        Text(
            "真实呼叫可能也无法送达：按值班手册用电话接替，再看 fleet doctor 与看门狗日志",
            "Real calls may not arrive either: take over by telephone as planned; fleet doctor, the watchdog's log",
        ),
        _recent("synthetic_age_ms", "last", 120),
        "synthetic_age_ms", "gt", 60_000, 0, "emergency",
    ),
    Rule(
        "fleet-broker-away",
        Text("与消息服务器的连接中断", "The connection to the broker is lost"),
        Text(
            "检查 Mosquitto 与证书：fleet broker check；设备会保存并重发",
            "Look at Mosquitto and its certificates: fleet broker check; devices keep and resend what they have",
        ),
        _recent("broker_connected", "count", 60, '"broker_connected" = false'),
        "broker_connected", "gt", 2, 0, "emergency",
    ),
    Rule(
        "fleet-ingest-lag",
        Text("接入积压：已收未确认的消息", "Ingest lags: messages received and not yet committed"),
        Text(
            "看 SQL 提交耗时与 CPU；紧急呼叫走独立通道，不受影响",
            "Look at the time of SQL commits and at CPU; emergencies have a way of their own and are not held up",
        ),
        _recent("broker_held", "min", 60),
        "broker_held", "gt", 5000, 60, "high",
    ),
    Rule(
        "fleet-commit-slow",
        Text("持久提交过慢", "Durable commits are slow"),
        Text("检查数据库与磁盘的延迟", "Look at the latency of the database and its disk"),
        _recent("commit_ms_mean", "mean", 120),
        "commit_ms_mean", "gt", 500, 120, "high",
    ),
    Rule(
        "fleet-process-late",
        Text("进程过载：事件循环迟到", "A process is overloaded: its event loop is late"),
        Text("看该进程的 CPU；必要时增加实例", "Look at that process's CPU; add an instance if it stays so"),
        _recent("loop_late_ms", "median", 60),
        "loop_late_ms", "gt", 1000, 120, "high",
    ),
    Rule(
        "fleet-disk-filling",
        Text("磁盘剩余空间不足 15 %", "Less than 15 % of a disk is free"),
        Text(
            "清理或扩容；数据不会丢，但写满后接入会停",
            "Free or add space; when it is full, nothing is lost but ingest stops",
        ),
        _recent("disk_free_percent", "last", 120),
        "disk_free_percent", "lt", 15, 300, "high",
    ),
    Rule(
        "fleet-disk-full",
        Text("磁盘剩余空间不足 5 %", "Less than 5 % of a disk is free"),
        Text("立即清理或扩容", "Free or add space now"),
        _recent("disk_free_percent", "last", 120),
        "disk_free_percent", "lt", 5, 0, "emergency",
    ),
    Rule(
        "fleet-outbox-waiting",
        Text("通知积压超过 60 秒", "Notifications wait for more than 60 s"),
        Text(
            "看通知日志中失败的通道：fleet notifications list",
            "Look for the failing channel in the log of deliveries: fleet notifications list",
        ),
        _recent("outbox_oldest_ms", "last", 60),
        "outbox_oldest_ms", "gt", 60_000, 60, "high",
    ),
    Rule(
        "fleet-outbox-given-up",
        Text("有通知被放弃投递", "A notification was given up"),
        Text("在通知日志中查看收件人与原因", "See whom it was for, and why, in the log of deliveries"),
        _growth("outbox_given_up_total", 600),
        "outbox_given_up_total", "gt", 0, 0, "high",
    ),
    Rule(
        "fleet-series-stuck",
        Text("时序数据写不进去", "Readings do not reach the series"),
        Text(
            "检查 InfluxDB 与写入令牌：fleet doctor；读数在缓冲中等待，不会丢",
            "Look at InfluxDB and the writer's token: fleet doctor; readings wait in the spool, nothing is lost",
        ),
        _recent("series_state", "count", 300, "\"series_state\" <> 'flowing'"),
        "series_state", "gt", 20, 0, "high",
    ),
    Rule(
        "fleet-history-behind",
        Text("历史步骤落后 10 分钟以上", "The history is more than 10 minutes behind"),
        Text(
            "图表上的呼叫、报警与工单会晚到；检查 InfluxDB 与 dispatch 进程",
            "Calls, alarms and orders come late to the boards; look at InfluxDB and the process of dispatch",
        ),
        _recent("history_lag_ms", "last", 120),
        "history_lag_ms", "gt", 600_000, 120, "high",
    ),
    Rule(
        "fleet-spool-filling",
        Text("缓冲已用 60 %", "The spool is 60 % full"),
        Text("时序库离线过久：修复后会自动补写", "The series have been away for long; once back, they get everything"),
        _recent("spool_fill_percent", "last", 120),
        "spool_fill_percent", "gt", 60, 60, "high",
    ),
    Rule(
        "fleet-points-refused",
        Text("时序库拒绝了数据点", "The series refused points for good"),
        Text("用 fleet quarantine 查看内容与原因", "See what and why: fleet quarantine"),
        _growth("series_quarantined_total", 600),
        "series_quarantined_total", "gt", 0, 0, "low",
    ),
    Rule(
        "fleet-api-errors",
        Text("接口连续出错（5xx）", "The API keeps failing (5xx)"),
        Text("看 api 进程的日志", "Look at the log of the process `api`"),
        _growth("api_errors_total", 300),
        "api_errors_total", "gt", 5, 0, "high",
    ),
)  # fmt: skip
"""Every rule; its field is one of the measurement `platform`."""


# --- the files ----------------------------------------------------------------------------------------------------


def rule_model(rule: Rule) -> dict[str, Any]:
    """One rule as Grafana's file provisioning takes it."""
    expression = {"type": EXPRESSION, "uid": EXPRESSION}
    return {
        "uid": rule.uid,
        "title": f"{rule.title.zh} / {rule.title.en}",
        "condition": "C",
        "for": f"{rule.for_s}s",
        "noDataState": rule.without_data,
        "execErrState": "Alerting" if rule.without_data == "Alerting" else "Error",
        "labels": {"severity": rule.severity, "source": "platform"},
        "annotations": {
            "title_zh": rule.title.zh, "title_en": rule.title.en, "action_zh": rule.action.zh,
            "action_en": rule.action.en,
        },
        "data": [
            {
                "refId": "A",
                "relativeTimeRange": {"from": 600, "to": 0},
                "datasourceUid": SOURCE_UID,
                "model": {"refId": "A", "query": rule.query, "rawQuery": True, "resultFormat": "time_series"},
            },
            {
                "refId": "B",
                "datasourceUid": EXPRESSION,
                "model": {
                    "refId": "B", "type": "reduce", "expression": "A", "reducer": "last", "datasource": expression,
                    "settings": {"mode": "dropNN"},
                },
            },
            {
                "refId": "C",
                "datasourceUid": EXPRESSION,
                "model": {
                    "refId": "C", "type": "threshold", "expression": "B", "datasource": expression,
                    "conditions": [{"evaluator": {"type": rule.comparison, "params": [rule.limit]}}],
                },
            },
        ],
    }  # fmt: skip


def files() -> dict[str, str]:
    """Every provisioning file of alerting: name → content."""
    group = {
        "orgId": 1, "name": GROUP, "folder": GRAFANA_FOLDER, "interval": f"{LOOK_S}s",
        "rules": [rule_model(rule) for rule in RULES],
    }  # fmt: skip
    receiver = {
        "uid": "fleet-webhook",
        "type": "webhook",
        "settings": {
            "url": RECEIVER_URL, "httpMethod": "POST", "maxAlerts": 50, "authorization_scheme": "Bearer",
            "authorization_credentials": f"$__file{{{RECEIVER_SECRET_FILE}}}",
        },
    }  # fmt: skip
    policy = {
        "orgId": 1, "receiver": RECEIVER, "group_by": ["grafana_folder", "alertname"], "group_wait": "10s",
        "group_interval": "1m", "repeat_interval": "4h",
    }  # fmt: skip
    return {
        "rules.yaml": yaml_of({"apiVersion": 1, "groups": [group]}),
        "contact-points.yaml": yaml_of({
            "apiVersion": 1, "contactPoints": [{"orgId": 1, "name": RECEIVER, "receivers": [receiver]}],
        }),
        "policies.yaml": yaml_of({"apiVersion": 1, "policies": [policy]}),
    }  # fmt: skip


def yaml_of(document: Mapping[str, Any]) -> str:
    """YAML in one spelling: block style, every text quoted as in JSON. For documents without empty collections."""
    return NOTICE + "\n".join(_lines(document, 0)) + "\n"


def _lines(value: Any, depth: int) -> list[str]:
    pad = "  " * depth
    if isinstance(value, Mapping):
        lines = []
        for key, inner in value.items():
            if isinstance(inner, (Mapping, list)):
                lines += [f"{pad}{key}:", *_lines(inner, depth + 1)]
            else:
                lines.append(f"{pad}{key}: {json.dumps(inner, ensure_ascii=False)}")
        return lines
    lines = []
    for inner in value:
        block = _lines(inner, depth + 1) if isinstance(inner, (Mapping, list)) else None
        if block is None:
            lines.append(f"{pad}- {json.dumps(inner, ensure_ascii=False)}")
        else:
            lines += [f"{pad}- {block[0].lstrip()}", *block[1:]]
    return lines


def write(folder: Path = FOLDER) -> list[Path]:
    """Write the files; returns them."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, text in files().items():
        (folder / name).write_text(text, encoding="utf-8")
        written.append(folder / name)
    return written


def main() -> int:
    for rule in RULES:
        measurement_named(PLATFORM.name).field_named(rule.field)
    for path in write():
        print(path.relative_to(FOLDER.parent.parent.parent), file=sys.stderr)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
