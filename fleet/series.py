"""What the time series hold beside the kinds' readings: every measurement with its tags, fields and units.

Readings keep their own form: the measurement is the kind, the tag `device_id`, the fields those of the reading and
`message_seq`. Everything below is written by `cloud.history`, which follows the SQL tables, and read by the boards.

A point is identified by its measurement, all its tags and its time in ns; below the millisecond of a step stands the
number of its row, so that writing it again changes nothing. Tags are bounded (`SeriesTag`): an id that grows with use
is a field, never a tag. A tag without a value is left out, which reads back as the empty text.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

from fleet.incident import AlarmEvent, AlarmView, OrderEvent, Priority, ViewEvent
from fleet.kind import CallStep, Skill, Text
from fleet.messages import Reason, ReplyStatus

SeriesUnit = Literal["ms", "s", "hours", "fen", "count", "bytes", "percent", "per_hour", "text", "bool"]
"""`text` and `bool` are no numbers: a roll-up keeps their last value."""

TagBound = Literal["values", "devices", "kinds", "groups", "alarms", "actions", "processes"]
"""What a tag's number of values is bounded by: its closed list, devices in service, or what the kinds declare."""

NUMBERS: Final[frozenset[str]] = frozenset(get_args(SeriesUnit)) - {"text", "bool"}
FLOATS: Final = frozenset({"s", "hours", "percent", "per_hour"})
OTHER: Final = "other"
"""Stands for a value that is on no list, so that no tag can grow."""
ROLES: Final = ("all", "ingest", "dispatch", "api")
INSTANCES_MAX: Final = 16
"""`platform`'s tag is a role, or `<role>-<n>` with the setting `FLEET_INSTANCE` below this bound."""


@dataclass(frozen=True, slots=True)
class SeriesField:
    """One field. `values` is set where a text is one of a closed list; `optional`: not every point has it."""

    name: str
    unit: SeriesUnit
    description: Text
    optional: bool = False
    values: tuple[str, ...] = ()

    @property
    def value_type(self) -> type[int | float | str | bool]:
        """A series refuses a field that changes its type. Means and quantiles (`…_ms_mean`, `…_ms_p95`) are floats."""
        if self.unit == "text":
            return str
        if self.unit == "bool":
            return bool
        return float if self.unit in FLOATS or "_ms_" in self.name else int

    @property
    def is_number(self) -> bool:
        """Whether it has a mean, a minimum and a maximum."""
        return self.unit in NUMBERS


@dataclass(frozen=True, slots=True)
class Measurement:
    """One measurement.

    `values` are the closed lists of its tags; tags that are not in it are bounded as `TAG_BOUNDS` says.
    `every_s`: it is sampled so often (business seconds, `platform`: real ones); None: written when something happens.
    """

    name: str
    tags: tuple[str, ...]
    fields: tuple[SeriesField, ...]
    description: Text
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    every_s: float | None = None

    @property
    def is_step(self) -> bool:
        """Rare and precious: copied whole into the long retentions."""
        return self.every_s is None

    def field_named(self, name: str) -> SeriesField:
        """Raises KeyError."""
        return {one.name: one for one in self.fields}[name]

    def bound_of(self, tag: str) -> TagBound:
        """What bounds the number of values of one of its tags. Raises KeyError for a tag without a bound."""
        return "values" if tag in self.values else TAG_BOUNDS[tag]


TAG_BOUNDS: Final[Mapping[str, TagBound]] = {
    "device_id": "devices",
    "kind": "kinds",
    "group": "groups",
    "key": "alarms",
    "action": "actions",
    "process": "processes",
}

