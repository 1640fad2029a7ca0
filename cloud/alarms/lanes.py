"""One act on many devices: each enters its own lane, a bounded number at a time."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from cloud.ports import IntentRefusedError, LaneIntents

AT_ONCE_MAX: Final = 32

Act = tuple[str, str, str, dict[str, Any]]
"""(device id, name of the act, who acts, arguments), as `LaneIntents.submit` takes them."""


async def submit_all(intents: LaneIntents, acts: Sequence[Act]) -> list[str]:
    """Submit them; returns for each the refusal, or an empty text. Nothing is rolled back: lanes are independent."""
    room = asyncio.Semaphore(AT_ONCE_MAX)

    async def submit(act: Act) -> str:
        async with room:
            try:
                await intents.submit(*act)
            except IntentRefusedError as refusal:
                return str(refusal)
        return ""

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(submit(act)) for act in acts]
    return [task.result() for task in tasks]
