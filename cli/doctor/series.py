"""InfluxDB: reachable, its clock, our token, its bucket and levels, what writer and reader may do, types of fields.

Nothing is written: an empty body shows whether a token may write, as rights are looked at before the body is read.
"""

import datetime as dt
import email.utils
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode, urlsplit

from cli.doctor.asking import Answer, NoAnswerError, ask
from cli.doctor.finding import Finding

if TYPE_CHECKING:
    from cloud.settings import CloudSettings

SKEW_S_MAX: Final = 5.0
INITIALISE: Final = "fleet influx init"
USER_OF_1X: Final = (
    "On 1.8 and later 1.x set FLEET_INFLUXDB_TOKEN=user:password of one of its users; before 1.8 no token is "
    "understood: put a proxy before it that takes one"
)
_QUOTED: Final = str.maketrans({'"': '\\"', "\\": "\\\\"})


def look_at_series(settings: "CloudSettings", now: Callable[[], dt.datetime]) -> Iterator[Finding]:
    """Nothing where the series is embedded: it lies in the data directory."""
    if settings.series != "influxdb":
        yield Finding("Series", "ok", "embedded" if settings.series == "sqlite" else "off, as FLEET_SERIES says")
        return
    store = _Store(settings)
    if urlsplit(store.url).scheme not in {"http", "https"}:
        yield Finding("InfluxDB", "problem", "FLEET_INFLUXDB_URL is no http(s)://…", "correct FLEET_INFLUXDB_URL")
        return
    try:
        began = now()
        pong = ask(f"{store.url}/ping")
        ended = now()
    except NoAnswerError as error:
        fix = "start InfluxDB, or correct FLEET_INFLUXDB_URL; telemetry waits in the spool meanwhile, nothing is lost"
        yield Finding("InfluxDB", "problem", f"{store.url} does not answer: {error}", fix)
        return
    if "x-influxdb-version" not in pong.headers:
        fix = "correct FLEET_INFLUXDB_URL: its port is usually 8086"
        yield Finding("InfluxDB", "problem", f"{store.url} answers {pong.status} and is no InfluxDB", fix)
        return
    store.version = pong.headers["x-influxdb-version"].lstrip("v")
    yield Finding("InfluxDB", "ok", f"{store.url}, version {store.version}")
    yield from _clock(pong, began, ended)
    yield from _writer(store, settings)
    yield from _reader(store, settings)


class _Store:
    def __init__(self, settings: "CloudSettings") -> None:
        self.url = settings.influxdb_url.rstrip("/")
        self.org, self.bucket = settings.influxdb_org, settings.influxdb_bucket
        self.database, _, self.policy = self.bucket.partition("/")
        self.version = ""

    @property
    def is_1x(self) -> bool:
        """1.x may ask nobody who they are, and has the write path of 2.x since 1.8 only."""
        return self.version.startswith("1.")

    def query(self, token: str, query: str) -> tuple[Answer, list[dict[str, Any]], str]:
        """The answer, its series, and the error that InfluxQL reports within an HTTP 200."""
        where = urlencode({"db": self.database, "q": query, "epoch": "ms"})
        answer = ask(f"{self.url}/query?{where}", headers=_access(token))
        document = answer.document()
        if not isinstance(document, dict):
            return answer, [], ""
        results = document.get("results") or [{}]
        return answer, results[0].get("series") or [], results[0].get("error") or document.get("error") or ""

    def write_nothing(self, token: str) -> Answer:
        headers = {**_access(token), "Content-Type": "text/plain; charset=utf-8"}
        if self.is_1x:
            named = {"db": self.database, "rp": self.policy, "precision": "ns"}
            where = urlencode({name: value for name, value in named.items() if value})
            return ask(f"{self.url}/write?{where}", headers=headers, body=b"")
        where = urlencode({"org": self.org, "bucket": self.bucket, "precision": "ns"})
        return ask(f"{self.url}/api/v2/write?{where}", headers=headers, body=b"")


def _access(token: str) -> dict[str, str]:
    return {"Authorization": f"Token {token}"} if token else {}


