"""A simulated day of a small fleet on a real InfluxDB, and what truly happened in it.

The world, the people and the rules are those of `fleet week`, on virtual time; readings and steps become points by the
product's own code. What that week leaves out or a single day need not bring (rides, purchases, commands, calls,
firmware, waste, an alarm that lasts) comes from a short script that is its own truth, and so do the samples of the
processes.
"""

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from types import SimpleNamespace

from sqlalchemy import func, select

from cli.week.plan import MONDAY_MS, WeekPlan
from cli.week.run import Week, run_week
from cloud.history.groups import group_state
from cloud.history.samples import fleet_state
from cloud.history.steps import SOURCES, point
from cloud.tables import alarm, alarm_transition, call, call_transition, work_order
from cloud.timeseries.points import NANOSECONDS_PER_MILLISECOND, PointMaker
from fleet import series

COUNTS = {"bike": 3, "meal_machine": 1, "nursing_room": 2}
DAYS = 1.0
PLAN = WeekPlan(days=DAYS, counts=COUNTS, crew=(2, 1, 1), fault_factor=20.0)
START_MS, END_MS = MONDAY_MS, MONDAY_MS + round(DAYS * 86_400_000)
MINUTE_MS, HOUR_MS = 60_000, 3_600_000
SAMPLE_MINUTES = 15
STEP_NAMES = ("call_step", "alarm_step", "order_step")


@dataclass
class Truth:
    """What happened. `readings`: device → [(at ms, the driver's reading)]; `points`: all that was written."""

    readings: dict = field(default_factory=lambda: defaultdict(list))
    kinds: dict = field(default_factory=dict)
    points: list = field(default_factory=list)
    presses: list = field(default_factory=list)
    """(device, purpose, at ms) of every call, from its own table."""
    acknowledged_ms: list = field(default_factory=list)
    """Press to acceptance of every call."""
    alarms_open: dict = field(default_factory=dict)
    activated: int = 0
    calls_open: int = 0
    orders: dict = field(default_factory=dict)
    rides: list = field(default_factory=list)
    purchases: list = field(default_factory=list)
    commands: list = field(default_factory=list)
    wasted: Counter = field(default_factory=Counter)
    """Reason → boxes."""

    def last_readings(self, kind):
        """Device → its latest reading."""
        return {device: rows[-1][1] for device, rows in self.readings.items() if self.kinds[device] == kind}


def simulate():
    """One day; the same in every run."""
    truth = Truth()
    plain_init, plain_minute = Week.__init__, Week._each_minute

    def init(week, *arguments):
        plain_init(week, *arguments)
        hear = week.hardware.on_output

        def overhear(device_id, output):
            for reading in output.readings:
                truth.readings[device_id].append((reading.at, reading))
                truth.kinds[device_id] = week.hardware.units[device_id].kind
            hear(device_id, output)

        week.hardware.on_output = overhear

    async def each_minute(week):
        await plain_minute(week)
        now_ms = week.clock.now_ms()
        if (now_ms - START_MS) // MINUTE_MS % SAMPLE_MINUTES == 0:
            await week.cloud.keep()
            minute_ms = now_ms - now_ms % MINUTE_MS
            truth.points += await week.cloud.database.read(lambda tx: fleet_state(tx, minute_ms))
            truth.points += await week.cloud.database.read(lambda tx: group_state(tx, minute_ms))

    def look(week, _cpu_s):
        return week.cloud.database.read_here(lambda tx: _read(tx, truth))

    Week.__init__, Week._each_minute = init, each_minute
    try:
        run_week(PLAN, look)
    finally:
        Week.__init__, Week._each_minute = plain_init, plain_minute
    _write_readings(truth)
    _script(truth)
    return truth


def _read(tx, truth):
    for source in SOURCES:
        if source.name != "history_sample":
            for row in source.read(tx, 0, 1 << 60, 1 << 30):
                truth.points += source.points(row)
    calls = {row.id: row for row in tx.execute(select(call))}
    truth.presses = [(row.device_id, row.purpose, row.pressed_at) for row in calls.values()]
    steps = tx.execute(select(call_transition).where(call_transition.c.step == "acknowledge"))
    truth.acknowledged_ms = [row.at - calls[row.call_id].pressed_at for row in steps]
    holds = alarm.c.state.in_(("unacknowledged", "acknowledged"))
    truth.alarms_open = dict(tx.execute(select(alarm.c.kind, func.count()).where(holds).group_by(alarm.c.kind)).all())
    began = alarm_transition.c.event == "activate"
    truth.activated = tx.scalar(select(func.count()).select_from(alarm_transition).where(began))
    truth.calls_open = sum(row.purpose == "help" and row.state not in {"idle", "cleared"} for row in calls.values())
    truth.points += fleet_state(tx, END_MS - MINUTE_MS)
    truth.orders = dict(tx.execute(select(work_order.c.state, func.count()).group_by(work_order.c.state)).all())


