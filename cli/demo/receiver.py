"""A separate process that stands for the crew's phones: it accepts notifications and writes down when.

Text messages to single people are accepted, too, and not counted.
Its log is the only proof of "notified" (decisions, "How results are counted"): one JSON line per accepted
notification, written before the 2xx leaves.
"""

import json
import time
from pathlib import Path

from aiohttp import web


def serve_receiver(port: int, log_file: Path) -> None:
    """Accept POSTs on loopback until the process is ended."""
    log = log_file.open("a", buffering=1, encoding="utf-8")

    async def accept(request: web.Request) -> web.Response:
        body = await request.json()
        log.write(json.dumps({"accepted_s": time.monotonic(), **body}, ensure_ascii=False) + "\n")
        return web.Response(status=204)

    async def text(request: web.Request) -> web.Response:
        await request.json()
        return web.Response(status=204)

    application = web.Application()
    application.router.add_post("/notify", accept)
    application.router.add_post("/texts", text)
    web.run_app(application, host="127.0.0.1", port=port, print=None, access_log=None)
