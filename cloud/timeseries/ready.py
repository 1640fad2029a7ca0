"""Spooled telemetry as ready lines, for a store that takes line protocol (`takes_lines`).

A spooled envelope is text that our own encoder wrote and that was validated when it came in. The numbers of a reading
are then line protocol already, so they are neither parsed nor formatted: an envelope is cut at known places, and what
remains is turned into fields by a few passes over all readings of a chunk. That is right only for texts of a known
outline (the text without its digits): the first text of each outline is taken apart with care, and all that
is unusual (lists, nulls, escapes, another order of keys) goes the long way over `PointMaker` and `encode_each`.
Chunks are small, so that all of it stays in the processor's cache.
"""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple, overload

import msgspec

from cloud.ports import SeriesPoint
from cloud.timeseries.lines import encode_each, encode_lines, escape_key, escape_measurement
from cloud.timeseries.points import MESSAGES_PER_MILLISECOND, SEQ_FIELD, PointMaker, UnusableRecordError, at_ns
from fleet.envelope import BOOTS_PER_GENERATION, READINGS_PER_MESSAGE_MAX

CHUNK_RECORDS: Final = 250
OUTLINES_MAX: Final = 4_096
"""Of a kind; more go the long way: what varies so much is not worth it."""
SENDERS_MAX: Final = 200_000
_MINUTE_NS: Final = 60_000_000_000
_MINUTE_MS: Final = 60_000
_AT_MIN: Final = 10**12
"""Thirteen digits; other times go the long way."""

_LANE: Final = b',"lane":"telemetry"'
_PAYLOAD: Final = b'"payload":{"readings":'
_SEQ: Final = b'"seq":'
_OCCURRED: Final = b'"occurred_at":'
_AT: Final = b'{"at":'
_END: Final = b"}]}}"
_DIGITS: Final = b"0123456789-"
_SENDER: Final = re.compile(
    rb'\{"version":\d+,"kind":"([a-z0-9_]+)","device_id":"([A-Za-z0-9_.-]+)","boot_epoch":(\d{1,16})'
)
_FRONT: Final = re.compile(rb'(.+),"seq":(-?\d{1,18}),"occurred_at":-?\d+,"payload":\{"readings":')
_WHOLE: Final = re.compile(rb'\{"at":\d{13},[^\[\]{}\\\x00-\x1f]+\}\]\}\}')
_NAME: Final = re.compile(rb'"([a-z][a-z0-9_]*)":')
_FIELD: Final = re.compile(rb'"([a-z_]+)":("[A-Za-z_]*"|true|false|[.eE+]*)(?:,|$)')
_FITS: Final[dict[type, re.Pattern[bytes]]] = {
    str: re.compile(rb'".*"'), bool: re.compile(rb"true|false"), float: re.compile(rb"\.?(?:[eE]\+?)?"),
    int: re.compile(rb""),
}  # fmt: skip
_NOTHING: Final = re.compile(rb"(?!)")
_TO_FIELDS: Final = bytes.maketrans(b":", b"=")
_TO_TIMES: Final = bytes.maketrans(b"a", b",")
_BELOW: Final = [b"%06d\n" % (number * READINGS_PER_MESSAGE_MAX) for number in range(MESSAGES_PER_MILLISECOND)]
"""The end of a line: its time below a millisecond, of a message's only reading."""
_decode_numbers = msgspec.json.Decoder(list[int]).decode


