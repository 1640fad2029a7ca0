"""The demo's roster: covered, reachable, with every skill at every hour; each device carries its code."""

import asyncio

from sqlalchemy import select

from cli.demo import duty as demo_duty
from cli.demo import stage
from cloud.adapters.sql.database import SqlDatabase
from cloud.roster import duty, rows
from cloud.roster.check import DAYS, check
from cloud.tables import device, device_code

NOW = 1_800_000_000_000
HOUR = 3_600_000


def test_the_demo_has_somebody_for_everything_at_every_minute(tmp_path):
    fleet = stage.fleet_of({"bike": 2, "meal_machine": 2, "nursing_room": 2}, 1)
    path = tmp_path / "state.db"
    people, _, crew, codes = stage._fill_database(path, fleet, 1, NOW)
    database = SqlDatabase(f"sqlite:///{path}")
    try:
        asyncio.run(rows.keep_ahead(database, NOW))
        found = database.read_here(lambda tx: check(tx, NOW, NOW + DAYS * rows.DAY_MS))
        assert (found.planned, found.findings) == (True, [])
        for hour in range(48):
            here = database.read_here(lambda tx, at=NOW + hour * HOUR: duty.crew_on_duty(tx, at))
            assert frozenset().union(*(one.skills for one in here)) == duty.SKILLS, hour
        stuck = database.read_here(
            lambda tx: dict(tx.execute(select(device_code.c.device_id, device_code.c.code)).all())
        )
        assert stuck == codes
        sites = database.read_here(lambda tx: dict(tx.execute(select(device.c.device_id, device.c.site)).all()))
        assert all(bool(site) == (not device_id.startswith("bike")) for device_id, site in sites.items())
    finally:
        database.close()
    assert {one.login for one in crew} == {one.login for one in demo_duty.COLLEAGUES if one.role == "crew"}
    assert {one.role for one in people} == {"employee", "crew", "admin"}
