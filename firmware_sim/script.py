"""Plays a scenario: happenings, their remedies and errands, each from a random source of its own."""

import heapq
import random
from collections.abc import Callable, Mapping
from functools import partial
from itertools import count
from typing import Any, Final, Protocol

from firmware_sim.scenario import Errand, Happening, Range, Scenario

_SPREAD: Final = (0.6, 1.4)  # how far a happening's pause strays from its mean


class Stage(Protocol):
    """What the script needs of the world."""

    @property
    def device_ids(self) -> tuple[str, ...]: ...
    def actions(self, device_id: str) -> tuple[str, ...]: ...
    def act(self, device_id: str, action: str, **arguments: Any) -> Any: ...
    def snapshot(self, device_id: str) -> Mapping[str, Any]: ...
    def site(self, device_id: str) -> Any: ...


class Script:
    """Entries due in the order of their time; adding one to a scenario does not shift the others."""

    def __init__(self, scenario: Scenario, seed: int, started_ms: int, stage: Stage) -> None:
        self._stage = stage
        self._due: list[tuple[int, int, Callable[[int], None]]] = []
        self._order = count()
        self._under_way: set[tuple[str, str]] = set()
        """(device, happening or errand) that is not over yet."""
        for happening in scenario.happenings:
            able = self._able(happening.action, happening.remedy)
            if able:
                name = f"{happening.action}:{happening.remedy}"
                randomness = random.Random(f"{seed}:happening:{name}")
                first_ms = started_ms + _ms(happening.first_s * randomness.uniform(*_SPREAD))
                self._at(first_ms, partial(self._happen, happening, able, randomness))
        for errand in scenario.errands:
            able = self._able(errand.action, None)
            if able:
                randomness = random.Random(f"{seed}:errand:{errand.action}:{errand.snapshot_key}")
                look = partial(self._look, errand, able, randomness)
                self._at(started_ms + _ms(errand.look_every_s * randomness.random()), look)

    @property
    def next_due_ms(self) -> int | None:
        """When the next entry is due; None when nothing will ever be."""
        return self._due[0][0] if self._due else None

    def advance(self, now_ms: int) -> None:
        """Do the earliest entry if it is due."""
        if self._due and self._due[0][0] <= now_ms:
            _, _, do = heapq.heappop(self._due)
            do(now_ms)

    def end(self) -> None:
        """Nothing more is due."""
        self._due.clear()

    def _at(self, due_ms: int, do: Callable[[int], None]) -> None:
        heapq.heappush(self._due, (due_ms, next(self._order), do))

    def _able(self, action: str, remedy: str | None) -> tuple[str, ...]:
        return tuple(
            device_id
            for device_id in self._stage.device_ids
            if action in self._stage.actions(device_id) and (remedy is None or remedy in self._stage.actions(device_id))
        )

    def _happen(self, happening: Happening, able: tuple[str, ...], randomness: random.Random, now_ms: int) -> None:
        again_ms = now_ms + _ms(happening.every_s * randomness.uniform(*_SPREAD))
        self._at(again_ms, partial(self._happen, happening, able, randomness))
        device_id = randomness.choice(able)
        mark = (device_id, happening.action)
        if mark in self._under_way:
            return
        self._stage.act(device_id, happening.action)
        if happening.remedy is not None:
            self._under_way.add(mark)
            over_ms = now_ms + _drawn_ms(happening.remedy_after_s, randomness)
            self._at(over_ms, partial(self._finish, mark, happening.remedy, 0.0))

    def _look(self, errand: Errand, able: tuple[str, ...], randomness: random.Random, now_ms: int) -> None:
        self._at(now_ms + _ms(errand.look_every_s), partial(self._look, errand, able, randomness))
        for device_id in able:
            mark = (device_id, errand.action)
            if mark in self._under_way or not self._wanted(errand, device_id):
                continue
            self._under_way.add(mark)
            travel_s: Range = self._stage.site(device_id).facts.get(f"{errand.action}_travel_s", errand.travel_s)
            self._at(
                now_ms + _drawn_ms(travel_s, randomness), partial(self._finish, mark, errand.action, errand.settles_s)
            )

    def _wanted(self, errand: Errand, device_id: str) -> bool:
        snapshot = self._stage.snapshot(device_id)
        return errand.snapshot_key in snapshot and errand.wanted(snapshot[errand.snapshot_key])

    def _finish(self, mark: tuple[str, str], action: str, settles_s: float, now_ms: int) -> None:
        self._stage.act(mark[0], action)
        self._at(now_ms + _ms(settles_s), partial(self._forget, mark))

    def _forget(self, mark: tuple[str, str], now_ms: int) -> None:
        del now_ms
        self._under_way.discard(mark)


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def _drawn_ms(seconds: Range, randomness: random.Random) -> int:
    return _ms(randomness.uniform(*seconds))
