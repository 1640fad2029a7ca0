"""The comparison at the end of a run: what devices did with what the database, the series and the receiver hold."""

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import msgspec
from sqlalchemy import Connection, func, select

from cli.simulate.cloud_machine import RECEIVER
from cli.simulate.series import value_of
from cloud.tables import alarm, call, call_transition, event, gap, ledger_entry, outbox, quarantine, twin
from fleet.envelope import Lane
from fleet.incident import CallState

if TYPE_CHECKING:
    from cli.simulate.simulation import Simulation

_NAMED_MAX: Final = 5


class _Header(msgspec.Struct):
    device_id: str
    payload: dict[str, Any]


async def judge(simulation: "Simulation") -> None:
    """Everything is at rest: compare."""
    oracle, database = simulation.oracle, simulation.cloud.database
    if database is None:
        oracle.broken("the cloud is not running at the end")
        return
    rows = await database.read(_rows)
    _events(simulation, rows)
    _pages(simulation, rows)
    _readings(simulation, rows)
    _calls(simulation, rows)
    _gaps(simulation, rows)
    away = [row.device_id for row in rows["twins"] if not row.online and row.device_id in simulation.broker.sessions]
    if away:
        oracle.broken(f"connected, but shown as away: {_names(away)}")
    if rows["postings"]:
        oracle.broken(f"{rows['postings']} postings in the ledger, and nobody bought anything")
    oracle.counts["alarms"] = rows["alarms"]


def _rows(tx: Connection) -> dict[str, Any]:
    step = call_transition.c
    return {
        "events": tx.execute(select(event.c.event_id)).all(),
        "gaps": tx.execute(select(gap.c.device_id, gap.c.lane, gap.c.first_seq, gap.c.last_seq)).all(),
        "quarantine": tx.execute(select(quarantine.c.payload, quarantine.c.lane)).all(),
        "outbox": tx.execute(
            select(outbox.c.last_error, outbox.c.notification, outbox.c.channel, outbox.c.urgent)
        ).all(),
        "twins": tx.execute(select(twin.c.device_id, twin.c.online)).all(),
        "calls": tx.execute(
            select(call.c.device_id, call.c.state).where(call.c.state != CallState.CLEARED.value)
        ).all(),
        "steps": tx.execute(select(step.call_id, step.step, step.before, step.event_id).order_by(step.id)).all(),
        "alarms": tx.scalar(select(func.count()).select_from(alarm)),
        "postings": tx.scalar(select(func.count()).select_from(ledger_entry)),
    }


def _names(items: Any) -> str:
    found = sorted(map(str, items))
    return ", ".join(found[:_NAMED_MAX]) + (f" and {len(found) - _NAMED_MAX} more" if len(found) > _NAMED_MAX else "")


def _events(simulation: "Simulation", rows: dict[str, Any]) -> None:
    oracle = simulation.oracle
    stored = [row.event_id for row in rows["events"]]
    oracle.counts["events"] = len(stored)
    if len(stored) != len(set(stored)):
        oracle.broken("events are stored twice")
    refused = {
        _event_id(row.payload) for row in rows["quarantine"] if row.lane in {Lane.EVENT.value, Lane.EMERGENCY.value}
    }
    lost = set(oracle.events) - set(stored) - oracle.evicted_events - refused
    if lost:
        told = (f"{oracle.events[one].device_id} {oracle.events[one].what} {one}" for one in lost)
        oracle.broken(f"{len(lost)} events lost: {_names(told)}")
    invented = set(stored) - set(oracle.events)
    if invented:
        oracle.broken(f"{len(invented)} events invented: {_names(invented)}")


