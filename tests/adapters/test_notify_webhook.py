"""The webhook against a real HTTP receiver on loopback, alone and behind the outbox."""

import asyncio
import json
import random

import pytest

from cloud.adapters.notify.inbox import InboxChannel
from cloud.adapters.notify.webhook import WebhookChannel, signature_of
from cloud.api.changes import Changes
from cloud.dispatch.outbox import Outbox
from cloud.dispatch.planner import Dispatch
from cloud.model import Notification
from cloud.ports import NotDeliveredError
from fleet.clock import ManualClock
from tests.adapters.http_receiver import http_receiver
from tests.unit.dispatch_cases import NOW, Watched, decided, press

pytest_plugins = ("tests.adapters.postgres_fixture",)

REAL_NOW = 1_700_000_000_000
NOTIFICATION = Notification("call", "call-1", "emergency", "room-001", "紧急呼叫", "Emergency call", {"a": 1}, NOW)


@pytest.fixture
async def receiver():
    async with http_receiver() as opened:
        yield opened


def channel(receiver, path="/hook", **options):
    own = {"secret": "s3cret", "real_now_ms": lambda: REAL_NOW, "allow_private": True}
    return WebhookChannel(receiver.url + path, **{**own, **options})


async def test_what_arrives_is_the_notification_signed_and_with_its_delivery_id(receiver):
    async with channel(receiver) as webhook:
        await webhook.send(NOTIFICATION, delivery_id="d" * 32)
    (got,) = receiver.got
    body = json.loads(got.body)
    assert (got.path, body["delivery_id"], got.headers["X-Fleet-Delivery"]) == ("/hook", "d" * 32, "d" * 32)
    assert body["notification"]["title_zh"] == "紧急呼叫"
    assert got.headers["X-Fleet-Timestamp"] == str(REAL_NOW)
    assert got.headers["X-Fleet-Signature"] == signature_of("s3cret", str(REAL_NOW), got.body)
    assert got.headers["X-Fleet-Signature"] != signature_of("s3cret", str(REAL_NOW + 1), got.body)


async def test_without_a_secret_nothing_is_signed(receiver):
    async with channel(receiver, secret="") as webhook:
        await webhook.send(NOTIFICATION, delivery_id="d")
    assert "X-Fleet-Signature" not in receiver.got[0].headers


async def test_connections_are_kept(receiver):
    async with channel(receiver) as webhook:
        for _ in range(5):
            await webhook.send(NOTIFICATION, delivery_id="d")
    assert len({got.peer for got in receiver.got}) == 1


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_refused(receiver, status):
    receiver.answers, receiver.headers = [status], {"Location": f"{receiver.url}/elsewhere"}
    async with channel(receiver) as webhook:
        with pytest.raises(NotDeliveredError, match=f"HTTP {status}"):
            await webhook.send(NOTIFICATION, delivery_id="d")
    assert [got.path for got in receiver.got] == ["/hook"]


@pytest.mark.parametrize("status", [400, 401, 404, 410, 429, 500, 503])
async def test_anything_but_2xx_is_no_delivery(receiver, status):
    receiver.answers = [status]
    async with channel(receiver) as webhook:
        with pytest.raises(NotDeliveredError, match=f"HTTP {status}"):
            await webhook.send(NOTIFICATION, delivery_id="d")


async def test_a_receiver_that_hangs_or_is_gone_is_no_delivery(receiver):
    receiver.hold.clear()
    async with channel(receiver, timeout_s=0.1) as webhook:
        with pytest.raises(NotDeliveredError):
            await webhook.send(NOTIFICATION, delivery_id="d")
    async with WebhookChannel(
        "http://127.0.0.1:1/", secret="", real_now_ms=lambda: REAL_NOW, allow_private=True
    ) as webhook:
        with pytest.raises(NotDeliveredError, match="Cannot connect"):
            await webhook.send(NOTIFICATION, delivery_id="d")


def test_only_http_addresses():
    with pytest.raises(ValueError, match="http"):
        WebhookChannel("file:///etc/passwd", secret="", real_now_ms=lambda: REAL_NOW)


async def test_it_must_be_open(receiver):
    with pytest.raises(RuntimeError, match="async with"):
        await channel(receiver).send(NOTIFICATION, delivery_id="d")


async def test_from_the_press_to_the_receiver_through_errors(receiver, database):
    """The commit's rows reach a receiver that fails at first: again, and under one delivery id per call."""
    receiver.answers = [500, 503]
    clock, watched = ManualClock(NOW), Watched(database)
    async with channel(receiver) as webhook, asyncio.TaskGroup() as tasks:
        channels = [InboxChannel(watched, Changes()), webhook]
        workers = Outbox(
            watched, clock, channels, real_now_ms=lambda: REAL_NOW, randomness=random.Random(1), owner="one",
            poll_s=0.02,
        )  # fmt: skip
        running = tasks.create_task(workers.run())
        dispatch = Dispatch([each.name for each in channels])
        await watched.write(lambda tx: dispatch.plan(tx, decided(press(1), press(2)), NOW))
        workers.wake()
        await watched.until(lambda rows: sum(row["last_error"] is not None for row in rows) == 2)
        clock.advance(seconds=2)
        workers.wake()
        await watched.until(lambda rows: all(row["delivered_at"] for row in rows))
        running.cancel()
    ids = [json.loads(got.body)["delivery_id"] for got in receiver.got]
    assert sorted(map(ids.count, set(ids))) == [2, 2]
