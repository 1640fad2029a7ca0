"""Every door of the product, listed from the running code, each tried against a room with an open call."""

import ast
import asyncio
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

import httpx
from fastapi.routing import APIRoute, iter_route_contexts
from pydantic import TypeAdapter

import cloud
from cli.clearing.world import EVERYBODY, OTHER_ROOM, ROOM, ClearingWorld
from cloud.api.access import Role
from cloud.ports import IntentRefusedError

REQUEST_S_MAX: Final = 0.5
VALUES_MAX: Final = 6
_WRITES: Final = re.compile(
    r"\b(?:update|delete|insert|insert_into|insert_new)\(\s*(?:tx,\s*)?(?:tables\.)?call\b(?!_)"
    r"|\bcall\.(?:update|delete|insert)\("
    r"|\b(?:UPDATE|DELETE FROM|INSERT INTO|REPLACE INTO)\s+\"?call\"?\b(?!_)",
)


@dataclass(slots=True)
class Tried:
    """What was tried, by class of door, and what it did to the call."""

    counts: dict[str, int] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)
    answers: Counter[int] = field(default_factory=Counter)
    """HTTP answers by their hundreds."""
    violations: list[str] = field(default_factory=list)

    def door(self, kind: str, name: str, world: ClearingWorld) -> None:
        """One more door was tried; look at the call."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        listed = self.names.setdefault(kind, [])
        if name not in listed:
            listed.append(name)
        trouble = world.trouble()
        if trouble:
            self.violations.append(f"{kind} {name}: {trouble}")
            raise CallEndedError(name)


class CallEndedError(AssertionError):
    """The call is not open any more: nothing after it would prove anything."""


# --- HTTP ---------------------------------------------------------------------------------------------------------


async def try_routes(world: ClearingWorld, tried: Tried) -> None:
    """Every route and method as every role, with the call's and the room's ids and a valid body."""
    transport = httpx.ASGITransport(app=world.app, raise_app_exceptions=False)
    headers = {"authorization": "Bearer proof", "origin": "http://fleet.test"}
    async with httpx.AsyncClient(transport=transport, base_url="http://fleet.test", headers=headers) as client:
        for context in iter_route_contexts(world.app.routes):
            route = context.original_route
            if not isinstance(route, APIRoute):
                continue  # static files
            for method in sorted(context.methods or ()):
                for path, body, form in _requests(world, str(context.path), context.dependant):
                    for role in _roles(context.dependant):
                        world.sessions.person = world.person(role)
                        with suppress(TimeoutError, httpx.HTTPError):
                            async with asyncio.timeout(REQUEST_S_MAX):
                                answer = await client.request(
                                    method, path, json=None if form else body, data=body if form else None
                                )
                                tried.answers[answer.status_code // 100] += 1
                        tried.door("routes", f"{method} {context.path}", world)


def _roles(dependant: Any) -> list[Role]:
    """Those whom the route lets in; everybody for a public one. That it keeps out all others has tests of its own."""
    allowed = [call.allowed_roles for call in _dependencies(dependant) if hasattr(call, "allowed_roles")]
    return [role for role in EVERYBODY if all(role in one for one in allowed)]


def _dependencies(dependant: Any) -> Iterator[Any]:
    for one in dependant.dependencies:
        yield one.call
        yield from _dependencies(one)


def _requests(world: ClearingWorld, path: str, dependant: Any) -> Iterator[tuple[str, Any, bool]]:
    bodies, form = _bodies(world, dependant)
    choices: list[str] = [path]
    for parameter in dependant.path_params:
        annotation = parameter.field_info.annotation
        values = _choices(annotation) or ([ROOM] if "device" in parameter.name else [world.call_id])
        marker = re.compile(r"\{" + parameter.name + r"(?::[^}]*)?\}")
        choices = [marker.sub(str(value), one) for one in choices for value in values]
    for one in choices[:VALUES_MAX]:
        for body in bodies:
            yield one, body, form


def _choices(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return [one.value for one in annotation]
    return []


def _bodies(world: ClearingWorld, dependant: Any) -> tuple[list[Any], bool]:
    parameters = dependant.body_params
    if not parameters:
        # Pages read their forms by themselves: what any of them may look for.
        return [{"csrf_token": "token", "note": "proof", "state": "cleared", "call_id": world.call_id}], True
    form = any(type(one.field_info).__name__ in {"Form", "File"} for one in parameters)
    found: list[dict[str, Any]] = []
    for parameter in parameters:
        schema = TypeAdapter(parameter.field_info.annotation).json_schema()
        values = list(_examples(schema, schema.get("$defs", {}), world))[:VALUES_MAX] or [{}]
        if len(parameters) == 1 and not form:
            return values, False
        found = [{**one, parameter.name: value} for one in (found or [{}]) for value in values][:VALUES_MAX]
    return found, form


def _examples(
    schema: Mapping[str, Any], defs: Mapping[str, Any], world: ClearingWorld, name: str = ""
) -> Iterator[Any]:
    """Valid values of a JSON schema: each choice of an enumeration once."""
    if "$ref" in schema:
        yield from _examples(defs[schema["$ref"].rpartition("/")[2]], defs, world, name)
    elif "const" in schema or "enum" in schema:
        yield from [schema["const"]] if "const" in schema else schema["enum"]
    elif "anyOf" in schema or "oneOf" in schema:
        for one in schema.get("anyOf") or schema["oneOf"]:
            yield from _examples(one, defs, world, name)
    elif "properties" in schema:
        parts = {
            key: list(_examples(part, defs, world, key))[:VALUES_MAX] or [None]
            for key, part in schema["properties"].items()
        }
        for number in range(max((len(values) for values in parts.values()), default=1)):
            yield {key: values[number % len(values)] for key, values in parts.items()}
    elif schema.get("type") == "array":
        yield list(_examples(schema.get("items", {}), defs, world, name))[:1]
    else:
        yield from _plain(schema, world, name)


def _plain(schema: Mapping[str, Any], world: ClearingWorld, name: str) -> list[Any]:
    identifier = ROOM if "device" in name else world.call_id if name.endswith("id") else "cleared_at_origin"
    number = world.clock.now_ms() + 3_600_000 if name.endswith("_at") else schema.get("minimum", 1)
    values: Mapping[str, list[Any]] = {
        "integer": [number], "number": [number], "boolean": [True, False], "string": [identifier], "object": [{}],
    }  # fmt: skip
    return values.get(str(schema.get("type")), [])


# --- lanes --------------------------------------------------------------------------------------------------------


def try_intents(world: ClearingWorld, tried: Tried) -> None:
    """Every word that stands in the rules' own source as the name of an act, and every name that somebody submits."""
    for name in intent_names():
        if not world.lanes[ROOM].desk.call or world.lanes[ROOM].desk.call.state.value != "calling":
            world.make_urgent_again()
        for arguments in ({}, {"call_id": world.call_id, "alarm_id": world.call_id, "note": "", "seconds": 60}):
            with suppress(IntentRefusedError, KeyError, TypeError, ValueError):
                world.act(ROOM, name, "admin", arguments)
            tried.door("intents", name, world)
    world.lanes[ROOM].revoked = world.lanes[ROOM].retired = False


