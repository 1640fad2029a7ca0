"""Samples of a process: what they say, and what becomes of them while the series is away."""

import asyncio

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram

from cloud.history.platform import WAITING_MAX, Platform
from cloud.ports import SeriesError
from fleet import series

NOW_MS = 1_800_000_000_000


class StillClock:
    speed = 1.0

    def __init__(self):
        self.real_s = 100.0

    def now_ms(self):
        return NOW_MS + round(self.real_s * 1000)

    def monotonic_s(self):
        return self.real_s


class Store:
    def __init__(self):
        self.points, self.error, self.refuses = [], None, lambda _point: False

    async def write(self, points):
        if self.error is not None:
            raise self.error
        if any(self.refuses(point) for point in points):
            raise SeriesError("400", retry_after_s=None)
        self.points.extend(points)


class Metrics:
    """Metrics with the names of the real ones, of a registry of their own."""

    def __init__(self):
        self.registry = CollectorRegistry()
        self.messages = Counter("fleet_messages_total", "m", ["lane"], registry=self.registry)
        self.quarantined = Counter("fleet_quarantined_total", "m", registry=self.registry)
        self.commits = Counter("fleet_commits_total", "m", registry=self.registry)
        self.commit_seconds = Counter("fleet_commit_seconds_total", "m", registry=self.registry)
        self.notified = Histogram(
            "fleet_press_to_notified_seconds", "m", buckets=(0.05, 0.25, 1, 5), registry=self.registry
        )
        self.requests = Counter("fleet_http_requests_total", "m", ["method", "route", "status"], registry=self.registry)
        self.seconds = Histogram(
            "fleet_http_request_seconds", "m", ["route"], buckets=(0.01, 0.1, 1), registry=self.registry
        )


@pytest.fixture
def metrics():
    return Metrics()


def platform_of(metrics, tmp_path, **extra):
    options = {"process": "all", "clock": StillClock(), "data_directory": tmp_path, "store": Store(), **extra}
    return Platform(registry=metrics.registry, **options)


async def test_a_sample_sums_metrics_over_their_labels(metrics, tmp_path):
    it = platform_of(metrics, tmp_path, extras=[lambda: {"spool_bytes": 17, "series_state": "flowing"}])
    metrics.messages.labels("telemetry").inc(90)
    metrics.messages.labels("event").inc(10)
    metrics.quarantined.inc(3)
    for status in ("200", "404", "422", "500"):
        metrics.requests.labels("GET", "/a", status).inc(2)
    fields = (await it.take(late_ms=7)).fields
    expected = {
        "messages_total": 103, "accepted_total": 100, "quarantined_total": 3, "api_requests_total": 8,
        "api_refused_total": 4, "api_errors_total": 2, "spool_bytes": 17, "series_state": "flowing", "loop_late_ms": 7,
        "uptime_s": 0.0, "samples_lost_total": 0,
    }  # fmt: skip
    assert {name: fields[name] for name in expected} == expected
    assert fields["disk_free_bytes"] > 0
    assert "commit_ms_mean" not in fields
    assert "press_to_notified_ms_p99" not in fields


async def test_means_and_quantiles_are_of_the_time_since_the_sample_before(metrics, tmp_path):
    it = platform_of(metrics, tmp_path)
    metrics.commits.inc(100)
    metrics.commit_seconds.inc(50)
    metrics.seconds.labels("/slow").observe(0.9)
    await it.take()
    metrics.commits.inc(4)
    metrics.commit_seconds.inc(0.02)
    for _ in range(19):
        metrics.seconds.labels("/a").observe(0.005)
    metrics.seconds.labels("/b").observe(0.06)
    for took_s in (*[0.04] * 98, 0.3, 0.3):
        metrics.notified.observe(took_s)
    fields = (await it.take()).fields
    assert fields["commit_ms_mean"] == 5.0
    assert fields["api_ms_p95"] == 10.0
    assert fields["api_ms_mean"] == pytest.approx((19 * 5 + 60) / 20)
    assert fields["press_to_notified_ms_p99"] == 1000.0
    assert fields["press_to_notified_total"] == 100


async def test_values_keep_the_type_the_vocabulary_gives_them(metrics, tmp_path):
    it = platform_of(metrics, tmp_path, extras=[lambda: {"synthetic_age_ms": 1500.0, "broker_connected": 1}])
    sample = await it.take()
    types = {one.name: one.value_type for one in series.PLATFORM.fields}
    assert {name: type(value) for name, value in sample.fields.items()} == {name: types[name] for name in sample.fields}
    always = {one.name for one in series.PLATFORM.fields if not one.optional}
    assert always <= set(sample.fields)


async def test_samples_wait_for_the_series_up_to_a_bound_and_the_lost_ones_are_counted(metrics, tmp_path):
    it = platform_of(metrics, tmp_path)
    it.store.error = SeriesError("down", retry_after_s=1.0)
    for _ in range(WAITING_MAX + 25):
        it.clock.real_s += 10
        await it.take()
        assert await it.write() == 1.0
    assert len(it.waiting) == WAITING_MAX
    assert it.lost == 25
    it.store.error = None
    assert await it.write() == 0.0
    assert len(it.store.points) == WAITING_MAX
    assert not it.waiting
    it.clock.real_s += 10
    assert (await it.take()).fields["samples_lost_total"] == 25


async def test_a_sample_the_series_never_takes_stops_no_other(metrics, tmp_path):
    it = platform_of(metrics, tmp_path)
    samples = []
    for _ in range(3):
        it.clock.real_s += 10
        samples.append(await it.take())
    it.store.refuses = lambda point: point is samples[1]
    assert await it.write() == 0.0
    assert it.store.points == [samples[0], samples[2]]
    assert it.lost == 1


async def test_samples_are_taken_on_time_while_a_write_hangs(metrics, tmp_path):
    taken, hanging = [], asyncio.Event()

    class Hanging:
        async def write(self, _points):
            hanging.set()
            await asyncio.Event().wait()

    async def sleep(seconds):
        taken.append(seconds)
        it.clock.real_s += seconds + 0.25  # the loop is late every time
        await asyncio.sleep(0)
        if len(taken) == 5:
            task.cancel()
            await asyncio.Event().wait()

    it = platform_of(metrics, tmp_path, store=Hanging(), sleep=sleep)
    task = asyncio.ensure_future(it.run())
    await asyncio.wait({task})
    assert hanging.is_set()
    assert len(it.waiting) == 5
    assert [point.fields["loop_late_ms"] for point in it.waiting] == [0, 250, 250, 250, 250]
    assert taken == [10.0, 9.75, 9.75, 9.75, 9.75]
