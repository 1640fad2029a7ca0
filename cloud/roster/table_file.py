"""Rosters as tables: CSV as people keep them in a spreadsheet. `docs/roster.md` describes the columns.

Encodings: UTF-8 with or without its mark, UTF-16 with its mark ("Unicode text"), and GB 18030, which a Chinese
spreadsheet writes for plain "CSV". Separators: comma, semicolon or tab, told by the first line.
"""

import csv
import hashlib
import io
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from cloud.roster import calendars
from cloud.roster.calendars import CalendarError
from cloud.roster.drafts import PLANS_MAX, UNKNOWN_TIER_FIX, Draft, Reading, tier_of
from fleet.kind import Text

COLUMNS: Final = ("id", "tier", "person", "crew", "from", "until", "repeat", "repeat_until", "except")
_CHINESE: Final = {
    "编号": "id", "梯队": "tier", "人员": "person", "班组": "crew", "开始": "from", "结束": "until", "重复": "repeat",
    "重复至": "repeat_until", "除外": "except",
}  # fmt: skip
_REQUIRED: Final = ("tier", "from", "until")

_MOMENT: Final = re.compile(
    r"(\d{4})[-/.年](\d{1,2})[-/.月](\d{1,2})日?(?:[ T]+(\d{1,2})[:\uff1a](\d{2})(?:[:\uff1a](\d{2}))?)?"
)
_TIME: Final = re.compile(r"(\d{1,2})[:\uff1a](\d{2})")
_DAYS: Final = {"周一": "MO", "周二": "TU", "周三": "WE", "周四": "TH", "周五": "FR", "周六": "SA", "周日": "SU"}
_RULES: Final = {"daily": "FREQ=DAILY", "每天": "FREQ=DAILY", "weekly": "FREQ=WEEKLY", "每周": "FREQ=WEEKLY"}
_LAST_HOUR: Final = 24


def decode(raw: bytes) -> str:
    """The text of a file. Raises CalendarError when it is in none of the encodings."""
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        encodings: Sequence[str] = ("utf-16",)
    else:
        encodings = ("utf-8-sig", "gb18030")
    for encoding in encodings:
        try:
            text = raw.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text.lstrip("\ufeff")
    raise CalendarError(
        Text("文件编码无法识别", "the file's encoding is not known"),
        Text("请另存为“CSV UTF-8”", "save it as “CSV UTF-8”"),
    )


