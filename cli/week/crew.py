"""The crew at work: each member takes an order, drives there, does it, and takes the next.

What is to be done, by whom and until when is the product's; people decide only which of their own orders is next,
in the order the product planned it or, without a plan, the nearest one that nothing more pressing overtakes.
"""

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import devices
from cli.week.agenda import Agenda
from cli.week.geography import Point, road_metres
from cli.week.handling import Work, work_of
from cli.week.hardware import Hardware
from cli.week.ledger import Job, Ledger
from cli.week.roster import Turn
from cli.week.van import LOADING_S, Van
from fleet.clock import MILLISECONDS_PER_SECOND
from fleet.randomness import Randomness

FIRST_TIME: Final = 0.95
"""Share of repairs that hold; the others are found out when the device does not come back to normal."""
SETTLE_S: Final = 20.0
"""Closing the tool box and the order. Whether the device is well shows later: the product opens the order again."""
LOCK_AFTER_MS: Final = 1_500
GONE_METRES: Final = 150.0
"""A bike that is so far from where it was has been ridden away."""
_LOOKS_MAX: Final = 3
_ON_SCENE_S: Final = (180.0, 600.0)


@dataclass(slots=True)
class Member:
    """One person. `busy` names what they are doing; a new `errand` number makes what was planned for it void."""

    person_id: str
    van: Van
    draw: Randomness
    on_duty: bool = False
    until_ms: int = 0
    job: Job | None = None
    busy: str = ""
    errand: int = 0
    calls: list[tuple[str, str]] = field(default_factory=list)
    """(call, device) they accepted and have not been to."""


