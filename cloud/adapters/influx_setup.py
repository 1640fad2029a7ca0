"""Makes a database ready on InfluxDB 1.x (retention policies) or 2.x (buckets, mappings, tokens).

What is there is looked at first and compared; the result is a list of steps, each with what exists and what was or
would be changed, so that running it again changes nothing. A level that would be kept for a shorter time than now is
refused: that deletes data.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from cloud.adapters.influx_http import InfluxHttp, identifier
from cloud.ports import SeriesAccessError, SeriesError
from cloud.timeseries.levels import HOUR, MINUTE, RAW, Level, bucket_of

DAY_S: Final = 86_400
WRITER: Final = "writer"
READER: Final = "reader"
_DURATION: Final = re.compile(r"(\d+)(ns|us|ms|s|m|h|d|w)")
_UNIT_S: Final = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}

Outcome = Literal["exists", "made", "changed", "would make", "would change", "warning"]


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that must be there. `was` and `is_now` in words; `is_now` is what it was if nothing changed."""

    thing: str
    outcome: Outcome
    was: str
    is_now: str


class SetupError(Exception):
    """One line for people: what is in the way, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be there. `shorten`: levels that may be kept for a shorter time than now, which deletes data."""

    database: str
    organisation: str
    levels: tuple[Level, ...] = (RAW, MINUTE, HOUR)
    shorten: frozenset[str] = frozenset()
    dry_run: bool = False


def prepare(http: InfluxHttp, wanted: Wanted, keep_token: Callable[[str, str], None]) -> tuple[str, list[Step]]:
    """Look, compare, make; returns the server's version and the steps.

    Args:
        http: with a token that may do this (2.x: an operator's or an all-access token of the organisation).
        wanted: what is to be there.
        keep_token: given (writer or reader, token) for each that was made; nobody can read it again.

    Raises:
        SetupError: nothing further was changed.
        SeriesError: the server does not answer, or refuses us.
    """
    version = http.version()
    if version.lstrip("v").startswith("1."):
        return version, _prepare_1x(http, wanted)
    if not version.lstrip("v").startswith("2"):
        raise SetupError(
            f"{http.url} says it is InfluxDB {version!r}: only 1.x and 2.x are set up; on 3.x make the databases "
            "by hand and set FLEET_INFLUXDB_ROLLUP=false"
        )
    return version, _Buckets(http, wanted).prepare(keep_token)


# --- 1.x -------------------------------------------------------------------------------------------------------------


def _prepare_1x(http: InfluxHttp, wanted: Wanted) -> list[Step]:
    databases = [row[0] for one in http.query("SHOW DATABASES") for row in one.get("values", ())]
    name = identifier(wanted.database)
    steps = []
    if wanted.database in databases:
        steps.append(Step(f"database {wanted.database}", "exists", "there", "there"))
        answer = http.query(f"SHOW RETENTION POLICIES ON {name}")
        policies = {
            row["name"]: row
            for one in answer
            for row in (dict(zip(one["columns"], v, strict=True)) for v in one["values"])
        }
    else:
        _run(http, wanted, f"CREATE DATABASE {name}")
        steps.append(_made(wanted, f"database {wanted.database}", "there"))
        policies = {}
    for level in wanted.levels:  # all of them before anything is changed
        if present := policies.get(level.policy):
            _refuse_shorter(wanted, f"retention policy {level.policy}", _seconds(present["duration"]), level)
    steps += [_policy(http, wanted, level, policies.get(level.policy)) for level in wanted.levels]
    default = next((policy for policy, row in policies.items() if row["default"]), "")
    if default and default not in {level.policy for level in wanted.levels}:
        counted = http.query(f"SHOW MEASUREMENTS ON {name} LIMIT 1") if not wanted.dry_run else []
        if counted:
            steps.append(
                Step(
                    f"retention policy {default}", "warning", "was the default one, may hold points",
                    f"is left alone; copy what it holds: fleet influx backup --policy {default}, then restore",
                )
            )  # fmt: skip
    return steps


