"""What a fleet of any size asks of broker, ingesters, databases and disks: arithmetic on measured costs, nothing else.

What devices say per day comes from the kinds themselves (intervals, batches) and the simulator's demand; what each
message costs comes in as `Costs`, every default with where it was measured. Pure: no clock, no network, no disk.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

from fleet.kind import Kind
from fleet.topics import SHARD_COUNT

DAY_S: Final = 86_400
MONTH_DAYS: Final = 30
RAW_DAYS: Final = 30
MINUTE_DAYS: Final = 365
HOUR_DAYS: Final = 5 * 365
MINUTES_PER_DAY: Final = 1_440
HOURS_PER_DAY: Final = 24
KEPT_DAYS: Final = 400
"""How long events stay in SQL (`FLEET_HISTORY_DAYS`)."""


def _measured(default: float, unit: str, source: str) -> Any:
    return field(default=default, metadata={"unit": unit, "source": source})


@dataclass(frozen=True, slots=True)
class Costs:
    """What one of everything costs. `source` says where the default was measured; a price is nobody's measurement."""

    ingester_us: float = _measured(
        130.0, "CPU µs per message", "fleet bench ingest --devices 100000, where no two messages share a twin's row "
        "or an acknowledgement; at 400 devices it is 10"
    )  # fmt: skip
    broker_us: float = _measured(
        15.0, "CPU µs per message in and out at QoS 1", "fleet bench ingesters, Mosquitto 2.0.11, without TLS"
    )
    connect_ms: float = _measured(1.9, "CPU ms per mutual-TLS connect", "Mosquitto 2.0.11, P-256, 160 connects")
    connection_kb: float = _measured(25.0, "KB of memory per connection", "Mosquitto 2.0.11 with TLS, 160 connections")
    twin_us: float = _measured(
        45.0, "SQL CPU µs per twin written", "fleet bench ingesters: sql_cpu_us_per_twin, PostgreSQL 15, whole commits"
    )
    twin_wal_bytes: float = _measured(
        1_325.0, "bytes of log per twin written", "fleet bench ingesters: wal_bytes_per_twin, PostgreSQL 15"
    )
    event_bytes: float = _measured(440.0, "bytes per event in SQL with its indices", "PostgreSQL 15, 20,000 events")
    influx_us: float = _measured(8.2, "InfluxDB CPU µs per raw line", "InfluxDB 1.6.7, 115,200 lines of 278 bytes")
    raw_bytes: float = _measured(44.0, "bytes per raw point", "InfluxDB 1.6.7, compacted, readings with noise")
    rolled_bytes: float = _measured(189.0, "bytes per rolled-up point", "the same; mean, least, most, count per field")
    message_bytes: float = _measured(
        535.0, "bytes on the wire per acknowledged message", "fleet bench wire, TLS and IP"
    )
    keep_alive_bytes: float = _measured(204.0, "bytes on the wire per keep-alive", "fleet bench wire")
    ride_bytes: float = _measured(5_822.0, "bytes on the wire for the begin and end of a ride", "fleet bench wire")
    daily_bytes: float = _measured(
        15_480.0, "bytes per device and day for connections and time", "fleet bench wire: 2 connections, 4 welcomes"
    )
    events_per_day: float = _measured(3.75, "events per device and day", "simulated day of 390 devices: 1,464")
    use_percent: float = _measured(
        50.0, "part of a CPU that is planned with", "chosen: the rest is for peaks and faults"
    )
    broker_cores: float = _measured(1.0, "CPUs one broker can use", "Mosquitto: 1; a node of EMQX or VerneMQ: its own")
    base_cores: float = _measured(
        2.0, "CPUs whatever the size", "chosen: roles api and dispatch, Grafana, the systems themselves"
    )
    sql_cores: float = _measured(16.0, "CPUs of one database server", "chosen")
    reconnect_s: float = _measured(18.0, "s over which devices spread their return", "edge: reconnect_jitter_s")
    price_core: float = _measured(100.0, "CNY per CPU with 4 GB and month", "an assumption: put your own")
    price_gb: float = _measured(0.7, "CNY per GB on SSD and month, one copy", "an assumption: put your own")
    copies: float = _measured(2.0, "copies of every stored byte", "chosen: a replica, or a backup")
    price_mobile_gb: float = _measured(10.0, "CNY per GB of mobile data", "an assumption: put your own")


@dataclass(frozen=True, slots=True)
class Kindly:
    """An average device of one kind, per day."""

    name: str
    devices: int
    readings: float
    messages: float
    keep_alives: float
    rides: float
    mobile: bool


