"""Limits of the platform and of the fleet as a whole, as a table that the boards draw.

Where Grafana wakes somebody, the number is the alert rule's own (`dashboards.alert_rules`); goals that wake nobody
stand here. Limits of single devices are the application's alarms (`rules.ALARMS` of the kinds). `above` or `below` is
compared with the field as it stands in `fleet.series`.
"""

from dataclasses import dataclass
from typing import Final

from dashboards.alert_rules import RULES
from fleet.incident import Priority
from fleet.series import PLATFORM
from fleet.text import Text

MEDIUM, LOW = Priority.MEDIUM, Priority.LOW
API_GOAL_PERCENT: Final = 99.9
"""Share of HTTP requests that are answered without a fault of ours (5xx), over the time shown."""
SEVERITIES: Final = {"emergency": Priority.EMERGENCY, "high": Priority.HIGH, "low": Priority.LOW}
COMPARED_AS_THEY_ARE: Final = ('SELECT last("', 'SELECT min("', 'SELECT mean("', 'SELECT median("')
"""Beginnings of queries whose value has the field's own scale; others count, or look at how much a counter grew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformLimit:
    """One limit of one field of a measurement of `fleet.series`; exactly one of `above` and `below` is set."""

    key: str
    measurement: str
    field: str
    above: float | None = None
    below: float | None = None
    priority: Priority
    title: Text
    action: Text


def _alerted() -> tuple[PlatformLimit, ...]:
    """The limits of the alert rules that compare a field as it is."""
    return tuple(
        PlatformLimit(
            key=rule.uid,
            measurement=PLATFORM.name,
            field=rule.field,
            above=rule.limit if rule.comparison == "gt" else None,
            below=rule.limit if rule.comparison == "lt" else None,
            priority=SEVERITIES[rule.severity],
            title=rule.title,
            action=rule.action,
        )
        for rule in RULES
        if rule.query.startswith(COMPARED_AS_THEY_ARE) and PLATFORM.field_named(rule.field).is_number
    )


GOALS: Final[tuple[PlatformLimit, ...]] = (
    PlatformLimit(
        key="press_slow",
        measurement="platform",
        field="press_to_notified_ms_p99",
        above=250,
        priority=MEDIUM,
        title=Text("按下到通知偏慢", "Press to notification is slow"),
        action=Text(
            "查看进程负载、提交耗时与通知渠道", "Look at the load of the processes, at commits and at the channels"
        ),
    ),
    PlatformLimit(
        key="press_too_slow",
        measurement="platform",
        field="press_to_notified_ms_p99",
        above=5_000,
        priority=Priority.HIGH,
        title=Text("按下到通知超过 5 秒", "Press to notification takes more than 5 s"),
        action=Text(
            "立即检查通知渠道与消息服务器，安排人工值守", "Check channels and broker now; post people meanwhile"
        ),
    ),
    PlatformLimit(
        key="api_slow",
        measurement="platform",
        field="api_ms_p95",
        above=500,
        priority=MEDIUM,
        title=Text("接口偏慢", "The API is slow"),
        action=Text("查看进程 CPU 与提交耗时", "Look at the CPU of the processes and at the time of commits"),
    ),
    PlatformLimit(
        key="availability_low",
        measurement="fleet_state",
        field="availability_percent",
        below=95,
        priority=MEDIUM,
        title=Text("可用率低于 95 %", "Availability below 95 %"),
        action=Text("打开该类设备的看板，查看失联与高优先级报警", "Open the kind's board: silent devices, high alarms"),
    ),
    PlatformLimit(
        key="availability_poor",
        measurement="fleet_state",
        field="availability_percent",
        below=80,
        priority=Priority.HIGH,
        title=Text("可用率低于 80 %", "Availability below 80 %"),
        action=Text("检查共同原因：停电、网络、消息服务器", "Look for one cause: power, network, broker"),
    ),
    PlatformLimit(
        key="call_open",
        measurement="fleet_state",
        field="calls_open",
        above=0,
        priority=Priority.EMERGENCY,
        title=Text("有未结束的紧急呼叫", "An emergency call is open"),
        action=Text(
            "在应用中打开该呼叫：谁在处理、是否有人到场", "Open it in the application: who goes, is somebody there"
        ),
    ),
    PlatformLimit(
        key="alarms_unseen",
        measurement="fleet_state",
        field="alarms_unacknowledged",
        above=0,
        priority=MEDIUM,
        title=Text("有未确认的报警", "Alarms nobody acknowledged"),
        action=Text("在应用的报警台确认并处理", "Acknowledge and handle them at the application's alarm desk"),
    ),
    PlatformLimit(
        key="orders_late",
        measurement="fleet_state",
        field="orders_overdue",
        above=0,
        priority=LOW,
        title=Text("有超期的工单", "Work orders are overdue"),
        action=Text("改派或联系负责人", "Give them to somebody else, or call who has them"),
    ),
    PlatformLimit(
        key="devices_silent",
        measurement="fleet_state",
        field="silent",
        above=0,
        priority=MEDIUM,
        title=Text("有失联的设备", "Devices are silent"),
        action=Text("查看它们是否在同一处：电源、网络", "See whether they are in one place: power, network"),
    ),
    PlatformLimit(
        key="sold_out_soon",
        measurement="machine_forecast",
        field="stock_out_hours",
        below=2,
        priority=MEDIUM,
        title=Text("补货来不及", "Sold out before a restock can come"),
        action=Text("查看补货工单，优先安排", "See its restock order and do it first"),
    ),
)
LIMITS: Final = (*_alerted(), *GOALS)


def limits_of(measurement: str, field: str) -> tuple[PlatformLimit, ...]:
    """The limits of one field."""
    return tuple(one for one in LIMITS if (one.measurement, one.field) == (measurement, field))
