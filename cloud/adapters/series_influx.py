"""InfluxDB as the series store: ready line protocol through influxdb-client, reads in InfluxQL.

Writes are synchronous: the client's batching API keeps points in memory, gives up after some retries and
drops them, while our spool keeps them until the server said yes. Reads use `GET /query` (InfluxQL), which
1.8, 2.x and 3.x understand alike; on 2.x the bucket needs a DBRP mapping, which a bucket has by default.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import urllib3
from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.domain.write_precision import WritePrecision
from influxdb_client.rest import ApiException
from influxdb_client.service.write_service import WriteService
from isal import igzip

from cloud.adapters.series_queries import FieldNotNumericError, check_query
from cloud.ports import SeriesAccessError, SeriesError, SeriesPoint
from cloud.timeseries.lines import encode_lines

_RETRY_AFTER_S: Final = 1.0
_ACCESS_RETRY_AFTER_S: Final = 15.0
_ERROR_CHARACTERS_MAX: Final = 300
_NO_ACCESS: Final = frozenset({401, 403, 404})
_REFUSED: Final = frozenset({400, 413, 422})


class InfluxSeries:
    """Implements `cloud.ports.SeriesStore`.

    Args:
        url: e.g. `http://127.0.0.1:8086`.
        token: sent as `Authorization: Token …`.
        org: organisation (2.x).
        bucket: bucket, or `database/retention policy`.
        timeout_s: of one request.
    """

    def __init__(self, *, url: str, token: str, org: str, bucket: str, timeout_s: float = 10.0) -> None:
        self._client = InfluxDBClient(url=url, token=token, org=org, timeout=int(timeout_s * 1000))
        self._writes: Any = WriteService(self._client.api_client)  # type: ignore[no-untyped-call]  # a generated class
        self._pool: urllib3.PoolManager = self._client.api_client.rest_client.pool_manager
        self._query_url = f"{url.rstrip('/')}/query"
        self._headers = {"Authorization": f"Token {token}"}
        self._org = org
        self._bucket = bucket
        self._timeout_s = timeout_s

    async def write(self, points: Sequence[SeriesPoint]) -> None:
        """Write in one request; the server has stored them when this returns."""
        await asyncio.to_thread(self._write, points)

    async def read(
        self,
        kind: str,
        device_id: str,
        field: str,
        from_ms: int,
        to_ms: int,
        step_ms: int,
        aggregate: str = "mean",
    ) -> list[tuple[int, float]]:
        """See the port.

        Raises:
            FieldNotNumericError: texts can only be counted, booleans not averaged or summed.
            ValueError: unknown aggregate or a step below 1 ms.
        """
        check_query(aggregate, step_ms)
        query = (
            f"SELECT {aggregate}({_identifier(field)}) FROM {_identifier(kind)}"  # noqa: S608  # identifiers and texts are escaped
            f" WHERE device_id = {_text(device_id)}"
            f" AND time >= {from_ms}ms AND time < {to_ms}ms GROUP BY time({step_ms}ms) fill(none)"
        )
        series = await asyncio.to_thread(self._query, query)
        rows = series[0]["values"] if series else []
        if any(isinstance(value, str) for _, value in rows):
            raise FieldNotNumericError(f"{kind}.{field} has no {aggregate}: its values are texts")
        return [(at_ms, float(value)) for at_ms, value in rows if value is not None]

    async def count(self, kind: str | None = None) -> int:
        """Number of stored points; exact because every point carries `message_seq`, which is never missing."""
        source = "/.*/" if kind is None else _identifier(kind)
        series = await asyncio.to_thread(self._query, f"SELECT count(*) FROM {source}")  # noqa: S608
        return sum(max(row["values"][0][1:]) for row in series)

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.to_thread(self._client.close)

    def _write(self, points: Sequence[SeriesPoint]) -> None:
        try:
            body = igzip.compress(encode_lines(points), 1)
        except TypeError as error:
            raise SeriesError(str(error), retry_after_s=None) from error
        try:
            self._writes.post_write(
                org=self._org,
                bucket=self._bucket,
                body=body,
                precision=WritePrecision.NS,
                content_encoding="gzip",
                content_type="text/plain; charset=utf-8",
                urlopen_kw={"retries": False},
            )
        except ApiException as error:
            raise _error(int(error.status or 0), str(error.body or error.reason), error.headers or {}) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise SeriesError(f"no answer from the series store: {error}", retry_after_s=_RETRY_AFTER_S) from error

    def _query(self, query: str) -> list[dict[str, Any]]:
        database, _, policy = self._bucket.partition("/")
        fields = {"db": database, "q": query, "epoch": "ms"} | ({"rp": policy} if policy else {})
        try:
            answer = self._pool.request(
                "GET",
                self._query_url,
                fields=fields,
                headers=self._headers,
                timeout=self._timeout_s,
                retries=False,
            )
        except urllib3.exceptions.HTTPError as error:
            raise SeriesError(f"no answer from the series store: {error}", retry_after_s=_RETRY_AFTER_S) from error
        if answer.status != 200:
            raise _error(answer.status, answer.data.decode(errors="replace"), answer.headers)
        (result,) = msgspec.json.decode(answer.data)["results"]
        problem = result.get("error", "")
        if "unsupported" in problem:
            raise FieldNotNumericError(problem)
        if problem:
            raise SeriesError(problem, retry_after_s=None)
        return list(result.get("series", ()))


def _error(status: int, words: str, headers: Mapping[str, str]) -> SeriesError:
    """What a refusal means for the points: never (None), or later."""
    message = f"HTTP {status}: {words.strip()}"[:_ERROR_CHARACTERS_MAX]
    if status in _REFUSED:
        return SeriesError(message, retry_after_s=None)
    if status in _NO_ACCESS:
        return SeriesAccessError(message, retry_after_s=_ACCESS_RETRY_AFTER_S)
    asked = headers.get("Retry-After", "")
    return SeriesError(message, retry_after_s=float(asked) if asked.isdigit() else _RETRY_AFTER_S)


def _identifier(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _text(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
