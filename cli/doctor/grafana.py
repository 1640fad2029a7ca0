"""Grafana: reachable, our token, its data source and whether that answers, and the boards."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from cli.doctor.asking import Answer, NoAnswerError, ask
from cli.doctor.finding import Finding

if TYPE_CHECKING:
    from cloud.settings import CloudSettings

SOURCE_UID: Final = "fleet"
PUBLISH: Final = "fleet dashboards publish"
_SIGN_IN: Final = "make one under Administration → Service accounts, and set FLEET_GRAFANA_TOKEN"


def look_at_grafana(settings: "CloudSettings") -> Iterator[Finding]:
    """Nothing where no Grafana is named."""
    url = settings.grafana_url.rstrip("/")
    if not url:
        fix = "set FLEET_GRAFANA_URL and FLEET_GRAFANA_TOKEN to have it and its boards looked at"
        wanted = settings.series == "influxdb"
        yield Finding("Grafana", "warning" if wanted else "ok", "none is named", fix if wanted else "")
        return
    if urlsplit(url).scheme not in {"http", "https"}:
        yield Finding("Grafana", "problem", "FLEET_GRAFANA_URL is no http(s)://…", "correct FLEET_GRAFANA_URL")
        return
    try:
        yield from _look(_Server(url, settings.grafana_token.get_secret_value()), settings)
    except NoAnswerError as error:
        fix = "start Grafana, or correct FLEET_GRAFANA_URL"
        yield Finding("Grafana", "problem", f"{url} does not answer: {error}", fix)


class _Server:
    def __init__(self, url: str, token: str) -> None:
        self.url, self.token = url, token

    def get(self, path: str) -> Answer:
        return ask(f"{self.url}{path}", headers={"Authorization": f"Bearer {self.token}"} if self.token else {})


def _look(server: _Server, settings: "CloudSettings") -> Iterator[Finding]:
    health = server.get("/api/health").document()
    if not isinstance(health, dict) or "database" not in health:
        fix = "correct FLEET_GRAFANA_URL, also its path behind a proxy"
        yield Finding("Grafana", "problem", f"{server.url} answers and is no Grafana", fix)
        return
    if health["database"] != "ok":
        fix = "mend Grafana's own database: its disk, its log"
        yield Finding("Grafana", "problem", f"its database says {health['database']!r}", fix)
        return
    yield Finding("Grafana", "ok", f"{server.url}, version {health.get('version') or 'not told'}")
    if not server.token:
        yield Finding("Grafana's token", "warning", "none is set: boards and data source are not looked at", _SIGN_IN)
        return
    organization = server.get("/api/org")
    if organization.status == 401:
        yield Finding("Grafana's token", "problem", "is not known there, has ended or was deleted", _SIGN_IN)
        return
    yield from _source(server)
    yield from _boards(server, settings)


def _source(server: _Server) -> Iterator[Finding]:
    answer = server.get(f"/api/datasources/uid/{SOURCE_UID}/health")
    document = answer.document()
    said = document.get("message", "") if isinstance(document, dict) else answer.text[:200]
    if answer.status == 404:
        fix = f"mount deploy/grafana (docker compose does), or: {PUBLISH} --source-url …"
        yield Finding("Grafana's data source", "problem", f"there is none with uid {SOURCE_UID!r}", fix)
    elif answer.status == 403:
        fix = "give the service account the right to query data sources (role Viewer or higher)"
        yield Finding("Grafana's data source", "warning", f"the token may not ask it: {said}", fix)
    elif answer.status != 200:
        fix = "give it the reader's token and the right address (fleet influx init; deploy/grafana/datasources)"
        yield Finding("Grafana's data source", "problem", f"does not work: {said}", fix)
    else:
        yield Finding("Grafana's data source", "ok", said or "works")


def _boards(server: _Server, settings: "CloudSettings") -> Iterator[Finding]:
    """What `fleet dashboards publish` would do, without doing it."""
    try:
        from dashboards.build import LANGUAGES, build_all
        from dashboards.grafana_server import GrafanaError, GrafanaServer
        from dashboards.publish import Wanted, for_deployment, plan
    except ModuleNotFoundError:
        fix = "pip install 'gaoxin-fleet[dashboards]' where the doctor runs"
        yield Finding("Grafana's boards", "warning", "not compared: the builder is not installed here", fix)
        return
    steps: list[Any] = []
    try:
        for language in LANGUAGES:  # in whichever they were published
            boards = {
                uid: for_deployment(board, application_url=settings.public_url)
                for uid, board in build_all(language).items()
            }
            every = plan(GrafanaServer(server.url, server.token), Wanted(boards))
            found = [step for step in every if step.what == "board" or _is_of_rights(step)]
            if not steps or _differing(found) < _differing(steps):
                steps = found
    except GrafanaError as error:
        if "HTTP 403" in str(error):
            fix = "give the service account of FLEET_GRAFANA_TOKEN the role Editor in this organisation"
            yield Finding("Grafana's rights", "warning", f"boards are not compared: {error}"[:300], fix)
            return
        yield Finding("Grafana's boards", "problem", str(error)[:300], _SIGN_IN)
        return
    yield from _judge_boards(steps)


def _is_of_rights(step: Any) -> bool:
    """The step that names rights which publishing would need, for example `dashboards:write`."""
    return step.verb == "refuse" and ":" in step.name


def _differing(steps: Sequence[Any]) -> int:
    return sum(bool(_changes(step)) or step.verb in {"create", "refuse"} for step in steps)


def _changes(step: Any) -> list[Any]:
    """What a reader of the board would see; in which folder it lies is no fault."""
    return [change for change in step.changes if change.path != "folder"]


def _judge_boards(steps: Sequence[Any]) -> Iterator[Finding]:
    for step in filter(_is_of_rights, steps):
        found = f"boards are to be published, and the token may not: {step.name}"
        yield Finding("Grafana's rights", "problem", found, f"{step.words}; then {PUBLISH}")
    steps = [step for step in steps if not _is_of_rights(step)]
    missing = [step.name for step in steps if step.verb == "create"]
    foreign = [f"{step.name}: {step.words}" for step in steps if step.verb == "refuse" and not step.changes]
    old = [step.name for step in steps if step.verb in {"update", "refuse"} and _changes(step)]
    if foreign:
        yield Finding("Foreign boards", "problem", "; ".join(foreign)[:600], f"rename theirs, then {PUBLISH}")
    if missing:
        fix = f"{PUBLISH}, or see that the provisioned folder is mounted"
        yield Finding("Grafana's boards", "problem", f"missing: {', '.join(missing)}", fix)
    if old:
        fix = f"fleet dashboards diff shows what differs; {PUBLISH}, or provision those of this release"
        yield Finding("Grafana's boards", "warning", f"not those of this release: {', '.join(old)}", fix)
    if not (foreign or missing or old):
        yield Finding("Grafana's boards", "ok", f"{len(steps)}, those of this release")
