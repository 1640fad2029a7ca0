"""Wake-up calls with a deadline, and timers that a jump of the wall clock does not move: on virtual time."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from cli.simulate.clocks import MachineClock
from cli.simulate.loop import VirtualLoop
from edge.due_timer import DueTimer
from edge.wake import Wake

STARTED_MS = 1_000_000


def on_virtual_time(work: Coroutine[Any, Any, None]) -> None:
    loop = VirtualLoop()
    try:
        loop.run_until_complete(work)
    finally:
        loop.close()


def now_s() -> float:
    return asyncio.get_running_loop().time()


def test_a_wake_up_call_comes_at_its_deadline_or_before() -> None:
    async def work() -> None:
        wake = Wake()
        await wake.wait(3.0)
        assert now_s() == pytest.approx(3.0)
        assert not wake.is_set()
        asyncio.get_running_loop().call_later(1.0, wake.set)
        await wake.wait(3.0)
        assert now_s() == pytest.approx(4.0)
        await wake.wait(3.0)  # still set
        assert now_s() == pytest.approx(4.0)
        wake.clear()
        await wake.wait(-1.0)
        assert now_s() == pytest.approx(4.0)

    on_virtual_time(work())


def test_a_call_that_is_cleared_at_once_still_wakes() -> None:
    async def work() -> None:
        wake = Wake()

        def touch() -> None:
            wake.set()
            wake.clear()

        asyncio.get_running_loop().call_later(1.0, touch)
        await wake.wait(None)
        assert now_s() == pytest.approx(1.0)

    on_virtual_time(work())


def test_a_second_waiter_is_refused_and_a_cancelled_one_makes_room() -> None:
    async def work() -> None:
        wake = Wake()
        async with asyncio.TaskGroup() as group:
            first = group.create_task(wake.wait(None))
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="one waiter"):
                await wake.wait(1.0)
            first.cancel()
        await wake.wait(2.0)
        assert now_s() == pytest.approx(2.0)

    on_virtual_time(work())


class Wanted:
    """What a driver wants."""

    def __init__(self, due_ms: int | None) -> None:
        self.due_ms = due_ms

    def __call__(self) -> int | None:
        return self.due_ms


def test_a_jump_of_the_wall_clock_moves_no_timer() -> None:
    async def work() -> None:
        clock = MachineClock(asyncio.get_running_loop().time, STARTED_MS)
        timer = DueTimer(Wanted(STARTED_MS + 10_000), clock)
        asyncio.get_running_loop().call_later(4.0, clock.jump, -3_600.0)
        assert await timer.wait() == STARTED_MS + 10_000  # never before what was wanted
        assert now_s() == pytest.approx(10.0)

    on_virtual_time(work())


def test_who_asks_again_and_again_is_not_stopped_by_a_clock_that_was_set_back_by_years() -> None:
    async def work() -> None:
        clock = MachineClock(asyncio.get_running_loop().time, STARTED_MS)
        wanted = Wanted(STARTED_MS + 10_000)
        timer = DueTimer(wanted, clock)
        asyncio.get_running_loop().call_later(4.0, clock.jump, -5 * 365 * 86_400.0)
        for turn in range(1, 5):
            now_ms = await timer.wait()
            assert now_s() == pytest.approx(10.0 * turn, abs=0.1)
            wanted.due_ms = now_ms + 10_000
            timer.look()
        wanted.due_ms = clock.now_ms() + 3_000  # by the right time, as for what the hardware says now
        timer.look()
        await timer.wait()
        assert now_s() == pytest.approx(43.0, abs=0.1)

    on_virtual_time(work())


@pytest.mark.parametrize(("changed_ms", "comes_s"), [(2_000, 2.0), (20_000, 20.0)])
def test_what_is_wanted_earlier_or_later_counts_after_a_look(changed_ms: int, comes_s: float) -> None:
    async def work() -> None:
        wanted = Wanted(STARTED_MS + 10_000)
        timer = DueTimer(wanted, MachineClock(asyncio.get_running_loop().time, STARTED_MS))

        def change() -> None:
            wanted.due_ms = STARTED_MS + changed_ms
            timer.look()

        asyncio.get_running_loop().call_later(1.0, change)
        await timer.wait()
        assert now_s() == pytest.approx(comes_s)

    on_virtual_time(work())


def test_nothing_wanted_waits_until_something_is() -> None:
    async def work() -> None:
        wanted = Wanted(None)
        timer = DueTimer(wanted, MachineClock(asyncio.get_running_loop().time, STARTED_MS))

        def change() -> None:
            wanted.due_ms = STARTED_MS + 7_000
            timer.look()

        asyncio.get_running_loop().call_later(5.0, change)
        await timer.wait()
        assert now_s() == pytest.approx(7.0)

    on_virtual_time(work())


def test_what_is_wanted_after_a_while_without_anything_comes_as_well() -> None:
    async def work() -> None:
        wanted = Wanted(STARTED_MS + 1_000)
        timer = DueTimer(wanted, MachineClock(asyncio.get_running_loop().time, STARTED_MS))
        await timer.wait()
        wanted.due_ms = None
        timer.look()

        def change() -> None:
            wanted.due_ms = STARTED_MS + 7_000
            timer.look()

        asyncio.get_running_loop().call_later(4.0, change)
        async with asyncio.timeout(60.0):
            await timer.wait()
        assert now_s() == pytest.approx(7.0)

    on_virtual_time(work())


def test_what_is_always_due_leaves_room_for_others() -> None:
    async def work() -> None:
        timer = DueTimer(Wanted(STARTED_MS - 1), MachineClock(asyncio.get_running_loop().time, STARTED_MS))
        for _ in range(10):
            await timer.wait()
        assert now_s() >= 0.01

    on_virtual_time(work())
