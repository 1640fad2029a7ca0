"""InfluxDB over plain HTTP, in what 1.x and 2.x have in common: `/ping`, `/query` (InfluxQL), `/write` (lines).

Everything here blocks: call it off the event loop. Answers are read row by row, so that a month of readings
passes through in bounded memory.
"""

import email.utils
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

import msgspec
import urllib3
from isal import igzip

from cloud.adapters.series_queries import FieldNotNumericError
from cloud.ports import SeriesAccessError, SeriesError, SeriesTooLargeError

RETRY_AFTER_S: Final = 1.0
ACCESS_RETRY_AFTER_S: Final = 15.0
CHUNK_ROWS: Final = 5_000
_ERROR_CHARACTERS_MAX: Final = 300
_NO_ACCESS: Final = frozenset({401, 403, 404})
_REFUSED: Final = frozenset({400, 422})
_TOO_LARGE: Final = 413
_decode = msgspec.json.Decoder().decode


class Rows(NamedTuple):
    """A stretch of one series: `columns[0]` is `time` in the asked precision."""

    measurement: str
    tags: dict[str, str]
    columns: list[str]
    values: list[list[Any]]


class InfluxHttp:
    """One server; its connections are shared by threads.

    Args:
        url: e.g. `http://127.0.0.1:8086`.
        token: sent as `Authorization: Token …`; empty: none is sent.
        timeout_s: of one request, and between two reads of a long answer.
    """

    def __init__(self, url: str, token: str, *, timeout_s: float = 10.0) -> None:
        self.url = url.rstrip("/")
        self._pool = urllib3.PoolManager(maxsize=4, timeout=urllib3.Timeout(timeout_s), retries=False)
        self._headers = {"Authorization": f"Token {token}"} if token else {}
        self.date_ms: int | None = None
        """Its clock at the last answer, whole seconds; None: it has not said."""

    def version(self) -> str:
        """`1.6.7`, `v2.7.11` …; empty if it does not say."""
        answer = self._request("GET", "/ping")
        if answer.status >= 300:  # what is no success
            raise refusal(answer.status, answer.data.decode(errors="replace"), answer.headers)
        return str(answer.headers.get("X-Influxdb-Version", ""))

    def query(
        self, statement: str, *, database: str = "", policy: str = "", epoch: str = "ms", post: bool = False
    ) -> list[dict[str, Any]]:
        """The series of one statement, all at once. Statements that change something are sent with `post`."""
        fields = _fields(statement, database, policy, epoch)
        form: dict[str, Any] = {"encode_multipart": False} if post else {}
        answer = self._request("POST" if post else "GET", "/query", fields=fields, **form)
        if answer.status != 200:
            raise refusal(answer.status, answer.data.decode(errors="replace"), answer.headers)
        return _series(answer.data)

    def rows(self, statement: str, *, database: str, epoch: str = "ns", chunk_rows: int = CHUNK_ROWS) -> Iterator[Rows]:
        """The same, stretch by stretch as the server sends it; a statement may be longer than an address can be."""
        fields = _fields(statement, database, "", epoch) | {"chunked": "true", "chunk_size": str(chunk_rows)}
        answer = self._request("POST", "/query", fields=fields, encode_multipart=False, preload_content=False)
        try:
            if answer.status != 200:
                raise refusal(answer.status, answer.data.decode(errors="replace"), answer.headers)
            for line in answer:
                if not line.strip():
                    continue
                for series in _series(line):
                    yield Rows(series.get("name", ""), series.get("tags") or {}, series["columns"], series["values"])
            answer.release_conn()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise SeriesError(f"the answer broke off: {error}", retry_after_s=RETRY_AFTER_S) from error
        finally:
            answer.close()

    def write(self, lines: bytes, *, database: str, policy: str) -> None:
        """Store lines durably; the same lines again change nothing."""
        self.write_compressed(igzip.compress(lines, 1), database=database, policy=policy)

    def write_compressed(self, body: bytes, *, database: str, policy: str) -> None:
        """The same for lines that are compressed with gzip."""
        answer = self._request(
            "POST", "/write", parameters={"db": database, "rp": policy, "precision": "ns"},
            body=body, headers={"Content-Encoding": "gzip"},
        )  # fmt: skip
        if answer.status >= 300:
            raise refusal(answer.status, answer.data.decode(errors="replace"), answer.headers)

    def call(self, method: str, path: str, *, parameters: Mapping[str, str] | None = None, body: Any = None) -> Any:
        """One request to `/api/v2`; returns the decoded answer."""
        headers = {"Accept": "application/json"} | ({"Content-Type": "application/json"} if body is not None else {})
        answer = self._request(
            method, path, parameters=parameters, headers=headers,
            body=None if body is None else msgspec.json.encode(body),
        )  # fmt: skip
        if answer.status >= 300:
            raise refusal(answer.status, answer.data.decode(errors="replace"), answer.headers)
        return _decoded(answer.data) if answer.data else None

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()

    def _request(
        self,
        method: str,
        path: str,
        *,
        parameters: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        **rest: Any,
    ) -> urllib3.BaseHTTPResponse:
        query = f"?{urlencode(parameters)}" if parameters else ""
        try:
            answer = self._pool.request(
                method, f"{self.url}{path}{query}", headers={**self._headers, **(headers or {})}, redirect=False, **rest
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise SeriesError(f"no answer from the series store: {error}", retry_after_s=RETRY_AFTER_S) from error
        self.date_ms = date_ms(answer.headers.get("Date", "")) or self.date_ms
        return answer


def refusal(status: int, words: str, headers: Mapping[str, str]) -> SeriesError:
    """What a refusal means for the points: never (`retry_after_s` None), in smaller bodies, or later."""
    message = f"HTTP {status}: {words.strip()}"[:_ERROR_CHARACTERS_MAX]
    if status == _TOO_LARGE:
        return SeriesTooLargeError(message, retry_after_s=None)
    if status in _REFUSED:
        return SeriesError(message, retry_after_s=None)
    if status in _NO_ACCESS:
        return SeriesAccessError(message, retry_after_s=ACCESS_RETRY_AFTER_S)
    return SeriesError(message, retry_after_s=_retry_after_s(headers))


def _retry_after_s(headers: Mapping[str, str]) -> float:
    """`Retry-After` in seconds, also where it is a date: then by the server's own clock."""
    asked = headers.get("Retry-After", "").strip()
    if asked.isdecimal():
        return float(asked)
    until, now = date_ms(asked), date_ms(headers.get("Date", ""))
    return max(0.0, (until - now) / 1000) if until and now else RETRY_AFTER_S


def date_ms(text: str) -> int | None:
    """An HTTP date in ms; None if it is none."""
    try:
        return int(email.utils.parsedate_to_datetime(text).timestamp() * 1000)
    except ValueError:
        return None


def identifier(text: str) -> str:
    """A measurement, policy, tag or field as InfluxQL quotes it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def text_literal(text: str) -> str:
    """A text as InfluxQL quotes it."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _fields(statement: str, database: str, policy: str, epoch: str) -> dict[str, str]:
    named = {"q": statement, "epoch": epoch, "db": database, "rp": policy}
    return {name: value for name, value in named.items() if value}


def _decoded(body: bytes) -> Any:
    try:
        return _decode(body)
    except msgspec.DecodeError as error:
        start = body[:80].decode(errors="replace")
        raise SeriesError(f"this is no InfluxDB: it answered {start!r}", retry_after_s=RETRY_AFTER_S) from error


def _series(body: bytes) -> list[dict[str, Any]]:
    document = _decoded(body)
    (result,) = document.get("results") or [{"error": document.get("error", "an answer without results")}]
    problem = result.get("error", "")
    if "unsupported" in problem:
        raise FieldNotNumericError(problem)
    if "database not found" in problem or "retention policy not found" in problem:
        raise SeriesAccessError(problem, retry_after_s=ACCESS_RETRY_AFTER_S)
    if problem:
        raise SeriesError(problem, retry_after_s=None)
    return list(result.get("series") or ())
