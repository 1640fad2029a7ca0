"""Who else could receive the same load: `mosquitto_sub` as the yardstick, the naive way, or any command line.

Each runs on the broker that the cloud ran on, right after it, and begins when the broker says that a message would now
reach somebody (MQTT 5 tells a publisher when there are no subscribers). CPU is counted from there.
"""

import contextlib
import json
import os
import shlex
import shutil
import signal
import string
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

from mqtt5 import PublishPacket, QoS

from cli.bench.ingest_flow import AHEAD_MAX, Flow, IngestLoad
from cli.bench.ingest_load import Connection, Phase, sent_envelope
from cli.bench.naive import TOPICS
from cli.bench.rig import BenchError
from cli.broker import free_port
from cli.processes import cpu_seconds, guard, threads_cpu_seconds
from fleet import topics

RIVAL_MESSAGES_MAX: Final = 100_000
"""What cannot say how far it is gets no more than the broker queues for it; more would be dropped."""
YARDSTICK_MESSAGES_MAX: Final = 200_000
"""After some 380,000 messages in one session Mosquitto 2.0.11 was seen to drop messages for `mosquitto_sub` (never for
our ingester, in 10,000,000), far below its configured limits; what a message costs shows long before."""
READY_S_MAX: Final = 30.0
RIVAL_S_MAX: Final = 120.0
STALL_S_MAX: Final = 20.0
PROBE_S: Final = 0.05
MOSQUITTO_SUB_HINT: Final = "mosquitto_sub is missing: install mosquitto-clients (macOS: it comes with mosquitto)"
PLACEHOLDERS: Final = frozenset({"port", "topic", "sink_port", "messages"})
_NO_SUBSCRIBERS: Final = 0x10
_LINE_BYTES: Final = 2  # `-F .` writes a point and a line feed