def _clock(pong: Answer, began: dt.datetime, ended: dt.datetime) -> Iterator[Finding]:
    try:
        there = email.utils.parsedate_to_datetime(pong.headers["date"])
    except (KeyError, ValueError):
        return
    # The header has whole seconds, rounded down.
    ahead_s = (there - ended).total_seconds()
    behind_s = (began - there).total_seconds() - 1
    off_s = max(ahead_s, behind_s)
    if off_s > SKEW_S_MAX:
        side = "ahead of" if ahead_s > 0 else "behind"
        fix = (
            "set the clock that is wrong (timedatectl on both machines) and keep both by NTP: points carry our time, "
            "and a retention policy drops what it takes for too old"
        )
        yield Finding("InfluxDB's clock", "problem", f"{off_s:.0f} s {side} this machine's", fix)
    else:
        yield Finding("InfluxDB's clock", "ok", "agrees with this machine's")


def _writer(store: _Store, settings: "CloudSettings") -> Iterator[Finding]:
    token = settings.influxdb_token.get_secret_value()
    if not token and not store.is_1x:
        yield Finding("InfluxDB's token", "problem", "none is set", f"set FLEET_INFLUXDB_TOKEN; {INITIALISE} makes one")
        return
    try:
        answer = store.write_nothing(token)
    except NoAnswerError as error:
        yield Finding("InfluxDB's write path", "problem", str(error), "look at its log")
        return
    finding = _judge_write(answer, store)
    yield _open_to_all(store) if finding.verdict == "ok" and not token else finding
    if finding.verdict == "ok":
        yield from _levels(store, token)
        yield from _field_types(store, token, settings)


def _open_to_all(store: _Store) -> Finding:
    """A 1.x that takes points from whoever comes."""
    if urlsplit(store.url).hostname in {"127.0.0.1", "localhost", "::1"}:
        return Finding("InfluxDB's token", "ok", f"none is needed: {store.version} without authentication, on loopback")
    fix = f"let nobody else reach its port, or turn its authentication on ([http] auth-enabled). {USER_OF_1X}"
    found = f"none is needed: whoever reaches {store.url} may write and delete"
    return Finding("InfluxDB's token", "warning", found, fix)


def _judge_write(answer: Answer, store: _Store) -> Finding:
    said = _said(answer)
    bucket = f"the bucket {store.bucket!r}"
    if answer.status == 401 and store.is_1x:
        return Finding("InfluxDB's token", "problem", f"is not known there: {said}", USER_OF_1X)
    if answer.status == 401:
        fix = f"set FLEET_INFLUXDB_TOKEN to the writer's token ({INITIALISE} makes a new one) and restart ingest"
        return Finding("InfluxDB's token", "problem", f"is not known there: {said}", fix)
    if answer.status == 404:
        return Finding(
            "InfluxDB's bucket", "problem", f"{bucket} is missing: {said}",
            f"{INITIALISE}, or correct FLEET_INFLUXDB_BUCKET and FLEET_INFLUXDB_ORG",
        )  # fmt: skip
    if answer.status == 403:
        fix = f"give ingest the writer's token, not the reader's (FLEET_INFLUXDB_TOKEN; {INITIALISE})"
        return Finding("InfluxDB's write right", "problem", f"the token may not write {bucket}: {said}", fix)
    if answer.status >= 500:
        fix = "look at InfluxDB's log, its disk and memory"
        return Finding("InfluxDB's write path", "problem", f"answers {answer.status}: {said}", fix)
    return Finding("InfluxDB's token", "ok", f"may write {bucket}")


def _levels(store: _Store, token: str) -> Iterator[Finding]:
    from cloud.timeseries.levels import LEVELS

    quoted = store.database.translate(_QUOTED)
    answer, series, error = store.query(token, f'SHOW RETENTION POLICIES ON "{quoted}"')
    if answer.status in {401, 403}:
        return  # a writer that may not read: least rights; the reader is asked instead
    if "database not found" in error or answer.status == 404:
        fix = f"{INITIALISE}: it makes the bucket and the mapping by which InfluxQL finds it (DBRP)"
        yield Finding("InfluxDB's bucket", "problem", f"InfluxQL does not find {store.database!r}", fix)
        return
    found = {row[0] for one in series for row in one.get("values") or []}
    missing = [level.policy for level in LEVELS if level.policy not in found]
    if error or answer.status != 200:
        fix = "look at InfluxDB's log"
        yield Finding("InfluxDB's levels", "problem", error or f"answers {answer.status}: {_said(answer)}", fix)
    elif missing:
        fix = f"{INITIALISE}: without them boards of more than {LEVELS[0].days} days stay empty"
        yield Finding("InfluxDB's levels", "problem", f"no retention policy {', '.join(missing)}", fix)
    else:
        yield Finding("InfluxDB's levels", "ok", ", ".join(level.policy for level in LEVELS))


