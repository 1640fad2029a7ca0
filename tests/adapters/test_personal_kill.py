"""Real kills of the process that pages people, between its steps: nobody is forgotten, repeats carry the same id."""

import asyncio
import json
import os
import random
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest

from cloud.adapters.notify import words
from cloud.adapters.notify.gateway import GatewayChannel
from cloud.adapters.sql.database import SqlDatabase
from cloud.dispatch.outbox import Outbox
from cloud.dispatch.planner import Dispatch
from cloud.tables import contact_point, delivery_attempt, outbox
from fleet import milestones
from fleet.clock import ManualClock
from tests.adapters.http_receiver import http_receiver
from tests.unit.delivery_cases import add_crew, on_shift, row_state, sqlite_database
from tests.unit.dispatch_cases import NOW, acknowledge, decided, press, rows

BODY = '{"to": "{address}", "text": "{text}", "id": "{delivery_id}"}'
CHANNELS = ("push", "chat", "sms")
PRESSES = 4
DISPATCH = Dispatch(CHANNELS)
ROOT = Path(__file__).parents[2]


def own_rows(database):
    return [row for row in database.read_here(lambda tx: rows(tx, outbox)) if row["contact_id"]]


async def worker(folder: str, url: str, milestone: str, count: str) -> None:
    """The process of the test: delivers until nothing waits, or ends with SIGKILL at a milestone."""
    database, left, written = SqlDatabase(f"sqlite:///{folder}/state.db"), int(count), asyncio.Event()

    def look_on(name):
        nonlocal left
        if name == "dispatch.after_delivered_mark":
            written.set()
        if name == milestone:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    milestones.observe(look_on)
    channels = [GatewayChannel(name, url, BODY, link=words.nowhere, allow_private=True) for name in CHANNELS]
    for channel in channels:
        await channel.__aenter__()
    workers = Outbox(
        database, ManualClock(NOW + 60_000), [], personal=channels, real_now_ms=lambda: NOW,
        randomness=random.Random(1), owner=str(os.getpid()), sole_owner=True, poll_s=0.02,
    )  # fmt: skip
    task = asyncio.create_task(workers.run())
    while any(row_state(row) == "waiting" for row in own_rows(database)):
        written.clear()
        await written.wait()
    task.cancel()


async def run(folder, url, milestone="", count=1):
    code = (
        "import asyncio, sys; from tests.adapters.test_personal_kill import worker; asyncio.run(worker(*sys.argv[1:]))"
    )
    given = str(folder), url, milestone, str(count)
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, *given, cwd=ROOT)
    async with asyncio.timeout(60):
        return await process.wait()


@pytest.mark.parametrize(
    ("milestone", "count"),
    [("dispatch.after_delivery", 5), ("dispatch.after_lease", 1), ("dispatch.before_delivered_mark", 1)],
)
async def test_who_was_to_be_paged_is_paged_after_a_kill(tmp_path, milestone, count):
    database = sqlite_database(tmp_path)

    def fill(tx):
        add_crew(tx, {"ann": CHANNELS, "bob": CHANNELS})
        on_shift(tx, "on_call", "ann", "bob")
        DISPATCH.plan(tx, decided(*(press(number) for number in range(1, PRESSES + 1))), NOW)

    database.write_here(fill)
    planned = {row["delivery_id"] for row in own_rows(database)}
    assert len(planned) == PRESSES * 2 * len(CHANNELS)
    async with http_receiver() as receiver:
        assert await run(tmp_path, receiver.url, milestone, count) == -signal.SIGKILL
        reached = len(receiver.got)
        assert (reached > 0) is (milestone != "dispatch.after_lease")
        waiting = [row for row in own_rows(database) if row_state(row) == "waiting"]
        assert waiting, "the kill came too late to be one"
        # Meanwhile somebody accepts one of them: what was not sent of it by then never is.
        database.write_here(lambda tx: DISPATCH.plan(tx, decided(acknowledge(at=NOW, actor="ann")), NOW))
        accepted = {row["delivery_id"] for row in waiting if row["reference"] == "call-1"}
        assert await run(tmp_path, receiver.url) == 0
    got = Counter(json.loads(one.body)["id"] for one in receiver.got)
    after = Counter(json.loads(one.body)["id"] for one in receiver.got[reached:])
    assert set(got) >= planned - accepted, "somebody was forgotten"
    assert not accepted & set(after), "paged after the acknowledgement"
    assert max(got.values()) <= 2
    assert {row_state(row) for row in own_rows(database)} <= {"delivered", "withdrawn"}
    log = database.read_here(lambda tx: rows(tx, delivery_attempt))
    delivered = Counter(row["delivery_id"] for row in log if row["outcome"] == "delivered")
    assert set(delivered) >= planned - accepted
    assert set(delivered.values()) == {1}, "each delivery stands once in the log, however often it was sent"
    works = database.read_here(lambda tx: rows(tx, contact_point))
    assert all(row["delivered_at"] is not None for row in works)
    database.close()
