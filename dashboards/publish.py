"""Boards, their folder, its permissions and the data source: looked at first, then brought to what the code says.

`plan` only reads and says what it would do; `apply` does it. What is not ours is never overwritten: a board without our
tag under our uid or title, a folder or data source of our name under another uid. A board that somebody changed by hand
is left alone too, unless asked.
"""

import copy
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from dashboards.difference import Change, differences
from dashboards.grafana_server import GrafanaServer

TAG: Final = "gaoxin-fleet"
"""Marks a board as made by this product."""
MESSAGE: Final = "fleet dashboards publish"
"""Begins the message of every save of ours in a board's history."""
APPLICATION: Final = "application"
DATA_SOURCE_VARIABLE: Final = "datasource"

Verb = Literal["create", "update", "unchanged", "remove", "leave", "refuse"]
What = Literal["folder", "permissions", "data source", "board"]
LEVELS: Final[Mapping[str, int]] = {"view": 1, "edit": 2, "admin": 4}
ROLES: Final = ("Viewer", "Editor")
NEEDED: Final = ("dashboards:create", "dashboards:write", "folders:create")
"""Rights that every publish needs; Grafana's role Editor has them."""
NEEDED_FOR: Final[Mapping[str, tuple[str, ...]]] = {
    "permissions": ("folders.permissions:write",),
    "data source": ("datasources:create", "datasources:write"),
    "remove": ("dashboards:delete",),
}