CALL_STEPS: Final = (*(step.value for step in CallStep), "acknowledge", "escalate")
CALL_PURPOSES: Final = ("help", "test")
"""The deployment's own synthetic calls are in no measurement of calls: see `platform`, field `synthetic_age_ms`."""
ALARM_STEPS: Final = (*(event.value for event in AlarmEvent), *(event.value for event in ViewEvent))
RIDE_STEPS: Final = ("asked", "opened", "closed", "jammed", "failed", "expired", "revoked", "flagged")
PURCHASE_STEPS: Final = (
    "ask_payment", "pay", "refuse_payment", "cancel", "reserve", "heat", "dispense", "deliver", "fail", "lose",
    "ask_refund", "refund", "refuse_refund", "hand_over",
)  # fmt: skip
PURCHASE_REASONS: Final = (
    *(reason for reason in get_args(Reason) if reason), "insufficient_funds", "delivered_late",
)  # fmt: skip
WASTE_REASONS: Final = ("expired", "spoiled", "excursion", "miscounted")
COMMAND_STEPS: Final = ("queued", "sent", *(status.value for status in ReplyStatus))
DRAIN_STATES: Final = ("flowing", "waiting", "no_access")
ORDER_SKILLS: Final[tuple[str, ...]] = get_args(Skill)
PRIORITIES: Final = tuple(priority.value for priority in Priority)


def _ms(name: str, zh: str, en: str, *, optional: bool = False) -> SeriesField:
    return SeriesField(name, "ms", Text(zh, en), optional)


def _count(name: str, zh: str, en: str, *, optional: bool = False) -> SeriesField:
    return SeriesField(name, "count", Text(zh, en), optional)


def _text(
    name: str, zh: str, en: str, *, optional: bool = False, values: tuple[str, ...] = ()
) -> SeriesField:  # fmt: skip
    return SeriesField(name, "text", Text(zh, en), optional, values)


def _always(name: str, unit: SeriesUnit, zh: str, en: str) -> SeriesField:
    return SeriesField(name, unit, Text(zh, en))


def _some(name: str, unit: SeriesUnit, zh: str, en: str, values: tuple[str, ...] = ()) -> SeriesField:
    """A field that depends on the role of the process, or on whether anything happened."""
    return SeriesField(name, unit, Text(zh, en), optional=True, values=values)


CALL_STEP: Final = Measurement(
    "call_step",
    ("device_id", "step", "purpose"),
    (
        _text("call_id", "呼叫编号", "Id of the call"),
        _text("state", "此步之后的状态", "State after the step"),
        _ms("since_press_ms", "距按下的时间", "Time since the press that began the call"),
        _count("escalation", "到此步为止已升级的级数", "Levels of escalation up to this step; 0 for none"),
    ),
    Text(
        "紧急呼叫的每一步，不含系统自检呼叫", "Every step of emergency calls, without the deployment's own test calls"
    ),
    {"step": CALL_STEPS, "purpose": CALL_PURPOSES},
)

ALARM_STEP: Final = Measurement(
    "alarm_step",
    ("device_id", "kind", "key", "priority", "step"),
    (
        _text("alarm_id", "报警编号", "Id of the alarm"),
        _text("state", "此步之后的状态", "State after the step"),
        _text(
            "view", "是否显示给值班人员", "Whether people were shown the alarm after the step, as far as it is known",
            values=tuple(view.value for view in AlarmView),
        ),
        _ms("active_ms", "条件成立了多久", "How long the condition held; on the steps of its return", optional=True),
    ),
    Text("报警的每一步，包括被隐藏与重新显示", "Every step of alarms, also how they were hidden and shown"),
    {"priority": PRIORITIES, "step": ALARM_STEPS},
)  # fmt: skip

ORDER_STEP: Final = Measurement(
    "order_step",
    # No tag: the same work comes in every priority, which would make four times as many series possible.
    ("device_id", "kind", "skill", "step"),
    (
        _text("order_id", "工单编号", "Id of the work order"),
        _text("priority", "优先级", "Priority", values=PRIORITIES),
        _text("state", "此步之后的状态", "State after the step"),
        _ms("since_made_ms", "距工单生成的时间", "Time since the order was made"),
        _text("reason", "原因代码，没有则为空", "Code of the reason; empty without one"),
        SeriesField(
            "late", "bool",
            Text("完成时是否已超过期限", "Whether it was done after it was due; on the step `complete`"), optional=True,
        ),
    ),
    Text("工单的每一步", "Every step of work orders"),
    {"skill": ORDER_SKILLS, "step": tuple(event.value for event in OrderEvent)},
)  # fmt: skip

