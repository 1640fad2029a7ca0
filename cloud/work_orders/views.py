"""How orders are shown, and who may do what with them: the two sets at the top."""

from typing import Any, Final

import msgspec
from sqlalchemy import Row

from cloud.alarms.schemas import TextAnswer
from cloud.api.access import Person, Role
from cloud.dispatch.service_levels import STAGES
from cloud.dispatch.states import OPEN_STATES
from cloud.work_orders.schemas import OrderAct, PlaceAnswer, StageAnswer
from fleet.incident import ORDER, OrderEvent, OrderState

OF_ITS_OWNER: Final = frozenset(
    {
        OrderAct.ACCEPT,
        OrderAct.TRAVEL,
        OrderAct.START,
        OrderAct.HOLD,
        OrderAct.RESUME,
        OrderAct.COMPLETE,
        OrderAct.GIVE_UP,
        OrderAct.REOPEN,
    }
)
"""What the member of the crew does to whom the order is assigned; admins may do it for them."""
OF_ADMINS: Final = frozenset({OrderAct.RELEASE, OrderAct.CANCEL})


def may(act: OrderAct, assigned_to: str | None, person: Person) -> bool:
    """Whether this person may do it to an order of that owner."""
    if person.role is Role.ADMIN:
        return True
    return act in OF_ITS_OWNER and assigned_to == person.id


def stages(row: Row[Any], now_ms: int) -> list[StageAnswer]:
    """The stages of the service level, as they stand now."""
    limits = (row.acknowledge_by or row.due_at, row.on_site_by or row.due_at, row.due_at)
    reached = (row.acknowledged_at, row.on_site_at, row.done_at)
    end = row.paused_at or now_ms
    return [
        StageAnswer.model_validate({"name": name, "by": by, "reached_at": at, "late": (at or end) > by})
        for name, by, at in zip(STAGES, limits, reached, strict=True)
    ]


def line_of(row: Row[Any], person: Person, now_ms: int) -> dict[str, Any]:
    """The fields of an `OrderLine`."""
    state = OrderState(row.state)
    found = stages(row, now_ms)
    is_open = row.state in OPEN_STATES
    place = None
    if row.to_latitude is not None and row.to_longitude is not None:
        place = PlaceAnswer(name=row.to_name, latitude=row.to_latitude, longitude=row.to_longitude)
    return {
        **row._mapping,  # noqa: SLF001  # the documented way to a row's dict
        "device_name": row.device_name or row.device_id,
        "title": TextAnswer(zh=row.title_zh, en=row.title_en),
        "instructions": TextAnswer(zh=row.instructions_zh, en=row.instructions_en),
        "items": msgspec.json.decode(row.items),
        "acts": [
            act
            for act in OrderAct
            if ORDER.allows(state, OrderEvent(act.value))
            and may(act, row.assigned_to, person)
            and (act is not OrderAct.COMPLETE or row.scanned_at is not None)
        ],
        "stages": found,
        "overdue": is_open and any(stage.late and stage.reached_at is None for stage in found),
        "paused": row.paused_at is not None,
        "proven": row.scanned_at is not None,
        "to": place,
    }
