"""A roster over HTTP for tests: the people of `duty_world` and two more, all of them reachable."""

from contextlib import asynccontextmanager
from datetime import datetime
from zoneinfo import ZoneInfo

from sqlalchemy import select

from cloud.tables import contact_point, person, shift
from tests.api.duty_world import on_duty
from tests.unit.dispatch_cases import NOW

ROSTER = "/api/v1/roster"
ZONE = ZoneInfo("Asia/Shanghai")
HOUR = 3_600_000
DAY = 24 * HOUR
ALL_DAY = """tier,person,crew,from,until,repeat
on_call,crew,,2027-01-01 00:00,24:00,daily
duty_manager,admin,,2027-01-01 00:00,24:00,daily
second_crew,wu,,2027-01-01 00:00,24:00,daily
"""


def at(text):
    return round(datetime.fromisoformat(text).replace(tzinfo=ZONE).timestamp() * 1000)


@asynccontextmanager
async def roster_world(folder):
    async with on_duty(folder, {}) as world:
        for login, name in (("wu", "吴师傅"), ("sun", "孙师傅")):
            world.world.write(
                person, id=f"person-{login}", login=login, name=name, role="crew", password_hash="", created_at=NOW
            )
        for login in ("crew", "admin", "wu", "sun"):
            world.world.write(
                contact_point, id=f"contact-{login}", person_id=f"person-{login}", channel="sms", address="1",
                created_at=NOW, verified_at=NOW,
            )  # fmt: skip
        yield world


async def bring(duty, text, *, role="admin", status=200, file_format="csv", **query):
    raw = text if isinstance(text, bytes) else text.encode()
    words = {name: str(value).lower() for name, value in query.items()}
    answer = await duty.clients[role].post(f"{ROSTER}/import", content=raw, params={"format": file_format, **words})
    assert answer.status_code == status, answer.text
    return answer.json()


def rows(duty):
    query = select(shift).order_by(shift.c.from_at, shift.c.person_id)
    return duty.world.database.read_here(lambda tx: tx.execute(query).all())


CREW = {"name_zh": "北区", "name_en": "North", "latitude": 38.87, "longitude": 121.52, "vehicle_capacity": 40}
