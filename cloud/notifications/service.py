"""How a person is reached: contact points that prove themselves by a code, wishes, and what was tried so far."""

import hashlib
import hmac
import json
import secrets
from collections.abc import Callable, Collection
from typing import Any, Final

from sqlalchemy import Connection, Row

from cloud import audit
from cloud.api.access import Person, Role
from cloud.api.problem import ProblemError, conflict, not_found
from cloud.dispatch import notices, preferences
from cloud.dispatch.letters import FOLLOW_UP, PERSONAL_STAGES, row_of
from cloud.dispatch.preferences import Preferences
from cloud.model import Notification
from cloud.notifications import addresses, repository
from cloud.notifications.schemas import (
    ContactAnswer,
    ContactBody,
    ContactList,
    Delivery,
    DeliveryList,
    PreferencesBody,
)
from cloud.ports import Database
from fleet.clock import MILLISECONDS_PER_SECOND, Clock
from fleet.incident import Priority

CONTACTS_MAX: Final = 10
"""Per person."""
CODE_LIFETIME_S: Final = 600.0
CODE_AGAIN_S: Final = 60.0
CODE_TRIES_MAX: Final = 5
CODES_MAX: Final = 5
"""Per contact point: nobody floods a stranger's telephone with codes."""
CODE_DIGITS: Final = 6


def _new_code() -> str:
    return f"{secrets.randbelow(10**CODE_DIGITS):0{CODE_DIGITS}}"


