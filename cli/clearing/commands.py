"""Every command of the command line that opens the database, run against the room with the open call."""

import contextlib
import os
import threading
from collections.abc import Iterator
from enum import Enum
from typing import Any, Final, Literal, get_args, get_origin

import typer
from typer.testing import CliRunner

from cli.clearing.doors import Tried
from cli.clearing.world import ROOM, ClearingWorld

ENDLESS: Final = frozenset({"serve", "watchdog", "demo", "sim", "simulate", "chaos", "edge run", "receiver"})
"""They run until they are told to stop; `serve` is what the rest of the proof is about."""


def try_commands(world: ClearingWorld, tried: Tried) -> None:
    """With ids of the room and its call for arguments and options that want some; its exit code does not matter."""
    from cli.app import app

    over = threading.Event()
    ingester = threading.Thread(target=_answer, args=(world, over))
    ingester.start()
    try:
        _try(world, tried, app)
    finally:
        over.set()
        ingester.join()


def _answer(world: ClearingWorld, over: threading.Event) -> None:
    while not over.wait(0.02):
        world.answer_waiting()


def _try(world: ClearingWorld, tried: Tried, app: typer.Typer) -> None:
    runner = CliRunner()
    environment = {"FLEET_DATA_DIRECTORY": str(world.folder), "COLUMNS": "200"}
    for path, command in _leaves(typer.main.get_command(app), ()):
        name = " ".join(path)
        if name in ENDLESS or name == "calls prove-clearing" or not _opens_database(command):
            continue
        arguments = [*path, *_arguments(world, command)]
        before = dict(os.environ)
        try:
            with contextlib.chdir(world.folder):  # what a command writes beside it is not for the caller's folder
                runner.invoke(app, arguments, env=environment, input="", catch_exceptions=True)
        finally:
            os.environ.clear()
            os.environ.update(before)
        tried.door("commands", name, world)


def _leaves(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if hasattr(command, "commands"):
        for name, child in sorted(command.commands.items()):
            yield from _leaves(child, (*path, name))
    else:
        yield path, command


def _opens_database(command: Any) -> bool:
    return any(parameter.name == "data_directory" for parameter in command.params)


def _arguments(world: ClearingWorld, command: Any) -> list[str]:
    found: list[str] = []
    for parameter in command.params:
        value = str(world.folder) if parameter.name == "data_directory" else _value(world, parameter)
        if parameter.param_type_name == "argument":
            found.append(value)
        elif parameter.required or parameter.name == "data_directory":
            found += [parameter.opts[-1], value]
    return found


def _value(world: ClearingWorld, parameter: Any) -> str:
    annotation = getattr(parameter, "bare_type", None)
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return str(next(iter(annotation)).value)
    if get_origin(annotation) is Literal:
        return str(get_args(annotation)[0])
    if any(word in (parameter.name or "") for word in ("device", "room")):
        return ROOM
    return "60" if annotation in {int, float} else world.call_id
