"""What came of a week, as one JSON document: counted from the product's own tables, telephones and ways."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any, Final

from sqlalchemy import Connection, Row, select

from cli.week.handling import SERVED_BY_NEED
from cli.week.ledger import key_of_cause
from cli.week.people import Ring
from cli.week.plan import MONDAY_MS
from cli.week.run import Week
from cloud.tables import alarm, alarm_transition, call, work_order, work_order_transition
from firmware_sim.demand import DAY_MS
from fleet.incident import OrderEvent, OrderState

WINDOW_MS: Final = 600_000
BAD_ACTORS_MAX: Final = 10
_ENDED: Final = (OrderState.DONE.value, OrderState.CANCELLED.value)


def figures(week: Week, cpu_s: float) -> dict[str, Any]:
    """Everything that `fleet week --json` says about one policy."""
    read = week.cloud.database.read_here
    alarms = read(lambda tx: tx.execute(select(alarm).order_by(alarm.c.activated_at, alarm.c.id)).all())
    activations = read(_activations)
    orders = read(lambda tx: tx.execute(select(work_order).order_by(work_order.c.created_at, work_order.c.id)).all())
    steps = read(lambda tx: tx.execute(select(work_order_transition).order_by(work_order_transition.c.id)).all())
    calls = read(lambda tx: tx.execute(select(call).order_by(call.c.pressed_at)).all())
    acted = _acted(alarms, orders, week.people.settled)
    days = week.plan.days
    return {
        "seed": week.plan.seed, "days": days, "policy": week.plan.policy, "devices": dict(week.plan.counts),
        "digest": digest_of(week), "cpu_s": round(cpu_s, 1), "steps": week.steps, "commits": week.cloud.commits,
        "alarms": {
            "activations": len(activations), "incidents": len(alarms), "per_day": round(len(activations) / days, 1),
            "by_priority": dict(sorted(Counter(row.priority for row in alarms).items())),
            "led_to_action": _share(sum(row.id in acted for row in alarms), len(alarms)),
            "bad_actors": _bad_actors(alarms, activations, acted, days),
        },
        "telephones": _telephones(week.people.rings, days),
        "calls": _calls(calls),
        "orders": _orders(orders, steps, week),
        "crew": _ways(week),
        "service": _service(week),
        "faults": dict(sorted(week.faults.counts.items())),
        "refused_acts": dict(sorted((week.ledger.refused + week.people.counts).items())),
    }  # fmt: skip


def digest_of(week: Week) -> str:
    """Of every decision in its order, and of every way."""
    digest = week.cloud.digest.copy()
    for name, member in sorted(week.crew.members.items()):
        for trip in member.van.trips:
            digest.update(f"{name} {trip.began_ms} {trip.ended_ms} {trip.metres:.3f} {trip.why}\n".encode())
    return digest.hexdigest()


def _activations(tx: Connection) -> Sequence[Any]:
    columns = (alarm_transition.c.alarm_id, alarm_transition.c.at, alarm.c.kind, alarm.c.key, alarm.c.priority)
    query = select(*columns).join(alarm, alarm.c.id == alarm_transition.c.alarm_id)
    return tx.execute(query.where(alarm_transition.c.event == "activate").order_by(alarm_transition.c.at)).all()


def _acted(alarms: Sequence[Row[Any]], orders: Sequence[Row[Any]], settled: Mapping[str, str]) -> set[str]:
    """Alarms that somebody acknowledged and did something about: with their order, their need's, or a call."""
    done = {row.cause for row in orders if row.state == OrderState.DONE.value}
    needs = defaultdict(list)
    for row in orders:
        if row.state == OrderState.DONE.value and row.cause.startswith("need:"):
            needs[row.device_id, key_of_cause(row.cause)].append(row.changed_at)
    found = set()
    for row in alarms:
        need = SERVED_BY_NEED.get((row.kind, row.key))
        served = need is not None and any(at >= row.activated_at for at in needs[row.device_id, need])
        if row.acknowledged_at is not None and (f"alarm:{row.id}" in done or row.id in settled or served):
            found.add(row.id)
    return found


