"""The people of the week and their shifts, written where the product keeps them."""

from dataclasses import dataclass
from typing import Final, get_args

from sqlalchemy import Connection

from cli.week.hardware import Hardware
from cli.week.plan import DEPOT, MONDAY_MS, WeekPlan
from cloud.tables import contact_point, crew, crew_member, device, person, shift
from firmware_sim.demand import DAY_MS, HOUR_MS
from fleet.kind import Skill

TURNS: Final = ((7, 15), (15, 23), (23, 31))
"""Early, late and night turn, local hours."""
_WEEKEND: Final = 5
SECOND_CREW: Final = ("crew-x1", "crew-x2")
MANAGERS: Final = ("manager-1", "manager-2")


@dataclass(frozen=True, slots=True)
class Turn:
    """One person's time at work."""

    person_id: str
    from_ms: int
    until_ms: int


def turns(plan: WeekPlan) -> list[Turn]:
    """Who of the crew works when: everybody keeps their turn; on weekends half of them come."""
    found = []
    for day in range(round(plan.days + 0.499)):
        for turn, (begins, ends) in enumerate(TURNS):
            size = plan.crew[turn]
            if day % 7 >= _WEEKEND:
                size = max(1, size // 2)
            for number in range(size):
                midnight_ms = MONDAY_MS + day * DAY_MS
                name = f"crew-{'eln'[turn]}{number + 1}"
                found.append(Turn(name, midnight_ms + begins * HOUR_MS, midnight_ms + ends * HOUR_MS))
    # The week begins at midnight: somebody's night turn began the evening before.
    found += [Turn(f"crew-n{number + 1}", MONDAY_MS, MONDAY_MS + 7 * HOUR_MS) for number in range(plan.crew[2])]
    return sorted(found, key=lambda turn: (turn.from_ms, turn.person_id))


def enrol(tx: Connection, plan: WeekPlan, hardware: Hardware) -> None:
    """Devices with their places; people; who is on duty in which tier."""
    rows = []
    for device_id, unit in hardware.units.items():
        site = hardware.world.site(device_id)
        rows.append(
            {
                "device_id": device_id, "kind": unit.kind, "name": site.name, "latitude": site.latitude,
                "longitude": site.longitude, "enrolled_at": MONDAY_MS,
            }
        )  # fmt: skip
    tx.execute(device.insert(), rows)
    working = turns(plan)
    crews = sorted({turn.person_id for turn in working} | set(SECOND_CREW))
    tx.execute(
        person.insert(),
        [
            {
                "id": name, "login": name, "name": name, "role": "crew" if name in crews else "admin",
                "password_hash": "-", "created_at": MONDAY_MS,
            }
            for name in (*crews, *MANAGERS)
        ],
    )  # fmt: skip
    tx.execute(
        contact_point.insert(),
        [
            {
                "id": f"push-{name}", "person_id": name, "channel": "push", "address": name, "created_at": MONDAY_MS,
                "verified_at": MONDAY_MS,
            }
            for name in (*crews, *MANAGERS)
        ],
    )  # fmt: skip
    tx.execute(
        crew.insert(),
        [
            {
                "id": one, "name_zh": one, "name_en": one, "latitude": DEPOT[0], "longitude": DEPOT[1],
                "vehicle_capacity": 160, "created_at": MONDAY_MS,
            }
            for one in crews  # a van each: a crew is who shares a vehicle
        ],
    )  # fmt: skip
    skills = ",".join(get_args(Skill))
    tx.execute(crew_member.insert(), [{"person_id": one, "crew_id": one, "skills": skills} for one in crews])
    shifts = [("on_call", turn) for turn in working]
    end_ms = plan.until_ms + DAY_MS
    shifts += [("second_crew", Turn(name, MONDAY_MS, end_ms)) for name in SECOND_CREW]
    shifts += [("duty_manager", Turn(name, MONDAY_MS, end_ms)) for name in MANAGERS]
    tx.execute(
        shift.insert(),
        [
            {
                "id": f"{number:06d}", "plan_id": "week", "tier": tier, "person_id": turn.person_id,
                "crew_id": turn.person_id if tier == "on_call" else None,
                "from_at": turn.from_ms, "until_at": turn.until_ms,
            }
            for number, (tier, turn) in enumerate(shifts)
        ],
    )  # fmt: skip