def _policy(http: InfluxHttp, wanted: Wanted, level: Level, present: dict[str, Any] | None) -> Step:
    thing, is_default = f"retention policy {level.policy}", level is wanted.levels[0]
    target = _kept(level.days * DAY_S) + (", default" if is_default else "")
    statement = (
        f"RETENTION POLICY {identifier(level.policy)} ON {identifier(wanted.database)} DURATION {level.days}d"
        f" REPLICATION 1 SHARD DURATION {level.shard_days}d{' DEFAULT' if is_default else ''}"
    )
    if present is None:
        _run(http, wanted, f"CREATE {statement}")
        return _made(wanted, thing, target)
    kept_s = _seconds(present["duration"])
    was = _kept(kept_s) + (", default" if present["default"] else "")
    if kept_s == level.days * DAY_S and (present["default"] or not is_default):
        return Step(thing, "exists", was, was)
    _refuse_shorter(wanted, thing, kept_s, level)
    _run(http, wanted, f"ALTER {statement}")
    return Step(thing, "would change" if wanted.dry_run else "changed", was, target)


def _run(http: InfluxHttp, wanted: Wanted, statement: str) -> None:
    if not wanted.dry_run:
        http.query(statement, post=True)


# --- 2.x -------------------------------------------------------------------------------------------------------------


class _Buckets:
    """Buckets, mappings of database and retention policy to them, and tokens, through `/api/v2`."""

    def __init__(self, http: InfluxHttp, wanted: Wanted) -> None:
        self._http = http
        self._wanted = wanted
        self._org_id = ""

    def prepare(self, keep_token: Callable[[str, str], None]) -> list[Step]:
        self._org_id = self._organisation()
        steps: list[Step] = []
        ids: list[str] = []
        for level in self._wanted.levels:
            step, bucket_id = self._bucket(level)
            steps.append(step)
            ids.append(bucket_id)
        steps += [self._mapping(level, bucket_id) for level, bucket_id in zip(self._wanted.levels, ids, strict=True)]
        known = self._find("authorizations", "authorizations", {"orgID": self._org_id})
        for role in (WRITER, READER):
            steps.append(self._token(role, ids, known, keep_token))
        return steps

    def _find(self, path: str, key: str, parameters: dict[str, str]) -> list[dict[str, Any]]:
        """What there is; some finds answer 404 where there is nothing, others an empty list."""
        try:
            return list(self._http.call("GET", f"/api/v2/{path}", parameters=parameters).get(key) or ())
        except SeriesAccessError as error:
            if "HTTP 404" in str(error) and "not found" in str(error):
                return []
            raise

    def _organisation(self) -> str:
        name = self._wanted.organisation
        found = self._find("orgs", "orgs", {"org": name})
        if not found:
            raise SetupError(
                f"no organisation {name!r} that this token may see: correct FLEET_INFLUXDB_ORG, or use a token of it"
            )
        return str(found[0]["id"])

    def _bucket(self, level: Level) -> tuple[Step, str]:
        name = bucket_of(self._wanted.database, level)
        thing, target = f"bucket {name}", _kept(level.days * DAY_S)
        rules = [
            {
                "type": "expire", "everySeconds": level.days * DAY_S,
                "shardGroupDurationSeconds": level.shard_days * DAY_S,
            }
        ]  # fmt: skip
        found = self._find("buckets", "buckets", {"orgID": self._org_id, "name": name})
        present = next((bucket for bucket in found if bucket["name"] == name), None)
        if present is None:
            if self._wanted.dry_run:
                return _made(self._wanted, thing, target), ""
            body = {"orgID": self._org_id, "name": name, "retentionRules": rules}
            return _made(self._wanted, thing, target), self._http.call("POST", "/api/v2/buckets", body=body)["id"]
        kept_s = float(present["retentionRules"][0]["everySeconds"]) if present.get("retentionRules") else 0.0
        if kept_s == level.days * DAY_S:
            return Step(thing, "exists", _kept(kept_s), _kept(kept_s)), present["id"]
        _refuse_shorter(self._wanted, thing, kept_s, level)
        if not self._wanted.dry_run:
            self._http.call("PATCH", f"/api/v2/buckets/{present['id']}", body={"retentionRules": rules})
        return Step(thing, "would change" if self._wanted.dry_run else "changed", _kept(kept_s), target), present["id"]

    def _mapping(self, level: Level, bucket_id: str) -> Step:
        database, is_default = self._wanted.database, level is self._wanted.levels[0]
        thing = f"mapping {database}/{level.policy}"
        target = f"bucket {bucket_of(database, level)}" + (", default" if is_default else "")
        asked = {"orgID": self._org_id, "db": database, "rp": level.policy}
        found = self._find("dbrps", "content", asked)
        present = next(
            (one for one in found if one["retention_policy"] == level.policy and not one.get("virtual")), None
        )
        if present is not None and present["bucketID"] == bucket_id and (present["default"] or not is_default):
            return Step(thing, "exists", target, target)
        if present is not None and present["bucketID"] != bucket_id:
            raise SetupError(
                f"{thing} leads to another bucket ({present['bucketID']}): nothing of ours; delete the mapping "
                f"(influx v1 dbrp delete --id {present['id']}) or choose another FLEET_INFLUXDB_BUCKET"
            )
        if not self._wanted.dry_run:
            if present is not None:
                parameters = {"orgID": self._org_id}
                self._http.call(
                    "PATCH", f"/api/v2/dbrps/{present['id']}", parameters=parameters, body={"default": True}
                )
            else:
                body = {
                    "orgID": self._org_id, "bucketID": bucket_id, "database": database,
                    "retention_policy": level.policy, "default": is_default,
                }  # fmt: skip
                self._http.call("POST", "/api/v2/dbrps", body=body)
        if present is None:
            return _made(self._wanted, thing, target)
        return Step(thing, "would change" if self._wanted.dry_run else "changed", "not the default one", target)

    def _token(
        self,
        role: str,
        bucket_ids: Sequence[str],
        known: Sequence[dict[str, Any]],
        keep_token: Callable[[str, str], None],
    ) -> Step:
        description = f"{self._wanted.database} {role}"
        thing, target = (
            f"token {description!r}",
            "reads the buckets" if role == READER else "reads and writes the buckets",
        )
        present = next((one for one in known if one.get("description") == description), None)
        permissions = [
            {"action": action, "resource": {"type": "buckets", "id": bucket_id, "orgID": self._org_id}}
            for bucket_id in bucket_ids
            for action in (("read",) if role == READER else ("read", "write"))
        ]
        if present is not None:
            surplus = _rights(present["permissions"]) - _rights(permissions)
            lacking = _rights(permissions) - _rights(present["permissions"])
            if (surplus or lacking) and all(bucket_ids):
                raise SetupError(
                    f"{thing} is there with other rights ({len(surplus)} too many, {len(lacking)} missing): a token's "
                    f"rights can't be changed; delete it (influx auth delete --id {present['id']}) and run this again"
                )
            return Step(thing, "exists", target, target)
        if not self._wanted.dry_run:
            body = {"orgID": self._org_id, "description": description, "permissions": permissions}
            keep_token(role, self._http.call("POST", "/api/v2/authorizations", body=body)["token"])
        return _made(self._wanted, thing, target)


