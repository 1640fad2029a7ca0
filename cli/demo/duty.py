"""Who is on duty in a demo: two crews with their vans, a second crew, duty managers, and how each is reached.

The roster comes from a file, as it does in the product.
"""

import datetime as dt
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, insert, select, update

from cloud.members.repository import add_person
from cloud.members.seed import DemoPerson
from cloud.roster import check, crews, imports, table_file
from cloud.roster.crews import Crew
from cloud.roster.duty import SKILLS
from cloud.tables import contact_point, device
from cloud.tables import person as person_table
from cloud.work_orders.proof import code_of
from fleet.kind import Site

ZONE: Final = ZoneInfo("Asia/Shanghai")
CREWS: Final = (
    Crew("north", "北区班组", "North crew", 38.8790, 121.5260, 120),
    Crew("south", "南区班组", "South crew", 38.8560, 121.5180, 160),
)
_TECHNICIAN: Final = frozenset({"repair", "inspection", "battery"})
_DRIVER: Final = frozenset({"restock", "battery", "rebalance"})


@dataclass(frozen=True, slots=True)
class Colleague:
    """Somebody on duty besides the printed logins; signs in with the password of the printed one of the same role."""

    login: str
    name: str
    role: str
    crew: str | None
    skills: frozenset[str]


COLLEAGUES: Final = (
    Colleague("zhao", "赵师傅", "crew", "north", _DRIVER),
    Colleague("qian", "钱师傅", "crew", "south", _TECHNICIAN),
    Colleague("sun", "孙师傅", "crew", "south", _DRIVER),
    Colleague("zhou", "周师傅", "crew", "north", SKILLS),
    Colleague("wu", "吴师傅", "crew", "south", SKILLS),
    Colleague("zheng", "郑师傅", "crew", "south", SKILLS),
    Colleague("feng", "冯经理", "admin", None, SKILLS),
)
_SHIFTS: Final = (
    *(("on_call", login, "07:00", "19:00") for login in ("crew", "zhao", "qian", "sun")),
    *(("on_call", login, "19:00", "07:00") for login in ("zhou", "wu")),
    ("second_crew", "zheng", "00:00", "24:00"),
    ("duty_manager", "admin", "07:00", "19:00"),
    ("duty_manager", "feng", "19:00", "07:00"),
)
_BUILDING: Final = re.compile(r"^(.+?号楼)")


def seed(
    tx: Connection, printed: list[DemoPerson], fleet: Mapping[str, tuple[str, Site]], now_ms: int, rng: random.Random
) -> tuple[list[DemoPerson], dict[str, str]]:
    """Crews, colleagues, contacts, the roster, sites; returns the colleagues of the crew, and device → code on it."""
    by_role = {one.role: one for one in printed}
    colleagues = [_add(tx, one, by_role[one.role], now_ms) for one in COLLEAGUES]
    for crew in CREWS:
        crews.put_crew(tx, crew, now_ms)
    crews.put_member(tx, by_role["crew"].id, "north", sorted(SKILLS), now_ms)
    for colleague, person in zip(COLLEAGUES, colleagues, strict=True):
        if colleague.role == "crew":
            crews.put_member(tx, person.id, colleague.crew, sorted(colleague.skills), now_ms)
    reached = [by_role["crew"], by_role["admin"], *colleagues]
    tx.execute(
        insert(contact_point),
        [
            {
                "id": f"sms-{one.id}", "person_id": one.id, "channel": "sms", "address": f"+861380000{number:04d}",
                "label": "手机", "created_at": now_ms, "verified_at": now_ms,
            }
            for number, one in enumerate(reached)
        ],
    )  # fmt: skip
    reading = table_file.read(roster_file(now_ms), ZONE)
    found = imports.compare(tx, reading, now_ms, check.DAYS * 86_400_000, replace=False, zone=ZONE)
    imports.apply(tx, found, by_role["admin"].id, now_ms)
    for site in sorted({building for _, one in fleet.values() if (building := building_of(one.name))}):
        mine = [device_id for device_id, (_, one) in fleet.items() if building_of(one.name) == site]
        tx.execute(update(device).where(device.c.device_id.in_(mine)).values(site=site))
    codes = {device_id: code_of(tx, device_id, rng.randbytes, now_ms) for device_id in fleet}
    return [one for one in colleagues if one.role == "crew"], codes


def roster_file(now_ms: int) -> bytes:
    """The roster as a file, from the day before."""
    day = dt.datetime.fromtimestamp(now_ms / 1000, ZONE).date() - dt.timedelta(days=1)
    lines = [f"{tier},{login},,{day} {begin},{end},daily" for tier, login, begin, end in _SHIFTS]
    return "\n".join(["tier,person,crew,from,until,repeat", *lines, ""]).encode()


def building_of(name: str) -> str:
    """The building in the name of a place; empty without one."""
    found = _BUILDING.match(name)
    return found[1].replace(" ", "") if found else ""


def _add(tx: Connection, one: Colleague, alike: DemoPerson, now_ms: int) -> DemoPerson:
    same = select(person_table.c.password_hash).where(person_table.c.id == alike.id)
    made = DemoPerson(f"person-{one.login}", one.login, one.name, one.role, alike.password)
    add_person(
        tx, id=made.id, login=made.login, name=made.name, role=made.role, language="zh_CN", created_at=now_ms,
        password_hash=str(tx.execute(same).scalar_one()),
    )  # fmt: skip
    return made
