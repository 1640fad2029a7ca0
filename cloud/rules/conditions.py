"""Compiles a kind's alarm table into one cheap function."""

import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel

from cloud.model import DeviceLane
from cloud.rules.timed_alarms import timed_alarms
from fleet.incident import Priority
from fleet.kind import AlarmDefinition, Condition, Flag, Kind, Need, Text, Threshold, When

Judge = Callable[[Any, int], int]
"""(state, bits true before) → bits true now; bit n belongs to the n-th alarm of the table."""

Needs = Callable[[Any, int], Sequence[Need]]
Quiet = Callable[[DeviceLane, int], bool]
"""(lane, time of its reading) → nothing follows from it."""

SILENT: Final = "silent"
NO_READINGS: Final = "no_readings"
UNSTABLE: Final = "unstable_link"
IDENTITY_TWICE: Final = "identity_twice"


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
        if isinstance(condition, Flag) and condition.value is None:  # numbers compare slowly with None
            of_reading.append(f"        if reading.{condition.field} is None: mask |= {bit}")
        elif isinstance(condition, Flag):
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


def compile_quiet(conditions: Sequence[Condition], reading: type[BaseModel], needs: Needs, *, watched: bool) -> Quiet:
    """Whether a reading leaves everything as it was, of a device that was well before: most of them, most of the time.

    Compiled like the table, in one expression: no condition is true now, so that no deadband matters, and no work is
    open or asked for. `watched`: the kind has a button, whose supervision must have begun.
    """
    names: dict[str, Any] = {"needs": needs}
    loud = ["desk.mask", "desk.missed", "desk.needs", "reading is None"]
    if watched:
        loud.append("not desk.button.watched_since")
    for index, condition in enumerate(conditions):
        if isinstance(condition, When):
            names[f"when_{index}"] = condition.predicate
            loud.append(f"when_{index}(state)")
        elif isinstance(condition, Flag) and condition.value is None:
            loud.append(f"reading.{condition.field} is None")
        elif isinstance(condition, Flag):
            names[f"value_{index}"] = condition.value
            loud.append(f"reading.{condition.field} == value_{index}")
        else:
            loud.append(_quick_threshold(condition, reading))
    loud.append("needs(state, at)")
    source = (
        "def quiet(lane, at):\n    desk, state = lane.desk, lane.state\n    reading = state.reading\n"
        f"    return not ({' or '.join(loud)})"
    )
    exec(compile(source, "<quiet>", "exec"), names)  # noqa: S102  # as above
    quiet: Quiet = names["quiet"]
    return quiet


def _quick_threshold(condition: Threshold, reading: type[BaseModel]) -> str:
    """Whether it is true without a look at its deadband."""
    sign, limit = (">", condition.above) if condition.above is not None else ("<", condition.below)
    test = f"reading.{condition.field} {sign} {float(limit or 0.0)!r}"
    may_be_missing = type(None) in typing.get_args(reading.model_fields[condition.field].annotation)
    return f"reading.{condition.field} is not None and {test}" if may_be_missing else test


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
        realarm_s=4 * 3600 if kind.emergency else None,
    )


def no_readings_alarm(kind: Kind) -> AlarmDefinition:
    """Every kind has it: the device is heard, but measures nothing. Its condition is time, not state."""
    return AlarmDefinition(
        key=NO_READINGS,
        title=Text("设备在线但无数据", "Connected, but no readings"),
        priority=Priority.HIGH if kind.emergency else Priority.MEDIUM,
        condition=When(_never),
        cause=Text(
            "边缘盒在线，但硬件、其接线或供电有故障",
            "The edge box is connected, but its hardware, wire or supply failed",
        ),
        consequence=Text(
            "看起来在线，其实无人知道现场状况；按下按钮可能无人知晓",
            "It looks alive and is blind; a press may stay unseen",
        )
        if kind.emergency
        else Text("看起来在线，其实状态未知，不能提供服务", "It looks alive, its state is unknown and it cannot serve"),
        action=Text(
            "检查硬件的供电与接线，重启设备；必要时到现场",
            "Check the hardware's supply and wire, restart it; go there if it stays",
        ),
        respond_within_s=600 if kind.emergency else 3600,
        realarm_s=4 * 3600 if kind.emergency else None,
        suppressed_by=(SILENT,),
    )


def unstable_link_alarm(kind: Kind) -> AlarmDefinition:
    """Every kind has it: the link is lost again and again. Told once for a whole run of losses."""
    return AlarmDefinition(
        key=UNSTABLE,
        title=Text("连接反复中断", "Unstable link"),
        priority=Priority.MEDIUM if kind.emergency else Priority.LOW,
        condition=When(_never),
        cause=Text(
            "信号弱、路由器或网线接触不良、供电不稳", "Weak signal, a loose cable or router, or an unsteady supply"
        ),
        consequence=Text(
            "消息延迟到达；设备随时可能失联", "Its messages come late, and it may fall silent at any moment"
        ),
        action=Text(
            "检查天线、网线、路由器和电源；必要时更换网络",
            "Check antenna, cable, router and supply; move it to another network if needed",
        ),
        respond_within_s=4 * 3600,
    )


def identity_twice_alarm() -> AlarmDefinition:
    """Every kind has it: two boxes, or two copies of one storage, speak as this device (ADR 0013)."""
    return AlarmDefinition(
        key=IDENTITY_TWICE,
        title=Text("同一身份出现在两处", "One identity in two places"),
        priority=Priority.HIGH,
        condition=When(_never),
        off_delay_s=3600,
        cause=Text(
            "边缘盒或其存储卡被复制，旧盒子仍在通电，或身份被盗用",
            "A box or its storage was copied, an old box is still powered, or the identity was stolen",
        ),
        consequence=Text(
            "两处互相抢占连接，数据可能混杂或延迟；紧急呼叫仍会受理",
            "The two take the connection from each other, their data mixes or waits; emergencies are still taken",
        ),
        action=Text(
            "找到并断开多余的盒子；若找不到，请吊销此设备并重新登记正确的盒子",
            "Find and unplug the box that does not belong; if there is none to be found, revoke this device and enrol "
            "the right box anew",
        ),
        respond_within_s=3600,
        realarm_s=24 * 3600,
    )


def link_alarms(kind: Kind) -> tuple[AlarmDefinition, ...]:
    """The alarms that every kind has; its own table stands before them."""
    return (
        silence_alarm(kind), no_readings_alarm(kind), unstable_link_alarm(kind), identity_twice_alarm(),
        *timed_alarms(kind),
    )  # fmt: skip


def check_parents(definitions: Mapping[str, AlarmDefinition]) -> None:
    """Raises ValueError for a parent that does not exist, and for alarms that would hide each other."""
    for key in definitions:
        seen, waiting = set[str](), list(definitions[key].suppressed_by)
        while waiting:
            parent = waiting.pop()
            if parent not in definitions:
                raise ValueError(f"alarm {key!r} is suppressed by {parent!r}, which its kind does not have")
            if parent == key:
                raise ValueError(f"alarm {key!r} would hide itself")
            if parent not in seen:
                seen.add(parent)
                waiting += definitions[parent].suppressed_by


LINK_ALARMS: Final = frozenset({SILENT, NO_READINGS, UNSTABLE})


def _never(_state: Any) -> bool:
    return False
