"""Kinds of devices that live outside this package: `--kind-folder`, and FLEET_KIND_FOLDERS for every command alike."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

import devices

VARIABLE = "FLEET_KIND_FOLDERS"

KindFolderOption = Annotated[
    list[Path] | None,
    typer.Option("--kind-folder", help=f"Folder of a further kind, beside those of {VARIABLE}; repeatable."),
]


def folders_of_environment() -> tuple[Path, ...]:
    """The folders named by FLEET_KIND_FOLDERS, a JSON list as in the cloud's settings; raises ValueError."""
    text = os.environ.get(VARIABLE, "")
    if not text:
        return ()
    try:
        folders = json.loads(text)
    except ValueError:
        folders = None
    if not isinstance(folders, list) or not all(isinstance(folder, str) for folder in folders):
        raise ValueError(
            f'{VARIABLE}={text!r} is no JSON list of folders; write for example ["/opt/kinds/parcel_locker"]'
        )
    return tuple(Path(folder) for folder in folders)


def add_kinds(folders: Iterable[Path] | None = None) -> tuple[Path, ...]:
    """Make the kinds in `folders` and of the environment known to this process; all folders, each once.

    Raises:
        ValueError: a folder holds no kind, or its name is taken.
    """
    all_folders = tuple(dict.fromkeys(folder.resolve() for folder in (*(folders or ()), *folders_of_environment())))
    for folder in all_folders:
        devices.add_kind_folder(str(folder))
    return all_folders
