"""How long the queries of every board take on a real InfluxDB that holds weeks of the whole fleet."""

import re
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

from cli.bars import bar
from cli.bench.rig import BenchError
from cli.clock import real_now_ms
from cli.dashboards.influx import InfluxError, InfluxReader
from cli.sample.store import SampleError, SampleStore
from cloud.timeseries.levels import DATABASE
from dashboards.build import build_all
from dashboards.check import Outcome, run_board
from dashboards.queries import Span

SEED: Final = 1
REPEATS: Final = 3
MS_MAX: Final = 200.0
ZONE: Final = ZoneInfo("Asia/Shanghai")
SLOWEST: Final = 15
_RANGE: Final = re.compile(r"\?from=now-(\d+)h&to=now&var-resolution=(\w+)")


def measure(directory: Path, days: float, devices: int) -> dict[str, Any]:
    """Fill the folder if it is not yet, then run every query of every board for each of the ranges it offers.

    A query's time is the middle one of three, from request to the last byte. Raises BenchError.
    """
    try:
        with SampleStore(directory, days=days, devices=devices, seed=SEED, end_ms=real_now_ms()) as store:
            store.fill()
            with InfluxReader(store.url, DATABASE, "") as reader:
                rows = list(_times(reader, store))
    except (SampleError, InfluxError) as error:
        raise BenchError(str(error)) from error
    failed = [row for row in rows if row["error"]]
    if failed:
        raise BenchError(f"{failed[0]['board']} {failed[0]['panel']!r}: {failed[0]['error']}")
    panels = sorted((row for row in rows if row["place"] == "panel"), key=lambda row: -row["ms"])
    times = [row["ms"] for row in panels]
    return {
        "days": days, "devices": sum(map(len, store.fleet.devices.values())), "queries": len(panels),
        "slowest_ms": times[0], "p95_ms": times[len(times) // 20], "median_ms": statistics.median(times),
        "above_ms_max": sum(ms > MS_MAX for ms in times), "ms_max": MS_MAX,
        "slowest_first_look_ms": max(row["first_ms"] for row in panels),
        "without_rows": sorted({f"{row['board']}: {row['panel']}" for row in panels if not row["rows"]}),
        "slowest": panels[:SLOWEST],
        "others_slowest_ms": max((row["ms"] for row in rows if row["place"] != "panel"), default=0.0),
    }  # fmt: skip


def _times(reader: InfluxReader, store: SampleStore) -> Iterator[Mapping[str, Any]]:
    boards = build_all("en")
    with bar("asking", sum(len(_offered(board)) for board in boards.values())) as advance:
        for uid, board in boards.items():
            for hours, resolution in _offered(board):
                span = Span(max(store.start_ms, store.end_ms - hours * 3_600_000), store.end_ms, ZONE)
                runs = [list(run_board(board, reader.run, span, {"resolution": [resolution]})) for _ in range(REPEATS)]
                for same in zip(*runs, strict=True):
                    yield _row(uid, f"{hours // 24} d, {resolution}", same)
                advance(1)


def _offered(board: Mapping[str, Any]) -> list[tuple[int, str]]:
    """(hours, resolution) of the links at the top of the board; the first is how it opens."""
    found = (_RANGE.search(str(link.get("url") or "")) for link in board["links"])
    return [(int(one[1]), one[2]) for one in found if one]


def _row(uid: str, shown: str, same: tuple[Outcome, ...]) -> Mapping[str, Any]:
    first = same[0]
    return {
        "board": uid, "place": first.query.place, "panel": first.query.name, "ref": first.query.ref, "shown": shown,
        "ms": round(statistics.median(one.answer.ms for one in same), 1), "first_ms": round(first.answer.ms, 1),
        "rows": first.answer.rows, "error": first.answer.error, "query": first.filled.text,
    }  # fmt: skip
