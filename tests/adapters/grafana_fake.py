"""Grafana's HTTP API on loopback, as far as publishing needs it: rights, versions, conflicts, provisioned things.

Grafana itself cannot run in the test command. What is answered here was taken from Grafana 11's documentation and
source; it is the one part of publishing that never met the real server.
"""

import json
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

ROLES = {
    "viewer": {"dashboards:read", "folders:read", "datasources:query"},
    "editor": {"dashboards:read", "dashboards:create", "dashboards:write", "dashboards:delete", "folders:read",
               "folders:create", "folders:write"},
}  # fmt: skip
ROLES["admin"] = ROLES["editor"] | {
    "folders.permissions:read", "folders.permissions:write", "datasources:read", "datasources:create",
    "datasources:write",
}  # fmt: skip


class HttpError(Exception):
    def __init__(self, code, message, **more):
        super().__init__(message)
        self.code, self.body = code, {"message": message, **more}


@dataclass
class GrafanaFake:
    """What this Grafana holds. `tokens`: token → role. `fails`: (method, path pattern) → status, once each."""

    url: str = ""
    version: str = "11.6.1"
    tells_rights: bool = True
    tokens: dict = field(default_factory=lambda: {"admin-token": "admin"})
    folders: dict = field(default_factory=dict)
    permissions: dict = field(default_factory=dict)
    sources: dict = field(default_factory=dict)
    boards: dict = field(default_factory=dict)
    history: dict = field(default_factory=dict)
    fails: list = field(default_factory=list)
    writes: list = field(default_factory=list)
    before_write: list = field(default_factory=list)
    """Functions that are called, once each, before the next write is looked at: another person at the same time."""

    # --- what people do in its pages -------------------------------------------------------------------------

    def save_by_hand(self, uid, who="li.wei", **changes):
        """Somebody edits a board in the browser and saves it."""
        stored = self.boards[uid]["dashboard"]
        stored.update(changes)
        self._keep(uid, stored, self.boards[uid]["folderUid"], "", who)

    def import_board(self, board, folder_uid="", who="li.wei"):
        """Somebody imports a board by its JSON."""
        self._keep(board["uid"], dict(board), folder_uid, "", who)

    def _keep(self, uid, board, folder_uid, message, who):
        versions = self.history.setdefault(uid, [])
        board = {**board, "id": len(self.boards) + 1, "version": len(versions) + 1}
        made = f"2026-05-04T10:{len(versions):02d}:00+08:00"
        versions.insert(0, {"version": board["version"], "message": message, "createdBy": who, "created": made})
        provisioned = self.boards.get(uid, {}).get("provisioned", False)
        self.boards[uid] = {"dashboard": board, "folderUid": folder_uid, "provisioned": provisioned}
        return board

    # --- the API ---------------------------------------------------------------------------------------------

    def answer(self, method, path, query, body, token):
        """(status, JSON) of one request."""
        for one in self.fails:
            if one[0] == method and re.fullmatch(one[1], path):
                self.fails.remove(one)
                raise HttpError(one[2], one[3])
        if path == "/health":
            return {"commit": "0000000", "database": "ok", "version": self.version}
        role = self.tokens.get(token)
        if role is None:
            raise HttpError(401, "Invalid API key", messageId="api-key.invalid")
        if method != "GET" and self.before_write:
            self.before_write.pop(0)()
        for pattern, handlers in ROUTES.items():
            if (found := re.fullmatch(pattern, path)) and method in handlers:
                right, handler = handlers[method]
                if right and right not in ROLES[role]:
                    raise HttpError(403, f"You'll need additional permissions to perform this action: {right}",
                                    title="Access denied", accessErrorId="ACE0000000000")  # fmt: skip
                if method != "GET":
                    self.writes.append((method, path))
                return handler(self, *found.groups(), query=query, body=body, role=role)
        raise HttpError(404, "Not found")

    def org(self, **_):
        return {"id": 1, "name": "Main Org."}

    def rights(self, *, role, **_):
        if not self.tells_rights:
            raise HttpError(404, "Not found")
        return {right: ["*"] for right in ROLES[role]}

    def list_folders(self, **_):
        return list(self.folders.values())

    def folder(self, uid, **_):
        if uid not in self.folders:
            raise HttpError(404, "folder not found", status="not-found")
        return self.folders[uid]

    def create_folder(self, *, body, **_):
        if body["uid"] in self.folders or any(one["title"] == body["title"] for one in self.folders.values()):
            raise HttpError(409, "a folder with the same name already exists in the current location")
        self.folders[body["uid"]] = {
            "id": 90 + len(self.folders),
            "uid": body["uid"],
            "title": body["title"],
            "version": 1,
        }
        self.permissions[body["uid"]] = [{"role": "Editor", "permission": 2}, {"role": "Viewer", "permission": 1}]
        return self.folders[body["uid"]]

    def update_folder(self, uid, *, body, **_):
        folder = self.folder(uid)
        if body.get("version") != folder["version"] and not body.get("overwrite"):
            raise HttpError(412, "the folder has been changed by someone else", status="version-mismatch")
        folder |= {"title": body["title"], "version": folder["version"] + 1}
        return folder

    def folder_permissions(self, uid, **_):
        self.folder(uid)
        return [{"role": "Admin", "permission": 4, "inherited": True}, *self.permissions.get(uid, [])]

    def set_folder_permissions(self, uid, *, body, **_):
        self.folder(uid)
        self.permissions[uid] = body["items"]
        return {"message": "Folder permissions updated"}

    def list_sources(self, **_):
        return [self._public(source) for source in self.sources.values()]

    def source(self, uid, **_):
        if uid not in self.sources:
            raise HttpError(404, "Data source not found")
        return self._public(self.sources[uid])

    @staticmethod
    def _public(source):
        secret = source.get("secureJsonData", {})
        fields = dict.fromkeys(secret, True)
        return {key: value for key, value in source.items() if key != "secureJsonData"} | {"secureJsonFields": fields}

    def create_source(self, *, body, **_):
        if any(one["name"] == body["name"] or one["uid"] == body["uid"] for one in self.sources.values()):
            raise HttpError(409, "data source with the same name already exists")
        self.sources[body["uid"]] = {"id": len(self.sources) + 1, "orgId": 1, "readOnly": False, "version": 1, **body}
        return {"message": "Datasource added", "datasource": self._public(self.sources[body["uid"]])}

    def update_source(self, uid, *, body, **_):
        stored = self.sources[uid]
        if stored.get("readOnly"):
            raise HttpError(403, "Cannot update read-only data source")
        secrets = stored.get("secureJsonData", {}) | body.get("secureJsonData", {})
        stored |= {**body, "secureJsonData": secrets}
        return {"message": "Datasource updated"}

    def board(self, uid, **_):
        if uid not in self.boards:
            raise HttpError(404, "Dashboard not found")
        kept = self.boards[uid]
        title = self.folders.get(kept["folderUid"], {}).get("title", "General")
        meta = {"folderUid": kept["folderUid"], "folderTitle": title, "provisioned": kept["provisioned"]}
        return {"dashboard": kept["dashboard"], "meta": meta}

    def versions(self, uid, *, query, **_):
        return {"continueToken": "", "versions": self.history.get(uid, [])[: int(query.get("limit", ["0"])[0]) or None]}

    def save_board(self, *, body, **_):
        board, uid = body["dashboard"], body["dashboard"]["uid"]
        if body.get("folderUid") and body["folderUid"] not in self.folders:
            raise HttpError(400, "folder not found")
        if (kept := self.boards.get(uid)) is not None:
            if kept["provisioned"]:
                raise HttpError(400, "Cannot save provisioned dashboard")
            if kept["dashboard"]["version"] != board.get("version") and not body.get("overwrite"):
                raise HttpError(412, "The dashboard has been changed by someone else", status="version-mismatch")
        saved = self._keep(uid, board, body.get("folderUid", ""), body.get("message", ""), "sa-fleet")
        return {"id": saved["id"], "uid": uid, "status": "success", "version": saved["version"], "url": f"/d/{uid}"}

    def remove_board(self, uid, **_):
        del self.boards[uid]
        return {"message": "Dashboard deleted"}

    def search(self, *, query, **_):
        found = []
        for uid, kept in self.boards.items():
            board = kept["dashboard"]
            words, tag = query.get("query", [""])[0].lower(), query.get("tag", [""])[0]
            if words in board["title"].lower() and (not tag or tag in board.get("tags", [])):
                found.append({"uid": uid, "title": board["title"], "type": "dash-db", "folderUid": kept["folderUid"],
                              "tags": board.get("tags", [])})  # fmt: skip
        return found


