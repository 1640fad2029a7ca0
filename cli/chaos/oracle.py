"""What the devices did against what database, series and receiver hold: sets of ids, and values for readings."""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

from sqlalchemy import Connection, func, select

from cli.chaos.promises import LOGGED_IN_FULL, Window, WrongClock, promised, restamped, without_evicted
from cli.demo import outcomes, verdict
from cli.demo.holdings import Readings
from cloud.adapters.sql.database import SqlDatabase
from cloud.rules.moves import identity
from cloud.tables import call, call_transition, command, event, gap, outbox, quarantine, spool_mark

LATE_MS: Final = 5_000.0
"""A press told later than this is counted as late (the limit of the standards)."""
NAMED_MAX: Final = 20
"""Of each kind of fault so many are named in the report."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One look at the database."""

    events: Sequence[dict[str, Any]]
    press_transitions: Sequence[str]
    quarantined: Mapping[str, int]
    commands: Mapping[str, str]
    """Command id → status."""
    undelivered: int
    """Outbox rows of the webhook that still wait."""
    given_up: Sequence[str]
    """Why urgent rows were given up, other than withdrawn."""
    withdrawn: frozenset[str]
    """Presses whose page was withdrawn before it left."""
    accepted: frozenset[str]
    """Presses whose call a named person accepted when the press had arrived, or later."""
    gaps: int
    series_behind: bool
    refused_readings: Mapping[str, Sequence[dict[str, Any]]] = field(default_factory=dict)
    """By device: readings of messages in quarantine whose time stamp could not be used."""
    evicted: Mapping[str, int] = field(default_factory=dict)
    """By device: telemetry messages that it declared as evicted, or that nobody could have."""
    steps: Sequence[Any] = ()  # rows of `call_transition` as committed
    call_states: Mapping[str, str] = field(default_factory=dict)  # call id → state of its row
    cleared: frozenset[str] = frozenset()  # at their origin, as the cloud heard


def look(database: SqlDatabase) -> Stored:
    """Read it, on one snapshot."""
    return database.read_here(_look)


def _look(tx: Connection) -> Stored:
    positions: dict[str, dict[str, int]] = {}
    for spool, name, position in tx.execute(select(spool_mark.c.spool, spool_mark.c.name, spool_mark.c.position)):
        positions.setdefault(spool, {})[name] = position
    webhook = outbox.c.channel == "webhook"
    real = call_transition.join(call, call.c.id == call_transition.c.call_id)
    rows = tx.execute(
        select(call_transition).select_from(real).where(call.c.purpose != "synthetic").order_by(call_transition.c.id)
    ).all()
    steps = [(row.call_id, row.step, row.received_at, row.actor, row.event_id) for row in rows]
    accepted_at: dict[str, int] = {}
    for call_id, step, received_at, actor, _ in steps:
        if step == "acknowledge" and actor:
            accepted_at[call_id] = max(accepted_at.get(call_id, 0), received_at)
    given_up = tx.execute(
        select(outbox.c.last_error, outbox.c.notification).where(
            webhook, outbox.c.given_up_at.is_not(None), outbox.c.delivered_at.is_(None), outbox.c.urgent == 1
        )
    ).all()
    return Stored(
        events=[
            {"event_id": row[0], "device_id": row[1], "type": row[2], "late": row[3]}
            for row in tx.execute(select(event.c.event_id, event.c.device_id, event.c.type, event.c.late))
        ],
        press_transitions=[event_id for _, step, _, _, event_id in steps if step == "press"],
        quarantined=dict(
            tx.execute(select(quarantine.c.reason, func.count()).group_by(quarantine.c.reason)).tuples().all()
        ),
        commands=dict(tx.execute(select(command.c.id, command.c.status)).tuples().all()),
        undelivered=tx.execute(
            select(func.count()).where(webhook, outbox.c.delivered_at.is_(None), outbox.c.given_up_at.is_(None))
        ).scalar_one(),
        given_up=[str(error) for error, _ in given_up if not _is_withdrawn(error)],
        accepted=frozenset(
            event_id for call_id, step, received_at, _, event_id in steps
            if step == "press" and accepted_at.get(call_id, -1) >= received_at
        ),
        withdrawn=frozenset(
            json.loads(notification)["facts"].get("event_id", "") for error, notification in given_up
            if _is_withdrawn(error)
        ),
        gaps=tx.execute(select(func.count()).select_from(gap)).scalar_one(),
        series_behind=any(found.get("series", 0) < found.get("twin", 0) for found in positions.values()),
        refused_readings=_refused_readings(
            tx.execute(
                select(quarantine.c.device_id, quarantine.c.payload).where(
                    quarantine.c.lane == "telemetry", quarantine.c.reason.like("time stamp%")
                )
            ).tuples()
        ),
        evicted=dict(
            tx.execute(
                select(gap.c.device_id, func.sum(gap.c.last_seq - gap.c.first_seq + 1))
                .where(gap.c.lane == "telemetry")
                .group_by(gap.c.device_id)
            )
            .tuples()
            .all()
        ),
        steps=rows,
        call_states={row.id: row.state for row in tx.execute(select(call).where(call.c.purpose != "synthetic"))},
        cleared=frozenset(call_id for call_id, step, *_ in steps if step == "clear_at_origin"),
    )  # fmt: skip


