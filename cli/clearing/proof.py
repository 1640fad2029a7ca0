"""The whole proof: every door tried, every statement found, and the room's own key at the end, which must work."""

import asyncio
import tempfile
from pathlib import Path
from typing import Any, Final

import cli
import cloud
from cli.clearing import commands, doors
from cli.clearing.doors import CallEndedError, Tried
from cli.clearing.world import ROOM, ClearingWorld

WRITERS: Final = frozenset({
    "cloud/dispatch/calls.py",
    "cloud/dispatch/drills.py",
    "cloud/supervision/upkeep.py",
})  # fmt: skip
"""Files that may write the table: states as the rules decided, what a call is for, traces of synthetic calls."""


def prove(folder: Path | None = None) -> dict[str, Any]:
    """Try everything; the document has `violations`, empty if the proof holds."""
    with tempfile.TemporaryDirectory() as own:
        world = ClearingWorld(folder or Path(own))
        try:
            return asyncio.run(_prove(world))
        finally:
            world.close()


async def _prove(world: ClearingWorld) -> dict[str, Any]:
    tried = Tried()
    try:
        doors.try_sql(world, tried)
        doors.try_messages(world, tried)
        doors.try_intents(world, tried)
        await doors.try_routes(world, tried)
        await asyncio.to_thread(commands.try_commands, world, tried)
        doors.try_time(world, tried)
        await doors.try_chores(world, tried)
    except CallEndedError:
        pass  # it stands among the violations
    writers = doors.sql_writers(Path(cloud.__file__).parent, Path(cli.__file__).parent)
    strangers = [one for one in writers if one.partition(":")[0] not in WRITERS]
    tried.violations += [f"statement on the table of calls in {one}" for one in strangers]
    if not tried.violations:
        world.event(world.clear)
        if world.lanes[ROOM].desk.call is not None or not world.trouble():
            tried.violations.append("the room's own clear key did not clear the call: the proof proves nothing")
    return {
        "holds": not tried.violations,
        "tried": tried.counts,
        "doors": {kind: len(names) for kind, names in tried.names.items()},
        "answers": {f"{hundreds}xx": count for hundreds, count in sorted(tried.answers.items())},
        "statements": writers,
        "violations": tried.violations,
        "names": tried.names,
    }