def _write_readings(truth):
    """By the way of the spool: telemetry messages, as they are spooled, become points."""
    maker = PointMaker()
    for device_id, readings in truth.readings.items():
        for seq, (at_ms, reading) in enumerate(readings, 1):
            message = {
                "version": 1, "kind": truth.kinds[device_id], "device_id": device_id, "boot_epoch": 1 << 20,
                "lane": "telemetry", "seq": seq, "occurred_at": at_ms,
                "payload": {"readings": [reading.model_dump(mode="json", exclude_none=True)]},
            }  # fmt: skip
            truth.points += maker.points(json.dumps(message).encode())


def _script(truth):
    """Rides, purchases, commands, forecasts and the processes: a list of each, which is the truth, and its points."""
    bikes, machines = (
        sorted(name for name, kind in truth.kinds.items() if kind == wanted) for wanted in ("bike", "meal_machine")
    )
    for number in range(24):
        _ride(truth, number, bikes[number % len(bikes)])
    for number in range(40):
        _purchase(truth, number, machines[number % len(machines)])
    for number, device in enumerate(name for name in (*bikes, *machines) for _ in range(2)):
        _command(truth, number, device)
    for slot in range(0, 24 * 60, 30):
        for place, machine in enumerate(machines):
            fields = {"sellable": 60 - slot // 60 - place, "sales_per_hour": 2.5, "stock_out_hours": 20.0 - slot / 120,
                      "first_meal_out_hours": 4.0 + place}  # fmt: skip
            tags = {"device_id": machine}
            truth.points.append(point(series.MACHINE_FORECAST, 0, START_MS + slot * MINUTE_MS, tags, fields))
    for minute in range(24 * 60):  # often enough that every step of a graph holds as many
        for process in ("ingest", "dispatch", "api"):
            truth.points.append(platform_point(START_MS + minute * MINUTE_MS, process, minute * 60))

    _more(truth, bikes[0], machines[0])


def _more(truth, bike, machine):
    """Calls, what lasts, firmware, waste."""
    rooms = sorted(name for name, kind in truth.kinds.items() if kind == "nursing_room")
    for number in range(8):
        _call(truth, number, rooms[number % len(rooms)])
    for device in (rooms[0], machine, bike):
        _command(truth, len(truth.commands), device)
        _lasting_alarm(truth, device)
        _order(truth, device)
        fields = {"firmware": "2.1.0", "firmware_before": "2.0.3"}
        tags = {"device_id": device, "kind": truth.kinds[device]}
        truth.points.append(point(series.FIRMWARE_STEP, 0, START_MS + 10 * HOUR_MS, tags, fields))
    for number, (reason, boxes) in enumerate((("expired", 6), ("spoiled", 1), ("expired", 3))):
        truth.wasted[reason] += boxes
        tags, fields = {"device_id": machine, "reason": reason}, {"boxes": boxes, "meal": "rice-1", "slot": number}
        truth.points.append(point(series.WASTE_STEP, number, START_MS + (6 + 5 * number) * HOUR_MS, tags, fields))


def _call(truth, number, room):
    """Help or a test, accepted after some seconds; the last one is not cleared yet."""
    at_ms, purpose = START_MS + (number + 8) * HOUR_MS, "test" if number % 4 == 1 else "help"
    truth.presses.append((room, purpose, at_ms))
    truth.acknowledged_ms.append(9_000 + 3_000 * number)
    steps = [("press", "calling", 0), ("acknowledge", "acknowledged", truth.acknowledged_ms[-1]),
             ("attend", "attended", 180_000), ("clear_at_origin", "cleared", 400_000)]  # fmt: skip
    for index, (step, state, after_ms) in enumerate(steps[: 3 if number == 7 else 4]):
        fields = {"call_id": f"call-{number}", "state": state, "since_press_ms": after_ms, "escalation": 0}
        tags = {"device_id": room, "step": step, "purpose": purpose}
        truth.points.append(point(series.CALL_STEP, 900 + 10 * number + index, at_ms + after_ms, tags, fields))


def _lasting_alarm(truth, device):
    """Began in the evening and is not over."""
    kind = truth.kinds[device]
    key = {"bike": "fallen", "meal_machine": "heater_fault", "nursing_room": "fridge_warm"}[kind]
    tags = {"device_id": device, "kind": kind, "key": key, "priority": "high", "step": "activate"}
    fields = {"alarm_id": f"lasting-{device}", "state": "unacknowledged", "view": "shown"}
    truth.points.append(point(series.ALARM_STEP, 990, END_MS - 2 * HOUR_MS, tags, fields))
    truth.activated += 1


def _order(truth, device):
    tags = {"device_id": device, "kind": truth.kinds[device], "skill": "repair", "step": "assign"}
    fields = {"order_id": f"order-{device}", "state": "assigned", "since_made_ms": 30_000, "reason": "",
              "priority": "high"}  # fmt: skip
    truth.points.append(point(series.ORDER_STEP, 991, END_MS - 2 * HOUR_MS + 30_000, tags, fields))


