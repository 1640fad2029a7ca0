"""What differs between two boards, in words that a reviewer reads: per panel, variable and setting. Pure."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

Sign = Literal["+", "-", "~"]

BOARD_NOISE: Final = frozenset({"id", "version", "iteration", "gnetId", "panels", "templating"})
"""What Grafana keeps its own books with, and what is compared by itself."""
PANEL_NOISE: Final = frozenset({"pluginVersion"})
VARIABLE_NOISE: Final = frozenset({"current", "options", "hash"})
"""What somebody last chose is no change of the board."""
SET_BY_GRAFANA: Final[Mapping[str, Any]] = {
    "fiscalYearStartMonth": 0, "liveNow": False, "weekStart": "", "preload": False, "timepicker": {}, "style": "dark",
    "graphTooltip": 0, "links": [], "editable": True, "schemaVersion": None,
}  # fmt: skip
"""Keys that Grafana adds when it saves a board, with the value that means "as before" (None: any)."""
VALUE_CHARACTERS_MAX: Final = 400
_EMPTY: Final = ("", None)


@dataclass(frozen=True, slots=True)
class Change:
    """One difference. `where`: the panel, variable or setting; `path`: what of it ("" = all of it)."""

    sign: Sign
    where: str
    path: str = ""
    before: Any = None
    after: Any = None

    def lines(self) -> list[str]:
        """For people: one line, and both values below it where they are long."""
        head = f"{self.sign} {self.where}" + (f": {self.path}" if self.path else "")
        if self.sign != "~":
            return [head]
        before, after = _words(self.before), _words(self.after)
        if len(before) + len(after) <= 60:
            return [f"{head}: {before} → {after}"]
        return [head, f"    - {before}", f"    + {after}"]


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """What turns `before` into `after`; empty when a reader of the board could see no difference."""
    changes = [
        change
        for key in sorted((before.keys() | after.keys()) - BOARD_NOISE)
        if not _as_grafana_adds(key, before.get(key), key in after)
        for change in _compare("board", key, before.get(key), after.get(key))
    ]
    changes += _named("variable", _list(before, "templating"), _list(after, "templating"), VARIABLE_NOISE)
    old, new = before.get("panels") or [], after.get("panels") or []
    changes += _panels(old, new)
    return changes


def _as_grafana_adds(key: str, value: Any, wanted: bool) -> bool:  # noqa: FBT001  # of this module alone
    if key == "schemaVersion" and value is not None:
        return True  # Grafana migrates to its own when a board is saved there
    return not wanted and key in SET_BY_GRAFANA and value == SET_BY_GRAFANA[key]


def _list(board: Mapping[str, Any], key: str) -> Sequence[Mapping[str, Any]]:
    return (board.get(key) or {}).get("list") or ()


def _named(
    what: str, before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]], noise: frozenset[str]
) -> Iterator[Change]:
    old, new = ({str(one.get("name")): one for one in side} for side in (before, after))
    for name in [*new, *(name for name in old if name not in new)]:
        where = f"{what} {name}"
        if name not in old:
            yield Change("+", where)
        elif name not in new:
            yield Change("-", where)
        else:
            yield from _fields(where, old[name], new[name], noise)


def _panels(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> Iterator[Change]:
    """Panels are the same by their id, else by their title and type."""
    left = dict(enumerate(before))
    for panel in after:
        match = next((index for index, old in left.items() if old.get("id") == panel.get("id") is not None), None)
        alike = [i for i, old in left.items() if _looks(old) == _looks(panel)]
        if match is None or (_looks(left[match]) != _looks(panel) and alike):
            match = alike[0] if alike else match
        where = f"panel “{panel.get('title')}”"
        if match is None:
            yield Change("+", where, "", None, panel.get("type"))
            continue
        old = left.pop(match)
        yield from _fields(where, old, panel, PANEL_NOISE | {"targets"})
        yield from _targets(where, old.get("targets") or (), panel.get("targets") or ())
    for old in left.values():
        yield Change("-", f"panel “{old.get('title')}”", "", old.get("type"))


def _looks(panel: Mapping[str, Any]) -> tuple[Any, Any]:
    return panel.get("title"), panel.get("type")


def _targets(where: str, before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> Iterator[Change]:
    old, new = ({str(one.get("refId")): one for one in side} for side in (before, after))
    for ref in [*new, *(ref for ref in old if ref not in new)]:
        name = f"query {ref}"
        if ref not in old:
            yield Change("+", where, f"{name} {_words(new[ref].get('query'))}")
        elif ref not in new:
            yield Change("-", where, f"{name} {_words(old[ref].get('query'))}")
        else:
            for key in sorted(old[ref].keys() | new[ref].keys()):
                path = name if key == "query" else f"{name} {key}"
                yield from _compare(where, path, old[ref].get(key), new[ref].get(key))


def _fields(where: str, before: Mapping[str, Any], after: Mapping[str, Any], noise: frozenset[str]) -> Iterator[Change]:
    for key in sorted((before.keys() | after.keys()) - noise):
        yield from _compare(where, key, before.get(key), after.get(key))


def _compare(where: str, path: str, before: Any, after: Any) -> Iterator[Change]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in sorted(before.keys() | after.keys()):
            if key not in PANEL_NOISE:
                yield from _compare(where, f"{path}.{key}", before.get(key), after.get(key))
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from _compare(where, f"{path}[{number}]", old, new)
    elif not _same(before, after):
        yield Change("~", where, path, before, after)


def _same(before: Any, after: Any) -> bool:
    if _is_empty(before) and _is_empty(after):
        return True
    return bool(before == after and isinstance(before, bool) == isinstance(after, bool))


def _is_empty(value: Any) -> bool:
    return value in _EMPTY or (isinstance(value, (list, Mapping)) and not value)


def _words(value: Any) -> str:
    if value is None:
        return "nothing"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= VALUE_CHARACTERS_MAX else text[:VALUE_CHARACTERS_MAX] + " …"
