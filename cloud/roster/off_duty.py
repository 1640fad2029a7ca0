"""Somebody acts who is not on duty: taken all the same, for who comes is worth more than who was planned, and noted."""

from typing import Final

from sqlalchemy import Connection, select

from cloud import audit
from cloud.roster import duty
from cloud.tables import person

ACTION: Final = "duty.not_on_duty"


def note(tx: Connection, at: int, person_id: str, act: str, of: str) -> bool:
    """Write a line into the audit unless this person is on duty in any tier; whether it was written.

    Who is no person (the command line of the machine) is on no roster. `act` as the audit names it
    (`call.acknowledge`), `of` the id of what it was done to.
    """
    if tx.scalar(select(person.c.id).where(person.c.id == person_id)) is None:
        return False
    if any(one.person_id == person_id for tier in duty.TIERS for one in duty.on_duty(tx, tier, at)):
        return False
    audit.record(tx, at, person_id, ACTION, of, {"act": act, "note": "not on duty"})
    return True
