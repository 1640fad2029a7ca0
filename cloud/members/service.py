"""Signing in, sessions, and the administration of people.

Passwords are argon2id; a session is an opaque 256-bit token, stored hashed and asked for at every
request, so that disabling a person takes effect at the next one, in every process.
"""

import asyncio
import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from fastapi import Request
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher
from sqlalchemy import Row
from sqlalchemy.exc import IntegrityError

from cloud import audit
from cloud.api.access import SESSION_COOKIE, SESSION_COOKIE_PLAIN_HTTP, Person, Role
from cloud.api.problem import ProblemError, conflict, not_found
from cloud.members import repository
from cloud.members.schemas import PersonBody
from cloud.members.throttle import Throttle
from cloud.ports import Database
from fleet.clock import MILLISECONDS_PER_SECOND, Clock

SESSION_LIFETIME_S: Final = {Role.EMPLOYEE: 30 * 86_400, Role.CREW: 14 * 3_600, Role.ADMIN: 9 * 3_600}
"""Real seconds: a month on an employee's phone, a shift for the crew, an office day for admins."""
TOUCH_INTERVAL_S: Final = 600
HASHES_AT_ONCE: Final = 2  # 64 MiB each
ACCOUNT_FAILURES_MAX: Final = 10
ADDRESS_FAILURES_MAX: Final = 50  # a whole office may share one address
FAILURE_WINDOW_S: Final = 300


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A fresh session; `token` is shown once and never stored."""

    person: Person
    token: str
    expires_at: int
    lifetime_s: int


class MemberService:
    """People and their sessions; is `cloud.api.access.Sessions`."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        secure_cookies: bool,
        hasher: PasswordHash | None = None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._secure_cookies = secure_cookies
        self.on_disabled: Callable[[str], None] = lambda _person_id: None
        """Called with a person's id after their account was closed; the application ends their open streams."""
        self._hasher = hasher or PasswordHash((Argon2Hasher(),))
        self._hashing = asyncio.Semaphore(HASHES_AT_ONCE)
        self._nobody_hash = self._hasher.hash(secrets.token_urlsafe())
        self._by_account = Throttle(clock, failures_max=ACCOUNT_FAILURES_MAX, window_s=FAILURE_WINDOW_S)
        self._by_address = Throttle(clock, failures_max=ADDRESS_FAILURES_MAX, window_s=FAILURE_WINDOW_S)

    # --- sessions ----------------------------------------------------------------------------------------------

    @property
    def cookie_name(self) -> str:
        """`__Host-…` over HTTPS; a plain name where there is only loopback HTTP."""
        return SESSION_COOKIE if self._secure_cookies else SESSION_COOKIE_PLAIN_HTTP

    @property
    def secure_cookies(self) -> bool:
        return self._secure_cookies

    def token_of(self, request: Request) -> str | None:
        """The session token a request carries; a bearer token goes before the cookie."""
        authorization = request.headers.get("authorization")
        if authorization is not None:
            scheme, _, token = authorization.partition(" ")
            return token.strip() if scheme.lower() == "bearer" and token.strip() else None
        return request.cookies.get(self.cookie_name)

    async def person_of(self, request: Request) -> Person | None:
        """The person behind the request, or None."""
        token = self.token_of(request)
        if not token:
            return None
        now_ms = self._clock.now_ms()
        row = await self._database.read(lambda tx: repository.person_of_token(tx, token, now_ms))
        if row is None:
            return None
        if now_ms - row.last_used_at > self._business_ms(TOUCH_INTERVAL_S):
            await self._database.write(lambda tx: repository.touch_session(tx, token, now_ms))
        return _person(row, row.csrf_token)

    async def sign_in(self, login: str, password: str, address: str) -> SignedIn:
        """Check a password and open a session.

        Unknown login, closed account and wrong password get one answer after the same work.

        Raises:
            ProblemError: 401 `wrong_login`, 429 `too_many_attempts` (per account and per address).
        """
        account = _account_key(login)
        wait_s = max(self._by_account.wait_s(account), self._by_address.wait_s(address))
        if wait_s > 0:
            raise ProblemError(
                429, "too_many_attempts", "Too many attempts", f"Try again in {round(wait_s) + 1} s.",
                retry_after_s=round(wait_s) + 1,
            )  # fmt: skip
        # Counted before the slow check, so that a burst of parallel guesses is not free.
        self._by_account.failed(account)
        self._by_address.failed(address)
        row = await self._database.read(lambda tx: repository.person_by_login(tx, login))
        matches, better_hash = await self._verify(password, row.password_hash if row else self._nobody_hash)
        if row is None or not matches or row.disabled_at is not None:
            raise ProblemError(401, "wrong_login", "Login or password is wrong", "Check both and try again.")
        self._by_account.succeeded(account)
        # The address keeps its failures, or an own account would pay for guessing at others: only this try is free.
        self._by_address.taken_back(address)
        token, csrf_token = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        lifetime_s = SESSION_LIFETIME_S[Role(row.role)]
        now_ms = self._clock.now_ms()
        expires_at = now_ms + self._business_ms(lifetime_s)

        def store(tx: Any) -> bool:
            current = repository.person_by_id(tx, row.id)
            if current is None or current.disabled_at is not None:  # closed while the password was checked
                return False
            repository.add_session(
                tx, token=token, person_id=row.id, csrf_token=csrf_token, now_ms=now_ms, expires_at=expires_at
            )
            if better_hash is not None:
                repository.set_password_hash(tx, row.id, better_hash)
            return True

        if not await self._database.write(store):
            raise ProblemError(401, "wrong_login", "Login or password is wrong", "Check both and try again.")
        return SignedIn(_person(row, csrf_token), token, expires_at, lifetime_s)

    async def sign_out(self, request: Request) -> None:
        """End the request's session; nothing happens without one."""
        token = self.token_of(request)
        if token:
            await self._database.write(lambda tx: repository.end_session(tx, token))

    # --- people ------------------------------------------------------------------------------------------------

    async def persons(self, after: str, limit: int) -> list[Row[Any]]:
        """People ordered by login, those after `after`."""
        return await self._database.read(lambda tx: repository.persons(tx, after, limit))

    async def create(self, body: PersonBody, actor: Person) -> Row[Any]:
        """Add a person; raises ProblemError 409 `login_taken`."""
        password_hash = await self._hash(body.password.get_secret_value())
        now_ms = self._clock.now_ms()
        person_id = f"person-{secrets.token_hex(8)}"

        def add(tx: Any) -> Row[Any]:
            repository.add_person(
                tx, id=person_id, login=body.login, name=body.name, role=body.role.value, password_hash=password_hash,
                language=body.language, created_at=now_ms,
            )  # fmt: skip
            audit.record(tx, now_ms, actor.id, "person.create", person_id, {"role": body.role.value})
            row = repository.person_by_id(tx, person_id)
            assert row is not None
            return row

        try:
            return await self._database.write(add)
        except IntegrityError:
            raise conflict("login_taken", f"The login {body.login!r} is taken; choose another.") from None

    async def disable(self, person_id: str, actor: Person) -> None:
        """Close an account and end all its sessions.

        Raises:
            ProblemError: 404; 409 `own_account`, so that the last admin can't lock everybody out.
        """
        if person_id == actor.id:
            raise conflict("own_account", "Ask another admin to close your account.")
        now_ms = self._clock.now_ms()

        def close(tx: Any) -> bool:
            if repository.person_by_id(tx, person_id) is None:
                return False
            repository.disable(tx, person_id, now_ms)
            audit.record(tx, now_ms, actor.id, "person.disable", person_id, {})
            return True

        if not await self._database.write(close):
            raise not_found("person", person_id)
        self.on_disabled(person_id)

    async def set_language(self, person: Person, language: str) -> None:
        """Remember the language a person reads."""
        await self._database.write(lambda tx: repository.set_language(tx, person.id, language))

    def _business_ms(self, real_s: float) -> int:
        return round(real_s * MILLISECONDS_PER_SECOND * self._clock.speed)

    async def _hash(self, password: str) -> str:
        async with self._hashing:
            return await asyncio.to_thread(self._hasher.hash, password)

    async def _verify(self, password: str, password_hash: str) -> tuple[bool, str | None]:
        async with self._hashing:
            return await asyncio.to_thread(self._hasher.verify_and_update, password, password_hash)


def _person(row: Row[Any], csrf_token: str) -> Person:
    return Person(row.id, row.login, row.name, Role(row.role), row.language, csrf_token)


def _account_key(login: str) -> str:
    """A bounded key, whatever length the login has."""
    return hashlib.sha256(login.encode()).hexdigest()