class NotificationService:
    """For everybody about themselves; the log for those on duty."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        new_id: Callable[[], str],
        *,
        new_code: Callable[[], str] = _new_code,
    ) -> None:
        self._database = database
        self._clock = clock
        self._new_id = new_id
        self._new_code = new_code
        self.channels: Collection[str] = tuple(PERSONAL_STAGES)
        """Personal channels that this installation has."""
        self.push_public_key = ""
        self.allow_private = False
        """Push services may stand in our own network."""
        self.wake_outbox: Callable[[], None] = lambda: None

    async def deliveries(self, wanted: dict[str, str], before: int | None, limit: int) -> DeliveryList:
        """One page of attempts, newest first."""
        rows = await self._database.read(lambda tx: repository.deliveries(tx, wanted, before, limit + 1))
        return DeliveryList(
            deliveries=[Delivery.model_validate(row) for row in rows[:limit]],
            next_before=rows[limit - 1].id if len(rows) > limit else None,
        )

    async def contacts(self, person_id: str | None, *, to_owner: bool = True) -> ContactList:
        """Somebody's contact points; None: everybody's."""
        rows = await self._database.read(lambda tx: repository.contacts(tx, person_id))
        here = [name for name in PERSONAL_STAGES if name in self.channels]
        return ContactList(contacts=[_answer(row, to_owner=to_owner) for row in rows], channels=here)

    async def add_contact(self, body: ContactBody, person: Person, *, vouched: bool = False) -> ContactAnswer:
        """A new way to this person; a code is sent through it, unless an admin vouches for it.

        Raises ProblemError 422 for an address that can't be one, 409 for too many or a channel that is not here.
        """
        if body.channel not in self.channels:
            raise conflict("channel_not_here", f"This installation has no channel {body.channel!r}.")
        try:
            address = addresses.checked(body.channel, body.address, allow_private=self.allow_private)
        except ValueError as error:
            raise ProblemError(422, "invalid_address", "Address not valid", str(error)) from error
        now_ms, contact_id, code = self._clock.now_ms(), self._new_id(), self._new_code()

        def work(tx: Connection) -> Row[Any]:
            known = repository.same_contact(tx, person.id, body.channel, address)
            if known is not None:
                return known
            if len(repository.contacts(tx, person.id)) >= CONTACTS_MAX:
                raise conflict("too_many_contacts", f"At most {CONTACTS_MAX} contact points; remove one first.")
            values = {
                "id": contact_id, "person_id": person.id, "channel": body.channel, "address": address,
                "label": body.label, "created_at": now_ms, "verified_at": now_ms if vouched else None,
            }  # fmt: skip
            repository.add_contact(tx, values)
            detail = {"channel": body.channel, "person_id": person.id, "vouched": vouched}
            audit.record(tx, now_ms, "command-line" if vouched else person.id, "contact.add", contact_id, detail)
            if not vouched:
                self._send_code(tx, contact_id, person.id, body.channel, code, codes_sent=0, now_ms=now_ms)
            return self._row(tx, contact_id)

        row = await self._database.write(work)
        self.wake_outbox()
        return _answer(row, to_owner=True)

    async def send_code(self, contact_id: str, person: Person) -> ContactAnswer:
        """Another code. Raises ProblemError 404, or 409 when it is verified, too soon or too often."""
        now_ms, code = self._clock.now_ms(), self._new_code()

        def work(tx: Connection) -> Row[Any]:
            row = self._own(tx, contact_id, person)
            if row.verified_at is not None:
                raise conflict("verified_already", "This contact point is verified.")
            if row.codes_sent >= CODES_MAX:
                raise conflict("too_many_codes", "Too many codes were sent there; remove it and add it again.")
            age_ms = now_ms - (row.code_sent_at or 0)
            if 0 <= age_ms < CODE_AGAIN_S * MILLISECONDS_PER_SECOND:
                raise conflict("code_just_sent", "A code is on its way; wait a minute before you ask for another.")
            self._send_code(tx, row.id, row.person_id, row.channel, code, codes_sent=row.codes_sent, now_ms=now_ms)
            return self._row(tx, contact_id)

        row = await self._database.write(work)
        self.wake_outbox()
        return _answer(row, to_owner=True)

    async def verify(self, contact_id: str, code: str, person: Person) -> ContactAnswer:
        """The code that came. Raises ProblemError 404, or 409 when it is wrong, too old or was tried too often."""
        now_ms = self._clock.now_ms()

        def work(tx: Connection) -> tuple[Row[Any], str]:
            row = self._own(tx, contact_id, person)
            if row.verified_at is not None:
                return row, ""
            age_ms = now_ms - (row.code_sent_at or 0)
            if row.code_hash is None or not 0 <= age_ms <= CODE_LIFETIME_S * MILLISECONDS_PER_SECOND:
                return row, "The code has ended; ask for another one."
            if row.code_tries >= CODE_TRIES_MAX:
                return row, "Too many wrong codes; ask for another one."
            if not hmac.compare_digest(row.code_hash, _hash(contact_id, code.strip())):
                repository.change_contact(tx, contact_id, {"code_tries": row.code_tries + 1})
                return row, "This is not the code that was sent."
            repository.change_contact(tx, contact_id, {"verified_at": now_ms, "code_hash": None})
            audit.record(tx, now_ms, person.id, "contact.verify", contact_id, {"channel": row.channel})
            return self._row(tx, contact_id), ""

        row, refused = await self._database.write(work)  # a wrong code is counted although it is refused
        if refused:
            raise conflict("wrong_code", refused)
        return _answer(row, to_owner=True)

    async def remove(self, contact_id: str, person: Person) -> None:
        """Forget it. Raises ProblemError 404."""
        now_ms = self._clock.now_ms()

        def work(tx: Connection) -> None:
            row = self._own(tx, contact_id, person)
            repository.remove_contact(tx, contact_id)
            detail = {"channel": row.channel, "person_id": row.person_id}
            audit.record(tx, now_ms, person.id, "contact.remove", contact_id, detail)

        await self._database.write(work)

    async def test(self, contact_id: str, person: Person) -> str:
        """Send a test there; the delivery id to look for in the log. Raises ProblemError 404, or 409 if unverified."""
        now_ms = self._clock.now_ms()

        def work(tx: Connection) -> str:
            row = self._own(tx, contact_id, person)
            if row.verified_at is None:
                raise conflict("not_verified", "Type the code that was sent there first.")
            titles = "测试通知：这条渠道可用", "Test notification: this channel works"
            notification = _about(contact_id, titles, {}, now_ms)
            made = _row(notification, f"test:{now_ms}", row.channel, row.person_id, now_ms)
            notices.put(tx, [made])
            audit.record(tx, now_ms, person.id, "contact.test", contact_id, {"channel": row.channel})
            return str(made["delivery_id"])

        delivery_id = await self._database.write(work)
        self.wake_outbox()
        return delivery_id

    async def preferences(self, person_id: str) -> PreferencesBody:
        """Somebody's wishes, with what holds where nothing was said."""
        found = await self._database.read(lambda tx: preferences.load(tx, person_id))
        return _preferences(found)

    async def set_preferences(self, body: PreferencesBody, person: Person) -> PreferencesBody:
        """Change one's own wishes."""
        now_ms = self._clock.now_ms()
        values = {
            "channels": json.dumps(body.channels),
            "quiet_from_minute": body.quiet_from_minute,
            "quiet_until_minute": body.quiet_until_minute,
            "time_zone": body.time_zone,
            "language": body.language,
            "changed_at": now_ms,
        }

        def work(tx: Connection) -> Preferences:
            repository.store_preferences(tx, person.id, values)
            audit.record(tx, now_ms, person.id, "notification.preferences", person.id, body.model_dump())
            return preferences.load(tx, person.id)

        return _preferences(await self._database.write(work))

    def _send_code(
        self, tx: Connection, contact_id: str, person_id: str, channel: str, code: str, *, codes_sent: int, now_ms: int
    ) -> None:
        values = {
            "code_hash": _hash(contact_id, code), "code_sent_at": now_ms, "code_tries": 0, "codes_sent": codes_sent + 1,
        }  # fmt: skip
        repository.change_contact(tx, contact_id, values)
        titles = f"您的验证码：{code}", f"Your code: {code}"
        notification = _about(contact_id, titles, {"code": code}, now_ms)
        notices.put(tx, [_row(notification, f"code:{codes_sent}", channel, person_id, now_ms)])

    @staticmethod
    def _row(tx: Connection, contact_id: str) -> Row[Any]:
        row = repository.contact(tx, contact_id)
        assert row is not None, "it was written in this transaction"
        return row

    @staticmethod
    def _own(tx: Connection, contact_id: str, person: Person) -> Row[Any]:
        row = repository.contact(tx, contact_id)
        if row is None or (row.person_id != person.id and person.role is not Role.ADMIN):
            raise not_found("contact point", contact_id)
        return row