RIDE_STEP: Final = Measurement(
    "ride_step",
    ("device_id", "step"),
    (
        _text("ride_id", "骑行编号", "Id of the ride"),
        _text("state", "此步之后的状态", "State after the step"),
        _text("reason", "未开始或结束的原因，没有则为空", "Why it never began, or ended so; empty without one"),
        _text("flagged", "需要人工查看的标记，空格分隔", "Words that ask a person to look at it, joined by spaces"),
        _ms("since_asked_ms", "距扫码开锁请求的时间", "Time since the rider asked for the bike"),
        _ms("duration_ms", "骑行时长", "How long the ride was; on the steps that end one", optional=True),
        SeriesField("fee_fen", "fen", Text("费用", "Fee; on the steps that end a ride"), optional=True),
    ),
    Text("骑行的每一步", "Every step of rides"),
    {"step": RIDE_STEPS},
)

PURCHASE_STEP: Final = Measurement(
    "purchase_step",
    ("device_id", "step", "reason"),
    (
        _text("purchase_id", "订单编号", "Id of the purchase"),
        _text("state", "此步之后的状态", "State after the step"),
        _text("meal", "餐品", "The meal, by its article code"),
        SeriesField("fen", "fen", Text("价格", "Price")),
        SeriesField("refunded_fen", "fen", Text("退款金额", "Given back; on the step `refund`"), optional=True),
        _ms("since_asked_ms", "距下单的时间", "Time since it was asked for"),
        _ms("since_paid_ms", "距付款的时间", "Time since it was paid; on the steps after that", optional=True),
    ),
    Text(
        "购餐的每一步；`reason` 只在失败与退款的步骤上",
        "Every step of purchases; `reason` only on the steps at which something went wrong",
    ),
    {"step": PURCHASE_STEPS, "reason": PURCHASE_REASONS},
)  # fmt: skip

COMMAND_STEP: Final = Measurement(
    "command_step",
    ("device_id", "action", "step"),
    (
        _text("command_id", "指令编号", "Id of the command"),
        _text("reason", "原因代码，没有则为空", "Code of the reason; empty without one"),
        _ms("duration_ms", "距指令发出的时间", "Time since the command was issued"),
    ),
    Text("发给设备的指令的每一步", "Every step of commands to devices"),
    {"step": COMMAND_STEPS},
)

FIRMWARE_STEP: Final = Measurement(
    "firmware_step",
    ("device_id", "kind"),
    (
        _text("firmware", "新版本", "The version that the device names since"),
        _text("firmware_before", "原版本，首次为空", "The one it named before; empty at its first word"),
    ),
    Text("设备报告的固件版本的变化", "Every change of the firmware that a device says it runs"),
)

WASTE_STEP: Final = Measurement(
    "waste_step",
    ("device_id", "reason"),
    (
        _count("boxes", "取出的餐盒", "Boxes taken out of one slot"),
        _text("meal", "餐品", "The meal, by its article code"),
        _count("slot", "货道", "The slot"),
    ),
    Text("补货时取出不再售卖的餐盒", "Boxes that a restocker took out because they cannot be sold any more"),
    {"reason": WASTE_REASONS},
)