def _rights(permissions: Sequence[dict[str, Any]]) -> set[tuple[str, str, str]]:
    return {(one["action"], one["resource"]["type"], one["resource"].get("id", "")) for one in permissions}


# --- both ------------------------------------------------------------------------------------------------------------


def _made(wanted: Wanted, thing: str, target: str) -> Step:
    return Step(thing, "would make" if wanted.dry_run else "made", "missing", target)


def _refuse_shorter(wanted: Wanted, thing: str, kept_s: float, level: Level) -> None:
    if level.policy not in wanted.shorten and (kept_s == 0 or kept_s > level.days * DAY_S):
        raise SetupError(
            f"{thing} is kept {_kept(kept_s)} and would be kept {level.days} days: that deletes what is older; "
            f"say --shorten if that is meant, or --{level.policy}-days {round(kept_s / DAY_S) or level.days}"
            f"; --shorten is about levels that are named, as with --{level.policy}-days {level.days}"
        )


def _kept(seconds: float) -> str:
    return f"{seconds / DAY_S:g} days" if seconds else "for ever"


def _seconds(duration: str) -> float:
    """`720h0m0s` → 2592000; 0 is for ever."""
    return sum(int(number) * _UNIT_S[unit] for number, unit in _DURATION.findall(duration))


def explain(error: SeriesError, url: str) -> str:
    """A refusal in words that say what to do."""
    words = str(error)
    if words.startswith("HTTP 401"):
        return f"{url} does not know this token (401): give one with --token-file or FLEET_INFLUXDB_TOKEN"
    if words.startswith("HTTP 403"):
        return f"{url}: this token may not do that (403): use an operator's or an all-access token"
    if words.startswith("HTTP 404"):
        return f"{url} does not know what was asked for ({words}): is it an InfluxDB, without a path behind the port?"
    if words.startswith("no answer"):
        return f"{url} does not answer: is InfluxDB running, and FLEET_INFLUXDB_URL right? ({words})"
    if "database not found" in words or "retention policy not found" in words:
        return f"{url}: {words}; make it with: fleet influx init"
    return f"{url}: {words}"
