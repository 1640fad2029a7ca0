"""The board of the platform: rate, errors and durations of what serves people; use and errors of its parts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from dashboards import influxql
from dashboards.drawings import Drawing
from dashboards.frame import Frame
from dashboards.influxql import IN_RANGE, STEP, Column, Query
from dashboards.limits import API_GOAL_PERCENT
from dashboards.links import OPERATIONS_UID
from dashboards.scales import CALM, limit_lines, series_scale
from dashboards.words import WRITER_COLOURS, WRITER_STATES, YES_NO
from fleet.kind import Text
from fleet.series import PLATFORM

TITLE: Final = Text("系统运行：服务本身健康吗？", "Operations: is the service itself well?")
QUESTION: Final = Text(
    "系统本身健康吗：紧急呼叫能送达、数据能落地、资源够用吗？",
    "Is the service itself well: do calls get through, is data kept, is there room left?",
)
NOT_RUNNING: Final = Text("没有任何进程在报告：系统未运行", "no process reports: the service is not running")
NO_REQUESTS: Final = Text("此时段内没有 HTTP 请求", "no HTTP request in this time")
NOT_YET: Final = Text("还没有按下被通知过", "no press was notified yet")
BUDGET: Final = Text("接口错误预算剩余", "API error budget left")
BUDGET_WORDS: Final = Text(
    "所示时段内允许 {allowed:g} % 的请求以 5xx 结束；100 % 表示一个也没有，负数表示超支",
    "In the time shown {allowed:g} % of the requests may end with 5xx; 100 %: none did, below 0: more than that",
)


@dataclass(frozen=True, slots=True)
class _Graph:
    """One graph: `values` as they are, of the worst process; `rates` are counters per `per`, in `unit`."""

    title: Text
    words: Text
    values: tuple[str, ...] = ()
    rates: tuple[str, ...] = ()
    unit: str = ""
    right: tuple[str, ...] = ()
    no_data: Text = NOT_RUNNING
    per: str = "1s"


GRAPHS: Final = (
    _Graph(
        Text("接口：请求、错误与耗时", "API: requests, errors and durations"),
        Text(
            "每秒请求、5xx 与 4xx；右轴为最慢进程的 p95",
            "Requests per second, of those 5xx and 4xx; right: p95 of the slowest process",
        ),
        values=("api_ms_p95",),
        rates=("api_requests_total", "api_errors_total", "api_refused_total"),
        unit="reqps",
        right=("api_ms_p95",),
        no_data=NO_REQUESTS,
    ),
    _Graph(
        Text("呼叫：按下到通知", "Calls: press to notification"),
        Text(
            "真实按下的 p99，以及距上次自检呼叫通过的时间（右轴）；标准要求 5 秒内",
            "p99 of real presses; right: time since the test call last came through. The standards ask for 5 s",
        ),
        values=("press_to_notified_ms_p99", "synthetic_age_ms"),
        right=("synthetic_age_ms",),
        no_data=NOT_YET,
    ),
    _Graph(
        Text("设备消息", "Messages from devices"),
        Text(
            "每秒接受、重复、隔离与设备丢弃；接受为零说明接入中断",
            "Accepted, repeated, set aside, given up by devices, per second; nothing accepted: the way in is broken",
        ),
        rates=("accepted_total", "duplicates_total", "quarantined_total", "evicted_total"),
        unit="cps",
    ),
    _Graph(
        Text("消息服务器：积压与断开", "Broker: backlog and losses"),
        Text(
            "已收未确认的消息与打开的实时页面；右轴为每分钟断开与暂停读取的次数，应为零",
            "Messages held back and live pages; right: connections lost and pauses per minute, which should be 0",
        ),
        values=("broker_held", "clients"),
        rates=("broker_lost_total", "broker_pauses_total"),
        per="1m",
        unit="cpm",
        right=("broker_lost_total", "broker_pauses_total"),
    ),
    _Graph(
        Text("数据落地：缓冲与落后", "Data on its way to the series"),
        Text(
            "缓冲占比；右轴为尚未写入时序库的字节",
            "How full the spool is; right: bytes that are not in the series yet",
        ),
        values=("spool_fill_percent", "spool_lag_bytes"),
        right=("spool_lag_bytes",),
    ),
    _Graph(
        Text("时序写入", "Writing the series"),
        Text(
            "每秒写入的点、被拒绝的点、重试与丢失的采样；右轴为步骤历史的落后",
            "Points written, refused, tried again and lost, per second; right: how late the history of steps is",
        ),
        values=("history_lag_ms",),
        rates=(
            "series_points_total",
            "history_points_total",
            "series_quarantined_total",
            "series_retries_total",
            "samples_lost_total",
        ),
        unit="cps",
        right=("history_lag_ms",),
    ),
    _Graph(
        Text("通知发件箱", "Outbox of notifications"),
        Text("待投递数量；右轴为最久等待", "How many wait; right: for how long the oldest does"),
        values=("outbox_waiting", "outbox_urgent_waiting", "outbox_oldest_ms"),
        right=("outbox_oldest_ms",),
    ),
    _Graph(
        Text("数据库", "SQL"),
        Text(
            "每次提交耗时；右轴为每秒提交、冲突与重试：重试说明数据库忙或不可用",
            "Time of a commit; right: commits, conflicts and retries per second. Retries: the database is busy or away",
        ),
        values=("commit_ms_mean",),
        rates=("commits_total", "sql_conflicts_total", "sql_retries_total"),
        unit="ops",
        right=("commits_total", "sql_conflicts_total", "sql_retries_total"),
    ),
    _Graph(
        Text("磁盘与内存", "Disk and memory"),
        Text(
            "数据目录剩余空间；右轴为最大进程的常驻内存",
            "Free share of the disk; right: resident memory of the largest process",
        ),
        values=("disk_free_percent", "resident_bytes"),
        right=("resident_bytes",),
    ),
    _Graph(
        Text("处理器", "CPU"),
        Text(
            "各进程占用核数之和（100 % 为一个核）；右轴为事件循环迟到，过载最先显示在这里",
            "Cores used by all processes (100 %: one core); right: how late the event loop is, which tells of load",
        ),
        values=("loop_late_ms",),
        rates=("cpu_s_total",),
        unit="percentunit",
        right=("loop_late_ms",),
    ),
)
LOWEST: Final = frozenset({"disk_free_percent"})
"""Of these the lowest value of all processes is the one to look at."""


def build_operations(language: str) -> dict[str, Any]:
    """The board of the platform; raises BoardError."""
    frame = Frame(OPERATIONS_UID, TITLE.in_language(language), QUESTION.in_language(language), language)
    frame.add(_budget(language), _states(language))
    frame.add(*(_graph(graph, language) for graph in GRAPHS))
    return frame.json()


def _graph(graph: _Graph, language: str) -> Drawing:
    scales = tuple(series_scale(PLATFORM, field, language) for field in (*graph.values, *graph.rates))
    labels = {scale.field: scale.label for scale in scales}
    queries = []
    if graph.values:
        columns = [Column(field, "min" if field in LOWEST else "max", labels[field]) for field in graph.values]
        text = influxql.select(PLATFORM.name, columns, condition=IN_RANGE, by=[STEP], sampled=True)
        queries.append(Query("A", text, alias="$col"))
    if graph.rates:
        for ref, field in zip("BCDEFGH", graph.rates, strict=False):
            column = Column(field, "sum", labels[field])
            text = influxql.rates(PLATFORM.name, [column], tag="process", per=graph.per)
            queries.append(Query(ref, text, alias="$col"))
    shown = tuple(replace(scale, unit=graph.unit) if scale.field in graph.rates else scale for scale in scales)
    lines = limit_lines(scales, language)
    words = graph.words.in_language(language)
    return Drawing(
        title=graph.title.in_language(language),
        description="\n".join([words, "", *lines]) if lines else words,
        style="timeseries",
        queries=tuple(queries),
        scales=shown,
        no_data=graph.no_data.in_language(language),
        right=tuple(labels[field] for field in graph.right),
        interval_s=60,
        width=8,
    )


def _budget(language: str) -> Drawing:
    allowed = 100 - API_GOAL_PERCENT
    errors, requests = (f"sum({influxql.identifier(name)})" for name in ("api_errors_total", "api_requests_total"))
    label = BUDGET.in_language(language)
    text = influxql.increases(
        PLATFORM.name,
        ("api_errors_total", "api_requests_total"),
        f"100 - {errors} / {requests} * {10_000 / allowed:g}",
        label,
        tag="process",
    )
    return Drawing(
        title=label,
        description=BUDGET_WORDS.in_language(language).format(allowed=round(allowed, 6)),
        style="stat",
        queries=(Query("A", text, alias="$col"),),
        no_data=NO_REQUESTS.in_language(language),
        unit="percent",
        interval_s=60,
        width=6,
        height=6,
    )


STATES: Final = Text("写入与连接", "Writers and connections")
STATES_WORDS: Final = Text(
    "时序写入、历史写入与消息服务器连接的状态",
    "State of the writers of the series and the history, and of the broker's connections",
)


def _states(language: str) -> Drawing:
    fields: Sequence[str] = ("series_state", "history_state", "broker_connected")
    scales = tuple(series_scale(PLATFORM, field, language) for field in fields)
    columns = [Column(scale.field, "last", scale.label) for scale in scales]
    words = {code: word.in_language(language) for code, word in {**WRITER_STATES, **YES_NO}.items()}
    text = influxql.select(PLATFORM.name, columns, condition=IN_RANGE, by=[STEP, "process"])
    return Drawing(
        title=STATES.in_language(language),
        description=STATES_WORDS.in_language(language),
        style="states",
        queries=(Query("A", text, alias="$tag_process $col"),),
        scales=scales,
        codes={scale.label: words for scale in scales},
        colours={**WRITER_COLOURS, "true": CALM, "false": "red"},
        no_data=NOT_RUNNING.in_language(language),
        interval_s=60,
        width=18,
        height=6,
    )