def intent_names() -> list[str]:
    """String constants of `cloud.rules` that look like names, and what `.submit(device, name, …)` is called with."""
    found: set[str] = set()
    for path, tree in _sources(Path(cloud.__file__).parent):
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and "rules" in path.parts:
                found.add(node.value)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and "submit" in node.func.attr:
                found.update(
                    one.value for one in node.args if isinstance(one, ast.Constant) and isinstance(one.value, str)
                )
    return sorted(name for name in found if re.fullmatch(r"[a-z][a-z_]{2,40}", name))


def try_messages(world: ClearingWorld, tried: Tried) -> None:
    """Every event that any room can send but the one clear key; and the clear key of another room."""
    for model in world.kinds[world.kind].events:
        (type_,) = get_args(model.model_fields["type"].annotation)
        if type_ != world.clear:
            world.event(type_)
            tried.door("events", type_, world)
    world.event(world.press, OTHER_ROOM)
    world.event(world.clear, OTHER_ROOM, press_id=world.call_id)
    tried.door("events", f"{world.clear} of another room", world)


def try_time(world: ClearingWorld, tried: Tried) -> None:
    """Every due time of the room for a day, then a clock that jumps by years both ways, and years of silence."""
    for _ in range(60):
        due = world.rules.next_due(world.lanes[ROOM], world.clock.now_ms() - 1)
        if due is None:
            break
        world.clock.advance(seconds=max(1.0, (due - world.clock.now_ms()) / 1000))
        world.timer()
        tried.door("timers", "next_due", world)
    for seconds in (-10 * 365 * 86_400.0, 20 * 365 * 86_400.0):
        world.clock.jump(seconds=seconds)
        world.rules.clock_set(world.lanes[ROOM], world.clock.now_ms())
        world.timer()
        tried.door("timers", f"clock jump of {seconds:.0f} s", world)


