"""Whoever is paged and accepts, and whoever orders something of a device."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection, func, select

import devices
from cloud.model import Notification
from cloud.tables import call, command, outbox
from fleet.incident import CallState

if TYPE_CHECKING:
    from cli.simulate.simulation import Simulation

_LOOK_EVERY_S: Final = 15.0
_ACCEPTS: Final = 0.6
_ACCEPT_S: Final = (5.0, 200.0)
_FINAL: Final = ("succeeded", "failed", "expired", "refused")
_ARGUMENTS: Final = {"set_interval": {"parked_s": 900, "riding_s": 30}}


class People:
    """Crew and riders; their requests go through the cloud's process, or fail with it."""

    def __init__(self, simulation: "Simulation") -> None:
        self.working = True
        self._simulation = simulation
        self._randomness = simulation.randomness("people")

    def told(self, notification: Notification) -> None:
        """Somebody reads a page, and perhaps accepts the call a little later."""
        if notification.kind_of != "call" or notification.facts.get("step") not in {"press", "escalate"}:
            return
        if self._randomness.random() < _ACCEPTS:
            delay_s = self._randomness.uniform(*_ACCEPT_S)
            call = notification.reference, notification.device_id
            self._simulation.loop.call_later(delay_s, self._accept, *call)

    def _accept(self, call_id: str, device_id: str) -> None:
        async def accept() -> None:
            intents = self._simulation.cloud.intents
            if intents is not None:
                await intents.submit(device_id, "acknowledge_call", "crew", {"call_id": call_id})

        self._simulation.cloud.ask(accept)

    async def run(self) -> None:
        """Order commands of random devices until cancelled."""
        simulation, randomness = self._simulation, self._randomness
        ids = simulation.world.device_ids
        if not simulation.plan.command_every_s:
            return
        while True:
            await asyncio.sleep(randomness.expovariate(1 / simulation.plan.command_every_s))
            self.order_something(ids[randomness.randint(0, len(ids) - 1)])

    def order_something(self, device_id: str) -> None:
        """Any command of its kind that needs no arguments."""
        simulation, randomness = self._simulation, self._randomness
        kind = devices.kind_named(simulation.world.kind_of(device_id))
        models = [model for model in kind.commands if not _required(model)]
        if models:
            model = models[randomness.randint(0, len(models) - 1)]
            simulation.cloud.ask(partial(self._order, device_id, model))

    async def _order(self, device_id: str, model: type) -> None:
        cloud = self._simulation.cloud
        database, commands = cloud.database, cloud.commands
        if database is None or commands is None:
            return
        await database.write(lambda tx: commands.order(tx, device_id, model(), actor="rider"))
        commands.after_commit()

    async def watch(self) -> None:
        """Look at the calls that nobody has accepted, as the board on the wall shows them, until cancelled."""
        simulation = self._simulation
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            database = simulation.cloud.database
            if database is not None:
                rows = await database.read(_calling)
                if database is simulation.cloud.database:
                    simulation.oracle.calling({row.id: (row.escalation, row.changed_at) for row in rows})

    async def unfinished(self) -> str:
        """What of commands and urgent notifications is still open; empty if nothing is."""
        database = self._simulation.cloud.database
        if database is None:
            return "the cloud is down"

        def look(tx: Connection) -> str:
            commands = tx.scalar(select(func.count()).where(command.c.status.not_in(_FINAL)))
            waiting = tx.scalar(
                select(func.count()).where(
                    outbox.c.delivered_at.is_(None), outbox.c.given_up_at.is_(None), outbox.c.urgent == 1
                )
            )
            return f"{commands} commands, {waiting} urgent notifications" if commands or waiting else ""

        return await database.read(look)


def _calling(tx: Connection) -> Sequence[Any]:
    columns = call.c.id, call.c.escalation, call.c.changed_at
    return tx.execute(select(*columns).where(call.c.state == CallState.CALLING.value)).all()


def _required(model: type) -> bool:
    fields = model.model_fields  # type: ignore[attr-defined]
    return any(field.is_required() for field in fields.values())