F = GrafanaFake
ROUTES = {
    "/org": {"GET": (None, F.org)},
    "/access-control/user/permissions": {"GET": (None, F.rights)},
    "/folders": {"GET": ("folders:read", F.list_folders), "POST": ("folders:create", F.create_folder)},
    "/folders/([^/]+)": {"GET": ("folders:read", F.folder), "PUT": ("folders:write", F.update_folder)},
    "/folders/([^/]+)/permissions": {
        "GET": ("folders.permissions:read", F.folder_permissions),
        "POST": ("folders.permissions:write", F.set_folder_permissions),
    },
    "/datasources": {"GET": ("datasources:read", F.list_sources), "POST": ("datasources:create", F.create_source)},
    "/datasources/uid/([^/]+)": {
        "GET": ("datasources:read", F.source), "PUT": ("datasources:write", F.update_source),
    },
    "/dashboards/uid/([^/]+)": {
        "GET": ("dashboards:read", F.board), "DELETE": ("dashboards:delete", F.remove_board),
    },
    "/dashboards/uid/([^/]+)/versions": {"GET": ("dashboards:write", F.versions)},
    "/dashboards/db": {"POST": ("dashboards:write", F.save_board)},
    "/search": {"GET": (None, F.search)},
}  # fmt: skip


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _serve(self):
        parts = urlsplit(self.path)
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        body = json.loads(content) if content[:1] in {b"{", b"["} else None
        status = 200
        try:
            prefix, _, path = parts.path.partition("/api/")
            if prefix != self.server.prefix:
                raise HttpError(404, "Not found")
            with self.server.lock:
                answer = self.server.grafana.answer(self.command, f"/{path}", parse_qs(parts.query), body, token)
        except HttpError as error:
            status, answer = error.code, error.body
        sent = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    do_GET = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815  # names that http.server looks for

    def log_message(self, *_):
        """Quiet."""


@contextmanager
def grafana_fake(prefix=""):
    """A Grafana on a free port of loopback, below `prefix` as behind a proxy."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.grafana, server.prefix, server.lock = GrafanaFake(), prefix, threading.Lock()
    server.grafana.url = f"http://127.0.0.1:{server.server_address[1]}{prefix}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server.grafana
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
