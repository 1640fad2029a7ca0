"""A real InfluxDB 1.x of our own behind a proxy that speaks the write path of InfluxDB 2, and fails when told to."""

import asyncio
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import aiohttp
from aiohttp import web

from cli.broker import free_port
from cli.chaos.processes import ChaosError
from cli.demo.holdings import NANOSECONDS_PER_MILLISECOND, Readings
from cli.processes import guard

BUCKET: Final = "fleet"
TOKEN: Final = "chaos-token"  # noqa: S105  # of a server on loopback that lives for one round
ANSWER_S_MAX: Final = 60.0
BODY_BYTES_MAX: Final = 64 << 20


class InfluxServer:
    """`cli.chaos.scene.SeriesServer`: down, or answering with a status of our choice."""

    def __init__(self, directory: Path) -> None:
        self.port = 0
        self._directory = directory
        self._server_port = free_port()
        self._status = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None

    def settings(self) -> dict[str, str]:
        """For the cloud's environment."""
        return {
            "FLEET_SERIES": "influxdb", "FLEET_INFLUXDB_URL": f"http://127.0.0.1:{self.port}",
            "FLEET_INFLUXDB_TOKEN": TOKEN, "FLEET_INFLUXDB_BUCKET": BUCKET,
            "FLEET_INFLUXDB_ROLLUP": "false",  # what is compared is what was measured
        }  # fmt: skip

    @property
    def direct_url(self) -> str:
        """The server itself, past the proxy."""
        return self._url("")

    @property
    def pid(self) -> int:
        """Of the server."""
        return self._process.pid if self._process is not None else 0

    async def start(self) -> None:
        """Start server and proxy. Raises ChaosError."""
        if shutil.which("influxd") is None:
            raise ChaosError("--influxdb: it is not installed (Debian: apt-get install influxdb)")
        self._directory.mkdir(parents=True, exist_ok=True)
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30))
        await self._start_server()
        async with self._session.post(self._url("/query"), data={"q": f"CREATE DATABASE {BUCKET}"}) as answer:
            answer.raise_for_status()
            await answer.read()  # InfluxDB 1.x says 200 first and then makes it: ended before, there is none
        application = web.Application(client_max_size=BODY_BYTES_MAX)
        application.router.add_post("/api/v2/write", self._write)
        application.router.add_get("/query", self._query)
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        self.port = free_port()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def close(self) -> None:
        """End both."""
        if self._runner is not None:
            await self._runner.cleanup()
        if self._session is not None:
            await self._session.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    async def fault(self, status: int) -> None:
        """Answer every write with this status; 0: killed with SIGKILL."""
        self._status = status
        if status == 0 and self._process is not None:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)

    async def heal(self) -> None:
        """Work again, on the same data."""
        self._status = 0
        if self._process is not None and self._process.poll() is not None:
            await self._start_server()

    async def heal_into(self, status: int) -> None:
        """Run again, and answer every write with this status."""
        await self.heal()
        self._status = status

    async def count(self, kind: str, field: str) -> int:
        """Points of one kind, past the proxy; none while the server is down."""
        assert self._session is not None
        if self._process is None or self._process.poll() is not None:
            return 0
        query = {"db": BUCKET, "q": f'SELECT COUNT("{field}") FROM "{kind}"'}  # noqa: S608  # names of ours
        async with self._session.get(self._url("/query"), params=query) as answer:
            result = json.loads(await answer.read())["results"][0]
        return sum(int(row[1]) for series in result.get("series", ()) for row in series["values"])

    async def readings(self, kind: str, device_id: str = "") -> Readings:
        """All points of one kind, or of one device of it, past the proxy."""
        assert self._session is not None
        of_device = f" WHERE \"device_id\" = '{device_id}'" if device_id else ""
        statement = f'SELECT * FROM "{kind}"{of_device}'  # noqa: S608  # names of ours
        query = {"db": BUCKET, "q": statement, "epoch": "ns"}
        async with self._session.get(self._url("/query"), params=query) as answer:
            result = json.loads(await answer.read())["results"][0]
        found: Readings = {}
        for series in result.get("series", ()):
            for row in series["values"]:
                fields = {name: value for name, value in zip(series["columns"], row, strict=True) if value is not None}
                by_moment = found.setdefault(fields.pop("device_id"), {})
                by_moment.setdefault(fields.pop("time") // NANOSECONDS_PER_MILLISECOND, []).append(fields)
        return found

    def _url(self, path: str) -> str:
        return f"http://127.0.0.1:{self._server_port}{path}"

    def _launch(self) -> subprocess.Popen[bytes]:
        folder, port = self._directory, self._server_port
        environment = os.environ | {
            "INFLUXDB_REPORTING_DISABLED": "true", "INFLUXDB_MONITOR_STORE_ENABLED": "false",
            "INFLUXDB_BIND_ADDRESS": f"127.0.0.1:{free_port()}", "INFLUXDB_HTTP_BIND_ADDRESS": f"127.0.0.1:{port}",
            "INFLUXDB_META_DIR": str(folder / "meta"), "INFLUXDB_DATA_DIR": str(folder / "data"),
            "INFLUXDB_DATA_WAL_DIR": str(folder / "wal"), "INFLUXDB_HTTP_LOG_ENABLED": "false",
            "INFLUXDB_HTTP_MAX_ROW_LIMIT": "0",
        }  # fmt: skip
        with (folder / "influxd.log").open("ab") as log:
            return subprocess.Popen(["influxd"], env=environment, stdout=log, stderr=log, process_group=0)

    async def _start_server(self) -> None:
        self._process = self._launch()
        guard.watch(self._process, self._directory)
        assert self._session is not None
        async with asyncio.timeout(ANSWER_S_MAX):
            while True:
                try:
                    async with self._session.get(self._url("/ping")):
                        return
                except aiohttp.ClientError:
                    if self._process.poll() is not None:
                        raise ChaosError(
                            f"InfluxDB ended while starting; see {self._directory / 'influxd.log'}"
                        ) from None
                    await asyncio.sleep(0.1)

    async def _write(self, request: web.Request) -> web.Response:
        if self._status:
            return web.json_response({"code": "chaos", "message": "told to fail"}, status=self._status)
        if request.headers.get("Authorization") != f"Token {TOKEN}":
            return web.json_response({"code": "unauthorized"}, status=401)
        precision = {"ns": "ns", "us": "u", "ms": "ms", "s": "s"}[request.query.get("precision", "ns")]
        body = await request.read()  # unpacked on the way in
        return await self._pass_on("POST", "/write", {"db": request.query["bucket"], "precision": precision}, body)

    async def _query(self, request: web.Request) -> web.Response:
        return await self._pass_on("GET", "/query", dict(request.query), None)

    async def _pass_on(self, method: str, path: str, query: dict[str, Any], body: bytes | None) -> web.Response:
        assert self._session is not None
        try:
            async with self._session.request(method, self._url(path), params=query, data=body) as answer:
                return web.Response(status=answer.status, body=await answer.read())
        except aiohttp.ClientError:
            return web.Response(status=503)
