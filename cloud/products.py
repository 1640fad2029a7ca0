"""The product services of one process, and what they want to hear of in the pipeline's commit."""

import secrets
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from cloud.alarms.maintenance import MaintenanceService
from cloud.alarms.service import AlarmService
from cloud.api.changes import Changes
from cloud.api.services import Services
from cloud.calls.service import CallService
from cloud.devices.service import DeviceService
from cloud.enrolment.service import EnrolmentService, Trust
from cloud.inbox.service import InboxService
from cloud.incidents.service import IncidentService
from cloud.meals import sales
from cloud.meals.service import MealService
from cloud.model import EventHandler, OutcomeHandler
from cloud.notifications.service import NotificationService
from cloud.planning.service import PlanningService
from cloud.ports import AsyncWork, CommandSender, Database, LaneIntents, SeriesStore
from cloud.rides.service import RideService
from cloud.roster.service import RosterService
from cloud.supervision import proofs, upkeep
from cloud.supervision.service import SupervisionService
from cloud.wallet.service import WalletService
from cloud.work_orders.evidence import EvidenceService
from cloud.work_orders.service import WorkOrderService
from cloud.work_orders.upkeep import OrderKeeper
from fleet.clock import Clock


@dataclass(slots=True)
class Handlers:
    """Who hears of which event (by kind and type) and of which command's outcome (by action), and what runs beside.

    `deadlines` run where effects leave (dispatch), `followers` where people wait for answers (api).
    """

    events: dict[tuple[str, str], list[EventHandler]] = field(default_factory=lambda: defaultdict(list))
    outcomes: dict[str, list[OutcomeHandler]] = field(default_factory=lambda: defaultdict(list))
    deadlines: list[AsyncWork] = field(default_factory=list)
    followers: list[AsyncWork] = field(default_factory=list)

    def add(self, events: Mapping[tuple[str, str], EventHandler], outcomes: Mapping[str, OutcomeHandler]) -> None:
        """One service's wishes."""
        for key, handler in events.items():
            self.events[key].append(handler)
        for action, outcome_handler in outcomes.items():
            self.outcomes[action].append(outcome_handler)


def add_services(
    services: Services,
    handlers: Handlers,
    *,
    database: Database,
    clock: Clock,
    commands: CommandSender,
    intents: LaneIntents,
    series: SeriesStore,
    changes: Changes,
    new_id: Callable[[], str],
    enrolment: EnrolmentService | None = None,
    data_directory: Path | None = None,
    public_url: str = "",
) -> None:
    """Make every product service and tell `handlers` what it listens to."""
    services.add(DeviceService(database, clock, series, commands, intents))
    services.add(enrolment or EnrolmentService(database, clock, clock.now_ms, new_id, secrets.token_bytes, Trust()))
    alarms = AlarmService(database, clock, intents)
    services.add(alarms)
    services.add(MaintenanceService(database, clock, intents, new_id))
    services.add(IncidentService(database, clock, intents, alarms, changes))
    services.add(CallService(database, clock, intents))
    services.add(InboxService(database, clock))
    services.add(NotificationService(database, clock, new_id))
    work_orders = WorkOrderService(database, clock, changes)
    services.add(work_orders)
    photos = None if data_directory is None else data_directory / "photos"
    services.add(
        EvidenceService(
            database, clock, work_orders, folder=photos, random_bytes=secrets.token_bytes, public_url=public_url
        )
    )
    keeper = OrderKeeper(database, clock, changes)
    services.add(keeper)
    planning = PlanningService(database, clock, changes)
    services.add(planning)
    handlers.deadlines += [keeper.run, planning.run]
    services.add(WalletService(database, clock))
    services.add(RosterService(database, clock, changes))
    rides = RideService(database, clock, commands, changes, new_id)
    services.add(rides)
    handlers.add(rides.event_handlers, rides.outcome_handlers)
    meals = MealService(database, clock, commands, changes)
    services.add(meals)
    for key, found in sales.event_handlers().items():
        handlers.events[key].extend(found)
    for action, found_outcomes in sales.outcome_handlers().items():
        handlers.outcomes[action].extend(found_outcomes)
    supervision = SupervisionService(database, clock, intents, changes, new_id)
    services.add(supervision)
    handlers.add(proofs.event_handlers(), {})
    handlers.deadlines.append(partial(upkeep.keep_room, database, clock))
    handlers.followers.append(supervision.follow_watchdog)
    handlers.deadlines += [rides.keep_deadlines, meals.keep_deadlines]
    handlers.followers += [rides.follow_commits, meals.follow_commits]
