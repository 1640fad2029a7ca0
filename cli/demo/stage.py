"""Everything a demo needs before the curtain: folders, certificates, database, people, settings."""

import datetime as dt
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, select

import devices
from cli.broker import BrokerTls
from cli.demo import duty
from cloud.adapters.sql.database import SqlDatabase
from cloud.adapters.sql.migrate import upgrade
from cloud.devices import repository as device_rows
from cloud.identity.authority import (
    Credentials,
    command_key_id,
    load_or_create_command_key,
    public_pem,
    write_secret,
)
from cloud.identity.pki_folder import PkiFolder
from cloud.members.repository import add_person
from cloud.members.seed import DemoPerson, seed_demo
from cloud.tables import person as person_table
from cloud.wallet.seed import seed_demo as fill_wallets
from fleet import topics
from fleet.kind import Site

INGESTER: Final = topics.INGESTER_NAME
RIDERS_AND_EATERS: Final = 24
"""Employees that use bikes and machines by themselves, besides the three printed logins."""
FIRST_BALANCE_FEN: Final = 50_000


@dataclass(frozen=True, slots=True)
class Stage:
    """Where everything of one demo lies."""

    directory: Path
    pki_directory: Path
    authority_file: Path
    """The services' root: who devices and the cloud check the broker against."""
    ingester_certificate: Path
    ingester_key: Path
    broker_tls: BrokerTls
    command_key_file: Path
    command_public_file: Path
    command_key_id: str
    people: Sequence[DemoPerson]
    extras: Sequence[DemoPerson]
    crew: Sequence[DemoPerson]
    """Members of the crew besides the printed one."""
    codes: Mapping[str, str]
    """device_id → the code that is stuck on it."""

    @property
    def identities(self) -> Path:
        """Folder with `<device_id>.pem` and `<device_id>.key`."""
        return self.directory / "identities"

    @property
    def cloud_directory(self) -> Path:
        """Data directory of `fleet serve`."""
        return self.directory / "cloud"

    @property
    def state_file(self) -> Path:
        """The cloud's database."""
        return self.cloud_directory / "state.db"

    @property
    def series_file(self) -> Path:
        """The cloud's series."""
        return self.cloud_directory / "series.db"

    @property
    def truth_file(self) -> Path:
        """The simulators' own log."""
        return self.directory / "truth.jsonl"

    @property
    def receiver_file(self) -> Path:
        """What the crew's phones accepted."""
        return self.directory / "notified.jsonl"


def fleet_of(counts: Mapping[str, int], seed: int) -> dict[str, tuple[str, Site]]:
    """device_id → (kind, site), the same for the same seed in every process."""
    fleet: dict[str, tuple[str, Site]] = {}
    for name, kind in devices.kinds().items():
        count = counts.get(name, kind.demo_count)
        sites = devices.role(name, "simulator").sites(count, random.Random(f"{seed}:{name}:sites"))
        for number, site in enumerate(sites, start=1):
            fleet[f"{kind.id_prefix}-{number:03d}"] = (name, site)
    return fleet


def set_up(directory: Path, fleet: Mapping[str, tuple[str, Site]], seed: int, now_ms: int) -> Stage:
    """Write keys and certificates, make the database with devices and people in it."""
    now = dt.datetime.now(dt.UTC)
    identities = directory / "identities"
    identities.mkdir(parents=True, exist_ok=True)
    (directory / "cloud").mkdir(exist_ok=True)
    folder, tls = make_identities(directory, [INGESTER], now)
    devices_authority = folder.device_authority()
    for device_id in fleet:
        put_identity(identities, device_id, devices_authority.issue_client(device_id, now))
    command_key_file = directory / "cloud" / "command.key"
    command_key = load_or_create_command_key(command_key_file).public_key()
    (directory / "command.pem").write_bytes(public_pem(command_key))
    people, extras, crew, codes = _fill_database(directory / "cloud" / "state.db", fleet, seed, now_ms)
    return Stage(
        directory=directory,
        pki_directory=folder.directory,
        authority_file=tls.services_root,
        ingester_certificate=identities / f"{INGESTER}.pem",
        ingester_key=identities / f"{INGESTER}.key",
        broker_tls=tls,
        command_key_file=command_key_file,
        command_public_file=directory / "command.pem",
        command_key_id=command_key_id(command_key),
        people=people,
        extras=extras,
        crew=crew,
        codes=codes,
    )


def make_identities(directory: Path, services: Sequence[str], now: dt.datetime) -> tuple[PkiFolder, BrokerTls]:
    """Both domains in `directory`/pki, the broker's certificate, and those of `services` in `directory`/identities."""
    folder = PkiFolder((directory / "pki").resolve())
    folder.initialise(now)
    folder.issue_server(["127.0.0.1", "localhost"], now)
    authority = folder.authority("services")
    for name in services:
        put_identity(directory / "identities", name, authority.issue_client(name, now))
    tls = BrokerTls(
        folder.root_file("devices"), folder.root_file("services"), *folder.issued_files("broker"),
        folder.revocation_file,
    )  # fmt: skip
    return folder, tls


def put_identity(folder: Path, name: str, credentials: Credentials) -> None:
    """Write `<name>.pem` and `<name>.key`; hundreds of them, so not each with a wait for the disk."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.pem").write_bytes(credentials.certificate)
    write_secret(folder / f"{name}.key", credentials.key, durable=False)


def _fill_database(
    path: Path, fleet: Mapping[str, tuple[str, Site]], seed: int, now_ms: int
) -> tuple[list[DemoPerson], list[DemoPerson], list[DemoPerson], dict[str, str]]:
    url = f"sqlite:///{path.resolve()}"
    upgrade(url)
    database = SqlDatabase(url)
    randomness = random.Random(f"{seed}:people")

    def fill(tx: Connection) -> tuple[list[DemoPerson], list[DemoPerson], list[DemoPerson], dict[str, str]]:
        for device_id, (kind, site) in fleet.items():
            device_rows.add_device(
                tx, device_id=device_id, kind=kind, name=site.name, latitude=site.latitude, longitude=site.longitude,
                enrolled_at=now_ms,
            )  # fmt: skip
        people = seed_demo(tx, now_ms, randomness)
        # They sign in with the printed employee's password hash: hashing two dozen passwords would take seconds.
        employee = next(person for person in people if person.role == "employee")
        extras = []
        for number in range(1, RIDERS_AND_EATERS + 1):
            one = DemoPerson(
                f"person-{number:03d}", f"employee-{number:03d}", f"职工{number:03d}", "employee", employee.password
            )
            add_person(
                tx, id=one.id, login=one.login, name=one.name, role=one.role, language="zh_CN", created_at=now_ms,
                password_hash=_hash_of(tx, employee.id),
            )  # fmt: skip
            extras.append(one)
        fill_wallets(tx, [person.id for person in (*people, *extras)], now_ms, FIRST_BALANCE_FEN)
        return people, extras, *duty.seed(tx, people, fleet, now_ms, randomness)

    try:
        return database.write_here(fill)
    finally:
        database.close()


def _hash_of(tx: Connection, person_id: str) -> str:
    return str(tx.execute(select(person_table.c.password_hash).where(person_table.c.id == person_id)).scalar_one())
