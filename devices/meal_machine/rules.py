"""Alarms and wanted work of a meal machine; the table is in `alarms`, the arithmetic in `restock`."""

from collections.abc import Mapping, Sequence

from devices.meal_machine.alarms import ALARMS, SENSORS
from devices.meal_machine.restock import restock_need
from devices.meal_machine.state import State
from fleet.kind import CallStep, Need
from fleet.messages import Command

__all__ = ["ALARMS", "SENSORS", "call_feedback", "call_steps", "needs"]


def needs(state: State, now_ms: int) -> Sequence[Need]:
    """At most one restock per cycle."""
    need = restock_need(state, now_ms)
    return () if need is None else (need,)


def call_steps() -> Mapping[str, CallStep]:
    """No emergency button."""
    return {}


def call_feedback(state: State, *, acknowledged: bool) -> Command | None:  # noqa: ARG001  # the role's signature
    return None