class Crew:
    """Everybody with a van. `counts` holds what no table does."""

    def __init__(
        self, ledger: Ledger, hardware: Hardware, agenda: Agenda, now_ms: Callable[[], int],
        randomness: Callable[..., Randomness], depot: Point, turns: list[Turn],
    ) -> None:  # fmt: skip
        self.counts: Counter[str] = Counter()
        self.members: dict[str, Member] = {}
        self.on_free: Callable[[Member], Awaitable[None]] = self.next_job
        self._ledger, self._hardware, self._agenda, self._now_ms = ledger, hardware, agenda, now_ms
        self.depot = depot
        for turn in turns:
            if turn.person_id not in self.members:
                van = Van(depot, depot)
                self.members[turn.person_id] = Member(turn.person_id, van, randomness("member", turn.person_id))
            member = self.members[turn.person_id]
            agenda.at(turn.from_ms, partial(self._begin, member, turn.until_ms))
            agenda.at(turn.until_ms, partial(self._end, member, turn.until_ms))

    # --- shifts ------------------------------------------------------------------------------------------------

    async def _begin(self, member: Member, until_ms: int) -> None:
        member.on_duty, member.until_ms = True, until_ms
        member.van.load()
        await self.free(member)

    async def _end(self, member: Member, until_ms: int) -> None:
        if member.until_ms == until_ms:
            member.on_duty = False
            if not member.busy:
                await self.free(member)

    async def free(self, member: Member) -> None:
        """Nothing in hand: a call first, then the way home, then work."""
        member.busy, member.job = "", None
        if member.calls:
            await self._go_to_call(member)
        elif not member.on_duty:
            self.drive(member, self.depot, "home", None)
        else:
            await self.on_free(member)

    async def wake(self, person_id: str) -> None:
        """There may be something new for somebody who has nothing to do."""
        member = self.members.get(person_id)
        if member is not None and member.on_duty and not member.busy:
            await self.free(member)

    def later(self, member: Member, after_s: float, then: Callable[[], Awaitable[None]]) -> None:
        """Go on then, unless something else came in between."""
        errand = member.errand

        async def go_on() -> None:
            if member.errand == errand:
                await then()

        self._agenda.at(self._now_ms() + max(1, round(after_s * MILLISECONDS_PER_SECOND)), go_on)

    def drive(self, member: Member, to: Point, why: str, then: Callable[[], Awaitable[None]] | None) -> None:
        """Go there, then go on with `then`."""
        now_ms = self._now_ms()
        arrives_ms = member.van.set_out(to, now_ms, why)

        async def arrive() -> None:
            member.van.stop(self._now_ms())
            if then is not None:
                await then()

        self.later(member, (arrives_ms - now_ms) / MILLISECONDS_PER_SECOND, arrive)

    # --- orders ------------------------------------------------------------------------------------------------

    async def next_job(self, member: Member) -> None:
        """The next of one's own orders."""
        job = await self._ledger.next_job(member.person_id, member.van.at, self._now_ms(), member.until_ms)
        if job is not None:
            await self.take(member, job)

    async def take(self, member: Member, job: Job) -> None:
        """Accept an order and set out, by way of the depot if what it needs is not in the van."""
        member.busy, member.job = "order", job
        member.errand += 1
        if not await self._ledger.accept(job, member.person_id):
            await self.free(member)
            return
        if self._is_short(member.van, job):
            self.counts["loadings"] += 1
            self.drive(member, self.depot, "load", partial(self._loaded, member))
        else:
            await self._set_out(member)

    @staticmethod
    def _is_short(van: Van, job: Job) -> bool:
        boxes = min(sum(job.items.values()), 80) if job.key == "restock" else 0
        packs = 1 if job.key == "battery_swap" else 0
        return boxes > van.boxes or packs > van.packs

    async def _loaded(self, member: Member) -> None:
        member.van.load()
        self.later(member, LOADING_S, partial(self._set_out, member))

    async def _set_out(self, member: Member) -> None:
        job = member.job
        assert job is not None
        await self._ledger.travel(job, member.person_id)
        self.drive(member, self._ledger.place_of(job.device_id), job.key, partial(self._arrived, member))

    async def _arrived(self, member: Member) -> None:
        job = member.job
        assert job is not None
        metres = road_metres(member.van.at, self._ledger.place_of(job.device_id))
        if metres > GONE_METRES and job.kind == "bike" and job.looks < _LOOKS_MAX:
            job.looks += 1  # it was ridden away meanwhile
            self.drive(member, self._ledger.place_of(job.device_id), job.key, partial(self._arrived, member))
            return
        await self._ledger.start(job, member.person_id)
        work = work_of(job.kind, job.key)
        minutes = member.draw.uniform(*work.minutes)
        holds = job.key in {"restock", "battery_swap", "proof_test"} or member.draw.random() < FIRST_TIME
        if holds:
            self.begin_work(job.device_id, job.items, work, minutes)
        self.use(member.van, job.key, job.items)
        self.later(member, minutes * 60, partial(self._worked, member, work, holds=holds))

    async def _worked(self, member: Member, work: Work, *, holds: bool) -> None:
        job = member.job
        assert job is not None
        if holds:
            self.finish_work(job.device_id, work)
        self.later(member, SETTLE_S, partial(self._complete, member))

    async def _complete(self, member: Member) -> None:
        job = member.job
        assert job is not None
        done = await self._ledger.complete(job, member.person_id)
        self.counts["done" if done else "left"] += 1
        if not done:
            await self._ledger.give_up(job, member.person_id)
        await self.free(member)

    # --- hands -------------------------------------------------------------------------------------------------

    @staticmethod
    def use(van: Van, key: str, items: dict[str, int]) -> None:
        """What leaves the van."""
        if key in {"restock", "locked_out"}:
            van.boxes = max(0, van.boxes - min(80, sum(items.values())))
        elif key == "battery_swap":
            van.packs -= 1

    def begin_work(self, device_id: str, items: dict[str, int], work: Work, minutes: float) -> None:
        """What somebody does first."""
        self.do(device_id, work.before, work.command_before)
        if work.restocks:
            self._hardware.act(device_id, "restock", items=dict(items) or None, visit_s=minutes * 60)

    def finish_work(self, device_id: str, work: Work) -> None:
        """What somebody does last."""
        self.do(device_id, work.after, work.command_after)

    def do(self, device_id: str, acts: tuple[str, ...], command: str) -> None:
        """Hands first, then the telephone."""
        for act in acts:
            self._hardware.act(device_id, act)
        if command:
            order: Any = devices.kind_named(self._hardware.units[device_id].kind).command_type(command)
            self._hardware.command(device_id, order())
            if command == "unlock":  # a test of the lock: pushed in again before anybody sits down
                self._agenda.at(self._now_ms() + LOCK_AFTER_MS, lambda: self._hardware.act(device_id, "close_lock"))

    # --- calls -------------------------------------------------------------------------------------------------

    async def help(self, person_id: str, call_id: str, device_id: str) -> None:
        """Somebody accepted a call: whatever they are doing waits."""
        member = self.members.get(person_id)
        if member is None:
            return
        member.calls.append((call_id, device_id))
        if member.busy == "call":
            return
        member.van.stop(self._now_ms())
        member.errand += 1
        if member.job is not None:
            await self._ledger.hold(member.job, person_id)
        await self.free(member)

    async def _go_to_call(self, member: Member) -> None:
        call_id, device_id = member.calls.pop(0)
        member.busy = "call"
        member.errand += 1
        if not await self._ledger.is_open_call(call_id):
            await self._after_call(member)
            return
        place = self._ledger.place_of(device_id)
        self.drive(member, place, "call", partial(self._at_call, member, call_id, device_id))

    async def _at_call(self, member: Member, call_id: str, device_id: str) -> None:
        if not await self._ledger.is_open_call(call_id):
            await self._after_call(member)
            return
        self._hardware.act(device_id, "attend")
        self.later(member, member.draw.uniform(*_ON_SCENE_S), partial(self._clear, member, device_id))

    async def _clear(self, member: Member, device_id: str) -> None:
        self._hardware.act(device_id, "clear")
        await self._after_call(member)

    async def _after_call(self, member: Member) -> None:
        await self._ledger.resume_all(member.person_id)
        await self.free(member)