async def try_chores(world: ClearingWorld, tried: Tried) -> None:
    """What runs beside: deadlines, followers, retention, a restart from the database, the migrations once more."""
    from cloud.adapters.sql.migrate import upgrade
    from cloud.history import bounds

    for work in (*world.handlers.deadlines, *world.handlers.followers):
        with suppress(Exception):  # what it does to the call counts, not whether it can do its work here
            async with asyncio.timeout(0.2):
                await work()
        tried.door("chores", getattr(work, "__qualname__", str(work)), world)
    await bounds.prune(world.database, world.clock, 31, 7)
    tried.door("chores", "history.bounds.prune", world)
    for action, handlers in world.handlers.outcomes.items():
        tried.door("chores", f"outcome of {action} ({len(handlers)} handlers)", world)
    upgrade(world.url)
    tried.door("chores", "migrations", world)
    lane = world.lanes[ROOM]
    lane.desk = world.rules.decode_desk(lane.kind, world.rules.encode_desk(lane.desk))
    tried.door("chores", "restart", world)


# --- SQL ----------------------------------------------------------------------------------------------------------


def sql_writers(*packages: Path) -> list[str]:
    """Every place in the source where a statement on the table `call` is made, as `file: line's text`."""
    found = []
    for package in packages:
        for path in sorted(package.rglob("*.py")):
            if "clearing" in path.parts:
                continue
            text = path.read_text(encoding="utf-8")
            for match in _WRITES.finditer(text):
                start = text.rfind("\n", 0, match.start()) + 1
                line = text[start : text.find("\n", match.start())].strip()
                found.append(f"{path.relative_to(package.parent).as_posix()}: {line}")
    return found


def try_sql(world: ClearingWorld, tried: Tried) -> None:
    """The database itself refuses: each statement that would end the call without its room."""
    from sqlalchemy import text
    from sqlalchemy.exc import DBAPIError

    for statement in (
        "UPDATE call SET state = 'cleared'",
        "UPDATE call SET state = 'cleared', cleared_at = 1",
        "DELETE FROM call",
    ):
        refused = False
        try:
            world.database.write_here(lambda tx, statement=statement: tx.execute(text(statement)))  # type: ignore[misc]
        except DBAPIError:
            refused = True
        tried.door("statements", statement, world)
        if not refused:
            tried.violations.append(f"statements {statement}: the database took it")


def _sources(package: Path) -> Iterator[tuple[Path, ast.AST]]:
    for path in sorted(package.rglob("*.py")):
        yield path, ast.parse(path.read_text(encoding="utf-8"))
