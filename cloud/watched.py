"""What `cloud.watch` looks at in a process that ingests."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

from cloud.pipeline import Pipeline
from cloud.synthetic import is_synthetic
from cloud.timeseries.drain import DrainState, SeriesDrain
from cloud.timeseries.rollup import Rollup, RollupState
from cloud.timeseries.spool import Spool
from cloud.watch import BROKER_AWAY_S_MAX, SPOOL_FILL_MAX, Condition, Watch

SERIES_AWAY_S_MAX: Final = 600.0
ROLLUP_REFUSED_S_MAX: Final = 300.0
STORE_CLOCK_MS_MAX: Final = 300_000
SPOOL_SPARE_BYTES_MIN: Final = 1 << 30
"""On the spool's disk, before it refuses telemetry for the sake of the state beside it."""


class Statistics(Protocol):
    """Counters of one connection."""

    messages_received: int
    messages_acknowledged: int
    connections_lost: int
    backpressure_pauses: int
    publishes_dropped: int


class Receiver(Protocol):
    """One connection to the broker."""

    @property
    def statistics(self) -> Statistics: ...
    @property
    def connected(self) -> bool: ...
    @property
    def publishes_waiting(self) -> int: ...
    @property
    def publishes_max(self) -> int: ...


class Connections(Protocol):
    """The two of them."""

    @property
    def connected(self) -> bool: ...
    @property
    def routine(self) -> Receiver: ...
    @property
    def emergency(self) -> Receiver: ...


def watch_ingest(watch: Watch, link: Connections, spool: Spool, pipeline: Pipeline) -> None:
    """Link, spool and devices."""

    def devices_by_state() -> dict[tuple[str, str], int]:
        found = Counter(
            (lane.kind, "online" if lane.online else "offline")
            for lane in pipeline.lanes.values()
            if not is_synthetic(lane.device_id)
        )
        return dict(found)

    watch.numbers.devices = devices_by_state
    single = watch.numbers.single
    single["fleet_spool_bytes"] = "Size of the spool", lambda: spool.used_bytes
    single["fleet_spool_fill_ratio"] = "Used share of the spool's bound", lambda: spool.fill_ratio
    single["fleet_spool_refused_batches"] = "Batches refused at the bound", lambda: spool.statistics.batches_refused
    for name, receiver in (("routine", link.routine), ("emergency", link.emergency)):
        numbers, prefix = receiver.statistics, f"fleet_link_{name}"
        single[f"{prefix}_connected"] = "1 while connected and subscribed", partial(_connected, receiver)
        single[f"{prefix}_lost"] = "Connections lost", partial(getattr, numbers, "connections_lost")
        single[f"{prefix}_held"] = "Received and not yet acknowledged", partial(_held, numbers)
        single[f"{prefix}_pauses"] = "Pauses of reading at the bound", partial(getattr, numbers, "backpressure_pauses")
        single[f"{prefix}_publishes_dropped"] = "Refused at the bound", partial(getattr, numbers, "publishes_dropped")
    single["fleet_link_publishes_waiting"] = "Messages to devices in the queue", lambda: link.routine.publishes_waiting
    single["fleet_link_publishes_max"] = "Bound of that queue", lambda: link.routine.publishes_max
    watch.conditions += [
        Condition(
            "clock", lambda: pipeline.clock_watch.behind,
            "服务器时钟早于已存储的数据,请校准时钟(timedatectl),完成后设备会自动重新对时",
            "This server's clock stands before what it has stored already: correct it (timedatectl); devices then get "
            "the right time by themselves",
        ),
        Condition(
            "clock_ahead", lambda: pipeline.clock_watch.ahead,
            "启动时服务器时钟比最后一次收到设备消息晚 30 天以上;若系统并未停机这么久,请校准时钟(timedatectl)",
            "At its start this server's clock stood more than 30 days after the last message of any device. If it was "
            "not off for so long, correct the clock (timedatectl); otherwise this ends with the next start",
        ),
        Condition("spool", lambda: spool.fill_ratio >= SPOOL_FILL_MAX, "遥测缓冲即将写满", "The spool is nearly full"),
        Condition(
            "spool_disk", lambda: spool.spare_bytes < SPOOL_SPARE_BYTES_MIN,
            "缓冲所在磁盘即将写满,遥测将暂停接收(设备会保留);请清理磁盘",
            "The spool's disk is nearly full: telemetry will be held back (devices keep it). Free some of it",
        ),
        Condition(
            "broker", lambda: pipeline.ready.is_set() and not link.connected, "与消息服务器的连接中断",
            "The connection to the broker is down", BROKER_AWAY_S_MAX,
        ),
    ]  # fmt: skip