def _about(contact_id: str, titles: tuple[str, str], facts: dict[str, Any], now_ms: int) -> Notification:
    return Notification("contact", contact_id, Priority.LOW.value, "", *titles, facts, now_ms)


def _row(notification: Notification, step: str, channel: str, person_id: str, now_ms: int) -> dict[str, Any]:
    return row_of(
        notification, step, channel, urgent=FOLLOW_UP, available_at=now_ms, recipient=person_id,
        contact_id=notification.reference,
    )  # fmt: skip


def _hash(contact_id: str, code: str) -> str:
    return hashlib.sha256(f"{contact_id}:{code}".encode()).hexdigest()


def _answer(row: Row[Any], *, to_owner: bool) -> ContactAnswer:
    facts = dict(row._mapping)  # noqa: SLF001  # the documented way to a row's dict
    facts["address"] = addresses.shown(row.channel, row.address, to_owner=to_owner)
    return ContactAnswer.model_validate(facts)


def _preferences(found: Preferences) -> PreferencesBody:
    priorities = (Priority.HIGH.value, Priority.MEDIUM.value, Priority.LOW.value)
    return PreferencesBody.model_validate({
        "channels": {priority: list(found.channels_of(priority)) for priority in priorities},
        "quiet_from_minute": found.quiet_from,
        "quiet_until_minute": found.quiet_until,
        "time_zone": found.time_zone,
        "language": found.language,
    })  # fmt: skip
