"""Grafana's transformations and reducers, as far as our boards use them. Pure.

What is not known here is named by `unknown_transformations`, never skipped in silence.
"""

import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from dashboards.preview.frames import TIME, Frame

TRANSFORMATIONS: Final = frozenset({
    "organize", "merge", "joinByField", "seriesToColumns", "sortBy", "limit", "filterFieldsByName", "reduce",
    "filterByValue",
})  # fmt: skip


def unknown_transformations(panel: Mapping[str, Any]) -> list[str]:
    """Transformations of a panel that are not drawn here."""
    return [
        one["id"]
        for one in panel.get("transformations") or ()
        if one["id"] not in TRANSFORMATIONS and not one.get("disabled")
    ]


def transformed(frames: list[Frame], panel: Mapping[str, Any]) -> list[Frame]:
    """The panel's transformations, in their order."""
    for one in panel.get("transformations") or ():
        if not one.get("disabled") and one["id"] in TRANSFORMATIONS:
            frames = _TRANSFORM[one["id"]](frames, one.get("options") or {})
    return frames


def _organize(frames: list[Frame], options: Mapping[str, Any]) -> list[Frame]:
    excluded = {name for name, out in (options.get("excludeByName") or {}).items() if out}
    renamed, order = options.get("renameByName") or {}, options.get("indexByName") or {}
    made = []
    for frame in frames:
        names = [name for name in frame.columns if name not in excluded]
        names.sort(key=lambda name: order.get(name, len(order)))
        columns = {renamed.get(name) or name: frame.columns[name] for name in names}
        time = renamed.get(frame.time) or frame.time
        made.append(Frame(renamed.get(frame.name) or frame.name, columns, frame.labels, frame.ref, time))
    return made


def _merge(frames: list[Frame], options: Mapping[str, Any]) -> list[Frame]:
    """Rows with the same values in all shared columns become one row."""
    del options
    if not frames:
        return frames
    shared = [name for name in frames[0].columns if all(name in frame.columns for frame in frames)]
    names = list(dict.fromkeys(name for frame in frames for name in frame.columns))
    rows: dict[Any, dict[str, Any]] = {}
    for number, frame in enumerate(frames):
        for index in range(frame.length):
            key = tuple(frame.columns[name][index] for name in shared) if len(frames) > 1 else (number, index)
            rows.setdefault(key, {}).update({name: column[index] for name, column in frame.columns.items()})
    columns = {name: [row.get(name) for row in rows.values()] for name in names}
    return [Frame(frames[0].name, columns)]


def _join(frames: list[Frame], options: Mapping[str, Any]) -> list[Frame]:
    """Outer (default) or inner join by one column."""
    by = options.get("byField") or TIME
    sides = [frame for frame in frames if by in frame.columns]
    if not sides:
        return frames
    keys = list(dict.fromkeys(key for frame in sides for key in frame.columns[by]))
    if options.get("mode") == "inner":
        keys = [key for key in keys if all(key in frame.columns[by] for frame in sides)]
    columns: dict[str, list[Any]] = {by: keys}
    for number, frame in enumerate(sides, 1):
        place = {key: index for index, key in enumerate(frame.columns[by])}
        for name, column in frame.columns.items():
            if name != by:
                unique = name if name not in columns else f"{name} {number}"
                columns[unique] = [column[place[key]] if key in place else None for key in keys]
    return [Frame(sides[0].name, columns)]


def _sort(frames: list[Frame], options: Mapping[str, Any]) -> list[Frame]:
    for rule in options.get("sort") or ():
        for frame in frames:
            by = rule.get("field")
            if by not in frame.columns:
                continue
            column = frame.columns[by]
            present = [index for index in range(frame.length) if column[index] is not None]
            present.sort(key=lambda index, column=column: column[index], reverse=bool(rule.get("desc")))  # type: ignore[misc]
            order = present + [index for index in range(frame.length) if column[index] is None]
            frame.columns = {name: [cells[index] for index in order] for name, cells in frame.columns.items()}
    return frames


def _limit(frames: list[Frame], options: Mapping[str, Any]) -> list[Frame]:
    count = int(options.get("limitField") or 10)
    for frame in frames:
        frame.columns = {name: column[:count] for name, column in frame.columns.items()}
    return frames


