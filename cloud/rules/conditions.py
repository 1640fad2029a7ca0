"""Compiles a kind's alarm table into cheap predicates."""

from collections.abc import Callable
from typing import Any

from fleet.incident import Priority
from fleet.kind import AlarmDefinition, Condition, Flag, Kind, Text, Threshold

Predicate = Callable[[Any, bool], bool]
"""(state, was true before) → true now; the second argument carries the deadband."""

SILENT = "silent"


def compile_condition(condition: Condition) -> Predicate:
    """A predicate for one condition; without any reading yet, thresholds and flags are false."""
    if isinstance(condition, Threshold):
        return _threshold(condition)
    if isinstance(condition, Flag):
        name, value = condition.field, condition.value

        def flag(state: Any, _was: bool) -> bool:
            reading = state.reading
            return reading is not None and getattr(reading, name) == value

        return flag
    predicate = condition.predicate

    def when(state: Any, _was: bool) -> bool:
        return predicate(state)

    return when


def _threshold(condition: Threshold) -> Predicate:
    name, deadband = condition.field, condition.deadband
    if condition.above is not None:
        limit = condition.above

        def above(state: Any, was: bool) -> bool:
            reading = state.reading
            if reading is None or (value := getattr(reading, name)) is None:
                return False
            return bool(value > limit or (was and value > limit - deadband))

        return above
    if condition.below is None:
        raise ValueError(f"threshold on {name!r} has neither above nor below")
    limit = condition.below

    def below(state: Any, was: bool) -> bool:
        reading = state.reading
        if reading is None or (value := getattr(reading, name)) is None:
            return False
        return bool(value < limit or (was and value < limit + deadband))

    return below


def silence_alarm(kind: Kind) -> AlarmDefinition:
    """Every kind has it: nothing was heard for `silent_after_s`. Its condition is time, not state."""
    return AlarmDefinition(
        key=SILENT,
        title=Text("设备失联", "Device silent"),
        priority=Priority.HIGH if kind.emergency else Priority.MEDIUM,
        condition=_never(),
        cause=Text("设备断电、断网或损坏", "No power, no network, or broken"),
        consequence=Text("看不到它的状态；紧急按钮可能无人知晓", "Its state is unknown; a press may stay unseen")
        if kind.emergency
        else Text("看不到它的状态，不能提供服务", "Its state is unknown and it cannot serve"),
        action=Text("检查电源和网络，必要时到现场", "Check power and network; go there if they are fine"),
        respond_within_s=600 if kind.emergency else 3600,
        skill="repair",
    )


def _never() -> Flag:
    return Flag("at", value=object())