def _field_types(store: _Store, token: str, settings: "CloudSettings") -> Iterator[Finding]:
    """Fields that stand there with another type than we write: their points would be refused."""
    wanted = _written_types(settings)
    # Where we write: rolled-up integers are floats in the other levels.
    policy = store.policy or _default_policy(store, token)
    if not policy:
        return
    answer, series, error = store.query(token, f'SHOW FIELD KEYS FROM "{policy.translate(_QUOTED)}"./.*/')
    if answer.status != 200 or error:
        return
    wrong = []
    for one in series:
        kind = one.get("name", "")
        for name, type_ in one.get("values") or []:
            expected = wanted.get((kind, name))
            if expected is not None and type_ != expected:
                wrong.append(f"{kind}.{name} is {type_} there, we write {expected}")
    if wrong:
        fix = (
            "until the old shard ends these points are quarantined (fleet quarantine), the rest is written: rename or "
            "drop the measurement there, or write into a new bucket (FLEET_INFLUXDB_BUCKET, " + INITIALISE + ")"
        )
        yield Finding("InfluxDB's field types", "problem", "; ".join(sorted(wrong)[:5]), fix)


def _default_policy(store: _Store, token: str) -> str:
    """Where points go that name no level; empty if it cannot be told."""
    _, series, _ = store.query(token, f'SHOW RETENTION POLICIES ON "{store.database.translate(_QUOTED)}"')
    rows = [dict(zip(one.get("columns") or [], row, strict=False)) for one in series for row in one.get("values") or []]
    return next((str(row.get("name")) for row in rows if row.get("default")), "")


def _written_types(settings: "CloudSettings") -> dict[tuple[str, str], str]:
    """(measurement, field) → type in InfluxDB, of every field that is a plain number, text or bool."""
    import devices
    from cloud.timeseries.points import SEQ_FIELD
    from fleet.series import MEASUREMENTS

    for folder in settings.kind_folders:
        devices.add_kind_folder(str(folder))
    names = {"number": "float", "integer": "integer", "string": "string", "boolean": "boolean"}
    python = {float: "float", int: "integer", str: "string", bool: "boolean"}
    found = {(one.name, field.name): python[field.value_type] for one in MEASUREMENTS for field in one.fields}
    for name, kind in devices.kinds().items():
        found[name, SEQ_FIELD] = "integer"
        for field, schema in kind.reading.model_json_schema().get("properties", {}).items():
            options = [one for one in schema.get("anyOf", [schema]) if one.get("type") != "null"]
            type_ = names.get(options[0].get("type", "")) if len(options) == 1 else None
            if type_ is not None:
                found[name, field] = type_
    return found


def _reader(store: _Store, settings: "CloudSettings") -> Iterator[Finding]:
    token = settings.influxdb_reader_token.get_secret_value()
    if not token and store.is_1x and not settings.influxdb_token.get_secret_value():
        return  # nobody is asked who they are, and the writer's finding says so
    if not token:
        fix = "set FLEET_INFLUXDB_READER_TOKEN here to have Grafana's rights looked at"
        yield Finding("InfluxDB's reader", "warning", "its token is not known here", fix)
        return
    try:
        answer, _, error = store.query(token, "SHOW MEASUREMENTS LIMIT 1")
        writes = store.write_nothing(token)
    except NoAnswerError as error_:
        yield Finding("InfluxDB's reader", "problem", str(error_), "look at its log")
        return
    if answer.status in {401, 403} or error:
        found = f"cannot read: {error or _said(answer)}"
        fix = f"give Grafana the reader's token of {INITIALISE}, and restart it"
        yield Finding("InfluxDB's reader", "problem", found, fix)
    elif writes.status not in {401, 403}:
        fix = f"Grafana holds a token that may write: give it the reader's ({INITIALISE}), and revoke the other"
        yield Finding("InfluxDB's reader", "problem", "may write as well", fix)
    else:
        yield Finding("InfluxDB's reader", "ok", "reads, and may do no more")


def _said(answer: Answer) -> str:
    document = answer.document()
    if isinstance(document, dict):
        words = document.get("message") or document.get("error") or json.dumps(document)
    else:
        words = answer.text.strip()
    return f"HTTP {answer.status} {words}"[:200]
