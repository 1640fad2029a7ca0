"""A loopback FAKE of the part of InfluxDB 2's `/api/v2` that `fleet influx init` uses: the real one can't run here.

It keeps organisations, buckets, mappings and authorizations in memory, answers in the documented form, and refuses
bodies with fields that the official client's models of the API don't know.
"""

import itertools
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from influxdb_client.domain.authorization_post_request import AuthorizationPostRequest
from influxdb_client.domain.bucket_retention_rules import BucketRetentionRules
from influxdb_client.domain.dbrp_create import DBRPCreate
from influxdb_client.domain.dbrp_update import DBRPUpdate
from influxdb_client.domain.patch_bucket_request import PatchBucketRequest
from influxdb_client.domain.post_bucket_request import PostBucketRequest

OPERATOR = "operator-token"
READ_ONLY = "read-only-token"
_MODELS = {
    ("POST", "buckets"): PostBucketRequest, ("PATCH", "buckets"): PatchBucketRequest, ("POST", "dbrps"): DBRPCreate,
    ("PATCH", "dbrps"): DBRPUpdate, ("POST", "authorizations"): AuthorizationPostRequest,
}  # fmt: skip


class FakeInfluxTwo:
    """What it holds, by kind and id; `changes` counts requests that changed something."""

    def __init__(self):
        self.held = {"orgs": {"o1": {"id": "o1", "name": "fleet"}}, "buckets": {}, "dbrps": {}, "authorizations": {}}
        self.changes = 0
        self._ids = (f"{number:016x}" for number in itertools.count(1))
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def _serve(self):
                fake.answer(self)

            do_GET = do_POST = do_PATCH = _serve  # noqa: N815  # names of http.server

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def put(self, kind, **item):
        """Something that stood there before we came."""
        item["id"] = next(self._ids)
        self.held[kind][item["id"]] = item
        return item["id"]

    def answer(self, request):
        parts = urlsplit(request.path)
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        if parts.path == "/ping":
            self._send(request, 204, None)
            return
        token = request.headers.get("Authorization", "").removeprefix("Token ")
        if token not in {OPERATOR, READ_ONLY}:
            self._send(request, 401, {"code": "unauthorized", "message": "unauthorized access"})
            return
        if request.command != "GET" and token == READ_ONLY:
            self._send(request, 403, {"code": "forbidden", "message": "insufficient permissions for write"})
            return
        _, _, _, kind, *rest = parts.path.split("/")
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        status, document = getattr(self, f"_{request.command.lower()}")(
            kind, rest, query, json.loads(body) if body else None
        )
        self._send(request, status, document)

    def _get(self, kind, _rest, query, _body):
        items = list(self.held[kind].values())
        names = {"org": "name", "name": "name", "orgID": "orgID", "db": "database", "rp": "retention_policy"}
        for asked, value in query.items():
            items = [item for item in items if item.get(names[asked]) == value]
        if kind in {"orgs", "buckets"} and not items:  # the harshest way to say it
            return 404, {"code": "not found", "message": f"{kind} not found"}
        return 200, {"content" if kind == "dbrps" else kind: items}

    def _post(self, kind, _rest, _query, body):
        _check(("POST", kind), body)
        self.changes += 1
        item = {**body, "id": next(self._ids)}
        if kind == "authorizations":
            item["token"] = f"token-of-{item['description'].replace(' ', '-')}"
        self.held[kind][item["id"]] = item
        return 201, item

    def _patch(self, kind, rest, _query, body):
        _check(("PATCH", kind), body)
        self.changes += 1
        self.held[kind][rest[0]] |= body
        return 200, self.held[kind][rest[0]]

    def _send(self, request, status, document):
        data = b"" if document is None else json.dumps(document).encode()
        request.send_response(status)
        request.send_header("X-Influxdb-Version", "v2.7.11")
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)


def _check(key, body):
    known = set(_MODELS[key].attribute_map.values()) if hasattr(_MODELS[key], "attribute_map") else None
    known = known or set(_MODELS[key]().attribute_map.values())
    assert set(body) <= known, (key, set(body) - known)
    for rule in body.get("retentionRules", ()):
        assert set(rule) <= set(BucketRetentionRules().attribute_map.values())
