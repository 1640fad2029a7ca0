"""Buying a meal: claim the key and write the intent, then pay and ask the machine, then follow to the end.

Two transactions: the first makes the purchase durable before any money moves, the second charges the
wallet and records the machine's command together, so money is never taken without a command on its way.
What follows comes through `sales` inside the pipeline's commits, and by deadlines that are rows.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, Row

from cloud.api.access import Person, Role
from cloud.api.changes import RELOAD, Changes, Subscription, TooManySubscribersError
from cloud.api.problem import conflict, not_found
from cloud.meals import repository, sales, views
from cloud.meals.lifecycle import FINAL, SaleState, SaleStep
from cloud.meals.menu import Menu, Offer, menu_of
from cloud.meals.schemas import PurchaseBody
from cloud.ports import CommandSender, Database
from cloud.wallet import idempotency, ledger
from devices.meal_machine.messages import Cancel, Dispense
from fleet.clock import MILLISECONDS_PER_SECOND, Clock

CREATED: Final = 201
PAYMENT_REQUIRED: Final = 402
OPEN_PER_PERSON_MAX: Final = 5
WAIT_S_MAX: Final = 60.0
POLL_S: Final = 1.0
"""Real seconds between looks at rows: the backstop when changes are made by another process."""
STARTUP_GRACE_S: Final = 15.0
"""Real seconds after a start in which deadlines wait: proof of deliveries may still be queued at the broker."""
CHANGES_AT_ONCE_MAX: Final = 500
LATE_COMMIT_S: Final = 5.0
"""Real seconds by which a commit may be later than the time it carries."""
TWIN_DELAY_S: Final = 2.0
"""Real seconds that a reading may need to reach its twin."""


class MealService:
    """Machines' menus, purchases, and the deadlines behind them."""

    def __init__(self, database: Database, clock: Clock, commands: CommandSender, changes: Changes) -> None:
        self._database = database
        self._clock = clock
        self._commands = commands
        self._changes = changes
        self._told: OrderedDict[str, str] = OrderedDict()

    # --- what there is -------------------------------------------------------------------------------------------

    async def menus(self) -> list[Menu]:
        """Every machine in service."""
        return await self._database.read(lambda tx: self._menus(tx, None))

    def _menus(self, tx: Connection, device_ids: Sequence[str] | None) -> list[Menu]:
        now_ms, promised = self._clock.now_ms(), repository.promised(tx)
        delay_s = TWIN_DELAY_S * self._clock.speed
        return [menu_of(row, promised, now_ms, delay_s) for row in repository.machines(tx, device_ids)]

    async def purchases(self, person: Person, before: str | None, limit: int) -> list[Row[Any]]:
        """The asker's own, newest first; an admin sees everybody's. `before` is the id of a purchase."""
        owner = None if person.role is Role.ADMIN else person.id

        def read(tx: Connection) -> list[Row[Any]]:
            mark = repository.by_id(tx, before) if before else None
            return repository.purchases(tx, owner, (mark.asked_at, mark.id) if mark else None, limit)

        return await self._database.read(read)

    async def purchase(
        self, purchase_id: str, person: Person, wait_s: float = 0.0, known_state: str | None = None
    ) -> tuple[Row[Any], list[Row[Any]]]:
        """(purchase, its steps), at once or after up to `wait_s` real seconds.

        Waits until the state differs from `known_state`, or without it until the purchase has ended.
        Raises ProblemError 404 for somebody else's.
        """

        def enough(row: Row[Any]) -> bool:
            return SaleState(row.state) in FINAL or (known_state is not None and row.state != known_state)

        row, steps = await self._own(purchase_id, person)
        until_s = self._clock.monotonic_s() + min(wait_s, WAIT_S_MAX)
        if enough(row) or wait_s <= 0:
            return row, steps
        try:
            with self._changes.subscribe() as subscription:
                row, steps = await self._own(purchase_id, person)  # again, so that no change slips in between
                while not enough(row) and (left_s := until_s - self._clock.monotonic_s()) > 0:
                    if not await _hears_of(subscription, purchase_id, min(left_s, POLL_S)):
                        break
                    row, steps = await self._own(purchase_id, person)
        except TooManySubscribersError:
            return row, steps  # the asker comes again
        return row, steps

    async def _own(self, purchase_id: str, person: Person) -> tuple[Row[Any], list[Row[Any]]]:
        def read(tx: Connection) -> tuple[Row[Any] | None, list[Row[Any]]]:
            return repository.by_id(tx, purchase_id), repository.steps(tx, purchase_id)

        row, steps = await self._database.read(read)
        if row is None or (row.person_id != person.id and person.role is not Role.ADMIN):
            raise not_found("purchase", purchase_id)
        return row, steps

    # --- buying --------------------------------------------------------------------------------------------------

    async def buy(self, body: PurchaseBody, key: str, person: Person) -> tuple[idempotency.FirstAnswer, bool]:
        """(answer, whether it is a repeat of the first one) for one purchase per key.

        Raises:
            ProblemError: 404 no such machine or meal, 409 not sellable now / key in flight / too many open,
                422 key used for another body. None of them leaves a purchase behind.
        """
        now_ms = self._clock.now_ms()
        purchase_id = idempotency.object_id(person.id, key)
        first = await self._database.write(lambda tx: self._intend(tx, body, key, person, purchase_id, now_ms))
        if first is not None:
            return first, True
        answer = await self._database.write(lambda tx: self._pay_and_order(tx, key, person, purchase_id))
        self._commands.after_commit()
        self._announce(person.id, purchase_id, answer.body["state"])
        return answer, False

    def _intend(
        self, tx: Connection, body: PurchaseBody, key: str, person: Person, purchase_id: str, now_ms: int
    ) -> idempotency.FirstAnswer | None:
        take_over = now_ms - round(idempotency.TAKE_OVER_AFTER_S * self._clock.speed * MILLISECONDS_PER_SECOND)
        body_hash = idempotency.fingerprint("purchase", body.model_dump())
        first = idempotency.claim(tx, person.id, key, body_hash, now_ms=now_ms, take_over_before_ms=take_over)
        if first is not None or repository.by_id(tx, purchase_id) is not None:
            return first
        if repository.open_count(tx, person.id) >= OPEN_PER_PERSON_MAX:
            raise conflict("too_many_open", f"You have {OPEN_PER_PERSON_MAX} purchases under way; wait until one ends.")
        offer = self._offer(tx, body)
        repository.add(
            tx, id=purchase_id, person_id=person.id, device_id=body.device_id, sku=body.sku, price_fen=offer.price_fen,
            asked_at=now_ms, changed_at=now_ms, deadline_at=sales.deadline_after(now_ms, sales.RESOLVE_WITHIN_S),
        )  # fmt: skip
        row = repository.by_id(tx, purchase_id)
        assert row is not None
        repository.move(tx, row, SaleStep.ASK_PAYMENT, now_ms)
        return None

    def _offer(self, tx: Connection, body: PurchaseBody) -> Offer:
        """What is on sale now; raises ProblemError."""
        menus = self._menus(tx, [body.device_id])
        if not menus:
            raise not_found("machine", body.device_id)
        if menus[0].obstacle:
            raise conflict(menus[0].obstacle, f"{body.device_id} sells nothing now: {menus[0].obstacle}.")
        for offer in menus[0].offers:
            if offer.sku == body.sku:
                if offer.stock_count < 1:
                    raise conflict("sold_out", f"{body.sku} is sold out at {body.device_id}.")
                if not 1 <= offer.price_fen <= ledger.AMOUNT_FEN_MAX:
                    raise conflict("not_priced", f"{body.sku} has no price at {body.device_id} yet.")
                return offer
        raise not_found("meal", body.sku)

    def _pay_and_order(self, tx: Connection, key: str, person: Person, purchase_id: str) -> idempotency.FirstAnswer:
        row = repository.by_id(tx, purchase_id)
        assert row is not None
        now_ms, status = self._clock.now_ms(), CREATED
        if row.state == SaleState.PAYMENT_PENDING.value:
            row = sales.take_payment(tx, row, now_ms)
        if row.state == SaleState.PAID.value and row.command_id is None:
            row = self._order(tx, row, person, now_ms)
        if row.state == SaleState.PAYMENT_FAILED.value:
            status = PAYMENT_REQUIRED
        answer = idempotency.FirstAnswer(status, views.purchase(row, repository.steps(tx, row.id)).model_dump())
        idempotency.settle(tx, person.id, key, status, answer.body)
        return answer

    def _order(self, tx: Connection, row: Row[Any], person: Person, now_ms: int) -> Row[Any]:
        slot = next((offer.slot for menu in self._menus(tx, [row.device_id]) for offer in menu.offers
                     if offer.sku == row.sku), None)  # fmt: skip
        command = Dispense(purchase_id=row.id, sku=row.sku, slot=slot)
        try:
            command_id = self._commands.order(tx, row.device_id, command, actor=person.id)
        except (LookupError, ValueError):  # retired in this moment, or its queue is full
            return sales.fail(tx, row, "busy", now_ms)
        repository.set_command(tx, row.id, command_id)
        ordered = repository.by_id(tx, row.id)
        assert ordered is not None
        return ordered

    async def cancel(self, purchase_id: str, person: Person) -> None:
        """Ask the machine to give up a sale of the asker's; the refund follows its answer.

        Raises:
            ProblemError: 404 for somebody else's, 409 if the motor may be moving or the purchase has ended.
        """
        row, _ = await self._own(purchase_id, person)
        if row.state not in {SaleState.PAID.value, SaleState.RESERVED.value, SaleState.HEATING.value}:
            raise conflict("too_late", f"A purchase that is {row.state} can't be cancelled.")
        command = Cancel(purchase_id=purchase_id)
        try:
            await self._database.write(lambda tx: self._commands.order(tx, row.device_id, command, actor=person.id))
        except (LookupError, ValueError) as error:
            raise conflict("busy", str(error)) from None
        self._commands.after_commit()

    # --- to the end ----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Both of the following: what the only process of an installation does."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.keep_deadlines())
            group.create_task(self.follow_commits())

    async def keep_deadlines(self) -> None:
        """End what waits too long; one process of an installation does, more do no harm."""
        await asyncio.sleep(STARTUP_GRACE_S)
        while True:
            await self.resolve_due()
            due = await self._database.read(repository.next_deadline)
            wait_s = (
                POLL_S if due is None else (due - self._clock.now_ms()) / MILLISECONDS_PER_SECOND / self._clock.speed
            )
            await asyncio.sleep(min(max(wait_s, 0.02), POLL_S))

    async def resolve_due(self) -> list[str]:
        """End what waited too long; returns the ids of the purchases that ended."""
        now_ms = self._clock.now_ms()
        if not await self._database.read(lambda tx: bool(repository.due(tx, now_ms, 1))):
            return []
        ended = await self._database.write(lambda tx: sales.resolve_due(tx, now_ms))
        await self._tell_changed(now_ms)
        return ended

    async def follow_commits(self) -> None:
        """Whatever the pipeline committed about a sale becomes a change of topic `purchase`, for its owner alone.

        Every process with the API concludes it for its own pages.
        """
        cursor = self._clock.now_ms()
        while True:
            with self._changes.subscribe() as subscription:
                change = await subscription.next()
                while change.topic != RELOAD:
                    if _is_about_a_sale(change.topic, change.facts):
                        cursor = await self._tell_changed(cursor, only_here=True)
                    change = await subscription.next()

    async def _tell_changed(self, since_ms: int, *, only_here: bool = False) -> int:
        margin_ms = round(LATE_COMMIT_S * self._clock.speed * MILLISECONDS_PER_SECOND)
        rows = await self._database.read(
            lambda tx: repository.changed_since(tx, since_ms - margin_ms, CHANGES_AT_ONCE_MAX)
        )
        for row in rows:
            if self._told.get(row.id) != row.state:
                self._announce(row.person_id, row.id, row.state, only_here=only_here)
        return max((row.changed_at for row in rows), default=since_ms)

    def _announce(self, person_id: str, purchase_id: str, state: str, *, only_here: bool = False) -> None:
        self._told[purchase_id] = state
        if len(self._told) > CHANGES_AT_ONCE_MAX:
            self._told.popitem(last=False)
        publish = self._changes.publish_here if only_here else self._changes.publish
        publish("purchase", {"id": purchase_id, "person_id": person_id, "state": state})


async def _hears_of(subscription: Subscription, purchase_id: str, wait_s: float) -> bool:
    """Wait until this purchase changed or it is time to look; False once this subscription was cut off."""
    try:
        async with asyncio.timeout(wait_s):
            change = await subscription.next()
            while change.facts.get("id") != purchase_id:
                if change.topic == RELOAD:
                    return False
                change = await subscription.next()
    except TimeoutError:
        pass
    return True


def _is_about_a_sale(topic: str, facts: dict[str, Any]) -> bool:
    return topic == "command" or (topic == "event" and str(facts.get("type", "")).startswith("sale_"))