def ingest_fields(link: Connections, spool: Spool) -> dict[str, float]:
    """What the way in knows of the measurement `platform` (`fleet.series`)."""
    receivers = (link.routine.statistics, link.emergency.statistics)
    return {
        "broker_connected": link.connected,
        "broker_lost_total": sum(numbers.connections_lost for numbers in receivers),
        "broker_pauses_total": sum(numbers.backpressure_pauses for numbers in receivers),
        "broker_held": sum(_held(numbers) for numbers in receivers),
        "spool_bytes": spool.used_bytes,
        "spool_fill_percent": round(100.0 * spool.fill_ratio, 3),
    }


def watch_rollup(watch: Watch, rollup: Rollup, store_ahead_ms: Callable[[], int]) -> None:
    """The coarser levels of the series; `store_ahead_ms` is how far the store's clock is before ours."""
    single = watch.numbers.single
    single["fleet_rollup_windows"] = "Windows not rolled up since they were written", lambda: rollup.windows_waiting
    single["fleet_rollup_failures"] = "Stretches that could not be rolled up", lambda: rollup.statistics.failures
    watch.conditions += [
        Condition(
            "rollup", lambda: rollup.state is RollupState.NO_ACCESS,
            "时序汇总(分钟、小时)无法写入,请运行 fleet influx init",
            "The series' minutes and hours can't be written: run fleet influx init", ROLLUP_REFUSED_S_MAX,
        ),
        Condition(
            "series_clock", lambda: abs(store_ahead_ms()) > STORE_CLOCK_MS_MAX,
            "时序库的时钟与本机相差 5 分钟以上,请校准(timedatectl):时钟过快会提前删除数据",
            "InfluxDB's clock differs from ours by more than 5 minutes: correct it (timedatectl). One that is ahead "
            "deletes data too early",
        ),
    ]  # fmt: skip


def drain_fields(drain: SeriesDrain) -> dict[str, float | str]:
    """The same of the way from the spool into the series."""
    numbers = drain.statistics
    return {
        "spool_lag_bytes": drain.lag_bytes,
        "series_state": drain.state.value,
        "series_points_total": numbers.points_written,
        "series_quarantined_total": numbers.points_quarantined + numbers.records_quarantined,
        "series_retries_total": numbers.retries,
    }


def _connected(receiver: Receiver) -> float:
    return float(receiver.connected)


def _held(numbers: Statistics) -> float:
    return max(0, numbers.messages_received - numbers.messages_acknowledged)


def watch_drain(watch: Watch, drain: SeriesDrain) -> None:
    """The way from the spool into the series."""
    single = watch.numbers.single
    single["fleet_drain_lag_bytes"] = "Bytes of the spool not in the series yet", lambda: drain.lag_bytes
    single["fleet_drain_flowing"] = "1 while the series takes points", lambda: float(drain.state is DrainState.FLOWING)
    single["fleet_drain_live_lag_bytes"] = "The same of what comes now, beside a backlog", lambda: drain.live_lag_bytes
    watch.conditions += [
        Condition(
            "series", lambda: drain.state is DrainState.NO_ACCESS, "时序库拒绝访问", "The time series refuses access"
        ),
        Condition(
            "series_away", lambda: drain.state is DrainState.WAITING,
            "时序库 10 分钟以上不可用;遥测保存在缓冲中,不会丢失",
            "The time series has been away for 10 minutes; telemetry waits in the spool and is not lost",
            SERIES_AWAY_S_MAX,
        ),
    ]  # fmt: skip
