"""What InfluxQL must answer, computed in plain Python from what was written: the other opinion about a board's query.

As much of the language as the boards use. An answer is a set of (tags, time in ms or None, columns that are not null).
"""

import math
import operator
import re
import statistics
from itertools import pairwise

_AND = re.compile(r"\s+AND\s+")
_COMPARE = re.compile(r'(?:"([^"]+)"|(time))\s*(=~|!=|<>|<=|>=|=|<|>)\s*(.+)', re.DOTALL)
_CALL = re.compile(r'(\w+)\(((?:[^()"]|"[^"]*"|\((?:[^()"]|"[^"]*")*\))*)\)')
_OPERATORS = {"=": operator.eq, "!=": operator.ne, "<>": operator.ne, "<": operator.lt, "<=": operator.le,
              ">": operator.gt, ">=": operator.ge}  # fmt: skip
_SPANS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
SELECTORS = {"last", "first", "min", "max", "percentile"}


def _span(text):
    number, unit = re.fullmatch(r"(\d+)(ms|s|m|h|d)", text.strip()).groups()
    return int(number) * _SPANS[unit]


def _split(text, separator=","):
    """At separators that are in no bracket and no quotes."""
    parts, depth, quote, start = [], 0, "", 0
    for index, one in enumerate(text):
        if quote:
            quote = "" if one == quote else quote
        elif one in "\"'":
            quote = one
        elif one in "()":
            depth += 1 if one == "(" else -1
        elif depth == 0 and text.startswith(separator, index):
            parts.append(text[start:index].strip())
            start = index + len(separator)
    return [*parts, text[start:].strip()]


def _keyword(text, word):
    """Position of a keyword outside brackets and quotes, or -1."""
    depth, quote = 0, ""
    for index, one in enumerate(text):
        if quote:
            quote = "" if one == quote else quote
        elif one in "\"'":
            quote = one
        elif one in "()":
            depth += 1 if one == "(" else -1
        elif depth == 0 and text.startswith(word, index):
            return index
    return -1


def _clauses(text):
    """{keyword: its text} of one SELECT."""
    words = (" FROM ", " WHERE ", " GROUP BY ", " fill(", " ORDER BY ", " LIMIT ")
    places = sorted((place, word) for word in words if (place := _keyword(text, word)) >= 0)
    found = {"SELECT": text[len("SELECT ") : places[0][0]].strip()}
    ends = [place for place, _ in places[1:]] + [len(text)]
    for (place, word), end in zip(places, ends, strict=True):
        found[word.strip(" (")] = text[place + len(word) : end].strip()
    return found