def _refused_readings(rows: Iterable[tuple[str, bytes]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for device_id, payload in rows:
        found.setdefault(device_id, []).extend(json.loads(payload)["payload"]["readings"])
    return found


def _is_withdrawn(error: str | None) -> bool:
    return (error or "").startswith("withdrawn:")


def overtaken(truths: verdict.Truths, stored: Stored, told: Collection[str]) -> set[str]:
    """Presses whose page was withdrawn while somebody had come (the devices' own log) or a person had accepted."""
    came: dict[str, int] = {}
    for line in truths.by_event_id.values():
        if line["what"] in {"attended", "cleared_at_origin"}:
            came[line["device_id"]] = max(came.get(line["device_id"], 0), line["at_ms"])
    return {
        one
        for one, line in truths.presses.items()
        if one not in told
        and one in stored.withdrawn
        and (one in stored.accepted or came.get(line["device_id"], -1) >= line["at_ms"])
    }


@dataclass(slots=True)
class Finding:
    """One class of things: how many there were, and what became of them."""

    happened: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)

    def as_figures(self) -> dict[str, Any]:
        """For the JSON document: numbers, and the first names of what went wrong."""
        figures: dict[str, Any] = {"happened": self.happened, "lost": len(self.lost), "doubled": len(self.doubled)}
        if self.lost:
            figures["lost_first"] = self.lost[:NAMED_MAX]
        if self.doubled:
            figures["doubled_first"] = self.doubled[:NAMED_MAX]
        return figures


def arrived(truth: Sequence[dict[str, Any]], stored: Stored, notices: Sequence[dict[str, Any]]) -> bool:
    """Whether every event is stored and every press told, and nothing is still to be delivered."""
    truths = verdict.truths_of(truth, _EVER)
    told = _told(truths, notices)
    return (
        not verdict.missing_events(truths, stored.events)
        and len(told) + len(overtaken(truths, stored, told)) == len(truths.presses)
        and stored.undelivered == 0
        and not stored.series_behind
    )


_EVER: Final = 1 << 62


def judge(
    truth: Sequence[dict[str, Any]], stored: Stored, notices: Sequence[dict[str, Any]], readings: Readings, *,
    windows: Sequence[Window], wrong_clocks: Sequence[WrongClock] = (), full_until_s: float = 0.0, until_ms: int,
    ordered: Collection[str],
) -> tuple[dict[str, Finding], dict[str, float]]:  # fmt: skip
    """(findings by class, real ms from each press to the receiver's 2xx).

    `full_until_s`: the end of the last spell in which an edge disk was full (0: none). `until_ms`: readings after it
    need not be in the series; `ordered`: ids of the commands the people got from the API.
    """
    truths = verdict.truths_of(truth, _EVER)
    truth = promised(truth, windows)
    truth = restamped(truth, readings, wrong_clocks, stored.refused_readings)
    truth = without_evicted(truth, readings, stored.evicted, full_until_s)
    latencies = _told(truths, notices)
    where = {line["event_id"]: f"{line['device_id']} {line['what']} {line['event_id']}" for line in truth}
    missing = verdict.missing_events(truths, stored.events)
    surplus = verdict.doubled_events(set(truths.by_event_id), stored.events)
    events = Finding(
        len(truths.by_event_id),
        [f"{where[one]}: happened, not in the database" for one in sorted(missing)],
        [f"{where.get(one, one)}: stored twice or never happened" for one in surplus],
    )
    return {
        "presses": _presses(truths, stored, latencies, where),
        "events": events,
        "notices": _notices(truths, stored, notices),
        "telemetry": _telemetry(truth, readings, until_ms),
        "commands": _commands(truth, stored, ordered),
    }, latencies


def _told(truths: verdict.Truths, notices: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Real ms from each press to the first notice of it: under its id, or that of its second asking (`on_repeat`)."""
    second = {identity("again", one): one for one in truths.presses}
    named = []
    for notice in notices:
        facts = notice["notification"]["facts"]
        press = second.get(facts.get("event_id", ""))
        if press is not None:
            facts = {**facts, "event_id": press}
        named.append({**notice, "notification": {**notice["notification"], "facts": facts}})
    return verdict.notified_presses(truths, named)


def _presses(
    truths: verdict.Truths, stored: Stored, latencies: Mapping[str, float], where: Mapping[str, str]
) -> Finding:
    in_database = {row["event_id"] for row in stored.events}
    taken = Counter(stored.press_transitions)
    lost = []
    excused = overtaken(truths, stored, latencies)
    for one in sorted(truths.presses):
        if (one not in latencies and one not in excused) or taken[one] == 0:
            seen = "truth" + " → database" * (one in in_database) + " → call" * (taken[one] > 0)
            lost.append(f"{where[one]}: last seen in {seen}")
    doubled = [f"{where.get(one, one)}: taken for {count} presses" for one, count in taken.items() if count > 1]
    # A press that came out of turn asks again, once, if the end of an older call then closed its own.
    again = {identity("again", one) for one in truths.presses}
    doubled += [f"{one}: a call that nobody pressed" for one in taken if one not in truths.presses and one not in again]
    return Finding(len(truths.presses), lost, doubled)


def _notices(truths: verdict.Truths, stored: Stored, notices: Sequence[dict[str, Any]]) -> Finding:
    """A phone rings once for a press, under whatever ids; again only if its call was ended in between."""
    doubled = list(outcomes.doubled_notice_names(notices))
    press_of = {identity("again", one): one for one in truths.presses} | {one: one for one in truths.presses}
    told: dict[str, list[tuple[str, str]]] = {}
    for found in (notice["notification"] for notice in notices):
        event_id = found["facts"].get("event_id")
        if found["kind_of"] == "call" and found["facts"].get("step") == "press" and event_id in press_of:
            calls = told.setdefault(press_of[event_id], [])
            if (found["reference"], event_id) not in calls:
                calls.append((found["reference"], event_id))
    for press, calls in told.items():
        for (before, _), (after, _) in pairwise(calls):
            if before == after or before not in stored.cleared:
                doubled.append(f"press {press}: told in call {before}, which nobody had ended, and again in {after}")
    return Finding(len({notice["delivery_id"] for notice in notices}), [], doubled)


def _telemetry(truth: Sequence[dict[str, Any]], readings: Readings, until_ms: int) -> Finding:
    found = outcomes.telemetry_differences(LOGGED_IN_FULL, truth, readings, until_ms)
    return Finding(found.compared, list(found.lost), list(found.doubled))


def _commands(truth: Sequence[dict[str, Any]], stored: Stored, ordered: Collection[str]) -> Finding:
    """An actuation per id at most, and none that nobody ordered; an order the cloud took may not vanish."""
    moved = Counter(
        line["facts"]["command_id"] for line in truth if line["what"] == "lock_opened" and line["facts"]["command_id"]
    )
    lost = [f"command {one}: taken by the API, not in the database" for one in ordered if one not in stored.commands]
    doubled = [f"command {one}: carried out {count} times" for one, count in moved.items() if count > 1]
    doubled += [f"command {one}: carried out, never ordered" for one in moved if one not in stored.commands]
    return Finding(len(stored.commands), lost, doubled)
