"""The product services of one process, and what they want to hear of in the pipeline's commit."""

import secrets
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from cloud.alarms.service import AlarmService
from cloud.api.changes import Changes
from cloud.api.services import Services
from cloud.calls.service import CallService
from cloud.devices.service import DeviceService
from cloud.enrolment.service import EnrolmentService, Trust
from cloud.inbox.service import InboxService
from cloud.meals import sales
from cloud.meals.service import MealService
from cloud.model import EventHandler, OutcomeHandler
from cloud.ports import AsyncWork, CommandSender, Database, LaneIntents, SeriesStore
from cloud.rides.service import RideService
from cloud.wallet.service import WalletService
from cloud.work_orders.service import WorkOrderService
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
) -> None:
    """Make every product service and tell `handlers` what it listens to."""
    services.add(DeviceService(database, clock, series, commands, intents))
    services.add(enrolment or EnrolmentService(database, clock, clock.now_ms, new_id, secrets.token_bytes, Trust()))
    services.add(AlarmService(database, clock, intents))
    services.add(CallService(database, clock, intents))
    services.add(InboxService(database, clock))
    services.add(WorkOrderService(database, clock, changes))
    services.add(WalletService(database, clock))
    rides = RideService(database, clock, commands, changes, new_id)
    services.add(rides)
    handlers.add(rides.event_handlers, rides.outcome_handlers)
    meals = MealService(database, clock, commands, changes)
    services.add(meals)
    for key, found in sales.event_handlers().items():
        handlers.events[key].extend(found)
    for action, found_outcomes in sales.outcome_handlers().items():
        handlers.outcomes[action].extend(found_outcomes)
    handlers.deadlines += [rides.keep_deadlines, meals.keep_deadlines]
    handlers.followers += [rides.follow_commits, meals.follow_commits]