FLEET_STATE: Final = Measurement(
    "fleet_state",
    ("kind",),
    (
        _count("devices", "在用设备", "Devices in service"),
        _count("online", "链路在线", "Devices whose link is up"),
        _count("silent", "静默", "Devices that have been silent for too long (alarm `silent`)"),
        _count("reporting", "正常上报", "Devices that are online, not silent and give readings"),
        _count("out_of_service", "停用", "Devices that somebody took out of service for now"),
        SeriesField(
            "availability_percent", "percent",
            Text("可用率：正常上报且无高优先级报警", "Share of devices that report and have no open high alarm"),
            optional=True,
        ),
        _count("alarms_open", "未结束的报警", "Alarms whose condition holds"),
        _count("alarms_unacknowledged", "未确认的报警", "Alarms nobody acknowledged yet and that people are shown"),
        _count("alarms_hidden", "被隐藏的报警", "Alarms whose condition holds and that people are not shown"),
        _count("calls_open", "未结束的呼叫", "Emergency calls that are not cleared"),
        _count("orders_open", "未完成的工单", "Work orders that are not done, cancelled or given up"),
        _count("orders_overdue", "已超期的工单", "Of those, the ones past their due time"),
    ),
    Text("每类设备每分钟的状况", "How each kind of device fares, every minute"),
    every_s=60.0,
)  # fmt: skip

GROUP_STATE: Final = Measurement(
    "group_state",
    ("kind", "group"),
    (_count("devices", "设备", "Devices whose latest reading puts them into the group"),),
    Text("每类设备每分钟按最新读数的分组", "Devices of each kind by what their latest reading says, every minute"),
    every_s=60.0,
)

MACHINE_FORECAST: Final = Measurement(
    "machine_forecast",
    ("device_id",),
    (
        _count("sellable", "可售份数", "Boxes that can be sold now"),
        SeriesField("sales_per_hour", "per_hour", Text("预计每小时销量", "Expected sales per hour, from past sales")),
        SeriesField(
            "stock_out_hours", "hours",
            Text("按该销量售罄所需小时", "Hours until nothing is left at that rate; absent while nothing sells"),
            optional=True,
        ),
        SeriesField(
            "first_meal_out_hours", "hours",
            Text("最先售罄的餐品所需小时", "Hours until the first of its meals is sold out"), optional=True,
        ),
    ),
    Text("售饭机的售罄预测", "When each meal machine is expected to be sold out"),
    every_s=300.0,
)  # fmt: skip

