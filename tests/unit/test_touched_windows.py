"""Windows that wait for their roll-up: nothing that was written is forgotten, nothing is rolled up too early."""

import asyncio

import pytest

from cloud.ports import SeriesAccessError, SeriesError
from cloud.timeseries import touched
from cloud.timeseries.levels import HOUR, MINUTE
from cloud.timeseries.points import Point
from cloud.timeseries.rollup import Rollup, RollupOptions, RollupState, TrackedSeries
from cloud.timeseries.touched import TouchedWindows

MINUTE_MS = 60_000
HOUR_MS = 3_600_000
START_MS = 1_800_000_000_000 // HOUR_MS * HOUR_MS


def point(minute, kind="bike"):
    return Point(kind, "bike-001", (START_MS + minute * MINUTE_MS) * 1_000_000 + 17, {"message_seq": 1})


class Clock:
    speed = 1.0

    def __init__(self, now_ms):
        self.at_ms = now_ms

    def now_ms(self):
        return self.at_ms

    def monotonic_s(self):
        return self.at_ms / 1000


class Store:
    """Notes what it is asked to roll; `refuse` raises for a stretch."""

    def __init__(self, refuse=None):
        self.rolled, self.refuse = [], refuse

    async def roll(self, level, measurement, from_ms, until_ms):
        if self.refuse is not None:
            self.refuse(measurement)
        minutes = [(one - START_MS) // MINUTE_MS for one in (from_ms, until_ms)]
        self.rolled.append((level.policy, measurement, *minutes))
        return 1


async def no_sleep(_seconds):
    await asyncio.sleep(0)


def rollup(store, windows, now_minute, **options):
    return Rollup(
        store, windows, Clock(START_MS + now_minute * MINUTE_MS), sleep=no_sleep,
        options=RollupOptions(settle_ms=0, **options),
    )  # fmt: skip


async def test_neighbouring_minutes_are_rolled_together_newest_first_once_they_are_over(tmp_path):
    windows, store = TouchedWindows(tmp_path / "windows.json"), Store()
    await windows.mark([point(minute) for minute in (0, 1, 2, 9, 10)])
    work = rollup(store, windows, 10)
    assert await work.work_off()
    assert store.rolled == [("minute", "bike", 9, 10), ("minute", "bike", 0, 3)]
    assert [stretch[0] for stretch in windows.due(START_MS + HOUR_MS, 60)] == [HOUR, MINUTE]
    assert windows.count == 2  # minute 10 is not over, nor is the hour


async def test_steps_are_copied_into_both_levels(tmp_path):
    windows, store = TouchedWindows(tmp_path / "windows.json"), Store()
    await windows.mark([point(3, "call_step")])
    await rollup(store, windows, 60).work_off()
    assert sorted(store.rolled) == [("hour", "call_step", 0, 60), ("minute", "call_step", 3, 4)]
    assert windows.count == 0


async def test_what_is_marked_while_it_is_rolled_up_waits_again(tmp_path):
    windows = TouchedWindows(tmp_path / "windows.json")
    await windows.mark([point(0)])
    (stretch,) = [one for one in windows.due(START_MS + MINUTE_MS, 60) if one.level is MINUTE]
    await windows.mark([point(0)])  # late, between the roll-up's read and its end
    await windows.done(stretch)
    assert [one.first for one in windows.due(START_MS + MINUTE_MS, 60)] == [START_MS // MINUTE_MS]


async def test_a_killed_process_forgets_no_window_and_repeats_at_most(tmp_path):
    path = tmp_path / "windows.json"
    windows = TouchedWindows(path)
    await windows.mark([point(minute) for minute in range(5)])
    (hour, minutes) = windows.due(START_MS + HOUR_MS, 60)
    again = TouchedWindows(path)  # as after kill -9: nothing was closed
    assert again.due(START_MS + HOUR_MS, 60) == [hour._replace(mark=0), minutes._replace(mark=0)]
    await again.done(again.due(START_MS + HOUR_MS, 60)[1])
    assert [one.level for one in TouchedWindows(path).due(START_MS + HOUR_MS, 60)] == [HOUR]


async def test_a_long_stretch_is_cut(tmp_path):
    windows, store = TouchedWindows(tmp_path / "windows.json"), Store()
    await windows.mark([point(minute) for minute in range(130)])
    await rollup(store, windows, 130, windows_max=60).work_off()
    assert [one[2:] for one in store.rolled if one[0] == "minute"] == [(120, 130), (60, 120), (0, 60)]


async def test_at_the_bound_the_oldest_windows_are_given_up_and_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(touched, "WINDOWS_MAX", 10)
    windows = TouchedWindows(tmp_path / "windows.json")
    await windows.mark([point(minute) for minute in range(30)])
    assert (windows.count, windows.given_up) == (10, 21)
    due = windows.due(START_MS + HOUR_MS, 60)
    assert max(stretch.until_ms for stretch in due if stretch.level is MINUTE) == START_MS + 30 * MINUTE_MS


@pytest.mark.parametrize("content", [b"", b"{", b'{"windows": 3}'])
async def test_an_unreadable_file_is_begun_anew(tmp_path, content):
    path = tmp_path / "windows.json"
    path.write_bytes(content)
    windows = TouchedWindows(path)
    await windows.mark([point(0)])
    assert TouchedWindows(path).count == windows.count == 2


async def test_points_are_marked_after_they_are_written_and_not_if_they_were_refused(tmp_path):
    windows = TouchedWindows(tmp_path / "windows.json")

    class Sink:
        refuses = True

        async def write(self, _points):
            assert windows.count == 0
            if self.refuses:
                raise SeriesError("no", retry_after_s=None)

    sink = Sink()
    tracked = TrackedSeries(sink, windows)
    with pytest.raises(SeriesError):
        await tracked.write([point(0)])
    assert windows.count == 0
    sink.refuses = False
    await tracked.write([point(0)])
    assert windows.count == 2


async def test_a_disk_that_fails_makes_the_writer_try_again(tmp_path):
    windows = TouchedWindows(tmp_path / "missing" / "windows.json")
    with pytest.raises(SeriesError) as caught:
        await windows.mark([point(0)])
    assert caught.value.retry_after_s is not None
    (tmp_path / "missing").mkdir()
    await windows.mark([point(0)])  # the same points again: now it must be kept
    assert TouchedWindows(tmp_path / "missing" / "windows.json").count == 2


async def test_it_stands_back_while_live_data_needs_the_store(tmp_path):
    windows, store = TouchedWindows(tmp_path / "windows.json"), Store()
    await windows.mark([point(0)])
    answers = [True, True, False]
    work = Rollup(
        store, windows, Clock(START_MS + MINUTE_MS), sleep=no_sleep, options=RollupOptions(settle_ms=0),
        is_busy=lambda: answers.pop(0),
    )  # fmt: skip
    await work.work_off()
    assert (answers, len(store.rolled)) == ([], 1)


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (SeriesError("HTTP 503", retry_after_s=1.0), RollupState.WAITING),
        (SeriesAccessError("retention policy not found", retry_after_s=1.0), RollupState.NO_ACCESS),
        (SeriesError("HTTP 400", retry_after_s=None), RollupState.WAITING),
    ],
)
async def test_a_refusal_keeps_the_windows(tmp_path, error, state):
    windows = TouchedWindows(tmp_path / "windows.json")
    await windows.mark([point(0), point(0, "meal_machine")])

    def refuse(measurement):
        if measurement == "bike":
            raise error

    store = Store(refuse)
    work = rollup(store, windows, 1)
    assert await work.work_off() is False
    assert work.state is state
    assert ("minute", "meal_machine", 0, 1) in store.rolled or error.retry_after_s is not None
    store.refuse = None
    assert await work.work_off()
    assert work.state is RollupState.WORKING
    assert {one[1] for one in store.rolled} == {"bike", "meal_machine"}
