"""A Grafana server through grafana-client, with every failure as a sentence that says what to do.

What the client has no function for goes through its own session, so that the token and the time-out are the same.
"""

import json
import re
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import requests
from grafana_client import GrafanaApi
from grafana_client.client import GrafanaClientError, GrafanaException, GrafanaServerError, GrafanaUnauthorizedError

TIMEOUT_S: Final = 15.0
VERSION_MIN: Final = (11, 0)
BUILT_FOR: Final = (11, 6)
"""The boards' JSON is that of this version; later ones migrate it when they show it."""
SEARCH_MAX: Final = 5000


class GrafanaError(RuntimeError):
    """Grafana refused or could not be asked; the message says what to do."""


class ChangedMeanwhileError(GrafanaError):
    """Somebody saved the board between our look and our write (HTTP 412)."""


class GrafanaServer:
    """One Grafana, for one token. Every method raises GrafanaError."""

    def __init__(self, url: str, token: str, *, timeout_s: float = TIMEOUT_S) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise GrafanaError(f"{url!r} is no address of a Grafana; write for example https://grafana.example:3000")
        if not token.strip():
            raise GrafanaError("the token is empty; make one in Grafana under Administration → Service accounts")
        self.url = url.rstrip("/")
        path = parts.path.strip("/")
        self._api = GrafanaApi(
            token.strip(), host=parts.hostname, port=parts.port, protocol=parts.scheme,
            url_path_prefix=f"{path}/" if path else "", timeout=timeout_s,
        )  # fmt: skip

    # --- who is there ------------------------------------------------------------------------------------------

    def version(self) -> tuple[int, int] | None:
        """Major and minor, None when this Grafana hides it; refuses what is no Grafana or too old."""
        health = self._or_none("asking for its version", self._api.health.check)
        if not isinstance(health, Mapping) or "database" not in health:
            raise GrafanaError(f"{self.url} answers, but it is no Grafana; check --url, also its path behind a proxy")
        if health["database"] != "ok":
            raise GrafanaError(f"Grafana's own database says {health['database']!r}; mend that first")
        text = str(health.get("version") or "")
        found = re.match(r"(\d+)\.(\d+)", text)
        if found is None:
            return None
        version = int(found[1]), int(found[2])
        if version < VERSION_MIN:
            raise GrafanaError(
                f"this is Grafana {text}; the boards need {VERSION_MIN[0]}.{VERSION_MIN[1]} or newer "
                f"(made for {BUILT_FOR[0]}.{BUILT_FOR[1]}): upgrade Grafana"
            )
        return version

    def organization(self) -> str:
        """Name of the organisation that the token belongs to: the cheapest question that needs a valid token."""
        with self._saying("signing in"):
            return str(self._api.organization.get_current_organization()["name"])

    def rights(self) -> dict[str, list[str]] | None:
        """Action → scopes of this token; None when this Grafana does not tell."""
        try:
            with self._saying("asking what the token may do"):
                answer = self._api.client.GET("/access-control/user/permissions")
        except NotFoundError:
            return None
        return {str(action): list(scopes or ()) for action, scopes in answer.items()} if answer else {}

    # --- folders -----------------------------------------------------------------------------------------------

    def folder(self, uid: str) -> dict[str, Any] | None:
        """The folder with this uid."""
        return self._or_none("reading the folder", lambda: self._api.folder.get_folder(uid))

    def folders(self) -> list[dict[str, Any]]:
        """Every folder at the top."""
        with self._saying("listing folders"):
            return list(self._api.folder.get_all_folders())

    def create_folder(self, uid: str, title: str) -> None:
        """A new folder."""
        with self._saying(f"making the folder {title!r}"):
            self._api.folder.create_folder(title, uid)

    def rename_folder(self, uid: str, title: str, version: int) -> None:
        """Another title."""
        with self._saying(f"renaming the folder {uid}"):
            self._api.folder.update_folder(uid, title, version=version)

    def folder_permissions(self, uid: str) -> list[dict[str, Any]]:
        """Who may do what in it, also what it has from above."""
        with self._saying("reading the folder's permissions"):
            return list(self._api.folder.get_folder_permissions(uid))

    def set_folder_permissions(self, uid: str, items: Sequence[Mapping[str, Any]]) -> None:
        """Replace all of them."""
        with self._saying("setting the folder's permissions"):
            self._api.folder.update_folder_permissions(uid, {"items": [dict(item) for item in items]})

    # --- data sources ------------------------------------------------------------------------------------------

    def data_sources(self) -> list[dict[str, Any]]:
        """Every data source that the token may see."""
        with self._saying("listing data sources"):
            return list(self._api.datasource.list_datasources())

    def data_source(self, uid: str) -> dict[str, Any] | None:
        """One data source in full, but for its secrets."""
        return self._or_none("reading the data source", lambda: self._api.datasource.get_datasource_by_uid(uid))

    def create_data_source(self, model: Mapping[str, Any]) -> None:
        """A new data source."""
        with self._saying(f"making the data source {model['name']!r}"):
            self._api.datasource.create_datasource(dict(model))

    def update_data_source(self, model: Mapping[str, Any]) -> None:
        """Replace it; `model` names its uid."""
        with self._saying(f"changing the data source {model['name']!r}"):
            self._api.datasource.update_datasource_by_uid(model["uid"], dict(model))

    # --- boards ------------------------------------------------------------------------------------------------

    def board(self, uid: str) -> dict[str, Any] | None:
        """`{"dashboard": …, "meta": …}` of one board."""
        return self._or_none(f"reading the board {uid}", lambda: self._api.dashboard.get_dashboard(uid))

    def last_save(self, uid: str) -> dict[str, Any] | None:
        """The newest entry of a board's history (`message`, `createdBy`, `created`, `version`); None if it has none."""
        path = f"/dashboards/uid/{urllib.parse.quote(uid, safe='')}/versions?limit=1"
        answer = self._or_none(f"reading the history of {uid}", lambda: self._api.client.GET(path))
        versions = answer.get("versions") if isinstance(answer, Mapping) else answer
        return dict(versions[0]) if versions else None

    def boards_titled(self, title: str) -> list[dict[str, Any]]:
        """Boards with exactly this title, in every folder."""
        with self._saying("searching boards"):
            quoted = urllib.parse.quote(title, safe="")
            found = self._api.search.search_dashboards(query=quoted, type_="dash-db", limit=SEARCH_MAX)
        return [one for one in found if one.get("title") == title]

    def boards_tagged(self, tag: str) -> list[dict[str, Any]]:
        """Boards that carry this tag, in every folder."""
        with self._saying("searching boards"):
            return list(self._api.search.search_dashboards(tag=tag, type_="dash-db", limit=SEARCH_MAX))

    def save_board(self, board: Mapping[str, Any], folder_uid: str, message: str, *, overwrite: bool = False) -> None:
        """Save a board; without `overwrite` Grafana refuses it when its `version` is not the stored one."""
        body = {"dashboard": dict(board), "folderUid": folder_uid, "message": message, "overwrite": overwrite}
        with self._saying(f"saving the board {board['uid']}"):
            self._api.dashboard.update_dashboard(body)

    def remove_board(self, uid: str) -> None:
        """Delete a board."""
        with self._saying(f"deleting the board {uid}"):
            self._api.dashboard.delete_dashboard(uid)

    # --- failures ----------------------------------------------------------------------------------------------

    def _or_none(self, doing: str, ask: Callable[[], Any]) -> dict[str, Any] | None:
        try:
            with self._saying(doing):
                found: dict[str, Any] = ask()
        except NotFoundError:
            return None
        return found

    @contextmanager
    def _saying(self, doing: str) -> Iterator[None]:
        """Every way in which this can go wrong, in words."""
        try:
            yield
        except GrafanaUnauthorizedError as error:
            raise GrafanaError(
                f"{self.url} does not know this token (HTTP 401 while {doing}); it may have expired or been deleted: "
                "make a new one under Administration → Service accounts"
            ) from error
        except GrafanaServerError as error:
            raise GrafanaError(
                f"Grafana failed (HTTP {error.status_code} while {doing}): {_said(error)}; its log says more. "
                "What was done before stays; running the same command again is safe"
            ) from error
        except GrafanaClientError as error:
            raise _refusal(doing, error) from error
        except GrafanaException as error:
            raise GrafanaError(f"Grafana refused while {doing}: {_said(error)}") from error
        except requests.exceptions.SSLError as error:
            raise GrafanaError(
                f"the certificate of {self.url} is not trusted; set REQUESTS_CA_BUNDLE to your authority's file"
            ) from error
        except requests.exceptions.Timeout as error:
            raise GrafanaError(f"{self.url} did not answer in time while {doing}; is it overloaded?") from error
        except (json.JSONDecodeError, requests.exceptions.JSONDecodeError) as error:
            raise GrafanaError(f"{self.url} did not answer in JSON while {doing}; is it a Grafana?") from error
        except requests.exceptions.RequestException as error:
            raise GrafanaError(
                f"{self.url} cannot be reached while {doing}; check the address, the network, and that Grafana runs"
            ) from error


class NotFoundError(GrafanaError):
    """HTTP 404."""


def _refusal(doing: str, error: GrafanaException) -> GrafanaError:
    said = _said(error)
    if error.status_code == 403:
        return GrafanaError(
            f"the token has no right to this (HTTP 403 while {doing}): {said}. Its service account needs the role "
            "Admin in this organisation, or Editor together with --no-permissions and without --source-url"
        )
    if error.status_code == 404:
        return NotFoundError(f"not found while {doing}: {said}")
    if error.status_code == 412:
        return ChangedMeanwhileError(
            f"somebody saved it meanwhile (HTTP 412 while {doing}): {said}. Nothing was overwritten; run it again"
        )
    if error.status_code == 400 and "provisioned" in said.lower():
        return GrafanaError(
            f"Grafana takes it from files (HTTP 400 while {doing}: {said}); change it where those files are made "
            "(docs/boards.md, provisioning), or take it out of the provisioning first"
        )
    return GrafanaError(f"Grafana refused (HTTP {error.status_code} while {doing}): {said}")


def _said(error: GrafanaException) -> str:
    response = error.response
    text = response.get("message", "") if isinstance(response, Mapping) else str(response or "")
    return " ".join(str(text).split())[:300] or "without a reason"
