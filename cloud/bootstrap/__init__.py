"""Joins ports and adapters: the only folder of the cloud that names concrete ones.

Read `run_cloud` from the top: which parts a role needs, how they hang together, in which order they
start. All tasks live in one group; if one of them fails, the process ends and its supervisor starts it
again from what is durable (trust, rule 8).

    role       does
    ingest     hears the devices of its shards, owns their state, sends commands to them, fills the series
    dispatch   delivers the outbox, ends commands, rides and sales that nobody answers, feeds the history
    api        pages, API and live changes for people
    all        everything in one process; on SQLite the only choice (decision 11)
"""

import asyncio
from contextlib import AsyncExitStack
from typing import Final, Literal

import structlog

import devices
from cloud import logs
from cloud.adapters.sql.patience import endless
from cloud.bootstrap.history import start_history
from cloud.bootstrap.http import StoppedError, serve_http
from cloud.bootstrap.ingest import start_ingest
from cloud.bootstrap.parts import Parts, Surroundings, assemble
from cloud.bootstrap.rollup import start_rollup
from cloud.data_directory import InUseError, PlaceError, refuse_unusable, sole_owner
from cloud.history import bounds
from cloud.identity.files import ConfigurationError, broker_tls
from cloud.settings import CloudSettings
from fleet.topics import SHARD_COUNT

_log = structlog.get_logger(__name__)

__all__ = ["ConfigurationError", "Surroundings", "run_cloud"]

Role = Literal["all", "ingest", "dispatch", "api"]

ALL_ROLES: Final = ("ingest", "dispatch", "api")


async def run_cloud(settings: CloudSettings, around: Surroundings, role: Role = "all") -> None:
    """Run until SIGTERM or SIGINT.

    Raises:
        ConfigurationError: before anything was started.
    """
    logs.configure(settings.log_level)
    _add_kind_folders(settings)
    _refuse_what_does_not_fit(settings, role)
    roles = ALL_ROLES if role == "all" else (role,)
    try:
        refuse_unusable(settings.data_directory, settings.http_host, settings.http_port)
        with sole_owner(settings.data_directory, roles):
            async with AsyncExitStack() as stack:
                parts = await assemble(settings, around, roles, stack)
                await _run_roles(parts, stack)
    except InUseError as error:
        raise ConfigurationError(f"{error}; stop it or set FLEET_DATA_DIRECTORY") from None
    except PlaceError as error:
        raise ConfigurationError(str(error)) from None


async def _run_roles(parts: Parts, stack: AsyncExitStack) -> None:
    roles, commands = parts.roles, parts.commands
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(parts.signals.run())
            if "ingest" in roles:
                await start_ingest(parts, stack, group)
            start_rollup(parts, group)
            start_history(parts, group)
            if "dispatch" in roles:
                group.create_task(endless(parts.outbox.run()))
                group.create_task(endless(_keep_bounds(parts)))
                for keep_deadlines in parts.handlers.deadlines:
                    group.create_task(endless(keep_deadlines()))
            if "api" in roles:
                for follow_commits in parts.handlers.followers:
                    group.create_task(endless(follow_commits()))
            for run in parts.identity_work():
                group.create_task(endless(run()))
            if "ingest" in roles or "dispatch" in roles or parts.identity is not None:
                group.create_task(endless(parts.watch.run()))
            if "ingest" in roles or "dispatch" in roles:
                group.create_task(endless(commands.run(sends="ingest" in roles, expires="dispatch" in roles)))
            group.create_task(serve_http(parts))
    except* StoppedError:
        _log.info("stopped")


async def _keep_bounds(parts: Parts) -> None:
    settings = parts.settings
    await bounds.keep_bounds(
        parts.database, parts.around.clock, settings.history_days, settings.queue_days, settings.delivery_days
    )


# --- what must hold before anything starts ---------------------------------------------------------------------


def _add_kind_folders(settings: CloudSettings) -> None:
    for folder in settings.kind_folders:
        try:
            devices.add_kind_folder(str(folder))
        except ValueError as error:
            raise ConfigurationError(f"kind_folders: {error} (from FLEET_KIND_FOLDERS)") from error


def _refuse_what_does_not_fit(settings: CloudSettings, role: Role) -> None:
    broker_tls(settings)
    if not settings.sql_url().startswith("sqlite"):
        return
    if role != "all":
        raise ConfigurationError(
            "roles in separate processes need PostgreSQL: set FLEET_DATABASE_URL, or run without --role"
        )
    if len(settings.shard_numbers()) < SHARD_COUNT:
        raise ConfigurationError(
            "shards: on SQLite one process takes all devices; unset FLEET_SHARDS, or set FLEET_DATABASE_URL"
        )