@dataclass(frozen=True, slots=True)
class Source:
    """The data source of the boards: InfluxQL on the database `database`, read with `token`."""

    url: str
    token: str = field(repr=False)
    database: str = "fleet"
    uid: str = "fleet"
    name: str = "fleet"

    def model(self) -> dict[str, Any]:
        """As Grafana's API takes it, the secret included."""
        return {
            "uid": self.uid, "name": self.name, "type": "influxdb", "access": "proxy", "url": self.url,
            "database": self.database, "isDefault": False,
            "jsonData": {
                "version": "InfluxQL", "dbName": self.database, "httpMode": "POST", "httpHeaderName1": "Authorization",
            },
            "secureJsonData": {"httpHeaderValue1": f"Token {self.token}"},
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Wanted:
    """What Grafana is to hold. `permissions`: role → level of `LEVELS`; empty leaves them alone.

    `overwrite_edits`: also boards that were changed by hand. `prune`: delete our boards that are none any more.
    """

    boards: Mapping[str, Mapping[str, Any]]
    folder_uid: str = "fleet"
    folder_title: str = "Fleet"
    permissions: Mapping[str, str] = field(default_factory=dict)
    source: Source | None = None
    renew_token: bool = False
    overwrite_edits: bool = False
    prune: bool = False
    is_whole: bool = True
    """Whether `boards` are all there are: only then the others of ours are left over."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing in Grafana, and what is to become of it. `words` say why, or what to do about a refusal."""

    what: What
    name: str
    verb: Verb
    words: str = ""
    changes: tuple[Change, ...] = ()
    version: int = 0

    @property
    def differs(self) -> bool:
        """Whether Grafana does not hold what the code says."""
        return self.verb not in {"unchanged", "leave"}


def for_deployment(board: Mapping[str, Any], *, application_url: str = "", source_uid: str = "fleet") -> dict[str, Any]:
    """A copy of a board that opens with this deployment's data source and links into its pages."""
    made = copy.deepcopy(dict(board))
    for variable in (made.get("templating") or {}).get("list") or ():
        if variable["name"] == DATA_SOURCE_VARIABLE and source_uid:
            variable["current"] = {"selected": True, "text": source_uid, "value": source_uid}
        if variable["name"] == APPLICATION and application_url:
            address = application_url.rstrip("/")
            variable["query"] = address
            variable["current"] = {"selected": True, "text": address, "value": address}
    return made


def digest_of(board: Mapping[str, Any]) -> str:
    """Short and stable: the same board has the same one in every run."""
    text = json.dumps(board, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# --- looking ------------------------------------------------------------------------------------------------------


def plan(server: GrafanaServer, wanted: Wanted) -> list[Step]:
    """What would be done, in the order in which it must be done. Reads only; raises GrafanaError."""
    server.version()
    server.organization()
    steps: list[Step] = []
    if wanted.source is not None:
        steps.append(_source_step(server, wanted.source, renew_token=wanted.renew_token))
    folder = _folder_step(server, wanted)
    steps.append(folder)
    if wanted.permissions and folder.verb != "refuse":
        steps.append(_permission_step(server, wanted, is_new=folder.verb == "create"))
    steps += (_board_step(server, wanted, uid, board) for uid, board in wanted.boards.items())
    if wanted.is_whole:
        steps += _left_over(server, wanted)
    steps += _missing_rights(server, steps)
    return steps


def _folder_step(server: GrafanaServer, wanted: Wanted) -> Step:
    uid, title = wanted.folder_uid, wanted.folder_title
    found = server.folder(uid)
    if found is not None:
        if found["title"] == title:
            return Step("folder", title, "unchanged", version=int(found.get("version", 0)))
        change = Change("~", "folder", "title", found["title"], title)
        return Step("folder", title, "update", changes=(change,), version=int(found.get("version", 0)))
    if foreign := next((one for one in server.folders() if one["title"] == title), None):
        return Step(
            "folder", title, "refuse",
            f"there is another folder {title!r} (uid {foreign['uid']}). Use it with --folder-uid {foreign['uid']}, "
            "or give ours another name with --folder",
        )  # fmt: skip
    return Step("folder", title, "create", f"uid {uid}")


def _permission_step(server: GrafanaServer, wanted: Wanted, *, is_new: bool) -> Step:
    name = ", ".join(f"{role.lower()} may {level}" for role, level in wanted.permissions.items())
    if is_new:
        return Step("permissions", name, "create")
    stored = {
        str(item["role"]): int(item.get("permission", 0))
        for item in server.folder_permissions(wanted.folder_uid)
        if item.get("role") and not item.get("inherited")
    }
    changes = tuple(
        Change("~", "permissions", role, _level(stored.get(role, 0)), level)
        for role, level in wanted.permissions.items()
        if stored.get(role, 0) != LEVELS[level]
    )
    return Step("permissions", name, "update" if changes else "unchanged", changes=changes)


def _level(number: int) -> str:
    return next((name for name, value in LEVELS.items() if value == number), "nothing")


def _source_step(server: GrafanaServer, source: Source, *, renew_token: bool) -> Step:
    same_uid = server.data_source(source.uid)
    if same_uid is None:
        if foreign := next((one for one in server.data_sources() if one["name"] == source.name), None):
            return Step(
                "data source", source.name, "refuse",
                f"another data source has this name (uid {foreign['uid']}, type {foreign.get('type')}). Use it with "
                f"--source-uid {foreign['uid']} if it reads the same database, or rename one of them",
            )  # fmt: skip
        return Step("data source", source.name, "create", source.url)
    if same_uid.get("type") != "influxdb":
        return Step(
            "data source", source.name, "refuse",
            f"uid {source.uid} is a {same_uid.get('type')}, not InfluxDB; choose another with --source-uid",
        )  # fmt: skip
    model = source.model()
    changes = [
        change
        for change in differences(same_uid, model)
        if (first := change.path.split(".")[0].split("[")[0]) in model and first not in {"secureJsonData", "isDefault"}
    ]
    changes = [change for change in changes if change.after is not None]
    no_token = not (same_uid.get("secureJsonFields") or {}).get("httpHeaderValue1")
    if (renew_token or no_token) and not same_uid.get("readOnly"):
        changes.append(Change("~", "data source", "token", "unset" if no_token else "set", "this one"))
    if same_uid.get("readOnly"):
        words = "comes from a provisioning file, which alone can change it" if changes else ""
        return Step("data source", source.name, "leave" if changes else "unchanged", words, tuple(changes))
    return Step("data source", source.name, "update" if changes else "unchanged", changes=tuple(changes))


def _board_step(server: GrafanaServer, wanted: Wanted, uid: str, board: Mapping[str, Any]) -> Step:
    found = server.board(uid)
    if found is None:
        return _new_board_step(server, wanted, uid, board)
    stored, meta = found["dashboard"], found.get("meta") or {}
    changes = differences(stored, board)
    if meta.get("folderUid", "") != wanted.folder_uid:
        changes.insert(0, Change("~", "board", "folder", meta.get("folderTitle") or "General", wanted.folder_title))
    version, by_hand = int(stored.get("version", 0)), ""
    refusal = ""
    if TAG not in (stored.get("tags") or ()):
        refusal = (
            f"the board {stored.get('title')!r} has this uid and is not ours (no tag {TAG!r}). Give it another uid "
            "(Settings → JSON model), or tag it if it may be replaced"
        )
        changes = []
    elif changes and meta.get("provisioned"):
        refusal = "Grafana takes this board from a provisioning file: change that file (docs/boards.md) instead"
    elif changes:
        by_hand = _edited_by_hand(server.last_save(uid))
        if by_hand and not wanted.overwrite_edits:
            refusal = f"{by_hand}. Take what is worth keeping into the code, then publish with --overwrite-edits"
    if refusal:
        return Step("board", uid, "refuse", refusal, tuple(changes), version)
    return Step("board", uid, "update" if changes else "unchanged", by_hand, tuple(changes), version)


def _new_board_step(server: GrafanaServer, wanted: Wanted, uid: str, board: Mapping[str, Any]) -> Step:
    title = str(board["title"])
    for other in server.boards_titled(title):
        if other.get("folderUid", "") == wanted.folder_uid and other["uid"] not in wanted.boards:
            return Step(
                "board", uid, "refuse",
                f"the folder already has a board {title!r} (uid {other['uid']}) that is not ours. Rename or move "
                "it in Grafana, or publish into a folder of your own with --folder-uid and --folder",
            )  # fmt: skip
    return Step("board", uid, "create", f"{title}: {len(board.get('panels') or ())} panels")


def _edited_by_hand(save: Mapping[str, Any] | None) -> str:
    """Who saved it last, if it was not us; empty when it was."""
    if save is None or str(save.get("message") or "").startswith(MESSAGE):
        return ""
    return f"changed by hand: {save.get('createdBy') or 'somebody'} saved version {save.get('version')} at " + str(
        save.get("created") or "an unknown time"
    )


def _left_over(server: GrafanaServer, wanted: Wanted) -> Iterator[Step]:
    for one in server.boards_tagged(TAG):
        if one["uid"] in wanted.boards or one.get("folderUid", "") != wanted.folder_uid:
            continue
        words = f"{one['title']!r} is none of today's boards"
        if wanted.prune:
            yield Step("board", one["uid"], "remove", words)
        else:
            yield Step("board", one["uid"], "leave", f"{words}; --prune deletes it")


def _missing_rights(server: GrafanaServer, steps: Sequence[Step]) -> Iterator[Step]:
    """Refusals before anything is written, so that a publish is not left half done."""
    rights = server.rights()
    if rights is None:
        return
    doing = [step for step in steps if step.verb in {"create", "update", "remove"}]
    needed: dict[str, What] = {}
    for step in doing:
        actions = NEEDED if step.what in {"board", "folder"} else NEEDED_FOR[step.what]
        if step.verb == "remove":
            actions = NEEDED_FOR["remove"]
        needed.update(dict.fromkeys(actions, step.what))
    if missing := {action: what for action, what in needed.items() if action not in rights}:
        yield Step(
            next(iter(missing.values())), ", ".join(sorted(missing)), "refuse",
            "the token has no right to this; give its service account the role Admin in this organisation, or Editor "
            "together with --no-permissions and without --source-url",
        )  # fmt: skip


# --- doing --------------------------------------------------------------------------------------------------------


def apply(server: GrafanaServer, wanted: Wanted, steps: Sequence[Step]) -> Iterator[Step]:
    """Do the steps of `plan`, and yield each when it is done; raises GrafanaError and leaves the rest undone.

    A board that somebody saved since `plan` looked is not overwritten (ChangedMeanwhileError).

    Raises:
        ValueError: a step was refused, so that nothing may be written.
    """
    if refused := [step for step in steps if step.verb == "refuse"]:
        raise ValueError(f"{len(refused)} refused; nothing is written")
    for step in steps:
        if not step.differs:
            continue
        _DO[step.what](server, wanted, step)
        yield step


def _do_folder(server: GrafanaServer, wanted: Wanted, step: Step) -> None:
    if step.verb == "create":
        server.create_folder(wanted.folder_uid, wanted.folder_title)
    else:
        server.rename_folder(wanted.folder_uid, wanted.folder_title, step.version)


def _do_permissions(server: GrafanaServer, wanted: Wanted, step: Step) -> None:
    del step
    # Grafana replaces the whole list: what people and teams were given by name stays.
    kept = [
        {key: item[key] for key in ("userId", "teamId", "role") if item.get(key)} | {"permission": item["permission"]}
        for item in server.folder_permissions(wanted.folder_uid)
        if not item.get("inherited") and item.get("role") not in wanted.permissions
    ]
    ours = [{"role": role, "permission": LEVELS[level]} for role, level in wanted.permissions.items()]
    server.set_folder_permissions(wanted.folder_uid, [*kept, *ours])


def _do_source(server: GrafanaServer, wanted: Wanted, step: Step) -> None:
    assert wanted.source is not None
    model = wanted.source.model()
    if step.verb == "create":
        server.create_data_source(model)
    else:
        server.update_data_source(model)


def _do_board(server: GrafanaServer, wanted: Wanted, step: Step) -> None:
    if step.verb == "remove":
        server.remove_board(step.name)
        return
    board = dict(wanted.boards[step.name])
    board["version"] = step.version
    message = f"{MESSAGE} {digest_of(wanted.boards[step.name])}"
    server.save_board({**board, "id": None}, wanted.folder_uid, message)


_DO: Final = {
    "folder": _do_folder,
    "permissions": _do_permissions,
    "data source": _do_source,
    "board": _do_board,
}
