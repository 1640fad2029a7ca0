"""Rows of the bikes' Grafana board."""

from typing import Final

from fleet.kind import Panel, Text

PANELS: Final[tuple[Panel, ...]] = (
    Panel(
        title=Text("车辆位置", "Where the bikes are"),
        description=Text("每辆车最后一次上报的位置", "Last reported position of every bike"),
        fields=("latitude", "longitude"),
        style="geomap",
        aggregate="last",
        per_device=True,
    ),
    Panel(
        title=Text("最低电量", "Lowest battery"),
        description=Text("低于 25 % 安排更换，低于 10 % 锁将失效", "Swapped below 25 %, the lock fails below 10 %"),
        fields=("battery_percent",),
        style="gauge",
        aggregate="min",
    ),
    Panel(
        title=Text("电量", "Battery"),
        description=Text("每辆车的电量变化", "Charge of each bike over time"),
        fields=("battery_percent",),
        aggregate="last",
        per_device=True,
    ),
    Panel(
        title=Text("骑行速度", "Speed"),
        description=Text("超过 12.5 m/s 说明在汽车上", "Above 12.5 m/s a bike is on a truck"),
        fields=("speed_metres_per_second",),
        aggregate="max",
    ),
    Panel(
        title=Text("电池温度", "Battery temperature"),
        description=Text("超过 60 °C 有起火风险", "Above 60 °C there is a risk of fire"),
        fields=("temperature_celsius",),
        aggregate="max",
    ),
    Panel(
        title=Text("信号强度", "Signal strength"),
        description=Text("低于 −115 dBm 开锁变慢", "Below −115 dBm unlocking gets slow"),
        fields=("signal_dbm",),
        aggregate="min",
    ),
    Panel(
        title=Text("定位精度", "Position accuracy"),
        description=Text("半径越大，还车区域判断越不可靠", "The larger the radius, the less a parking check is worth"),
        fields=("accuracy_metres",),
        aggregate="mean",
    ),
    Panel(
        title=Text("倾角", "Tilt"),
        description=Text("超过 60° 视为倒地", "Above 60° a bike lies on the ground"),
        fields=("tilt_degrees",),
        aggregate="max",
    ),
    Panel(
        title=Text("总里程", "Odometer"),
        description=Text("车队累计里程", "Distance covered by each bike"),
        fields=("odometer_metres",),
        style="bar",
        aggregate="max",
        per_device=True,
    ),
    Panel(
        title=Text("车锁状态", "Locks"),
        description=Text("每辆车最后上报的车锁状态", "Last reported lock state of every bike"),
        fields=("lock_state",),
        style="table",
        aggregate="last",
        per_device=True,
    ),
)