PLATFORM: Final = Measurement(
    "platform",
    ("process",),
    (
        _always("messages_total", "count", "收到的设备消息", "Messages received from devices"),
        _always(
            "accepted_total", "count", "接受的设备消息",
            "Messages accepted: neither set aside nor repeats nor out of order",
        ),
        _always("quarantined_total", "count", "隔离的消息", "Messages set aside with their reason"),
        _always("duplicates_total", "count", "重复的消息", "Messages that had been committed before"),
        _always("evicted_total", "count", "设备申明丢弃的消息", "Messages that devices declared as evicted"),
        _always("commits_total", "count", "流水线的 SQL 提交", "SQL commits of the pipeline"),
        _some("commit_ms_mean", "ms", "最近 10 秒的平均提交耗时", "Mean time of a durable commit, last 10 s"),
        _always(
            "sql_conflicts_total", "count", "SQL 冲突重试",
            "Transactions that ran again because another one came in between",
        ),
        _always(
            "sql_retries_total", "count", "SQL 故障重试", "Transactions tried again: database away, locked or full"
        ),
        _some("spool_bytes", "bytes", "缓冲占用", "Size of the spool"),
        _some("spool_fill_percent", "percent", "缓冲占上限的比例", "Used share of the spool's bound"),
        _some("spool_lag_bytes", "bytes", "尚未写入时序库", "Bytes of the spool that are not in the series yet"),
        _some("series_state", "text", "时序写入状态", "State of the writer of the series", DRAIN_STATES),
        _some("series_points_total", "count", "写入的读数点", "Points of readings written"),
        _some(
            "series_quarantined_total", "count", "被时序库拒绝的点", "Points and records the series refused for good"
        ),
        _some("series_retries_total", "count", "时序写入重试", "Writes that had to be tried again"),
        _some(
            "history_state", "text", "历史写入状态",
            "State of the writer of these measurements", (*DRAIN_STATES, "standby"),
        ),
        _some("history_points_total", "count", "写入的历史点", "Points of steps and samples written"),
        _some("history_lag_ms", "ms", "历史落后的时间", "Age of the oldest step not in the series yet; 0: none"),
        _always(
            "samples_lost_total", "count", "丢失的采样", "Samples of `platform` given up at their bound in an outage"
        ),
        _some("outbox_waiting", "count", "待投递的通知", "Notifications not delivered yet"),
        _some("outbox_urgent_waiting", "count", "待投递的紧急通知", "Of those, the urgent ones"),
        _some(
            "outbox_oldest_ms", "ms", "最久待投递通知的等待", "How long the oldest due notification has waited; 0: none"
        ),
        _always("outbox_delivered_total", "count", "已投递的通知", "Notifications accepted by a channel"),
        _always("outbox_failed_total", "count", "失败的投递尝试", "Attempts that a channel did not accept"),
        _always("outbox_given_up_total", "count", "放弃的通知", "Notifications given up after their last attempt"),
        _some(
            "press_to_notified_ms_p99", "ms", "按下到通知送达 p99（累计）",
            "Press to notification accepted, p99 since the start (end of its bucket)",
        ),
        _always("press_to_notified_total", "count", "已通知的按下", "Presses that were notified"),
        _some("api_requests_total", "count", "HTTP 请求", "HTTP requests answered"),
        _some("api_errors_total", "count", "HTTP 5xx", "HTTP requests answered with a status of 500 or above"),
        _some("api_refused_total", "count", "HTTP 4xx", "HTTP requests answered with a status from 400 to 499"),
        _some("api_ms_p95", "ms", "最近 10 秒 HTTP p95", "HTTP p95, last 10 s (end of its bucket)"),
        _some("api_ms_mean", "ms", "最近 10 秒 HTTP 平均", "Mean time of HTTP requests, last 10 s"),
        _some("clients", "count", "实时页面连接", "Pages that are open with live changes"),
        _some(
            "broker_connected", "bool", "两条消息服务器连接是否都在", "Whether both connections to the broker are up"
        ),
        _some("broker_lost_total", "count", "消息服务器断开次数", "Connections to the broker that were lost"),
        _some("broker_pauses_total", "count", "因积压暂停读取", "Pauses of reading from the broker at the bound"),
        _some("broker_held", "count", "已收未确认", "Messages received and not yet acknowledged to the broker"),
        _some(
            "synthetic_age_ms", "ms", "距上次成功自检呼叫",
            "Time since the deployment's own test call last came through",
        ),
        _always("disk_free_bytes", "bytes", "数据目录剩余空间", "Free space where the data directory lies"),
        _always("disk_free_percent", "percent", "数据目录剩余空间比例", "Free share of that disk"),
        _always("resident_bytes", "bytes", "常驻内存", "Resident memory of the process"),
        _always("cpu_s_total", "s", "CPU 时间", "CPU time used by the process since its start"),
        _always("uptime_s", "s", "运行时间", "Real time since the process began to sample"),
        _always("loop_late_ms", "ms", "事件循环迟到", "How late the sampler was woken: overload shows here first"),
    ),
    Text("每个进程的运行指标，每 10 秒（真实时间）", "How each process of the deployment fares, every 10 real seconds"),
    every_s=10.0,
)  # fmt: skip

MEASUREMENTS: Final[tuple[Measurement, ...]] = (
    CALL_STEP, ALARM_STEP, ORDER_STEP, RIDE_STEP, PURCHASE_STEP, COMMAND_STEP, FIRMWARE_STEP, WASTE_STEP,
    FLEET_STATE, GROUP_STATE, MACHINE_FORECAST, PLATFORM,
)  # fmt: skip


def measurement_named(name: str) -> Measurement:
    """Raises KeyError."""
    return {one.name: one for one in MEASUREMENTS}[name]
