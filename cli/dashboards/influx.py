"""InfluxQL over HTTP for checking and drawing boards: one connection, time by our own clock."""

import http.client
import json
import time
import urllib.parse
from typing import Final, Self

from dashboards.check import Answer, series_of

TIMEOUT_S: Final = 60.0


class InfluxError(RuntimeError):
    """The database cannot be asked at all; the message says what to do."""


class InfluxReader:
    """Runs queries on one database. Raises InfluxError when it cannot be asked; a query's own error is its answer."""

    def __init__(self, url: str, database: str, token: str = "", *, timeout_s: float = TIMEOUT_S) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise InfluxError(f"{url!r} is no address of an InfluxDB; write for example http://127.0.0.1:8086")
        make = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self.url, self._database = url, database
        self._path = parts.path.rstrip("/") + "/query"
        self._headers = {"Authorization": f"Token {token}"} if token else {}
        self._connection = make(parts.hostname, parts.port, timeout=timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def run(self, text: str) -> Answer:
        """One query."""
        parameters = urllib.parse.urlencode({"db": self._database, "q": text, "epoch": "ms"})
        began_s = time.perf_counter()
        status, body = self._ask(f"{self._path}?{parameters}")
        ms = (time.perf_counter() - began_s) * 1000
        try:
            document = json.loads(body)
        except ValueError:
            raise InfluxError(f"{self.url} does not answer like an InfluxDB (HTTP {status})") from None
        if status in {401, 403}:
            raise InfluxError(f"{self.url} refuses the token (HTTP {status}); the reader's token is needed")
        result = (document.get("results") or [{}])[0]
        error = document.get("error") or result.get("error")
        if error is None and status >= 400:
            error = f"HTTP {status}"
        return Answer(series_of(result), ms, error)

    def check_database(self) -> None:
        """Whether there is one to ask at all. Raises InfluxError."""
        escaped = self._database.replace("\\", "\\\\").replace('"', '\\"')
        error = self.run(f'SHOW RETENTION POLICIES ON "{escaped}"').error or ""
        if "database not found" in error:
            raise InfluxError(
                f"{self.url} has no database {self._database!r}; make it with: fleet influx init, or correct --database"
            )

    def _ask(self, path: str) -> tuple[int, bytes]:
        for attempt in (1, 2):  # an idle connection may have been closed by the server
            try:
                self._connection.request("GET", path, headers=self._headers)
                response = self._connection.getresponse()
                return response.status, response.read()
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                if attempt == 2 or isinstance(error, TimeoutError):
                    raise InfluxError(f"{self.url} cannot be reached: {str(error) or type(error).__name__}") from error
        raise AssertionError("unreachable")
