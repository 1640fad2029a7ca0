"""A real InfluxDB 1.6.7 behind nginx, which gives it the write path and the token of InfluxDB 2."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest

TOKEN = "test-token"
BUCKET = "fleet"

NGINX_CONF = """
daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx-error.log;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  map $arg_precision $precision_1x {{ default ns; ns ns; us u; ms ms; s s; }}
  map $arg_bucket $db_1x {{ default $arg_bucket; "~^(?<d>[^/%]+)(/|%2F)(?<r>.+)$" "$d&rp=$r"; }}
  map $http_authorization $token_ok {{ default 0; "Token {token}" 1; }}
  server {{
    listen 127.0.0.1:{port};
    client_max_body_size 25m; client_body_buffer_size 25m;  # in memory: workers have no right to the folder
    location = /api/v2/write {{
      if ($token_ok = 0) {{ return 401 '{{"code":"unauthorized","message":"unauthorized access"}}'; }}
      {fault}
      rewrite ^ /write?db=$db_1x&precision=$precision_1x? break;
      proxy_set_header Authorization "";
      proxy_pass http://127.0.0.1:{influx_port};
    }}
    location = /write {{
      if ($token_ok = 0) {{ return 401 '{{"code":"unauthorized","message":"unauthorized access"}}'; }}
      {fault}
      proxy_set_header Authorization "";
      proxy_pass http://127.0.0.1:{influx_port};
    }}
    location = /health {{ default_type application/json; return 200 '{{"name":"influxdb","status":"pass"}}'; }}
    location = /ping  {{ proxy_pass http://127.0.0.1:{influx_port}; }}
    location = /query {{
      if ($token_ok = 0) {{ return 401 '{{"error":"unauthorized"}}'; }}
      proxy_set_header Authorization "";
      proxy_pass http://127.0.0.1:{influx_port};
    }}
  }}
}}
"""


def require_programs():
    """Skip, saying what is missing, unless the real servers are installed."""
    for program in ("influxd", "nginx"):
        if shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin") is None:
            pytest.skip(f"{program} is not installed; `make test` installs InfluxDB 1.6.7 and nginx when it is root")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class InfluxBehindNginx:
    """Both servers on free loopback ports; `stop_database` and `fault` break what tests want broken."""

    def __init__(self, folder):
        self.folder = folder
        self.port, self._influx_port, self._rpc_port = free_port(), free_port(), free_port()
        self._database = self._nginx = None
        self.start_database()
        self._write_conf("")
        with (folder / "nginx.log").open("wb") as log:
            self._nginx = subprocess.Popen(
                [shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin"), "-c", str(folder / "nginx.conf")],
                stdout=log,
                stderr=log,
            )
        wait_for(f"{self.url}/ping", self._nginx)
        self.create_database(BUCKET)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def create_database(self, name):
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self._influx_port}/query", data=f"q=CREATE DATABASE {name}".encode(), timeout=20
        ) as answer:
            answer.read()  # it says 200 before it begins

    def start_database(self):
        """Start (again) on the same data."""
        environment = os.environ | {
            "INFLUXDB_REPORTING_DISABLED": "true",
            "INFLUXDB_MONITOR_STORE_ENABLED": "false",
            "INFLUXDB_BIND_ADDRESS": f"127.0.0.1:{self._rpc_port}",
            "INFLUXDB_HTTP_BIND_ADDRESS": f"127.0.0.1:{self._influx_port}",
            "INFLUXDB_META_DIR": str(self.folder / "meta"),
            "INFLUXDB_DATA_DIR": str(self.folder / "data"),
            "INFLUXDB_DATA_WAL_DIR": str(self.folder / "wal"),
            "INFLUXDB_HTTP_LOG_ENABLED": "false",
        }
        with (self.folder / "influxd.log").open("ab") as log:
            self._database = subprocess.Popen([shutil.which("influxd")], env=environment, stdout=log, stderr=log)
        wait_for(f"http://127.0.0.1:{self._influx_port}/ping", self._database)

    def stop_database(self):
        """kill -9, as a power cut would."""
        self._database.kill()
        self._database.wait(20)

    def fault(self, statement):
        """Put an nginx statement (`return 503;`) before every write; an empty one heals."""
        self._write_conf(statement)
        marker = statement or "healed"
        generation = self._workers()
        self._nginx.send_signal(signal.SIGHUP)
        while self._workers() & generation:  # old workers answer with the old rules until they are gone
            if self._nginx.poll() is not None:
                raise RuntimeError(f"nginx ended while changing to {marker}")

    def close(self):
        for process in (self._nginx, self._database):
            if process is not None and process.poll() is None:
                process.terminate()
                process.wait(20)

    def _workers(self):
        return set(Path(f"/proc/{self._nginx.pid}/task/{self._nginx.pid}/children").read_text().split())

    def _write_conf(self, fault):
        text = NGINX_CONF.format(
            folder=self.folder, token=TOKEN, port=self.port, influx_port=self._influx_port, fault=fault
        )
        (self.folder / "nginx.conf").write_text(text)


def wait_for(url, process):
    """Poll until the server answers at all; fails when its process ends."""
    while process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=2).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.05)
        else:
            return
    raise RuntimeError(f"{process.args[0]} ended with {process.returncode} before it answered")


@pytest.fixture(scope="session")
def influx(tmp_path_factory):
    require_programs()
    server = InfluxBehindNginx(tmp_path_factory.mktemp("influx"))
    yield server
    server.close()