def fleet_of(
    devices: int, kinds: Mapping[str, Kind], extra: Mapping[str, float], rides: Mapping[str, float],
    mobile: frozenset[str],
) -> list[Kindly]:  # fmt: skip
    """`devices` in the proportions of the real fleet. `extra`: readings per device and day beside the rhythm."""
    weights = {name: kind.demo_count for name, kind in kinds.items()}
    total = sum(weights.values())
    counts = {name: devices * weight // total for name, weight in weights.items()}
    rest = devices - sum(counts.values())
    for name in sorted(counts, key=lambda one: devices * weights[one] % total, reverse=True)[:rest]:
        counts[name] += 1
    return [
        _kindly(kind, counts[name], extra.get(name, 0.0), rides.get(name, 0.0), mobile=name in mobile)
        for name, kind in kinds.items()
    ]


def _kindly(kind: Kind, devices: int, extra: float, rides: float, *, mobile: bool) -> Kindly:
    regular = DAY_S / kind.reading_interval_s
    messages = regular + extra / kind.readings_per_message
    pings = max(0.0, DAY_S / kind.keep_alive_s - regular) if kind.reading_interval_s > kind.keep_alive_s else 0.0
    return Kindly(kind.name, devices, regular + extra, messages, pings, rides, mobile)


def model(fleet: list[Kindly], costs: Costs, peak: float) -> dict[str, Any]:
    """Everything of one size. `peak`: messages in the busiest hour by those of an average one."""
    devices = sum(one.devices for one in fleet)
    per_day = sum(one.devices * one.messages for one in fleet) + devices * costs.events_per_day
    readings = sum(one.devices * one.readings for one in fleet)
    busiest = per_day / DAY_S * peak
    wire = _wire(fleet, costs)
    stored = _stored(fleet, devices, costs)
    needed = _needed(devices, busiest, readings / DAY_S * peak, costs)
    cores = costs.base_cores + sum(value for name, value in needed.items() if name.startswith("cores_"))
    stored_gb = sum(stored["stored_gb"].values())
    monthly = {
        "cpu": cores / devices * costs.price_core,
        "disk": stored_gb * costs.copies / devices * costs.price_gb,
        "mobile_data": wire["mobile_bytes_per_day"] * MONTH_DAYS / 1e9 / devices * costs.price_mobile_gb,
    }
    return {
        "devices": devices,
        "messages_per_second": {one.name: round(one.devices * one.messages / DAY_S, 2) for one in fleet},
        "messages_per_second_mean": round(per_day / DAY_S, 1), "messages_per_second_busiest_hour": round(busiest, 1),
        "messages_per_day": round(per_day), "readings_per_day": round(readings),
        "events_per_day": round(devices * costs.events_per_day),
        "wire_bytes_per_day": round(wire["bytes_per_day"]),
        "mobile_mb_per_device_month": wire["mobile_mb_per_device_month"],
        **stored, **needed, "cores": round(cores, 2),
        "cny_per_device_month": {name: _short(value) for name, value in monthly.items()},
        "cny_per_device_month_total": _short(sum(monthly.values())),
    }  # fmt: skip


def _wire(fleet: list[Kindly], costs: Costs) -> dict[str, float]:
    def bytes_of(one: Kindly) -> float:
        return (
            (one.messages + costs.events_per_day) * costs.message_bytes
            + one.keep_alives * costs.keep_alive_bytes
            + one.rides * costs.ride_bytes
            + costs.daily_bytes
        )

    mobile = sum(one.devices * bytes_of(one) for one in fleet if one.mobile)
    mobile_devices = sum(one.devices for one in fleet if one.mobile)
    return {
        "bytes_per_day": sum(one.devices * bytes_of(one) for one in fleet), "mobile_bytes_per_day": mobile,
        "mobile_mb_per_device_month": round(mobile * MONTH_DAYS / 1e6 / mobile_devices, 2) if mobile_devices else 0.0,
    }  # fmt: skip


def _stored(fleet: list[Kindly], devices: int, costs: Costs) -> dict[str, Any]:
    """Bytes a day of each retention level, and what lies there once every level is full."""
    minutes = sum(one.devices * min(one.readings, MINUTES_PER_DAY) for one in fleet)
    per_day = {
        "raw": sum(one.devices * one.readings for one in fleet) * costs.raw_bytes,
        "minute": minutes * costs.rolled_bytes,
        "hour": sum(one.devices * min(one.readings, HOURS_PER_DAY) for one in fleet) * costs.rolled_bytes,
        "sql_events": devices * costs.events_per_day * costs.event_bytes,
    }
    days = {"raw": RAW_DAYS, "minute": MINUTE_DAYS, "hour": HOUR_DAYS, "sql_events": KEPT_DAYS}
    return {
        "stored_bytes_per_day": {name: round(value) for name, value in per_day.items()},
        "stored_gb": {name: round(value * days[name] / 1e9, 2) for name, value in per_day.items()},
        "sql_rows_per_day": round(devices * costs.events_per_day),
    }


def _needed(devices: int, messages: float, readings: float, costs: Costs) -> dict[str, Any]:
    """CPUs and processes in the busiest hour. A message is acknowledged by one back: the broker passes on two."""
    part = costs.use_percent / 100
    ingester = messages * costs.ingester_us / 1e6 / part
    broker = 2 * messages * costs.broker_us / 1e6 / part
    twins = messages * costs.twin_us / 1e6 / part
    influx = readings * costs.influx_us / 1e6 / part
    brokers = max(1, math.ceil(broker / costs.broker_cores))
    handshakes = devices * costs.connect_ms / 1e3
    return {
        "ingesters": max(1, math.ceil(ingester)), "shards_per_ingester": SHARD_COUNT // max(1, math.ceil(ingester)),
        "brokers": brokers, "databases": max(1, math.ceil(twins / costs.sql_cores)),
        "twins_written_per_second": round(messages),
        "wal_mb_per_second": round(messages * costs.twin_wal_bytes / 1e6, 2),
        "broker_memory_gb": round(devices * costs.connection_kb / 1e6, 2),
        "reconnect_cpu_s": round(handshakes, 1),
        "reconnect_s_min": round(max(costs.reconnect_s, handshakes / (brokers * costs.broker_cores)), 1),
        "cores_ingesters": _short(ingester), "cores_brokers": _short(broker), "cores_sql": _short(twins),
        "cores_influx": _short(influx),
    }  # fmt: skip


def _short(value: float) -> float:
    return round(value, 4) if value < 1 else round(value, 2)


def described(costs: Costs) -> dict[str, dict[str, Any]]:
    """Each assumption with its unit and where it comes from."""
    return {
        one.name: {"value": getattr(costs, one.name), **one.metadata} for one in fields(costs)
    }  # fmt: skip
