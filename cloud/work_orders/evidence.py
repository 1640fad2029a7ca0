"""What proves work: codes on devices, scans, photos."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Row, func, select

from cloud import audit
from cloud.api.access import Person
from cloud.api.problem import ProblemError, conflict, not_found
from cloud.dispatch.rows import insert_new
from cloud.dispatch.states import OrderMove
from cloud.geography import Point
from cloud.ports import Database
from cloud.roster import off_duty
from cloud.tables import order_photo
from cloud.work_orders import proof, repository
from cloud.work_orders.photos import PHOTOS_PER_ORDER_MAX, PhotoError, PhotoStore, remade
from cloud.work_orders.schemas import PhotoAnswer, ScanAnswer
from cloud.work_orders.service import WorkOrderService
from fleet.clock import Clock

DECODED_AT_ONCE_MAX: Final = 2


class EvidenceService:
    """Scans and photos. Photos lie in `folder`; without one this process takes none."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        orders: WorkOrderService,
        *,
        folder: Path | None,
        random_bytes: Callable[[int], bytes],
        public_url: str = "",
    ) -> None:
        self._database = database
        self._clock = clock
        self._orders = orders
        self._store = PhotoStore(folder) if folder is not None else None
        self._random_bytes = random_bytes
        self._public_url = public_url.rstrip("/")
        self._decoding = asyncio.Semaphore(DECODED_AT_ONCE_MAX)

    # --- codes and scans ---------------------------------------------------------------------------------------

    async def code(self, device_id: str, person: Person) -> tuple[str, str]:
        """(the device's code, the link in its QR code). Raises ProblemError 404 or 409."""
        at = self._clock.now_ms()

        def work(tx: Connection) -> str:
            row = repository.device_row(tx, device_id)
            if row is None:
                raise not_found("device", device_id)
            if row.retired_at is not None:
                raise conflict("retired", f"{device_id} is retired.")
            audit.record(tx, at, person.id, "device.code", device_id, {})
            return proof.code_of(tx, device_id, self._random_bytes, at)

        code = await self._database.write(work)
        return code, f"{self._public_url}{proof.SCAN_PATH}{code}"

    async def device_of(self, text: str) -> Row[Any]:
        """The device that carries this code. Raises ProblemError 404."""
        found = await self._database.read(lambda tx: proof.device_of(tx, proof.code_from(text)))
        if found is None:
            raise ProblemError(404, "code_unknown", "No such code", "No device in service carries this code.")
        return found

    async def scan(self, text: str, person: Person, here: Point | None) -> ScanAnswer:
        """Somebody is at a device: see `proof.record_scan`. Raises ProblemError 404, or 409 for a phone far away."""
        row = await self.device_of(text)
        at = self._clock.now_ms()

        def work(tx: Connection) -> list[OrderMove]:
            moves = proof.record_scan(tx, row.device_id, person.id, at, here)
            position = [round(here.latitude, 5), round(here.longitude, 5)] if here else None
            detail = {"position": position, "orders": sorted({move.id for move in moves})}
            audit.record(tx, at, person.id, "device.scan", row.device_id, detail)
            if moves:
                off_duty.note(tx, at, person.id, "device.scan", row.device_id)
            return moves

        try:
            done = await self._database.write(work)
        except proof.TooFarError as too_far:
            metres, device_id = round(too_far.metres), row.device_id
            detail = {"reason": "too_far", "metres": metres}
            await self._database.write(
                lambda tx: audit.record(tx, at, person.id, "device.scan_refused", device_id, detail)
            )
            raise conflict("too_far", str(too_far)) from too_far
        self._orders.announce(done)
        found = await self._orders.orders(
            person, {"device_id": row.device_id, "assigned_to": person.id}, is_open=True, limit=100
        )
        return ScanAnswer(device_id=row.device_id, device_name=row.name or row.device_id, orders=found.orders)

    # --- photos ------------------------------------------------------------------------------------------------

    async def add_photo(self, order_id: str, data: bytes, person: Person) -> PhotoAnswer:
        """Keep a photo of an order; the same picture again changes nothing.

        Raises:
            ProblemError: 404; 409 with `PHOTOS_PER_ORDER_MAX` of them; 413 or 422 for what is no photo.
        """
        store = self._photos()
        if len((await self._orders.order(order_id, person)).photos) >= PHOTOS_PER_ORDER_MAX:
            raise _too_many()  # before anything is written to the disk
        async with self._decoding:
            try:
                photo = await asyncio.to_thread(remade, data)
            except PhotoError as wrong:
                status = 413 if wrong.code == "photo_too_large" else 422
                raise ProblemError(status, wrong.code, "Not a photo we take", str(wrong)) from wrong
            await asyncio.to_thread(store.put, photo)
        at = self._clock.now_ms()
        columns = order_photo.c

        def work(tx: Connection) -> None:
            known = tx.scalar(select(columns.id).where(columns.order_id == order_id, columns.hash == photo.hash))
            if known is not None:
                return
            if (tx.scalar(select(func.count()).where(columns.order_id == order_id)) or 0) >= PHOTOS_PER_ORDER_MAX:
                raise _too_many()
            row = {
                "id": f"{order_id[:16]}-{photo.hash[:16]}", "order_id": order_id, "hash": photo.hash, "at": at,
                "author": person.id, "width": photo.width, "height": photo.height, "bytes": len(photo.large),
            }  # fmt: skip
            if not insert_new(tx, order_photo, [row], [columns.id]):
                return  # sent twice at the same moment
            detail = {"hash": photo.hash, "width": photo.width, "height": photo.height}
            audit.record(tx, at, person.id, "work_order.photo", order_id, detail)

        await self._database.write(work)
        answer = await self._orders.order(order_id, person)
        self._orders.announce([OrderMove(order_id, answer.device_id, answer.state, answer.state, answer.assigned_to)])
        row = await self._database.read(lambda tx: _by_hash(tx, order_id, photo.hash))
        return PhotoAnswer.model_validate(row)

    async def photo(self, order_id: str, photo_id: str, *, small: bool) -> bytes:
        """A photo's JPEG. Raises ProblemError 404."""
        store = self._photos()
        rows = await self._database.read(lambda tx: repository.photos(tx, order_id))
        for row in rows:
            if row.id == photo_id:
                try:
                    return await asyncio.to_thread(store.get, row.hash, small=small)
                except FileNotFoundError:
                    break
        raise not_found("photo", photo_id)

    def _photos(self) -> PhotoStore:
        if self._store is None:
            raise ProblemError(503, "role_not_here", "Not offered by this process", "It has no folder for photos.")
        return self._store


def _too_many() -> ProblemError:
    return conflict("too_many_photos", f"An order takes at most {PHOTOS_PER_ORDER_MAX} photos.")


def _by_hash(tx: Connection, order_id: str, digest: str) -> Row[Any]:
    return next(row for row in repository.photos(tx, order_id) if row.hash == digest)
