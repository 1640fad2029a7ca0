"""Rows of the nursing rooms' Grafana boards."""

from typing import Final

from devices.nursing_room.alarms import ALARMS
from fleet.kind import Panel, Text, Threshold
from fleet.panel import IN_USE, Group, Where


def _below(key: str) -> float:
    """The limit of an alarm, so that groups and rules cannot differ."""
    (limit,) = (
        alarm.condition.below
        for alarm in ALARMS
        if alarm.key == key and isinstance(alarm.condition, Threshold) and alarm.condition.below is not None
    )
    return limit


BUTTON_LOW: Final = _below("button_battery_low")
_LINKED: Final = Where("button_link_ok", value=True)
_CORD: Final = Where("cord_in_place", value=True)

PANELS: Final[tuple[Panel, ...]] = (
    Panel(
        title=Text("呼叫按钮", "Emergency buttons"),
        description=Text(
            "按每个房间最后一次上报；没有房间的组不显示。失联的房间见“现状”",
            "By each room's last reading; a group without rooms is left out. Silent rooms stand in “How it fares”",
        ),
        style="stat",
        groups=(
            Group(
                Text("可以呼救", "can call for help"),
                (_LINKED, _CORD, Where("button_battery_percent", BUTTON_LOW, ">=")),
                "green",
            ),
            Group(Text("按钮失联", "button disconnected"), (Where("button_link_ok", value=False),), "red"),
            Group(Text("拉绳缺失", "cord removed"), (Where("cord_in_place", value=False),), "red"),
            Group(
                Text("按钮电量低", "button battery low"),
                (Where("button_battery_percent", BUTTON_LOW, "<"),),
                "orange",
            ),
        ),
    ),
    Panel(
        title=Text("房间", "Rooms"),
        description=Text(
            "使用中、断电、冰箱门敞开、消毒中断的房间数", "Occupied, without power, fridge open, sterilizer aborted"
        ),
        style="stat",
        groups=(
            Group(Text("空闲", "free"), (Where("occupied", value=False),), "green"),
            Group(Text("使用中", "occupied"), (Where("occupied", value=True),), "blue"),
            Group(Text("断电", "without mains power"), (Where("mains_power", value=False),), "red"),
            Group(Text("冰箱门未关", "fridge door open"), (Where("fridge_door_open", value=True),), "yellow"),
            Group(Text("消毒中断", "sterilizer aborted"), (Where("sterilizer_state", "aborted"),), "yellow"),
        ),
    ),
    Panel(
        title=Text("呼叫各步用时（p95）", "Calls: time to each step, p95"),
        description=Text(
            "从按下算起；升级说明没有人受理。测试呼叫也在其中",
            "From the press on; an escalation means that nobody accepted. Test calls are among them",
        ),
        measurement="call_step",
        where=(Where("step", ("acknowledge", "escalate", "attend", "clear_at_origin")),),
        fields=("since_press_ms",),
        style="ranking",
        aggregate="p95",
        by="step",
        no_data=Text("此时段内没有呼叫", "no call in this time"),
    ),
    Panel(
        title=Text("呼叫的每一步", "Every step of calls"),
        description=Text("最新在前；点房间打开其看板", "Newest first; a room leads to its board"),
        measurement="call_step",
        fields=("since_press_ms", "escalation"),
        style="list",
        no_data=Text("此时段内没有呼叫", "no call in this time"),
    ),
    Panel(
        title=Text("呼叫次数（每小时）", "Calls, per hour"),
        description=Text("按目的：求助或测试", "By purpose: for help, or as a test"),
        measurement="call_step",
        where=(Where("step", "press"),),
        fields=("call_id",),
        aggregate="count",
        by="purpose",
        every="1h",
        no_data=Text("此时段内没有人按下按钮", "nobody pressed a button in this time"),
    ),
    Panel(
        title=Text("使用情况", "Occupancy"),
        description=Text(
            "使用中与空闲的房间数，每分钟统计，失联的除外；不受设备选择影响",
            "Rooms occupied and free, each minute, without silent ones; the choice of devices does not change it",
        ),
        groups=(
            Group(Text("使用中", "occupied"), (Where("occupied", value=True),), "blue", "occupied"),
            Group(Text("空闲", "free"), (Where("occupied", value=False),), "green", "free"),
        ),
    ),
    Panel(
        title=Text("冰箱温度", "Fridges"),
        description=Text("全部房间的最低、平均与最高", "Lowest, mean and highest of all rooms"),
        fields=("fridge_celsius",),
        aggregate="spread",
    ),
    Panel(
        title=Text("最热的冰箱", "Warmest fridges"),
        description=Text("所示时段内的最高温度；点击打开该房间", "Highest in the time shown; a bar leads to its room"),
        fields=("fridge_celsius",),
        style="bar",
        aggregate="max",
        per_device=True,
    ),
    Panel(
        title=Text("电量最低的按钮", "Buttons with the least charge"),
        description=Text("最新电量；点击打开该房间", "Latest charge; a bar leads to its room"),
        fields=("button_battery_percent",),
        style="bar",
        aggregate="last",
        per_device=True,
    ),
)

DEVICE_PANELS: Final[tuple[Panel, ...]] = (
    Panel(
        title=Text("呼叫", "Calls"),
        description=Text("此房间呼叫的每一步，最新在前", "Every step of the room's calls, newest first"),
        measurement="call_step",
        fields=("since_press_ms", "escalation"),
        style="list",
        no_data=Text("此时段内没有呼叫", "no call in this time"),
    ),
)

CODES: Final[dict[str, dict[str, Text]]] = {
    "call_state": {
        "idle": Text("无呼叫", "no call"), "calling": Text("呼叫中", "calling"),
        "received": Text("已送达", "received"), "help_coming": Text("有人赶来", "help is coming"),
        "attended": Text("已到场", "attended"),
    },
    "sterilizer_state": {
        "idle": Text("空闲", "idle"), "running": Text("消毒中", "running"), "aborted": Text("中断", "aborted"),
    },
}  # fmt: skip
"""Words for the codes of a reading's texts."""

LOOKS: Final[dict[str, dict[str, str]]] = {
    "call_state": dict.fromkeys(("calling", "received", "help_coming"), "emergency") | {"attended": IN_USE},
    "occupied": {"true": IN_USE},
    "sterilizer_state": {"running": IN_USE},
}
"""Field → state → why it is worth a look (`fleet.panel`)."""

TOGETHER: Final = (
    ("fridge_celsius", "air_celsius"),
    ("button_battery_percent", "backup_battery_percent"),
    ("air_relative_humidity_percent",),
)
"""Numbers that share a graph on the board of one room."""

METERS: Final = ("lamp_hours",)
"""Numbers that only grow: drawn against their limit."""

ACTIONS: Final[dict[str, Text]] = {
    "show_received": Text("显示：呼叫已送达", "show: call received"),
    "show_help_coming": Text("显示：有人赶来", "show: help is coming"),
    "start_self_test": Text("开始自检", "start a self-test"),
    "reboot": Text("重启", "restart"),
}
"""Words for the commands."""