def read(raw: bytes, zone: ZoneInfo) -> Reading:
    """Every line as a draft, or named with what is wrong with it."""
    reading = Reading()
    try:
        text = decode(raw)
    except CalendarError as error:
        reading.refuse(1, error.why, error.fix)
        return reading
    first = text.partition("\n")[0]
    separator = max(",;\t", key=first.count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        columns = _columns(next(rows, []), reading)
        line = rows.line_num + 1
        for cells in rows if columns else ():
            if any(cell.strip() for cell in cells):
                _read_row(line, columns, cells, zone, reading)
            line = rows.line_num + 1
            if len(reading.drafts) + len(reading.bad) > PLANS_MAX:
                reading.refuse(line, *_TOO_MANY)
                break
    except csv.Error as error:
        reading.refuse(
            rows.line_num,
            Text(f"不是有效的 CSV：{error}", f"it is no CSV: {error}"),
            Text("请检查引号，并重新另存为 CSV", "look at its quotation marks and save it as CSV again"),
        )
    return reading


_TOO_MANY: Final = (
    Text(f"超过 {PLANS_MAX} 行", f"more than {PLANS_MAX} lines"),
    Text("请使用重复规则，或分多个文件导入", "use rules that repeat, or several files"),
)


def _columns(header: Sequence[str], reading: Reading) -> list[str]:
    columns = [_CHINESE.get(cell.strip(), cell.strip().lower()) for cell in header]
    unknown = [name for name in columns if name and name not in COLUMNS]
    missing = [name for name in _REQUIRED if name not in columns]
    twice = sorted({name for name in columns if name and columns.count(name) > 1})
    for names, zh, en in ((unknown, "未知的列", "unknown columns"), (missing, "缺少列", "missing columns"),
                          (twice, "重复的列", "columns that are there twice")):  # fmt: skip
        if names:
            known = ", ".join(COLUMNS)
            reading.refuse(
                1, Text(f"{zh}：{', '.join(names)}", f"{en}: {', '.join(names)}"),
                Text(f"第一行应为列名：{known}", f"the first line names the columns: {known}"),
            )  # fmt: skip
    return [] if reading.bad else columns


def _read_row(line: int, columns: Sequence[str], cells: Sequence[str], zone: ZoneInfo, reading: Reading) -> None:
    if any(cell.strip() for cell in cells[len(columns) :]):
        reading.refuse(
            line, Text("列数多于标题行", "it has more cells than the first line"),
            Text("请检查是否多了逗号", "look for a separator too many"),
        )  # fmt: skip
        return
    row = dict.fromkeys(COLUMNS, "") | {name: cell.strip() for name, cell in zip(columns, cells, strict=False) if name}
    tier = tier_of(row["tier"])
    if tier is None:
        reading.refuse(line, Text(f"未知梯队：{row['tier']}", f"unknown tier {row['tier']!r}"), UNKNOWN_TIER_FIX)
        return
    if bool(row["person"]) == bool(row["crew"]):
        reading.refuse(
            line, Text("人员与班组必须且只能填一个", "name either a person or a crew"),
            Text("填写“人员”或“班组”其中一列", "fill one of the columns person and crew"),
        )  # fmt: skip
        return
    identity = row["id"] or _identity(tier, row)
    try:
        reading.drafts.append(Draft(line, identity, tier, row["person"], row["crew"], _calendar(identity, row, zone)))
    except CalendarError as error:
        reading.refuse(line, error.why, error.fix)


def _identity(tier: str, row: dict[str, str]) -> str:
    """Without an id, a line is known again by who is planned and from when."""
    begin = _MOMENT.fullmatch(row["from"])
    moment = ":".join(str(int(part or 0)) for part in begin.groups()) if begin else row["from"]
    facts = "\n".join((tier, row["person"].lower(), row["crew"].lower(), moment))
    return f"line-{hashlib.sha256(facts.encode()).hexdigest()[:20]}"


def _calendar(identity: str, row: dict[str, str], zone: ZoneInfo) -> str:
    begin = _moment(row["from"], zone)
    end = _end(row["until"], begin, zone)
    rule = _rule(row["repeat"])
    if row["repeat_until"]:
        last = _moment(row["repeat_until"], zone)
        if not rule or "UNTIL=" in rule or "COUNT=" in rule:
            raise CalendarError(
                Text("“重复至”需要不含终止条件的重复规则", "repeat_until needs a rule without an end of its own"),
                Text("请填写“重复”列，或清空“重复至”", "fill repeat, or leave repeat_until empty"),
            )
        rule += f";UNTIL={last:%Y%m%d}"
    left_out = [_left_out(part, begin, zone) for part in re.split(r"[;；、\s]+", row["except"]) if part]
    return calendars.make(identity, begin, end, rule, left_out)


def _moment(text: str, zone: ZoneInfo) -> datetime:
    found = _MOMENT.fullmatch(text)
    try:
        if found is None:
            raise ValueError
        parts = [int(part or 0) for part in found.groups()]
        days = timedelta(days=1) if parts[3] == _LAST_HOUR and not any(parts[4:]) else timedelta()
        hour = 0 if days else parts[3]
        return datetime(parts[0], parts[1], parts[2], hour, parts[4], parts[5], tzinfo=zone) + days
    except ValueError:
        raise CalendarError(
            Text(f"时间无法识别：{text[:40]}", f"the time {text[:40]!r} can't be read"),
            Text("写成 2026-12-01 08:00", "write it as 2026-12-01 08:00"),
        ) from None


def _end(text: str, begin: datetime, zone: ZoneInfo) -> datetime:
    """`20:00` alone is the next 20:00 after the begin; a time with its day is that."""
    found = _TIME.fullmatch(text)
    if found is None:
        return _moment(text, zone)
    same_day = _moment(f"{begin:%Y-%m-%d} {text}", zone)
    return same_day if same_day > begin else same_day + timedelta(days=1)


def _left_out(text: str, begin: datetime, zone: ZoneInfo) -> datetime:
    day = _moment(text, zone)
    return datetime.combine(day.date(), begin.timetz())


def _rule(text: str) -> str:
    plain = text.strip()
    if not plain or plain.lower() in _RULES:
        return _RULES.get(plain.lower(), "")
    days = [part for part in re.split(r"[,，、\s]+", plain) if part]
    short = [_DAYS.get(day.replace("星期", "周").replace("周天", "周日"), day.upper()) for day in days]
    if all(day in _DAYS.values() for day in short):
        return f"FREQ=WEEKLY;BYDAY={','.join(dict.fromkeys(short))}"
    return plain.upper().removeprefix("RRULE:")


def write(rows: Sequence[dict[str, Any]]) -> bytes:
    """The table, in UTF-8 with its mark so that a spreadsheet shows Chinese; `read` takes it back unchanged."""
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, COLUMNS)
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _safe(str(row.get(name, ""))) for name in COLUMNS})
    return b"\xef\xbb\xbf" + file.getvalue().encode()


def _safe(cell: str) -> str:
    """A cell that a spreadsheet would run as a formula gets no chance to; none of ours begins that way."""
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@")) else cell