def _bad_actors(
    alarms: Sequence[Row[Any]], activations: Sequence[Row[Any]], acted: set[str], days: float
) -> list[dict[str, Any]]:
    """The definitions that sound most often, and how much of that was of use."""
    often = Counter((row.kind, row.key) for row in activations)
    by_key = defaultdict(list)
    for row in alarms:
        by_key[row.kind, row.key].append(row)
    found = []
    for (kind, key), count in sorted(often.items(), key=lambda item: (-item[1], item[0]))[:BAD_ACTORS_MAX]:
        rows = by_key[kind, key]
        lasted = [(row.returned_at - row.activated_at) / 1000 for row in rows if row.returned_at is not None]
        found.append(
            {
                "kind": kind, "key": key, "priority": rows[0].priority if rows else "",
                "per_day": round(count / days, 2),
                "led_to_action": _share(sum(row.id in acted for row in rows), len(rows)),
                "over_unseen": sum(
                    row.returned_at is not None and (row.acknowledged_at or row.returned_at + 1) > row.returned_at
                    for row in rows
                ),
                "seconds_median": round(sorted(lasted)[len(lasted) // 2]) if lasted else None,
            }
        )  # fmt: skip
    return found


def windows(times: Iterable[int], weights: Iterable[int] | None = None) -> int:
    """The most of them within any ten minutes (sliding, half open)."""
    ordered = sorted(zip(times, weights, strict=True)) if weights is not None else sorted((at, 1) for at in times)
    most = running = first = 0
    for at, weight in ordered:
        running += weight
        while ordered[first][0] <= at - WINDOW_MS:
            running -= ordered[first][1]
            first += 1
        most = max(most, running)
    return most


def _telephones(rings: Sequence[Ring], days: float) -> dict[str, Any]:
    """Per person: alarms and everything; windows of ten minutes on duty for mean and p99, sliding ones for the most."""
    alarms = [ring for ring in rings if ring.kind_of == "alarm"]
    per_window = Counter((ring.person_id, ring.at_ms // WINDOW_MS) for ring in alarms)
    by_person = defaultdict(list)
    for ring in alarms:
        by_person[ring.person_id].append(ring.at_ms)
    per_day = Counter((ring.person_id, (ring.at_ms - MONDAY_MS) // DAY_MS) for ring in alarms)
    everything = Counter((ring.person_id, (ring.at_ms - MONDAY_MS) // DAY_MS) for ring in rings)
    # A person is on duty for eight hours: 48 windows for each day on which their telephone rang at all.
    days_on_duty = len({(ring.person_id, (ring.at_ms - MONDAY_MS) // DAY_MS) for ring in rings})
    counts = sorted(per_window.values())
    quiet = max(0, days_on_duty * 48 - len(counts))
    spread: list[float] = [*[0.0] * quiet, *counts]
    return {
        "alarms_per_person_10_min": {
            "max": max((windows(times) for times in by_person.values()), default=0),
            "p99": _quantile(spread, 0.99), "mean": round(fmean(spread), 4) if spread else 0.0,
            "windows_with_more_than_1": sum(count > 1 for count in counts), "windows": len(spread),
        },
        "alarms_per_person_day": _spread(per_day.values()),
        "notifications_per_person_day": _spread(everything.values()),
        "alarm_notices_per_day": round(len({(ring.reference, ring.at_ms) for ring in alarms}) / days, 1),
        "by_kind": dict(sorted(Counter(f"{ring.kind_of}:{ring.priority}" for ring in rings).items())),
    }  # fmt: skip


def _calls(calls: Sequence[Row[Any]]) -> dict[str, Any]:
    waited = [(row.acknowledged_at - row.pressed_at) / 1000 for row in calls if row.acknowledged_at is not None]
    there = [(row.attended_at - row.pressed_at) / 1000 for row in calls if row.attended_at is not None]
    return {
        "calls": len(calls), "cleared": sum(row.cleared_at is not None for row in calls),
        "escalated": sum(row.escalation > 0 for row in calls), "acknowledged_in_s": _spread(waited),
        "attended_in_s": _spread(there),
    }  # fmt: skip


def _orders(orders: Sequence[Row[Any]], steps: Sequence[Row[Any]], week: Week) -> dict[str, Any]:
    """`kept`: of the orders whose time ended within the week or that ended, those done or needless in time."""
    until_ms = week.plan.until_ms
    ended = {step.order_id: step.at for step in steps if step.after in _ENDED}
    judged = [row for row in orders if row.id in ended or row.due_at < until_ms]
    kept = [row for row in judged if row.state in _ENDED and ended.get(row.id, until_ms) <= row.due_at]
    repairs = {row.id for row in orders if row.skill in {"repair", "inspection"}}
    completed = {step.order_id for step in steps if step.event == OrderEvent.COMPLETE.value} & repairs
    again = {
        step.order_id for step in steps if step.event in {OrderEvent.REOPEN.value, OrderEvent.GIVE_UP.value}
    } & repairs
    by_key: defaultdict[str, list[Row[Any]]] = defaultdict(list)
    for row in judged:
        by_key[f"{row.kind}:{row.skill}"].append(row)
    in_time = {row.id for row in kept}
    return {
        "orders": len(orders), "done": sum(row.state == OrderState.DONE.value for row in orders),
        "service_level_kept": _share(len(kept), len(judged)),
        "first_time_fix": _share(len(completed - again), len(completed)),
        "by_work": {
            key: {"orders": len(rows), "kept": _share(sum(row.id in in_time for row in rows), len(rows))}
            for key, rows in sorted(by_key.items())
        },
        "open_at_end": sum(row.state not in (*_ENDED, OrderState.CANNOT_COMPLETE.value) for row in orders),
    }  # fmt: skip


def _ways(week: Week) -> dict[str, Any]:
    kilometres: defaultdict[str, float] = defaultdict(float)
    for member in week.crew.members.values():
        for trip in member.van.trips:
            kilometres[trip.why] += trip.metres / 1000
    return {
        "kilometres": round(sum(kilometres.values()), 1),
        "by_reason": {why: round(value, 1) for why, value in sorted(kilometres.items(), key=lambda item: -item[1])},
        "per_person": {name: round(member.van.kilometres, 1) for name, member in sorted(week.crew.members.items())},
        "trips": sum(len(member.van.trips) for member in week.crew.members.values()),
        **dict(sorted(week.crew.counts.items())),
    }


def _service(week: Week) -> dict[str, Any]:
    """What members wanted and got."""
    wanted, watch = week.demand.counts, week.watch
    return {
        **dict(sorted(wanted.items())),
        "meals_got": _share(wanted["meals_bought"], wanted["meals_wanted"]),
        "rides_got": _share(wanted["rides_found"], wanted["rides_wanted"]),
        "machine_hours_sold_out": round(sum(watch.empty_ms.values()) / 3_600_000, 2),
        **dict(sorted(watch.counts.items())),
    }


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _quantile(ordered: Sequence[float], level: float) -> float:
    return ordered[min(len(ordered) - 1, int(level * len(ordered)))] if ordered else 0


def _spread(values: Iterable[float]) -> dict[str, float]:
    ordered = sorted(values)
    if not ordered:
        return {"max": 0, "p99": 0, "mean": 0}
    return {"max": round(ordered[-1], 1), "p99": round(_quantile(ordered, 0.99), 1), "mean": round(fmean(ordered), 1)}