def _ride(truth, number, bike):
    at_ms = START_MS + number * HOUR_MS + 7 * MINUTE_MS
    one = SimpleNamespace(bike=bike, at_ms=at_ms, unlock_ms=900 + 100 * number, fee_fen=100 + 50 * (number % 3),
                          opened=number % 8 != 7)  # fmt: skip
    truth.rides.append(one)
    steps = [("asked", 0, {})]
    if one.opened:
        steps += [
            ("opened", one.unlock_ms, {}),
            ("closed", 1_200_000, {"duration_ms": 1_199_000, "fee_fen": one.fee_fen}),
        ]
    else:
        steps.append(("failed", 5000, {"reason": "jammed"}))
    for index, (step, after_ms, more) in enumerate(steps):
        fields = {"ride_id": f"ride-{number}", "reason": "", "flagged": "", "state": step, "since_asked_ms": after_ms}
        tags = {"device_id": bike, "step": step}
        truth.points.append(point(series.RIDE_STEP, 3 * number + index, at_ms + after_ms, tags, fields | more))


def _purchase(truth, number, machine):
    at_ms, failed = START_MS + number * 30 * MINUTE_MS, number % 10 == 9
    truth.purchases.append(SimpleNamespace(machine=machine, at_ms=at_ms, fen=1800, failed=failed))
    steps = [("ask_payment", "", 0, {}), ("pay", "", 2000, {"since_paid_ms": 0})]
    if failed:
        steps.append(("fail", "jam", 60_000, {"since_paid_ms": 58_000}))
        steps.append(("refund", "jam", 61_000, {"since_paid_ms": 59_000, "refunded_fen": 1800}))
    else:
        steps.append(("dispense", "", 65_000, {"since_paid_ms": 63_000}))
        steps.append(("deliver", "", 70_000, {"since_paid_ms": 68_000}))
    for index, (step, reason, after_ms, more) in enumerate(steps):
        tags = {"device_id": machine, "step": step, "reason": reason}
        fields = {
            "purchase_id": f"purchase-{number}",
            "meal": "rice-1",
            "fen": 1800,
            "state": step,
            "since_asked_ms": after_ms,
            **more,
        }
        truth.points.append(point(series.PURCHASE_STEP, 10 * number + index, at_ms + after_ms, tags, fields))


def _command(truth, number, device):
    at_ms, ends = START_MS + 2 * HOUR_MS + number * 5 * MINUTE_MS, "failed" if number % 4 == 3 else "succeeded"
    truth.commands.append(SimpleNamespace(device=device, ends=ends))
    for index, (step, after_ms) in enumerate((("queued", 0), ("sent", 40), (ends, 900))):
        fields = {"command_id": f"command-{number}", "reason": "", "duration_ms": after_ms}
        tags = {"device_id": device, "action": "locate", "step": step}
        truth.points.append(point(series.COMMAND_STEP, 10 * number + index, at_ms + after_ms, tags, fields))


def platform_point(at_ms, process, up_s, **changes):
    """A healthy sample of a process that has been up for so long; its counters grow at fixed rates."""
    rates = {
        "messages_total": 40,
        "accepted_total": 39,
        "quarantined_total": 0,
        "duplicates_total": 1,
        "evicted_total": 0,
        "commits_total": 5,
        "api_requests_total": 10,
        "api_refused_total": 1,
        "outbox_delivered_total": 2,
        "series_points_total": 80,
        "history_points_total": 3,
        "press_to_notified_total": 1,
    }
    fields = {}
    for one in series.PLATFORM.fields:
        if one.unit == "text":
            fields[one.name] = "flowing"
        elif one.unit == "bool":
            fields[one.name] = True
        elif one.name in rates:
            fields[one.name] = rates[one.name] * up_s
        else:
            fields[one.name] = 0
    fields |= {
        "disk_free_percent": 60.0,
        "disk_free_bytes": 10**10,
        "resident_bytes": 10**8,
        "cpu_s_total": up_s * 0.1,
        "uptime_s": up_s,
        "commit_ms_mean": 4.0,
        "api_ms_p95": 50.0,
        "api_ms_mean": 8.0,
        "spool_fill_percent": 1.0,
        "press_to_notified_ms_p99": 200.0,
        "synthetic_age_ms": 5000,
        **changes,
    }
    return point(series.PLATFORM, 0, at_ms, {"process": process}, fields)


def rows_of(points):
    """Measurement → [(time in ms, tags, fields)] for the oracle: what was written, at the resolution of answers."""
    rows = defaultdict(list)
    for one in sorted(points, key=lambda one: one.at_ns):
        tags = dict(one.tags)
        if one.device_id:
            tags["device_id"] = one.device_id
        rows[one.kind].append((one.at_ns, tags, one.fields))
    return rows


def ms_of(at_ns):
    """A point's time as answers show it."""
    return at_ns // NANOSECONDS_PER_MILLISECOND