class ReadyLines(Sequence[SeriesPoint]):
    """Points and their lines; a point itself is decoded only when it is asked for.

    Attributes:
        lines: one per point, without the end of line.
        minutes: (measurement, minute since the epoch) of all points, and of those it was sliced from.
    """

    __slots__ = ("_maker", "_raws", "lines", "minutes")

    def __init__(self, lines: list[bytes], raws: list[bytes], minutes: set[tuple[str, int]], maker: PointMaker) -> None:
        self._maker = maker
        self.lines = lines
        self.minutes = minutes
        self._raws = raws

    def __len__(self) -> int:
        return len(self.lines)

    @overload
    def __getitem__(self, index: int) -> SeriesPoint: ...

    @overload
    def __getitem__(self, index: slice) -> "ReadyLines": ...

    def __getitem__(self, index: int | slice) -> "SeriesPoint | ReadyLines":
        if isinstance(index, slice):
            return ReadyLines(self.lines[index], self._raws[index], self.minutes, self._maker)
        ns = line_ns(self.lines[index])
        return next(point for point in self._maker.points(self._raws[index]) if point.at_ns == ns)

    def extend(self, lines: Sequence[bytes], raws: Sequence[bytes]) -> None:
        """Further lines, each with the record it was made of."""
        self.lines.extend(lines)
        self._raws.extend(raws)

    def times_ns(self) -> list[int]:
        """Of all points."""
        return [line_ns(line) for line in self.lines]

    def ordered(self, numbers: Sequence[int]) -> "ReadyLines":
        """The same points in another order."""
        return ReadyLines([self.lines[n] for n in numbers], [self._raws[n] for n in numbers], self.minutes, self._maker)


class Ready(NamedTuple):
    """What a stretch of records makes."""

    points: ReadyLines
    received_at_ms: list[int]
    unusable: list[tuple[int, str]]
    """(number of the record, why)."""


class _Outline(NamedTuple):
    """How texts of one outline become fields."""

    kind: str
    changes: tuple[tuple[bytes, bytes], ...]
    """Each stands once in every text: texts get their quotes again, integers their `i`."""
    end: bytes
    """Between the last field and the time."""


class _Sender(NamedTuple):
    """What is the same in all messages of one boot of a device."""

    head: bytes
    """The line up to the number of the message."""
    generation_part: int
    """Of the time below a millisecond."""
    outlines: dict[bytes, _Outline | None]
    """Of its kind."""


class _Cut(NamedTuple):
    """Columns of records that begin as our encoder writes them."""

    heads: Sequence[bytes]
    """What a sender is known by."""
    seqs: Sequence[bytes]
    seq_numbers: Sequence[int]
    readings: Sequence[bytes]
    """What is behind the bracket."""

    def only(self, numbers: Sequence[int]) -> "_Cut":
        """Some of them."""
        return _Cut(*([column[number] for number in numbers] for column in self))  # type: ignore[arg-type]


