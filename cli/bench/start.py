"""How long until somebody can work: `fleet serve` to ready, and from ready to a complete first page.

One start before goes unmeasured: it warms what a second start finds warm (byte code, disk cache, database).
"""

import re
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Final
from urllib.parse import urljoin

from cli.bench.rig import BenchError, Rig
from cli.demo.stage import fleet_of

ASK_EVERY_S: Final = 0.01
READY_S_MAX: Final = 60.0
FIRST_PAGE: Final = "/login"
_ASSET: Final = re.compile(r'<(?:script|link)[^>]*?(?:src|href)="(/static/[^"]+)"')


def measure(directory: Path, runs: int) -> dict[str, Any]:
    """The slowest of `runs` starts, empty and with the demo's 390 devices.

    Raises:
        BenchError: not ready in time, or the page or one of its parts was not served.
    """
    fleet = {name: kind for name, (kind, _) in fleet_of({}, 1).items()}
    empty_ready_s, empty_page_s, _ = _slowest(directory / "empty", {}, runs)
    ready_s, page_s, parts = _slowest(directory / "fleet", fleet, runs)
    return {
        "serve_ready_s": round(max(ready_s, empty_ready_s), 3),
        "first_page_s": round(max(page_s, empty_page_s), 3),
        "serve_ready_empty_s": round(empty_ready_s, 3),
        "serve_ready_devices_s": round(ready_s, 3),
        "first_page_parts": parts,
        "devices": len(fleet),
        "runs": runs,
    }


def _slowest(directory: Path, devices: dict[str, str], runs: int) -> tuple[float, float, int]:
    slowest_ready_s = slowest_page_s = 0.0
    parts = 0
    with Rig(directory, devices, tls=True) as rig:  # the unmeasured start
        for _ in range(runs):
            rig.cloud.stop()
            started_s = time.monotonic()
            rig.cloud.start()
            rig.wait(rig.ready, READY_S_MAX, "the cloud to be ready again", every_s=ASK_EVERY_S)
            ready_s = time.monotonic()
            parts = load_page(f"http://127.0.0.1:{rig.http_port}{FIRST_PAGE}")
            slowest_ready_s = max(slowest_ready_s, ready_s - started_s)
            slowest_page_s = max(slowest_page_s, time.monotonic() - ready_s)
    return slowest_ready_s, slowest_page_s, parts


def load_page(url: str) -> int:
    """Get a page and all style sheets, scripts and icons it names; returns how many parts that were.

    Raises:
        BenchError: something was not served, or the page names no part at all.
    """
    names = sorted(set(assets_of(_get(url).decode())))
    if not names:
        raise BenchError(f"{url} names no style sheet and no script: that is not the page")
    for name in names:
        _get(urljoin(url, name))
    return 1 + len(names)


def assets_of(page: str) -> list[str]:
    """What a page loads from us."""
    return _ASSET.findall(page)


def _get(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            content: bytes = answer.read()
    except (urllib.error.URLError, OSError) as error:
        raise BenchError(f"{url} was not served: {error}") from error
    if not content:
        raise BenchError(f"{url} is empty")
    return content
