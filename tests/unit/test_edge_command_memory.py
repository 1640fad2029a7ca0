"""What a device remembers of commands: bounded, and never so that an id could move something twice."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from edge.journal import Journal
from edge.records import Admission, Bounds, CommandRecord
from fleet import milestones
from fleet.messages import ReplyStatus
from fleet.topics import DownChannel, UpChannel
from tests.edge_support import DEVICE, QUICK, Rig, doorbell_kind, eventually

RING = {"action": "ring", "times": 1}
NOW_MS = 1_800_000_000_000
YEARS_MS = 10 * 365 * 86_400_000


@pytest.fixture(autouse=True)
def kind():
    with doorbell_kind() as kind:
        yield kind


@asynccontextmanager
async def journal(tmp_path, commands_max=8):
    opened = Journal(tmp_path / "j", bounds=Bounds(commands_max=commands_max))
    async with asyncio.TaskGroup() as group:
        running = group.create_task(opened.run())
        yield opened
        opened.close()
        await running
    opened.shut()


def record(number, not_after, status=ReplyStatus.SUCCEEDED):
    return CommandRecord(f"{number:032x}", status, "", NOW_MS, reply_acknowledged=False, not_after=not_after)


async def reconnect(rig):
    """A new connection, and so a new welcome with the cloud's time."""
    before = rig.agent.counts["connects"]
    rig.link.cut(up=True)
    await eventually(lambda: rig.agent.counts["connects"] > before and rig.agent.connected)


async def known(journal, number, not_after):
    return await journal.read(lambda store: store.known_command(DEVICE, f"{number:032x}", not_after))


async def test_at_the_bound_what_is_over_makes_room_and_is_never_taken_for_new(tmp_path):
    async with journal(tmp_path) as kept:
        for number in range(30):
            taken = await kept.remember_command(DEVICE, record(number, NOW_MS + number), NOW_MS + number + 1)
            assert taken is Admission.NEW
    async with journal(tmp_path) as kept:  # after a restart
        for number in range(30):
            record_now, forgotten = await known(kept, number, NOW_MS + number)
            assert record_now is not None or forgotten, f"command {number} would be carried out again"
        assert (await known(kept, 99, NOW_MS + 100)) == (None, False)
        rows = await kept.read(lambda store: len(store.open_commands(DEVICE)))
        assert rows <= 8


async def test_ids_that_may_still_come_are_not_forgotten(tmp_path):
    async with journal(tmp_path) as kept:
        for number in range(8):
            assert await kept.remember_command(DEVICE, record(number, NOW_MS + 5_000), NOW_MS) is Admission.NEW
        assert await kept.remember_command(DEVICE, record(8, NOW_MS + 5_000), NOW_MS) is Admission.FULL
        assert await kept.remember_command(DEVICE, record(8, NOW_MS + 5_000), None) is Admission.FULL
        assert await kept.remember_command(DEVICE, record(3, NOW_MS + 5_000), NOW_MS) is Admission.SEEN
        later = record(8, NOW_MS + 9_000)
        assert await kept.remember_command(DEVICE, later, NOW_MS + 5_001) is Admission.NEW


async def test_commands_that_still_run_are_not_forgotten(tmp_path):
    async with journal(tmp_path) as kept:
        for number in range(8):
            await kept.remember_command(DEVICE, record(number, NOW_MS, ReplyStatus.ACCEPTED), NOW_MS)
        assert await kept.remember_command(DEVICE, record(8, NOW_MS + 9), NOW_MS + 5) is Admission.FULL


async def test_a_cloud_whose_clock_was_years_ahead_does_not_fill_the_memory_for_years(tmp_path):
    async with journal(tmp_path) as kept:
        for number in range(8):
            await kept.remember_command(DEVICE, record(number, NOW_MS + YEARS_MS + number), NOW_MS + YEARS_MS)
        assert await kept.remember_command(DEVICE, record(8, NOW_MS + 9), NOW_MS) is Admission.NEW
        for number in range(8):
            record_now, forgotten = await known(kept, number, NOW_MS + YEARS_MS + number)
            assert record_now is not None or forgotten
        assert (await known(kept, 99, NOW_MS + 100)) == (None, False), "what is sent now is taken"


async def test_a_forgotten_command_never_moves_again_even_if_the_cloud_s_clock_goes_back(tmp_path):
    rig = Rig(tmp_path, bounds=Bounds(commands_max=4))
    async with rig.running():
        orders = [
            rig.cloud.command(DEVICE, RING, command_id=f"{number:032x}", lifetime_ms=4_000) for number in range(4)
        ]
        for number, data in enumerate(orders):
            rig.link.send(DownChannel.COMMAND, data)
            await eventually(lambda number=number: rig.bell.heard(f"C {number:032x} 1") == 1)
            rig.bell.say(f"D {number:032x}")
            await eventually(lambda number=number: rig.replies(f"{number:032x}")[-1:] == [("succeeded", "")])
        rig.clock.skew_ms += 5_000
        await reconnect(rig)
        rig.command(RING, command_id="e" * 32)
        await eventually(lambda: rig.bell.heard(f"C {'e' * 32} 1") == 1)
        rig.clock.skew_ms -= 9_000  # the cloud is set back: by its word the old ones are in time again
        await reconnect(rig)
        for data in orders:
            rig.link.send(DownChannel.COMMAND, data)
        counts = rig.agent.downlink.counts
        await eventually(lambda: counts["replayed"] + counts["refused_forgotten"] == 4)
        assert counts["refused_forgotten"] >= 1
        assert [rig.bell.heard(f"C {number:032x} 1") for number in range(4)] == [1, 1, 1, 1]


