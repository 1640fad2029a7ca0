"""InfluxDB as the series store: ready line protocol through influxdb-client, reads in InfluxQL.

Writes are synchronous: the client's batching API keeps points in memory, gives up after some retries and
drops them, while our spool keeps them until the server said yes. Reads use `GET /query` (InfluxQL), which
1.8, 2.x and 3.x understand alike; on 2.x the bucket needs a DBRP mapping, which a bucket has by default.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import urllib3
from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.domain.write_precision import WritePrecision
from influxdb_client.rest import ApiException
from influxdb_client.service.write_service import WriteService
from isal import igzip

from cloud.adapters.influx_http import RETRY_AFTER_S, InfluxHttp, date_ms, identifier, refusal, text_literal
from cloud.adapters.series_queries import FieldNotNumericError, check_query
from cloud.ports import SeriesError, SeriesPoint
from cloud.timeseries.ready import body_of


class InfluxSeries:
    """Implements `cloud.ports.SeriesStore`.

    Args:
        url: e.g. `http://127.0.0.1:8086`.
        token: sent as `Authorization: Token …`.
        org: organisation (2.x).
        bucket: bucket, or `database/retention policy`.
        timeout_s: of one request.
    """

    takes_lines = True
    """Ready ones cost less (`cloud.timeseries.ready`)."""

    def __init__(self, *, url: str, token: str, org: str, bucket: str, timeout_s: float = 10.0) -> None:
        self._client = InfluxDBClient(url=url, token=token, org=org, timeout=int(timeout_s * 1000))
        self._writes: Any = WriteService(self._client.api_client)  # type: ignore[no-untyped-call]  # a generated class
        self._http = InfluxHttp(url, token, timeout_s=timeout_s)
        self.date_ms: int | None = None
        """The server's clock when it last refused something; None: it has not said."""
        self._org = org
        self._bucket = bucket
        self._database, _, self._policy = bucket.partition("/")

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
            f"SELECT {aggregate}({identifier(field)}) FROM {identifier(kind)}"  # noqa: S608  # identifiers and texts are escaped
            f" WHERE device_id = {text_literal(device_id)}"
            f" AND time >= {from_ms}ms AND time < {to_ms}ms GROUP BY time({step_ms}ms) fill(none)"
        )
        series = await asyncio.to_thread(self._query, query)
        rows = series[0]["values"] if series else []
        if any(isinstance(value, str) for _, value in rows):
            raise FieldNotNumericError(f"{kind}.{field} has no {aggregate}: its values are texts")
        return [(at_ms, float(value)) for at_ms, value in rows if value is not None]

    async def count(self, kind: str | None = None) -> int:
        """Number of stored points; exact because every point carries `message_seq`, which is never missing."""
        source = "/.*/" if kind is None else identifier(kind)
        series = await asyncio.to_thread(self._query, f"SELECT count(*) FROM {source}")  # noqa: S608
        return sum(max(value or 0 for value in row["values"][0][1:]) for row in series)

    async def close(self) -> None:
        """Close the connections."""
        self._http.close()
        await asyncio.to_thread(self._client.close)

    def _write(self, points: Sequence[SeriesPoint]) -> None:
        try:
            body = igzip.compress(body_of(points), 1)
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
            headers: Mapping[str, str] = error.headers or {}
            self.date_ms = date_ms(headers.get("Date", "")) or self.date_ms
            raise refusal(int(error.status or 0), str(error.body or error.reason), headers) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise SeriesError(f"no answer from the series store: {error}", retry_after_s=RETRY_AFTER_S) from error

    def _query(self, query: str) -> list[dict[str, Any]]:
        return self._http.query(query, database=self._database, policy=self._policy)
