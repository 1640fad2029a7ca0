"""Rows of the bikes' Grafana boards."""

from typing import Final

from devices.bike.rules import BATTERY_RENT_PERCENT_MIN
from devices.bike.state import FALLEN_ABOVE_DEGREES, SWAP_BELOW_PERCENT
from fleet.kind import Panel, Text
from fleet.panel import IN_USE, Group, Where

_LOCKED: Final = Where("lock_state", "locked")
_UPRIGHT: Final = Where("tilt_degrees", FALLEN_ABOVE_DEGREES, "<=")
_GROUPS: Final = (
    Group(
        Text("可租", "can be rented"),
        (_LOCKED, _UPRIGHT, Where("battery_percent", BATTERY_RENT_PERCENT_MIN, ">=")),
        "green",
        "can_be_rented",
    ),
    Group(Text("骑行中", "riding"), (Where("lock_state", "unlocked"),), "blue", "riding"),
    Group(
        Text("电量不足", "too little charge"),
        (_LOCKED, _UPRIGHT, Where("battery_percent", BATTERY_RENT_PERCENT_MIN, "<")),
        "yellow",
        "too_little_charge",
    ),
    Group(
        Text("倒地", "lying on the ground"),
        (_LOCKED, Where("tilt_degrees", FALLEN_ABOVE_DEGREES, ">")),
        "orange",
        "on_the_ground",
    ),
    Group(Text("车锁卡住", "lock jammed"), (Where("lock_state", "jammed"),), "red", "lock_jammed"),
)

PANELS: Final[tuple[Panel, ...]] = (
    Panel(
        title=Text("可租、骑行中、故障", "Can be rented, riding, faulty"),
        description=Text(
            "按每辆车最后一次上报分组；没有车的组不显示。报警中的车见下方",
            "By each bike's last reading; a group without bikes is left out. Bikes with alarms stand below",
        ),
        style="stat",
        groups=_GROUPS,
    ),
    Panel(
        title=Text("可租、骑行中、故障的变化", "Can be rented, riding, faulty over time"),
        description=Text(
            "每分钟按每辆车最新读数统计，失联的除外；不受设备选择影响",
            "By the bikes' latest readings, each minute, without silent ones; the choice of devices does not change it",
        ),
        groups=_GROUPS,
    ),
    Panel(
        title=Text("车辆位置", "Where the bikes are"),
        description=Text(
            "每辆车最后一次上报的位置，颜色为电量", "Last reported position of every bike, coloured by charge"
        ),
        fields=("latitude", "longitude", "battery_percent", "lock_state"),
        style="geomap",
        aggregate="last",
        per_device=True,
    ),
    Panel(
        title=Text("骑行与需求（每小时）", "Rides and demand, per hour"),
        description=Text(
            "扫码是需求，开锁是骑行的开始；两者之差是没有骑成的人",
            "A scan is demand, an opened lock begins a ride; the difference are people who got none",
        ),
        measurement="ride_step",
        fields=("ride_id",),
        aggregate="count",
        by="step",
        stacked=False,
        every="1h",
        no_data=Text("此时段内没有人扫码", "nobody asked for a bike in this time"),
    ),
    Panel(
        title=Text("电量分布", "How charge is spread"),
        description=Text(
            f"每辆车的最新电量；低于 {SWAP_BELOW_PERCENT:g} % 安排更换",
            f"The latest charge of every bike; below {SWAP_BELOW_PERCENT:g} % a swap is ordered",
        ),
        fields=("battery_percent",),
        style="histogram",
        aggregate="last",
    ),
    Panel(
        title=Text("电量最低的车", "Bikes with the least charge"),
        description=Text("点击柱子打开该车", "A bar leads to its bike"),
        fields=("battery_percent",),
        style="bar",
        aggregate="last",
        per_device=True,
    ),
    Panel(
        title=Text("扫码到开锁（p95）", "Scan to unlocked, p95"),
        description=Text("目标 1.5 秒以内", "The goal is 1.5 s"),
        measurement="ride_step",
        where=(Where("step", "opened"),),
        fields=("since_asked_ms",),
        aggregate="p95",
        every="1h",
        no_data=Text("此时段内没有骑行开始", "no ride began in this time"),
    ),
    Panel(
        title=Text("骑行收入（每小时）", "Income from rides, per hour"),
        description=Text("已结束骑行的费用", "Fees of rides that ended"),
        measurement="ride_step",
        fields=("fee_fen",),
        aggregate="sum",
        every="1h",
        no_data=Text("此时段内没有骑行结束", "no ride ended in this time"),
    ),
    Panel(
        title=Text("电池温度", "Battery temperature"),
        description=Text("全部车辆的最低、平均与最高", "Lowest, mean and highest of all bikes"),
        fields=("temperature_celsius",),
        aggregate="spread",
    ),
)

DEVICE_PANELS: Final[tuple[Panel, ...]] = (
    Panel(
        title=Text("骑行", "Rides"),
        description=Text(
            "此车骑行的每一步，最新在前；不含骑行者", "Every step of its rides, newest first; riders are not in it"
        ),
        measurement="ride_step",
        fields=("duration_ms", "fee_fen", "reason"),
        style="list",
        no_data=Text("此时段内没有骑行", "no ride in this time"),
    ),
)

CODES: Final[dict[str, dict[str, Text]]] = {
    "lock_state": {
        "locked": Text("已上锁", "locked"), "unlocked": Text("已开锁", "unlocked"), "jammed": Text("卡住", "jammed"),
    },
}  # fmt: skip
"""Words for the codes of a reading's texts."""

LOOKS: Final[dict[str, dict[str, str]]] = {"lock_state": {"unlocked": IN_USE, "jammed": "lock_jammed"}}
"""Field → state → why it is worth a look (`fleet.panel`)."""

TOGETHER: Final = (
    ("battery_percent", "temperature_celsius"),
    ("speed_metres_per_second", "tilt_degrees"),
    ("accuracy_metres", "fix_age_seconds"),
    ("signal_dbm",),
    ("odometer_metres",),
)
"""Numbers that share a graph on the board of one bike."""

ACTIONS: Final[dict[str, Text]] = {
    "unlock": Text("开锁", "unlock"), "lock": Text("上锁", "lock"), "ring": Text("响铃", "ring"),
    "locate": Text("定位", "report the position"), "reboot": Text("重启", "restart"),
    "set_interval": Text("设置上报间隔", "set how often it reports"),
}  # fmt: skip
"""Words for the commands."""
