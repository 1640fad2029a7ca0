"""Who uses the product while it is tormented: a crew, and somebody on duty who moves locks.

The crew answers some calls soon, some late and some never, so that ladders are climbed while processes die.
"""

import asyncio
import math
import random
from collections.abc import Sequence
from typing import Final

import aiohttp

from cli.chaos.scene import Scene
from cli.demo.people import ApiError, Client, Tally, answer_calls

REACTION_S: Final = (5.0, 20.0)
LATE_S: Final = (55.0, 260.0)
"""Some are accepted after steps of their ladder were taken, some at the very moment of one."""
LATE_SHARE: Final = 0.4
NEVER_SHARE: Final = 0.25
ORDER_EVERY_S: Final = 0.25
"""Real seconds between commands."""
ACTIONS: Final = ("unlock", "lock", "ring")


class Patience(random.Random):
    """Draws after how many business seconds a call is accepted: soon, after escalations, or never."""

    def uniform(self, a: float, b: float) -> float:
        """`a` and `b` are for those who are quick."""
        drawn = self.random()
        if drawn < NEVER_SHARE:
            return math.inf
        return super().uniform(*LATE_S) if drawn < NEVER_SHARE + LATE_SHARE else super().uniform(a, b)


class People:
    """`run` until cancelled; `ordered` are the ids of the commands that the API took."""

    def __init__(self, scene: Scene) -> None:
        self.ordered: list[str] = []
        self.refused = 0
        self.tally = Tally()
        self._scene = scene

    async def run(self) -> None:
        """Both of them; what the API refuses or fails is tried again as people do."""
        timeout = aiohttp.ClientTimeout(total=20)
        async with aiohttp.ClientSession(timeout=timeout) as session, asyncio.TaskGroup() as group:
            group.create_task(self._answer(session))
            bikes = [device_id for device_id, (kind, _) in self._scene.fleet.items() if kind == "bike"]
            if bikes:
                group.create_task(self._order(session, bikes))

    def _client(self, session: aiohttp.ClientSession, role: str) -> Client:
        port = self._scene.http_ports.get("api") or self._scene.http_ports["cloud"]
        person = next(person for person in self._scene.stage.people if person.role == role)
        return Client(session, f"http://127.0.0.1:{port}", person)

    async def _answer(self, session: aiohttp.ClientSession) -> None:
        rng = Patience(f"{self._scene.setting.seed}:crew")
        client = self._client(session, "crew")
        while True:
            try:
                await answer_calls(
                    client, self._scene.stage.receiver_file, self._scene.clock, rng, REACTION_S, self.tally
                )
            except* ApiError:  # the database was full or away: the crew looks at its phones again
                self.refused += 1
            await asyncio.sleep(1.0)

    async def _order(self, session: aiohttp.ClientSession, bikes: Sequence[str]) -> None:
        rng = random.Random(f"{self._scene.setting.seed}:orders")
        client = self._client(session, "admin")
        while True:
            await asyncio.sleep(ORDER_EVERY_S)
            try:
                answer = await client.call(
                    "POST", f"/api/v1/devices/{rng.choice(bikes)}/commands", {"action": rng.choice(ACTIONS)}
                )
            except ApiError:
                self.refused += 1
                continue
            self.ordered.append(str(answer["id"]))