class Oracle:
    """`rows`: measurement → [(at ns, tags, fields)] in order of time."""

    def __init__(self, rows):
        self._rows = rows

    def answer(self, text):
        """Normalised rows of a query."""
        found = re.fullmatch(r'SHOW TAG VALUES FROM "\w+"\."(\w+)" WITH KEY = "(\w+)"', text)
        if found:
            values = {tags[found[2]] for _, tags, _ in self._rows.get(found[1], ()) if found[2] in tags}
            return sorted(((), None, (("key", found[2]), ("value", value))) for value in values)
        timed = _is_timed(text)
        return normalised((tags, at if timed else None, columns) for tags, at, columns in self._select(text))

    def _source(self, text):
        """(at ms, tags, fields) of everything in FROM."""
        rows = []
        for one in _split(text):
            if one.startswith("("):
                for tags, at, columns in self._select(one[1:-1].strip()):
                    rows.append((at, dict(tags), {k: v for k, v in columns.items() if v is not None}))
            else:
                name = one.rpartition(".")[2].strip('"')
                rows += [(at_ns // 1_000_000, tags, fields) for at_ns, tags, fields in self._rows.get(name, ())]
        return sorted(rows, key=lambda row: row[0])

    def _select(self, text):
        clauses = _clauses(text)
        test, span = _condition(clauses.get("WHERE", ""))
        rows = [row for row in self._source(clauses["FROM"]) if test(*row)]
        by = _split(clauses["GROUP BY"]) if "GROUP BY" in clauses else []
        step = next((_span(one[5:-1]) for one in by if one.startswith("time(")), None)
        tags = [one.strip('"') for one in by if not one.startswith("time(")]
        groups = {}
        for row in rows:
            groups.setdefault(tuple((tag, row[1].get(tag, "")) for tag in tags), []).append(row)
        columns = [_column(one) for one in _split(clauses["SELECT"])]
        fill = clauses.get("fill", "null)").rstrip(")")
        for key, members in sorted(groups.items()):
            if step is None:
                found = list(_rows_of(columns, members, span[0] or 0))
            else:
                found = list(_buckets(columns, members, step, fill, span))
            if "ORDER BY" in clauses:
                found = found[::-1][: int(clauses.get("LIMIT", 1 << 40))]
            yield from ((key, at, values) for at, values in found)


def _column(text):
    """(name, expression)."""
    place = text.rfind(' AS "')
    expression, name = (text[:place], text[place + 5 : -1]) if place >= 0 else (text, text.strip('"'))
    return name, expression.strip()


def _condition(text):
    """A test of (at, tags, fields), and the span of time that it allows."""
    if not text:
        return (lambda *_: True), (None, None)
    tests, low, high = [], None, None
    text = text.replace("ms and time <=", "ms AND time <=")  # as Grafana writes its time filter
    for part in _split(text, " AND ") if " AND " in text else [text]:
        inner = part.strip()
        if inner.startswith("(") and inner.endswith(")"):
            choices = [_comparison(one) for one in _split(inner[1:-1], " OR ")]
            tests.append(lambda *row, choices=choices: any(choice(*row) for choice in choices))
        elif inner.startswith("time"):
            sign, limit = re.fullmatch(r"time (<=|>=) (\d+)ms", inner).groups()
            low, high = (int(limit), high) if sign == ">=" else (low, int(limit))
            tests.append(lambda at, _t, _f, sign=sign, limit=int(limit): _OPERATORS[sign](at, limit))
        else:
            tests.append(_comparison(inner))
    return (lambda *row: all(test(*row) for test in tests)), (low, high)


def _comparison(text):
    name, _, sign, literal = _COMPARE.fullmatch(text.strip()).groups()
    literal = literal.strip()
    if sign == "=~":
        pattern = re.compile(literal[1:-1])
        return lambda _at, tags, fields: pattern.search(str(tags.get(name, fields.get(name, "")))) is not None
    value = (
        literal[1:-1] if literal[0] == "'" else literal == "true" if literal in {"true", "false"} else float(literal)
    )

    def test(_at, tags, fields):
        found = fields[name] if name in fields else tags.get(name)
        if found is None:
            return False
        if isinstance(found, str) != isinstance(value, str) or isinstance(found, bool) != isinstance(value, bool):
            return False
        return _OPERATORS[sign](found, value)

    return test


def _rows_of(columns, rows, since_ms):
    """Without time steps: one row of aggregates, or every row."""
    if not any(_CALL.search(expression) for _, expression in columns):
        parts = [(name, *re.fullmatch(r'"?(\w+)"?(?: / (\d+))?', one).groups()) for name, one in columns]
        for at, tags, fields in rows:
            values = {name: fields.get(one, tags.get(one) or None) for name, one, _ in parts}
            for name, _, divisor in parts:
                if divisor is not None and values[name] is not None:
                    values[name] /= int(divisor)
            # A point is an answer if it has one of the fields; tags alone are none.
            if any(one in fields for _, one, _ in parts):
                yield at, values
        return
    ranked = re.fullmatch(r'(top|bottom)\("([^"]+)", "([^"]+)", (\d+)\)', columns[0][1])
    if ranked:
        kind, field, tag, count = ranked.groups()
        ordered = sorted((row for row in rows if field in row[2]), key=lambda row: row[2][field], reverse=kind == "top")
        for _, tags, fields in ordered[: int(count)]:
            yield since_ms, {columns[0][0]: fields[field], tag: tags.get(tag)}
        return
    plain = [(name, one.strip('"')) for name, one in columns if not _CALL.search(one)]
    values = {name: _value(one, rows) for name, one in columns if _CALL.search(one)}
    if plain:  # a selector takes the other fields of its point along
        (chosen,) = (one for _, one in columns if _CALL.search(one))
        field = re.fullmatch(r'last\("([^"]+)"\)', chosen)[1]
        point = next(row for row in reversed(rows) if field in row[2])
        values |= {name: point[2].get(one, point[1].get(one)) for name, one in plain}
        yield point[0], values
        return
    if any(value is not None for value in values.values()):
        yield _time_of(columns, rows, since_ms), values


def _time_of(columns, rows, since_ms):
    """One selector alone keeps the time of its point; everything else stands at the beginning."""
    found = _CALL.fullmatch(columns[0][1])
    if len(columns) > 1 or found is None or found[1] not in SELECTORS:
        return since_ms
    field, value = _split(found[2])[0].strip('"'), _value(columns[0][1], rows)
    places = [at for at, _, fields in rows if fields.get(field) == value]
    return places[-1] if found[1] == "last" else places[0]


def _buckets(columns, rows, step, fill, span):
    buckets = {}
    for row in rows:
        buckets.setdefault(row[0] - row[0] % step, []).append(row)
    changes = [
        re.fullmatch(r'non_negative_(derivative|difference)\((\w+\("[^"]+"\))(?:, (\w+))?\)', one) for _, one in columns
    ]
    if any(changes):
        yield from _changes(columns, changes, buckets)
        return
    starts = sorted(buckets)
    if fill != "none" and rows:
        starts = range(span[0] - span[0] % step, span[1] + 1, step)
    for start in starts:
        values = {name: _value(one, buckets.get(start, [])) for name, one in columns}
        if fill not in {"none", "null"}:
            values = {name: float(fill) if value is None else value for name, value in values.items()}
        yield start, values


def _changes(columns, changes, buckets):
    made = {}
    for (name, _), change in zip(columns, changes, strict=True):
        kind, inner, unit = change.groups()
        series = [(start, _value(inner, buckets[start])) for start in sorted(buckets)]
        series = [(start, value) for start, value in series if value is not None]
        for (before, old), (after, new) in pairwise(series):
            grown = new - old
            if grown >= 0:
                made.setdefault(after, {})[name] = (
                    grown / ((after - before) / _span(unit)) if kind == "derivative" else grown
                )
    yield from sorted(made.items())


def _value(expression, rows):
    """An aggregate, or arithmetic with some."""
    missing = False

    def put(found):
        nonlocal missing
        value = _aggregate(found[1], _split(found[2]), rows)
        if value is None:
            missing = True
            return "0"
        return repr(value)

    if _CALL.fullmatch(expression):
        found = _CALL.fullmatch(expression)
        return _aggregate(found[1], _split(found[2]), rows)
    text = _CALL.sub(put, expression)
    if missing:
        return None
    try:
        return eval(text, {"__builtins__": {}})  # numbers and signs only
    except ZeroDivisionError:
        return None


def _aggregate(name, arguments, rows):
    field = arguments[0].strip('"')
    values = [row[2][field] for row in rows if field in row[2]]
    if not values:
        return None
    if name == "percentile":
        place = math.floor(len(values) * float(arguments[1]) / 100 + 0.5) - 1
        return sorted(values)[place] if 0 <= place < len(values) else None
    return {
        "count": len,
        "sum": sum,
        "min": min,
        "max": max,
        "mean": statistics.fmean,
        "median": statistics.median,
        "last": lambda found: found[-1],
        "first": lambda found: found[0],
        "spread": lambda found: max(found) - min(found),
    }[name](values)


def normalised(rows):
    """Sorted, without nulls and empty rows; numbers rounded to what floats agree on."""
    made = []
    for tags, at, columns in rows:
        present = tuple(sorted((name, _plain(value)) for name, value in dict(columns).items() if value is not None))
        if present:
            made.append((tuple(sorted((name, str(value)) for name, value in tags)), at, present))
    return sorted(made, key=repr)


def _plain(value):
    if isinstance(value, (bool, str)):
        return value
    return float(f"{value:.9g}")


def answered(answer, query):
    """A database's answer in the same form. Times count where the query has time steps or lists points."""
    timed = _is_timed(query)
    rows = []
    for series in answer.series:
        for row in series.rows:
            columns = (
                dict(zip(series.columns[1:], row[1:], strict=True))
                if series.columns[0] == "time"
                else dict(zip(series.columns, row, strict=True))
            )
            rows.append((tuple(series.tags.items()), row[0] if timed else None, columns))
    return normalised(rows)


def _is_timed(query):
    """Whether the times of the answer mean something."""
    clauses = _clauses(query) if query.startswith("SELECT") else {}
    if "time(" in clauses.get("GROUP BY", ""):
        return True
    return bool(clauses) and not any(_CALL.search(_column(one)[1]) for one in _split(clauses["SELECT"]))
