"""Server-sent events: open pages hear what changed and load it again."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final, cast

import anyio
from fastapi import APIRouter, Depends, Request
from sse_starlette import EventSourceResponse

from cloud.api.access import Person, Role, Sessions, allow
from cloud.api.changes import RELOAD, SESSION_ENDED, SUBSCRIBERS_MAX, Change, Changes
from cloud.api.problem import ProblemError
from fleet.clock import Clock

PING_S: Final = 15
SESSION_CHECK_S: Final = 15.0
LOOK_ROUND_S: Final = 1.0

router = APIRouter(prefix="/api/v1", tags=["stream"])


def may_see(person: Person, change: Change) -> bool:
    """What belongs to a person is theirs alone; the rest is for those on duty."""
    owner = change.facts.get("person_id")
    return bool(owner == person.id if owner else person.role in {Role.CREW, Role.ADMIN})


@router.get("/stream", response_class=EventSourceResponse)
async def stream(
    request: Request, person: Annotated[Person, Depends(allow("employee", "crew", "admin"))]
) -> EventSourceResponse:
    """Events `hello`, then one per change (`alarm`, `call`, `device`, …; data: JSON facts), and `reload`.

    After `reload` the stream ends: this client was too slow, it loads its page again and connects anew.
    """
    changes = cast(Changes, request.app.state.changes)
    sessions = cast(Sessions, request.app.state.sessions)
    clock = cast(Clock, request.app.state.clock)
    if changes.subscribers >= SUBSCRIBERS_MAX:
        raise ProblemError(503, "too_many_streams", "Too many open streams", "Try again later.", retry_after_s=30)
    stopping = anyio.Event()  # set by the library when the server is asked to stop
    return EventSourceResponse(
        _events(request, person, changes, sessions, clock, stopping),
        ping=PING_S,
        shutdown_event=stopping,
        shutdown_grace_period=2 * LOOK_ROUND_S,
    )


async def _events(
    request: Request, person: Person, changes: Changes, sessions: Sessions, clock: Clock, stopping: anyio.Event
) -> AsyncIterator[dict[str, Any]]:
    with changes.subscribe(of_page=True) as subscription:
        yield _event("hello", {})
        checked_s = clock.monotonic_s()
        while not stopping.is_set():
            change: Change | None = None
            try:
                async with asyncio.timeout(LOOK_ROUND_S):
                    change = await subscription.next()
            except TimeoutError:
                pass  # quiet: time to look whether the server stops or the session ended
            if clock.monotonic_s() - checked_s >= SESSION_CHECK_S:
                if await sessions.person_of(request) is None:
                    return
                checked_s = clock.monotonic_s()
            if change is None:
                continue
            if change.topic == RELOAD:
                yield _event(RELOAD, {})
                return
            if change.topic == SESSION_ENDED:
                if change.facts.get("person_id") == person.id:
                    return
            elif may_see(person, change):
                yield _event(change.topic, change.facts)


def _event(name: str, facts: dict[str, Any]) -> dict[str, Any]:
    return {"event": name, "data": json.dumps(facts, ensure_ascii=False)}