@dataclass(frozen=True, slots=True)
class Contest:
    """What all of them get: a load, its rate, and the broker it goes through."""

    load: IngestLoad
    port: int
    broker_pid: int
    identity: Sequence[str]
    rate: float
    messages: int

    def phase(self, messages: int, ahead: int = 0) -> Phase:
        """`messages`, rounded to whole rounds of all devices."""
        return Phase(1, max(1, messages // self.load.fleet.devices), self.rate, 0 if self.rate else ahead)


def check_command(command: str) -> None:
    """Raises ValueError that names what is wrong with a command line of `--vs`."""
    try:
        words = shlex.split(command)
        fields = [name for word in words for _, name, _, _ in string.Formatter().parse(word) if name is not None]
    except ValueError as error:
        raise ValueError(f"--vs {command!r}: {error}; a brace that is meant as one is written twice") from None
    if not words:
        raise ValueError("--vs: write naive, none or a command line")
    known = ", ".join(f"{{{name}}}" for name in sorted(PLACEHOLDERS))
    if unknown := sorted(set(fields) - PLACEHOLDERS):
        raise ValueError(f"--vs: unknown placeholder {{{unknown[0]}}}; known: {known}")
    if missing := sorted({"port", "sink_port"} - set(fields)):
        raise ValueError(f"--vs: the command needs {{{missing[0]}}} to reach our broker and our sink; known: {known}")
    program = next((word for word in words if word != "env" and "=" not in word), words[0])
    if shutil.which(program) is None:
        raise ValueError(f"--vs: {program!r} is not installed here (looked for it on PATH)")


# --- mosquitto_sub -----------------------------------------------------------------------------------------------


def mosquitto_sub() -> str:
    """The program; raises BenchError where it is missing."""
    found = shutil.which("mosquitto_sub")
    if found is None:
        raise BenchError(MOSQUITTO_SUB_HINT)
    return found


def against_mosquitto_sub(contest: Contest, directory: Path) -> dict[str, Any]:
    """Messages per second and CPU per message of `mosquitto_sub` with the ingester's subscription and QoS.

    It writes one point per message: less than anybody who would do something with it.
    """
    fleet = contest.load.fleet
    phase = contest.phase(min(contest.messages, YARDSTICK_MESSAGES_MAX), AHEAD_MAX)
    messages = phase.rounds * fleet.devices
    filters = [
        word
        for shard in range(topics.SHARD_COUNT)
        for channel in topics.UpChannel
        for word in ("-t", topics.up_filter(shard, channel))
    ]
    tls = []
    if contest.identity:
        tls = ["--cafile", contest.identity[0], "--cert", contest.identity[1], "--key", contest.identity[2]]
    output = directory / "mosquitto_sub.out"
    with output.open("wb") as file:
        process = subprocess.Popen(
            [mosquitto_sub(), "-h", "127.0.0.1", "-p", str(contest.port), "-V", "mqttv5", "-i", "bench-sub", "-q",
             str(fleet.qos), "-D", "connect", "receive-maximum", "65535", "-F", ".", *tls, *filters],
            stdout=file,
        )  # fmt: skip
    guard.watch(process)

    def lines() -> int:
        return output.stat().st_size // _LINE_BYTES

    try:
        _wait_for_subscriber(contest, process.poll, lambda: lines() > 0)
        probes = lines()
        broker_before, own_before = cpu_seconds(contest.broker_pid), threads_cpu_seconds(process.pid)
        started_s = time.monotonic()
        contest.load.go(phase)
        with Flow(contest.load, phase, lambda: output.stat().st_size / _LINE_BYTES, process.pid):
            own_s = _waited(process, lines, probes + messages)
            seconds = time.monotonic() - started_s
            broker_s = cpu_seconds(contest.broker_pid) - broker_before
        contest.load.result()
    finally:
        process.kill()
    if (received := lines() - probes) != messages:
        raise BenchError(f"mosquitto_sub got {received} messages where {messages} were sent")
    return {
        "messages": messages,
        "messages_per_second": round(messages / seconds),
        "cpu_us_per_message": round((own_s - own_before) / messages * 1e6, 2),
        "broker_cpu_us_per_message": round(broker_s / messages * 1e6, 2),
    }


def _waited(process: "subprocess.Popen[bytes]", lines: Callable[[], int], wanted: int) -> float:
    """End it when it has `wanted` lines; CPU seconds of its whole life, to the microsecond.

    Raises BenchError when it ended before, or nothing comes any more.
    """
    had, since_s = 0, time.monotonic()
    while (has := lines()) < wanted:
        pid, status, _ = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            raise BenchError(f"mosquitto_sub ended with {process.returncode} after {has} of {wanted} messages")
        if has != had:
            had, since_s = has, time.monotonic()
        if time.monotonic() > since_s + STALL_S_MAX:
            raise BenchError(f"mosquitto_sub got {has} of {wanted} messages and then no more: the broker let some go")
        time.sleep(0.002)
    process.kill()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return used.ru_utime + used.ru_stime


def _wait_for_subscriber(
    contest: Contest, ended: Callable[[], int | None], heard: Callable[[], bool] = lambda: True
) -> int:
    """Until the broker passes our telemetry on, and a message of it was `heard`; returns how many it was to pass on."""
    topic, payload = sent_envelope(contest.load.fleet, 0, 1)
    probe = Connection(contest.port, "bench-probe", contest.identity)
    deadline_s = time.monotonic() + READY_S_MAX
    passed_on = 0
    try:
        while time.monotonic() < deadline_s:
            if (code := ended()) is not None:
                raise BenchError(f"it ended with {code} before it subscribed")
            if passed_on and heard():
                return passed_on
            packet = PublishPacket(topic, payload, qos=QoS.AT_LEAST_ONCE, packet_id=1)
            probe.send(packet.write(), 1)
            while probe.acknowledged < probe.sent:
                probe.read()
            passed_on += probe.last_reason != _NO_SUBSCRIBERS
            time.sleep(PROBE_S)
    finally:
        probe.socket.close()
    raise BenchError(f"it did not subscribe to {TOPICS} within {READY_S_MAX:.0f} s")


# --- the naive way -----------------------------------------------------------------------------------------------


def against_naive(contest: Contest) -> dict[str, Any]:
    """CPU per message of paho-mqtt with influxdb-client, tuned as their documents advise (`cli.bench.naive`)."""
    phase = contest.phase(min(contest.messages, RIVAL_MESSAGES_MAX))
    messages = phase.rounds * contest.load.fleet.devices
    sink = Sink()
    arguments = [str(contest.port), str(sink.port), str(messages), str(contest.load.fleet.qos), *contest.identity]
    receiver = subprocess.Popen(
        [sys.executable, "-m", "cli.bench.naive", "receive", *arguments], stdout=subprocess.PIPE, text=True
    )
    guard.watch(receiver)  # type: ignore[arg-type]  # text or bytes makes no difference to it
    try:
        assert receiver.stdout is not None
        receiver.stdout.readline()
        started_s = time.monotonic()
        contest.load.go(phase)
        line = receiver.stdout.readline()
        seconds = time.monotonic() - started_s
        contest.load.result()
        if not line:
            raise BenchError("the naive receiver ended early; its words stand above")
        used_us = float(json.loads(line)["cpu_us_per_message"])
    finally:
        receiver.kill()
        receiver.wait()
        sink.close()
    if sink.lines != messages:
        raise BenchError(f"the naive way wrote {sink.lines} lines of {messages} messages")
    return {
        "name": "naive", "messages": messages, "messages_per_second": round(messages / seconds),
        "cpu_us_per_message": round(used_us, 2),
    }  # fmt: skip


# --- any command -------------------------------------------------------------------------------------------------


class Sink:
    """An HTTP server that takes InfluxDB's line protocol at every path, counts the lines and forgets them."""

    def __init__(self) -> None:
        self.lines = 0
        self._lock = threading.Lock()
        sink = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                if self.headers.get("content-encoding") == "gzip":
                    body = zlib.decompress(body, wbits=31)
                sink.count(body)
                self._answer(204)

            def do_GET(self) -> None:
                self._answer(204 if self.path.startswith("/ping") else 200)

            def _answer(self, status: int) -> None:
                self.send_response(status)
                if status != 204:
                    self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", free_port()), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, name="sink", daemon=True).start()

    def count(self, body: bytes) -> None:
        """Add the lines of one body."""
        with self._lock:
            self.lines += sum(1 for line in body.split(b"\n") if line.strip())

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()


def tree_cpu_seconds(session: int) -> float:
    """CPU so far of all processes of a session, with children that ended and were waited for."""
    ticks = 0
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session:
            ticks += sum(int(text) for text in fields[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def against_command(contest: Contest, command: str, directory: Path, limit_s: float = RIVAL_S_MAX) -> dict[str, Any]:
    """CPU per message of a command's process tree, until one line per message stands in our sink."""
    phase = contest.phase(min(contest.messages, RIVAL_MESSAGES_MAX))
    messages = phase.rounds * contest.load.fleet.devices
    sink = Sink()
    filled = {"port": contest.port, "topic": TOPICS, "sink_port": sink.port, "messages": messages}
    words = [word.format(**filled) for word in shlex.split(command)]
    log = directory / "rival.log"
    with log.open("wb") as file:
        try:
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
            )
        except OSError as error:
            sink.close()
            raise BenchError(f"--vs {command!r} does not start: {error}") from error
    guard.watch(process)
    try:
        probes = _wait_for_subscriber(contest, process.poll)
        before_s, started_s = tree_cpu_seconds(process.pid), time.monotonic()
        contest.load.go(phase)
        while sink.lines < messages + probes:
            if process.poll() is not None:
                raise BenchError(f"it ended with {process.returncode}")
            if time.monotonic() - started_s > limit_s:
                raise BenchError(f"in {limit_s:.0f} s it wrote {sink.lines} lines of {messages} messages")
            time.sleep(0.02)
        seconds, used_s = time.monotonic() - started_s, tree_cpu_seconds(process.pid) - before_s
        contest.load.result()
    except BenchError as error:
        words_said = log.read_text(errors="replace").strip()[-500:] or "it said nothing"
        raise BenchError(f"--vs {command!r}: {error}\n{words_said}") from error
    finally:
        _end_session(process)
        sink.close()
    return {
        "name": command, "messages": messages, "messages_per_second": round(messages / seconds),
        "cpu_us_per_message": round(used_s / messages * 1e6, 2), "lines": sink.lines - probes,
    }  # fmt: skip


def _end_session(process: "subprocess.Popen[bytes]") -> None:
    """End the command and what it started: its session is its own, so its id is theirs as well."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
