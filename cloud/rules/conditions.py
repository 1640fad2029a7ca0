"""Compiles a kind's alarm table into one cheap function."""

from collections.abc import Callable, Sequence
from typing import Any

from pydantic import BaseModel

from fleet.incident import Priority
from fleet.kind import AlarmDefinition, Condition, Flag, Kind, Text, Threshold, When

Judge = Callable[[Any, int], int]
"""(state, bits true before) → bits true now; bit n belongs to the n-th alarm of the table."""

SILENT = "silent"


def compile_conditions(conditions: Sequence[Condition], reading: type[BaseModel]) -> Judge:
    """One function for a kind's whole alarm table.

    It is written as Python source and compiled, as dataclasses do: a call per condition would cost more than
    the conditions themselves, for every reading of every device. Only names of fields that the model has and
    numbers of the table go into the source. Without any reading yet, thresholds and flags are false; the bits
    true before carry the deadbands.
    """
    of_reading: list[str] = []
    of_state: list[str] = []
    names: dict[str, Any] = {}
    for index, condition in enumerate(conditions):
        bit = 1 << index
        if isinstance(condition, When):
            names[f"when_{index}"] = condition.predicate
            of_state.append(f"    if when_{index}(state): mask |= {bit}")
            continue
        if condition.field not in reading.model_fields:
            raise ValueError(f"{reading.__name__} has no field {condition.field!r}")
        if isinstance(condition, Flag):
            names[f"value_{index}"] = condition.value
            of_reading.append(f"        if reading.{condition.field} == value_{index}: mask |= {bit}")
        else:
            of_reading += _threshold_lines(condition, bit)
    body = ["    reading = state.reading", "    mask = 0"]
    if of_reading:
        body += ["    if reading is not None:", *of_reading]
    source = "\n".join(["def judge(state, before):", *body, *of_state, "    return mask"])
    exec(compile(source, "<alarm table>", "exec"), names)  # noqa: S102  # see the docstring
    judge: Judge = names["judge"]
    return judge


def _threshold_lines(condition: Threshold, bit: int) -> list[str]:
    if (condition.above is None) == (condition.below is None):
        raise ValueError(f"threshold on {condition.field!r} needs exactly one of above and below")
    if condition.above is not None:
        sign, limit, back = ">", float(condition.above), float(condition.above - condition.deadband)
    else:
        assert condition.below is not None
        sign, limit, back = "<", float(condition.below), float(condition.below + condition.deadband)
    true_now, still_true = f"value {sign} {limit!r}", f"value {sign} {back!r}"
    return [
        f"        value = reading.{condition.field}",
        f"        if value is not None and ({true_now} or (before & {bit} and {still_true})): mask |= {bit}",
    ]


def silence_alarm(kind: Kind) -> AlarmDefinition:
    """Every kind has it: nothing was heard for `silent_after_s`. Its condition is time, not state."""
    return AlarmDefinition(
        key=SILENT,
        title=Text("设备失联", "Device silent"),
        priority=Priority.HIGH if kind.emergency else Priority.MEDIUM,
        condition=When(_never),
        cause=Text("设备断电、断网或损坏", "No power, no network, or broken"),
        consequence=Text("看不到它的状态；紧急按钮可能无人知晓", "Its state is unknown; a press may stay unseen")
        if kind.emergency
        else Text("看不到它的状态，不能提供服务", "Its state is unknown and it cannot serve"),
        action=Text("检查电源和网络，必要时到现场", "Check power and network; go there if they are fine"),
        respond_within_s=600 if kind.emergency else 3600,
        # No order by itself: whether somebody must go there shows only after a look at power and network.
    )


def _never(_state: Any) -> bool:
    return False