class LineMaker:
    """Turns spooled envelopes into lines; several threads may use it."""

    def __init__(self, maker: PointMaker) -> None:
        self._maker = maker
        self._senders: dict[bytes, _Sender] = {}
        self._outlines: dict[str, dict[bytes, _Outline | None]] = {}

    def ready(self, records: Sequence[bytes], received_at_ms: Sequence[int]) -> Ready:
        """Lines of all records, in their order."""
        ready = Ready(ReadyLines([], [], set(), self._maker), [], [])
        for start in range(0, len(records), CHUNK_RECORDS):
            end = start + CHUNK_RECORDS
            self._add(records[start:end], received_at_ms[start:end], start, ready)
        return ready

    def _add(self, records: Sequence[bytes], received_at_ms: Sequence[int], start: int, ready: Ready) -> None:
        cut = _cut(records)
        numbers: Sequence[int] = range(len(records))
        if cut is None:  # some are of another form
            kept = [number for number in numbers if _FRONT.fullmatch(records[number].partition(b"[")[0])]
            cut = _cut([records[number] for number in kept]) if kept else None
            numbers = kept if cut is not None else []
        by_number: dict[int, bytes] = {}
        if cut is not None:
            senders = [self._senders.get(head) for head in cut.heads]
            for plan, places in _by_outline(senders, cut.readings):
                whole = len(places) == len(records)
                some = cut if whole else cut.only(places)
                lines = _lines(plan, some, [senders[place] for place in places], ready.points.minutes)
                if lines is None:
                    continue
                if whole:
                    ready.points.extend(lines, records)
                    ready.received_at_ms.extend(received_at_ms)
                    return
                by_number.update(zip([numbers[place] for place in places], lines, strict=True))
        self._add_mixed(records, received_at_ms, start, ready, by_number)

    def _add_mixed(
        self, records: Sequence[bytes], received_at_ms: Sequence[int], start: int, ready: Ready,
        by_number: dict[int, bytes],
    ) -> None:  # fmt: skip
        """Lines that are there already, and what goes the long way, in the order of the records."""
        lines: list[bytes] = []
        origins: list[int] = []
        slow: list[SeriesPoint] = []
        slow_slots: list[int] = []
        for number, raw in enumerate(records):
            line = by_number.get(number)
            if line is not None:
                lines.append(line)
                origins.append(number)
                continue
            try:
                points = self._maker.points(raw)
            except UnusableRecordError as error:
                ready.unusable.append((start + number, str(error)))
                continue
            self._learn(raw)
            slow += points
            slow_slots += range(len(lines), len(lines) + len(points))
            lines += [b""] * len(points)
            origins += [number] * len(points)
            ready.points.minutes.update((point.kind, point.at_ns // _MINUTE_NS) for point in points)
        for slot, line in zip(slow_slots, encode_each(slow), strict=True):
            lines[slot] = line
        ready.points.extend(lines, [records[number] for number in origins])
        ready.received_at_ms.extend([received_at_ms[number] for number in origins])

    def _learn(self, raw: bytes) -> None:
        """The sender and the outline of a usable record, for the next ones of the kind."""
        front, _, reading = raw.partition(b"[")
        known_by = front.rsplit(b",", 3)[0]
        found = _SENDER.fullmatch(known_by.removesuffix(_LANE))
        if found is None or not known_by.endswith(_LANE) or _FRONT.fullmatch(front) is None:
            return
        kind, device_id, boot_epoch = found[1].decode(), found[2].decode(), int(found[3])
        outlines = self._outlines.setdefault(kind, {})
        if known_by not in self._senders:
            if len(self._senders) >= SENDERS_MAX:
                self._senders.clear()
            head = f"{escape_measurement(kind)},device_id={escape_key(device_id)} {SEQ_FIELD}=".encode()
            part = at_ns(0, boot_epoch // BOOTS_PER_GENERATION, 0, 0) // READINGS_PER_MESSAGE_MAX
            self._senders[known_by] = _Sender(head, part, outlines)
        outline = reading.translate(None, _DIGITS)
        if outline not in outlines and len(outlines) < OUTLINES_MAX:
            outlines[outline] = _plan(kind, reading, outline, self._maker.columns(kind))


def _cut(records: Sequence[bytes]) -> _Cut | None:
    """Columns of the records; None: not all of them are of the usual form up to their readings."""
    count = len(records)
    fronts, _, readings = zip(*[raw.partition(b"[") for raw in records], strict=True)
    try:
        heads, seqs, occurred, payloads = zip(*[front.rsplit(b",", 3) for front in fronts], strict=True)
        text = b",".join(seqs)
        if (
            payloads.count(_PAYLOAD) != count
            or text.translate(None, _DIGITS) != b",".join([_SEQ] * count)
            or b",".join(occurred).translate(None, _DIGITS) != b",".join([_OCCURRED] * count)
        ):
            return None
        text = text.translate(None, _SEQ)
        numbers = _decode_numbers(b"[%b]" % text)
    except ValueError:  # msgspec's errors are ValueErrors
        return None
    return _Cut(heads, text.split(b","), numbers, readings)


def _by_outline(senders: Sequence[_Sender | None], readings: Sequence[bytes]) -> list[tuple[_Outline, Sequence[int]]]:
    """Which records are of which known outline, by their places; those of none are left out."""
    text = b"\n".join(readings).translate(None, _DIGITS)
    first, _, _ = text.partition(b"\n")
    kinds = {None if sender is None else id(sender.outlines) for sender in senders}
    if len(kinds) == 1 and None not in kinds and text == b"\n".join([first] * len(readings)):
        sender = senders[0]
        plan = sender.outlines.get(first) if sender is not None else None
        return [(plan, range(len(readings)))] if plan is not None else []
    outlines = text.split(b"\n")
    if len(outlines) != len(readings):  # ends of lines within
        return []
    groups: dict[int, tuple[_Outline, list[int]]] = {}
    for place, (sender, outline) in enumerate(zip(senders, outlines, strict=True)):
        plan = sender.outlines.get(outline) if sender is not None else None
        if plan is not None:
            group = groups.get(id(plan))
            if group is None:
                group = groups[id(plan)] = plan, []
            group[1].append(place)
    return list(groups.values())


def _lines(
    plan: _Outline, cut: _Cut, senders: Sequence[_Sender | None], minutes: set[tuple[str, int]]
) -> list[bytes] | None:
    """Lines of records of one outline, and their minutes; None: one of them is not what its outline looks like."""
    count = len(cut.readings)
    text = b"\n".join([*cut.readings, b""]).translate(_TO_FIELDS, b'"}]{')
    for old, new in plan.changes:
        pieces = text.split(old)
        if len(pieces) != count + 1:  # a digit in a text
            return None
        text = new.join(pieces)
    ats, _, fields = zip(*[line.partition(b",") for line in text.split(b"\n")[:count]], strict=True)
    text = b"".join(ats).translate(_TO_TIMES, b"t=")[1:]  # at=179…at=179… → 179…,179…
    try:
        times = _decode_numbers(b"[%b]" % text)
    except msgspec.DecodeError:
        return None
    if len(times) != count or min(times) < _AT_MIN or max(times) >= 10 * _AT_MIN:
        return None
    kind = plan.kind
    minutes.update([(kind, minute) for minute in {at // _MINUTE_MS for at in times}])
    known = [sender for sender in senders if sender is not None]
    parts = [b""] * (7 * count)
    parts[0::7] = [sender.head for sender in known]
    parts[1::7] = cut.seqs
    parts[2::7] = [b"i,"] * count
    parts[3::7] = fields
    parts[4::7] = [plan.end] * count
    parts[5::7] = text.split(b",")
    parts[6::7] = [
        _BELOW[(seq + sender.generation_part) % MESSAGES_PER_MILLISECOND]
        for seq, sender in zip(cut.seq_numbers, known, strict=True)
    ]
    lines = b"".join(parts).split(b"\n")
    del lines[-1]
    return lines


def _plan(kind: str, text: bytes, outline: bytes, columns: dict[str, type]) -> _Outline | None:
    """How texts of this outline, of which `text` is one, become fields; None: not by passes over the text."""
    plain = {name.encode().translate(None, _DIGITS) for name in columns}
    fields = outline.removeprefix(_AT + b",").removesuffix(_END)
    found = list(_FIELD.finditer(fields))
    names = _NAME.findall(text)[1:]
    if (
        _WHOLE.fullmatch(text) is None
        or len(plain) != len(columns)  # or names would be mistaken for each other
        or b"".join(one[0] for one in found) != fields
        or len({*names}) != len(found)
        or [name.translate(None, _DIGITS) for name in names] != [one[1] for one in found]
    ):
        return None
    changes: list[tuple[bytes, bytes]] = []
    for name, following, one in zip(names, [*names[1:], b""], found, strict=True):
        column = columns.get(name.decode())
        if column is None or _FITS.get(column, _NOTHING).fullmatch(one[2]) is None:
            return None
        if column is str:
            after = b"," if following else b"\n"
            changes.append((b",%b=%b%b" % (name, one[2].strip(b'"'), after), b",%b=%b%b" % (name, one[2], after)))
        elif column is int and following:
            changes.append((b",%b=" % following, b"i,%b=" % following))
    end = b"i " if columns[names[-1].decode()] is int else b" "
    return _Outline(kind, tuple(changes), end)


def line_ns(line: bytes) -> int:
    """Time of a line, ns."""
    return int(line[line.rindex(b" ") + 1 :])


def body_of(points: Sequence[SeriesPoint]) -> bytes:
    """The lines of `points`, ready or made now. Raises TypeError for what is no value of a series."""
    return b"\n".join(points.lines) if isinstance(points, ReadyLines) else encode_lines(points)