class Killed(BaseException):
    """The process ends here, as by SIGKILL: nothing after it is written."""


@pytest.mark.parametrize(
    ("point", "moved_before", "answer"),
    [
        ("edge.command.after_remember", 0, ("failed", "unknown")),
        ("edge.command.before_execute", 0, ("failed", "unknown")),
        ("edge.command.after_execute", 1, ("failed", "unknown")),
    ],
)
async def test_a_kill_anywhere_between_remembering_and_the_end_moves_at_most_once(
    tmp_path, point, moved_before, answer
):
    first = Rig(tmp_path)

    def die(name):
        if name == point:
            raise Killed

    data = None
    with pytest.raises(BaseException) as ended:  # noqa: PT011, PT012  # the group that carries the kill
        async with first.running():
            data = first.cloud.command(DEVICE, RING)
            with milestones.observed(die):
                first.link.send(DownChannel.COMMAND, data)
                await asyncio.Event().wait()
    assert ended.group_contains(Killed) if hasattr(ended, "group_contains") else ended.value
    second = Rig(tmp_path, cloud=first.cloud)
    async with second.running():
        second.link.send(DownChannel.COMMAND, data)
        await eventually(lambda: second.replies()[-1:] == [answer])
        second.link.send(DownChannel.COMMAND, data)
        await eventually(lambda: second.agent.downlink.counts["replayed"] == 2)
    moved = first.bell.heard(f"C {'c' * 32} 1") + second.bell.heard(f"C {'c' * 32} 1")
    assert moved <= 1
    assert moved >= moved_before - 1  # what was written to the line may be lost with the process


# --- bounds, and time that nobody vouches for ----------------------------------------------------------------------


async def test_a_command_from_the_future_is_refused_and_time_is_asked_for(tmp_path):
    async with Rig(tmp_path).running() as rig:
        hellos = len(rig.cloud.hellos)
        ahead = rig.clock.now_ms() + YEARS_MS
        rig.command(RING, issued_at=ahead, not_after=ahead + 10_000)
        await eventually(lambda: rig.replies() == [("refused", "untrusted_time")])
        await eventually(lambda: len(rig.cloud.hellos) > hellos)
        rig.clock.skew_ms = YEARS_MS  # so the cloud's clock was set ahead; its welcome says so
        await reconnect(rig)
        rig.command(RING, command_id="d" * 32)
        await eventually(lambda: rig.bell.heard(f"C {'d' * 32} 1") == 1)


async def test_so_many_commands_may_run_at_once(tmp_path):
    import dataclasses

    timing = dataclasses.replace(QUICK, commands_running_max=3)
    async with Rig(tmp_path, timing=timing).running() as rig:
        for number in range(5):
            rig.command(RING, command_id=f"{number:032x}")
        await eventually(lambda: rig.agent.downlink.counts["refused_busy"] == 2)
        await eventually(lambda: rig.replies(f"{4:032x}") == [("refused", "busy")])
        await eventually(lambda: sum(rig.bell.heard(f"C {number:032x} 1") for number in range(5)) == 3)
        rig.bell.say(f"D {0:032x}")
        await eventually(lambda: rig.replies(f"{0:032x}")[-1:] == [("succeeded", "")])
        rig.command(RING, command_id="9" * 32)
        await eventually(lambda: rig.bell.heard(f"C {'9' * 32} 1") == 1)


async def test_final_replies_beyond_the_bound_wait_in_the_journal_and_are_all_said(tmp_path):
    import dataclasses

    timing = dataclasses.replace(QUICK, final_replies_max=2)
    rig = Rig(tmp_path, timing=timing)
    rig.cloud.acknowledges_replies = False
    async with rig.running():
        for number in range(5):
            rig.command(RING, command_id=f"{number:032x}", lifetime_ms=-1_000)
        await eventually(lambda: rig.agent.downlink.counts["finals_parked"] == 3)
        assert rig.agent.downlink.unacknowledged_replies == 2
        rig.cloud.acknowledges_replies = True
        await eventually(lambda: all(rig.replies(f"{n:032x}") == [("expired", "expired")] for n in range(5)))
        await eventually(lambda: rig.agent.downlink.unacknowledged_replies == 0)


async def test_a_flood_of_forged_commands_does_not_flood_the_log(tmp_path, caplog):
    async with Rig(tmp_path).running() as rig:
        data = rig.cloud.command(DEVICE, RING).replace(b'"main"', b'"other"')
        for _ in range(200):
            rig.link.send(DownChannel.COMMAND, data)
        await eventually(lambda: rig.agent.downlink.counts["ignored_unknown_key"] == 200)
        told = [line for line in caplog.messages if "command ignored" in line]
        assert len(told) == 1
        assert not [channel for channel, _ in rig.link.log if channel is UpChannel.REPLY], "strangers get no answer"


async def test_a_nudge_makes_the_device_say_hello_with_the_keys_it_trusts(tmp_path):
    from fleet.envelope import Acknowledgement, encode

    async with Rig(tmp_path).running() as rig:
        hellos = len(rig.cloud.hellos)
        nudge = Acknowledgement(rig.cloud.generation(DEVICE), {}, greet=True)
        rig.link.send(DownChannel.ACK, encode(nudge))
        await eventually(lambda: len(rig.cloud.hellos) > hellos)
        assert rig.cloud.hellos[-1].command_keys == ("main",)
