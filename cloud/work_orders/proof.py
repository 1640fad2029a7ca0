"""The first half of the proof that work was done: somebody was there and scanned the device's own code.

The code is opaque: it names no device and follows from nothing, so it cannot be made up at a desk.
"""

import io
from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import Connection, Row, select, update

from cloud.dispatch import orders, whereabouts
from cloud.dispatch.rows import insert_into, insert_new
from cloud.dispatch.states import OrderMove
from cloud.geography import Point, distance_m
from cloud.tables import crew_position, device, device_code, work_order
from fleet.incident import OrderEvent, OrderState

LETTERS: Final = "23456789ABCDEFGHJKLMNPQRSTUVWXYZ"
"""Without those that people take for each other."""
CODE_LENGTH: Final = 10
NEAR_M: Final = 150.0
SCAN_PATH: Final = "/scan/"
_TO_START: Final = {
    OrderState.ASSIGNED.value: (OrderEvent.ACCEPT, OrderEvent.TRAVEL, OrderEvent.START),
    OrderState.ACCEPTED.value: (OrderEvent.TRAVEL, OrderEvent.START),
    OrderState.TRAVELLING.value: (OrderEvent.START,),
    OrderState.IN_PROGRESS.value: (),
}
"""Who is there has accepted and travelled, whether they said so or not."""


class TooFarError(ValueError):
    """The phone says that it is elsewhere."""

    def __init__(self, metres: float) -> None:
        super().__init__(f"Your phone is {round(metres)} m from the device; scan it on site.")
        self.metres = metres


def code_from(text: str) -> str:
    """The code in what was typed or scanned: the bare code, or a link that ends in it."""
    last = text.strip().rstrip("/").rsplit("/", 1)[-1].split("?", 1)[0]
    return "".join(letter for letter in last.upper() if letter in LETTERS)


def code_of(tx: Connection, device_id: str, random_bytes: Callable[[int], bytes], at: int) -> str:
    """The device's code, made at the first question."""
    known = tx.scalar(select(device_code.c.code).where(device_code.c.device_id == device_id))
    if known is not None:
        return str(known)
    code = "".join(LETTERS[byte % len(LETTERS)] for byte in random_bytes(CODE_LENGTH))
    insert_new(tx, device_code, [{"device_id": device_id, "code": code, "made_at": at}], [device_code.c.device_id])
    return str(tx.scalar(select(device_code.c.code).where(device_code.c.device_id == device_id)))


def picture(link: str) -> bytes:
    """A QR code as SVG."""
    import segno  # noqa: PLC0415  # only where it is used

    written = io.BytesIO()
    segno.make(link, error="m", micro=False).save(written, kind="svg", scale=6, border=4)
    return written.getvalue()


def device_of(tx: Connection, code: str) -> Row[Any] | None:
    """The device in service that carries this code."""
    joined = device_code.join(device, device.c.device_id == device_code.c.device_id)
    return tx.execute(
        select(device).select_from(joined).where(device_code.c.code == code, device.c.retired_at.is_(None))
    ).one_or_none()


def record_scan(tx: Connection, device_id: str, person_id: str, at: int, here: Point | None) -> list[OrderMove]:
    """This person is at this device: their open orders there are in progress, and proven.

    Raises:
        TooFarError: the phone's position is further away than `NEAR_M`.
    """
    place = whereabouts.of_devices(tx, [device_id]).get(device_id)
    if here is not None and place is not None and (away_m := distance_m(here, place)) > NEAR_M:
        raise TooFarError(away_m)
    if place is not None:
        row = {"person_id": person_id, "latitude": place.latitude, "longitude": place.longitude}
        statement = insert_into(tx, crew_position).values(**row, device_id=device_id, at=at)
        new = {name: statement.excluded[name] for name in ("latitude", "longitude", "device_id", "at")}
        tx.execute(statement.on_conflict_do_update(index_elements=[crew_position.c.person_id], set_=new))
    columns = work_order.c
    mine = select(work_order).where(columns.device_id == device_id, columns.assigned_to == person_id)
    moves: list[OrderMove] = []
    for order in tx.execute(mine.where(columns.state.in_(_TO_START)).with_for_update()).all():
        moves.append(OrderMove(order.id, order.device_id, order.state, order.state, order.assigned_to))
        for event in _TO_START[order.state]:
            again = tx.execute(select(work_order).where(columns.id == order.id)).one()
            moves.append(orders.move(tx, again, event, person_id, at, note="scanned on site"))
        tx.execute(update(work_order).where(columns.id == order.id).values(scanned_at=at, scanned_by=person_id))
    return moves
