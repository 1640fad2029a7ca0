"""The running processes of ours: ready, what their queues hold, and who watches over them."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from cli.doctor.asking import NoAnswerError, ask
from cli.doctor.finding import Finding

if TYPE_CHECKING:
    from cloud.settings import CloudSettings

SPOOL_FILL_MAX: Final = 0.8
LAG_BYTES_MAX: Final = 64 << 20
LIST_LEFT_S_MIN: Final = 4 * 86_400
SYNTHETIC_AGE_S_MAX: Final = 60.0
_SAMPLE: Final = re.compile(r"^(fleet_\w+)(?:\{[^}]*\})? ([-+0-9.eEinfNa]+)$", re.MULTILINE)


def look_at_service(base_url: str, name: str) -> Iterator[Finding]:
    """One process, by the address of its pages, or of its `/readyz` alone."""
    start = "start it: fleet serve, or give --url; docker compose ps and logs show why it is away"
    try:
        ready = ask(f"{base_url}/readyz")
    except NoAnswerError as error:
        yield Finding(name, "problem", f"{base_url} does not answer: {error}", start)
        return
    document = ready.document()
    if not isinstance(document, dict) or "checks" not in document:
        yield Finding(name, "problem", f"{base_url} answers {ready.status} and is no cloud of ours", start)
        return
    if ready.status != 200:
        fix = "the check that is not ok names the part to look at"
        yield Finding(name, "problem", f"not ready: {ready.text.strip()}", fix)
    else:
        yield Finding(name, "ok", ready.text.strip())
    yield from _queues(base_url, name)


def _queues(base_url: str, name: str) -> Iterator[Finding]:
    try:
        answer = ask(f"{base_url}/metrics")
    except NoAnswerError:
        return  # it was there a moment ago: /readyz is the one that judges
    if answer.status != 200:
        yield Finding(
            f"{name}: metrics", "warning", f"{base_url}/metrics answers {answer.status}",
            "ask the process itself, not the proxy before it: --url http://127.0.0.1:8000",
        )  # fmt: skip
        return
    numbers = {sample[1]: float(sample[2]) for sample in _SAMPLE.finditer(answer.text)}
    yield from _judge_queues(numbers, name)


def _judge_queues(numbers: dict[str, float], name: str) -> Iterator[Finding]:
    fill = numbers.get("fleet_spool_fill_ratio")
    if fill is not None:
        fix = "get the series to take points again (see InfluxDB), or raise FLEET_SPOOL_BYTES_MAX"
        fits = fill < SPOOL_FILL_MAX
        yield Finding(f"{name}: spool", "ok" if fits else "problem", f"{fill:.0%} of its bound", "" if fits else fix)
    lag = numbers.get("fleet_drain_lag_bytes")
    if lag is not None:
        found = f"{lag / 1e6:.1f} MB of telemetry wait for the series"
        if not numbers.get("fleet_drain_flowing", 1.0):
            fix = "the series refuses or does not answer: see InfluxDB below; nothing is lost while the spool has room"
            yield Finding(f"{name}: drain", "problem", found, fix)
        elif lag > LAG_BYTES_MAX:
            fix = "it catches up by itself after an outage; if it grows, InfluxDB is too slow: give it disk and memory"
            yield Finding(f"{name}: drain", "warning", found, fix)
        else:
            yield Finding(f"{name}: drain", "ok", found)
    left_s = numbers.get("fleet_revocation_list_left_s")
    if left_s is not None and left_s < LIST_LEFT_S_MIN:
        yield Finding(
            f"{name}: revocation list", "problem", f"{left_s / 86_400:.1f} days left; then nobody is let in",
            "fleet pki crl; then see why the role api does not refresh it daily",
        )  # fmt: skip
    if numbers.get("fleet_link_publishes_max") and (
        numbers.get("fleet_link_publishes_waiting", 0) > 0.8 * numbers["fleet_link_publishes_max"]
    ):
        waiting = numbers["fleet_link_publishes_waiting"]
        fix = "the broker takes too little: look at its log and CPU"
        yield Finding(f"{name}: messages to devices", "problem", f"{waiting:.0f} wait, near their bound", fix)


def look_at_watch(settings: "CloudSettings") -> Iterator[Finding]:
    """The watchdog, the age of the latest synthetic call, and the dead man's switch."""
    if not settings.probe_url:
        yield Finding(
            "Watchdog", "warning", "nobody watches the way of emergency calls",
            "set FLEET_PROBE_URL for fleet serve and fleet watchdog, and start the latter",
        )  # fmt: skip
        return
    yield from _chain(settings.probe_url.rstrip("/"))
    if not settings.watchdog_urls:
        fix = (
            "set FLEET_WATCHDOG_URLS to a way that does not depend on this machine (mail, SMS, another team's webhook)"
        )
        yield Finding("Watchdog's voice", "warning", "it tells nobody when calls would not arrive", fix)
    if not settings.deadman_url:
        fix = "set FLEET_DEADMAN_URL to a service that alarms when it is not asked for a minute"
        yield Finding("Dead man's switch", "warning", "nobody notices when this whole machine dies", fix)
    elif urlsplit(settings.deadman_url).scheme not in {"http", "https"}:
        yield Finding("Dead man's switch", "problem", "its address is no http(s)://…", "correct FLEET_DEADMAN_URL")
    else:
        yield Finding("Dead man's switch", "ok", "configured")


def _chain(url: str) -> Iterator[Finding]:
    start = "start it: fleet watchdog (docker compose ps watchdog); FLEET_PROBE_URL must be the same for both"
    try:
        answer = ask(f"{url}/status")
    except NoAnswerError as error:
        yield Finding("Watchdog", "problem", f"{url} does not answer: {error}", start)
        return
    status = answer.document()
    if answer.status != 200 or not isinstance(status, dict) or "whole" not in status:
        yield Finding("Watchdog", "problem", f"{url} answers {answer.status} and is no watchdog", start)
        return
    age_s = status.get("whole_before_s")
    if not status["whole"]:
        found = f"calls would not arrive: {status.get('stage') or 'not known yet'}: {status.get('reason', '')}"
        fix = "docs/operations.md, The watchdog, says what each stage means"
        yield Finding("Synthetic call", "problem", found, fix)
    elif age_s is None or float(age_s) > SYNTHETIC_AGE_S_MAX:
        found = "none came back yet" if age_s is None else f"the latest came back {float(age_s):.0f} s ago"
        yield Finding("Synthetic call", "problem", found, "restart the watchdog, and read its log")
    else:
        yield Finding("Synthetic call", "ok", f"the latest came back {float(age_s):.0f} s ago")