def _filter(frames: list[Frame], options: Mapping[str, Any]) -> list[Frame]:
    include, exclude = options.get("include") or {}, options.get("exclude") or {}
    for frame in frames:
        names = include.get("names") or list(frame.columns)
        if pattern := include.get("pattern"):
            names = [name for name in frame.columns if re.search(pattern, name)]
        out = set(exclude.get("names") or ())
        frame.columns = {name: column for name, column in frame.columns.items() if name in names and name not in out}
    return frames


def _reduce(frames: list[Frame], options: Mapping[str, Any]) -> list[Frame]:
    """One row per series, one column per reducer."""
    reducers = options.get("reducers") or ["lastNotNull"]
    columns: dict[str, list[Any]] = {"Field": [], **{name: [] for name in reducers}}
    for frame in frames:
        for name, values in frame.values.items():
            columns["Field"].append(name)
            for reducer in reducers:
                columns[reducer].append(reduced(values, reducer))
    return [Frame("reduce", columns)]


def _filter_rows(frames: list[Frame], options: Mapping[str, Any]) -> list[Frame]:
    """Rows that match (or, excluded, do not match) all or any of the rules; rules as our boards use them."""
    rules = options.get("filters") or ()
    every, excluding = options.get("match", "any") == "all", options.get("type", "include") == "exclude"
    for frame in frames:
        kept = []
        for index in range(frame.length):
            hits = [_hit(frame, index, rule) for rule in rules]
            if (all(hits) if every else any(hits)) != excluding:
                kept.append(index)
        frame.columns = {name: [column[index] for index in kept] for name, column in frame.columns.items()}
    return frames


def _hit(frame: Frame, index: int, rule: Mapping[str, Any]) -> bool:
    column = frame.columns.get(rule.get("fieldName", ""))
    if column is None:
        return False
    config = rule.get("config") or {}
    test = _TESTS.get(config.get("id", ""))
    return test is not None and test(column[index], (config.get("options") or {}).get("value"))


_TESTS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "isNull": lambda value, _: value is None,
    "isNotNull": lambda value, _: value is not None,
    "equal": lambda value, limit: str(value) == str(limit),
    "notEqual": lambda value, limit: str(value) != str(limit),
    "greater": lambda value, limit: value is not None and float(value) > float(limit),
    "greaterOrEqual": lambda value, limit: value is not None and float(value) >= float(limit),
    "lower": lambda value, limit: value is not None and float(value) < float(limit),
    "lowerOrEqual": lambda value, limit: value is not None and float(value) <= float(limit),
}

_TRANSFORM: Final = {
    "organize": _organize, "merge": _merge, "joinByField": _join, "seriesToColumns": _join, "sortBy": _sort,
    "limit": _limit, "filterFieldsByName": _filter, "reduce": _reduce, "filterByValue": _filter_rows,
}  # fmt: skip


def reduced(values: Sequence[Any], calculation: str) -> Any:
    """One value for a column, as the reducers of a stat do; None when there is none."""
    if calculation in {"last", "count"}:
        return len(values) if calculation == "count" else values[-1] if values else None
    present = [value for value in values if value is not None]
    if not present:
        return 0 if calculation == "sum" else None
    if calculation in _OF_PRESENT:
        return _OF_PRESENT[calculation](present)
    numbers = [value for value in present if isinstance(value, (int, float)) and not isinstance(value, bool)]
    if calculation == "sum":
        return sum(numbers)
    return _OF_NUMBERS[calculation](numbers) if numbers else None


_OF_PRESENT: Final[Mapping[str, Callable[[list[Any]], Any]]] = {
    "lastNotNull": lambda present: present[-1],
    "firstNotNull": lambda present: present[0],
    "first": lambda present: present[0],
    "allValues": lambda present: ", ".join(map(str, present)),
    "uniqueValues": lambda present: ", ".join(map(str, dict.fromkeys(present))),
}
_OF_NUMBERS: Final[Mapping[str, Callable[[list[float]], float]]] = {
    "mean": statistics.fmean,
    "median": statistics.median,
    "max": max,
    "min": min,
    "range": lambda numbers: max(numbers) - min(numbers),
    "diff": lambda numbers: numbers[-1] - numbers[0],
}
