"""The kinds of devices, one folder each, found by folder and loaded role by role.

A kind outside this package is added by `add_kind_folder`: point the setting `kind_folders` at it and
nothing else changes.
"""

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from fleet.kind import Kind

ROLES: Final = ("kind", "messages", "frames", "driver", "state", "rules", "simulator", "panels")

_added: list[str] = []


class UnknownKindError(KeyError):
    """No folder of that name offers a kind."""

    def __str__(self) -> str:
        return f"unknown kind {self.args[0]!r}; known: {', '.join(sorted(kinds()))}"


def add_kind_folder(folder: str) -> None:
    """Make the kind in `folder` (a path ending in the kind's name) known to this process.

    Raises:
        ValueError: the folder holds no `kind.py`, or its name is taken.
    """
    path = Path(folder).resolve()
    if path.name in _added:
        return
    if not (path / "kind.py").is_file():
        raise ValueError(f"kind folder {folder!r} holds no kind.py")
    if path.name in kinds():
        raise ValueError(f"kind folder {folder!r}: a kind named {path.name!r} exists already")
    __path__.append(str(path.parent))
    _added.append(path.name)
    kinds_cache.clear()


kinds_cache: dict[str, Kind] = {}


def kinds() -> dict[str, Kind]:
    """Every known kind by name, in a stable order."""
    if not kinds_cache:
        own = [module.name for module in pkgutil.iter_modules(__path__[:1]) if module.ispkg]
        for name in sorted({*own, *_added}):
            kinds_cache[name] = importlib.import_module(f"{__name__}.{name}.kind").KIND
    return dict(kinds_cache)


def kind_named(name: str) -> Kind:
    """One kind; raises UnknownKindError."""
    try:
        return kinds()[name]
    except KeyError:
        raise UnknownKindError(name) from None


def role(kind_name: str, role_name: str) -> Any:
    """The module of one role of a kind (`role("bike", "rules")`), imported on first use."""
    if role_name not in ROLES:
        raise ValueError(f"unknown role {role_name!r}; roles: {', '.join(ROLES)}")
    kind_named(kind_name)
    module: ModuleType = importlib.import_module(f"{__name__}.{kind_name}.{role_name}")
    return module
