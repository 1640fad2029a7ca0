"""What the cloud holds after an ingest bench, compared with what was sent: without that a figure is worth nothing."""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Connection, select

from cli.bench.ingest_load import Fleet, sent_reading
from cli.bench.load import LOW_BATTERY_DEVICES, bench_device
from cli.bench.rig import BenchError
from cloud.tables import alarm, quarantine, twin
from cloud.timeseries import segments

DIFFERENCES_SHOWN_MAX = 5


@dataclass(frozen=True, slots=True)
class Held:
    """What the database says: per device its mark and its latest reading; who has an alarm; how much was set aside."""

    marks: dict[str, int]
    readings: dict[str, dict[str, Any]]
    alarmed: set[str]
    quarantined: int


def held(tx: Connection) -> Held:
    """Read it."""
    rows = tx.execute(select(twin.c.device_id, twin.c.telemetry_seq, twin.c.state)).all()
    alarmed = tx.execute(select(alarm.c.device_id).where(alarm.c.key != "silent")).scalars()
    return Held(
        {device_id: seq for device_id, seq, _ in rows},
        {device_id: msgspec.json.decode(state)["reading"] for device_id, _, state in rows},
        set(alarmed),
        len(tx.execute(select(quarantine.c.id)).all()),
    )


def compare_database(found: Held, fleet: Fleet, last_seq: int) -> None:
    """Every twin at its device's last message and reading, an alarm where one is due, nothing set aside.

    Raises:
        BenchError: anything differs.
    """
    names = [bench_device(number) for number in range(fleet.devices)]
    behind = [name for name in names if found.marks.get(name) != last_seq]
    if behind:
        raise BenchError(f"{len(behind)} twins are not at message {last_seq}: {_shown(behind)}")
    for number, name in enumerate(names):
        sent = sent_reading(fleet, number, last_seq)
        if (have := found.readings[name]) != have | sent:
            raise BenchError(f"the twin of {name} holds {have} where {sent} was sent")
    expected = {bench_device(number) for number in range(LOW_BATTERY_DEVICES)}
    if found.alarmed != expected:
        raise BenchError(
            f"alarms for {_shown(found.alarmed ^ expected)} are not what the messages ask for: are the rules on?"
        )
    if found.quarantined:
        raise BenchError(f"{found.quarantined} messages were set aside, although all of them are good")


class _Header(msgspec.Struct):
    device_id: str
    seq: int


def compare_spool(directory: Path, fleet: Fleet, last_seq: int) -> None:
    """Every device's messages in the spool, in order and without a hole up to the last one.

    Without a series the spool lets go of what the twins hold; what is left of each device leads up to its mark.

    Raises:
        BenchError: a message is missing, doubled or out of order.
    """
    last: dict[str, int] = {}
    first: dict[str, int] = {}
    for records in _batches(directory):
        for record in records:
            before = last.get(record.device_id)
            if before is None:
                first[record.device_id] = record.seq
            elif record.seq != before + 1:
                raise BenchError(f"in the spool, {record.device_id}'s message {record.seq} follows {before}")
            last[record.device_id] = record.seq
    starts = segments.segment_positions(directory)
    released = bool(starts) and starts[0] > 0
    for number in range(fleet.devices):
        name = bench_device(number)
        if released and (name not in last or last[name] == last_seq):
            continue
        if first.get(name) != 1 or last.get(name) != last_seq:
            there = f"messages {first.get(name)} to {last.get(name)} of {last_seq}"
            raise BenchError(f"the spool does not hold what {name} sent: {there}")


def batch_sizes(directory: Path, measured: range) -> dict[str, float] | None:
    """Messages per spool batch, of those that begin with a message in `measured`; None where it let go of all."""
    sizes = [len(records) for records in _batches(directory) if records[0].seq in measured]
    if not sizes:
        return None
    return {
        "mean": round(statistics.fmean(sizes), 1),
        "p50": float(statistics.median_high(sizes)),
        "max": float(max(sizes)),
    }


def _batches(directory: Path) -> Iterator[list[_Header]]:
    """Heads of the messages of every batch, as they were made durable; what is let go of meanwhile is passed over."""
    decode = msgspec.json.Decoder(_Header).decode
    for start in segments.segment_positions(directory):
        try:
            data = segments.segment_path(directory, start).read_bytes()
        except FileNotFoundError:
            continue
        for frame in segments.frames(data):
            yield [decode(raw) for raw in segments.records_of(data, frame)[0]]


def _shown(names: Any) -> str:
    listed = sorted(names)
    more = f" and {len(listed) - DIFFERENCES_SHOWN_MAX} more" if len(listed) > DIFFERENCES_SHOWN_MAX else ""
    return ", ".join(listed[:DIFFERENCES_SHOWN_MAX]) + more