def _calls(simulation: "Simulation", rows: dict[str, Any]) -> None:
    """A call is open in the cloud as long as it is open in the room, and its escalation leaves no step out."""
    oracle, world = simulation.oracle, simulation.world
    called = {row.device_id for row in rows["calls"]}
    calling = {one for one in world.device_ids if world.snapshot(one).get("call_state", "idle") != "idle"}
    if called - calling - oracle.touched:
        oracle.broken(f"calls that ended in the room and not in the cloud: {_names(called - calling)}")
    if calling - called - oracle.touched:
        oracle.broken(f"calls that the cloud does not know: {_names(calling - called)}")
    levels: dict[str, int] = {}
    for row in rows["steps"]:
        if row.step == "press" and row.before != CallState.CALLING.value:
            levels[row.call_id] = 0
        elif row.step == "escalate":
            level = int(row.event_id.partition(":")[2])
            if level != levels.get(row.call_id, 0) + 1:
                oracle.broken(f"call {row.call_id} went from escalation {levels.get(row.call_id, 0)} to {level}")
            levels[row.call_id] = level


def _gaps(simulation: "Simulation", rows: dict[str, Any]) -> None:
    """What devices declared as let go is what they let go."""
    oracle = simulation.oracle
    for device_id, lane, first, last in rows["gaps"]:
        if device_id not in oracle.touched and not oracle.evicted[device_id, Lane(lane)]:
            oracle.broken(f"{device_id} declared {lane} {first} to {last} as evicted and had evicted nothing")


def _pages(simulation: "Simulation", rows: dict[str, Any]) -> None:
    oracle = simulation.oracle
    withdrawn = {
        msgspec.json.decode(row.notification)["facts"].get("event_id")
        for row in rows["outbox"]
        if row.channel == RECEIVER and row.urgent and (row.last_error or "").startswith("withdrawn")
    }
    oracle.counts["presses"] = len(oracle.presses)
    silent = [
        one
        for one in sorted(set(oracle.presses) - oracle.evicted_events)
        if not oracle.pages.get(one) and one not in withdrawn
    ]
    if silent:
        oracle.broken(f"{len(silent)} presses that nobody was told of: {_names(silent)}")
    double = [one for one, deliveries in oracle.pages.items() if len(deliveries) > 1]
    if double:
        oracle.broken(f"{len(double)} presses paged under several ids: {_names(double)}")


def _readings(simulation: "Simulation", rows: dict[str, Any]) -> None:
    oracle, series = simulation.oracle, simulation.series
    refused = _refused(rows)
    lost = doubled = 0
    where = set()
    for device_id, readings in oracle.readings.items():
        times = series.times.get(device_id, {})
        share: Counter[tuple[int, int]] = Counter()  # several may be put to the same moment, the latest that can be
        for key, count in readings.items():
            share.update(dict.fromkeys(oracle.known_as(device_id, key), count))
        for key, count in readings.items():
            names = oracle.known_as(device_id, key)
            found = sum(times.get(name, 0) for name in names)
            excused = any(
                (device_id, *name) in oracle.evicted_readings or (device_id, *name) in refused for name in names
            )
            if found < count and not excused:
                lost += count - found
                where.add(device_id)
            elif found > (most := max(share[name] for name in names)) and device_id in oracle.rolled_back:
                oracle.counts["doubled_after_roll_back"] += found - most
            elif found > most:
                doubled += found - most
                where.add(device_id)
    if lost or doubled:
        oracle.broken(f"{lost} readings lost, {doubled} doubled: {_names(where)}")
    invented = sum(oracle.invented(device_id, times) for device_id, times in series.times.items())
    if invented:
        oracle.broken(f"{invented} readings invented")
    oracle.counts["points"] = len(series.points)


def _event_id(payload: bytes) -> Any:
    return msgspec.json.decode(payload, type=_Header).payload.get("event_id")


def _refused(rows: dict[str, Any]) -> set[tuple[str, int, int]]:
    """Readings that the cloud refused, with the reason, and keeps in quarantine (a time stamp that cannot be)."""
    found: set[tuple[str, int, int]] = set()
    for row in rows["quarantine"]:
        if row.lane == Lane.TELEMETRY.value:
            message = msgspec.json.decode(row.payload, type=_Header)
            found.update(
                (message.device_id, reading["at"], value_of(reading)) for reading in message.payload["readings"]
            )
    return found
