"""One person of each role, for a demo."""

from dataclasses import dataclass
from typing import Final

from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher
from sqlalchemy import Connection

from cloud.api.access import Role
from cloud.members import repository
from fleet.randomness import Randomness

_NAMES: Final = {Role.EMPLOYEE: "王小雨", Role.CREW: "李师傅", Role.ADMIN: "张管理"}
_WORDS: Final = ("harbour", "seagull", "bicycle", "lantern", "granite", "orchard", "noodle", "willow", "pebble", "tram")


@dataclass(frozen=True, slots=True)
class DemoPerson:
    """A login to be printed once."""

    id: str
    login: str
    name: str
    role: str
    password: str


def seed_demo(tx: Connection, now_ms: int, randomness: Randomness, language: str = "zh_CN") -> list[DemoPerson]:
    """Make the people `employee`, `crew` and `admin` and return them with their passwords.

    The passwords follow from `randomness`, so a demo's seed fixes them. For demos on loopback only.
    Raises IntegrityError if one of the logins exists.
    """
    hasher = PasswordHash((Argon2Hasher(),))
    people = [
        DemoPerson(
            id=f"person-{role.value}",
            login=role.value,
            name=_NAMES[role],
            role=role.value,
            password="-".join(
                [randomness.choice(_WORDS), randomness.choice(_WORDS), str(randomness.randint(100, 999))]
            ),
        )
        for role in (Role.EMPLOYEE, Role.CREW, Role.ADMIN)
    ]
    for one in people:
        repository.add_person(
            tx, id=one.id, login=one.login, name=one.name, role=one.role, password_hash=hasher.hash(one.password),
            language=language, created_at=now_ms,
        )  # fmt: skip
    return people
