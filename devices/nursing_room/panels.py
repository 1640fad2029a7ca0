"""Rows of the nursing rooms' Grafana board."""

from typing import Final

from fleet.kind import Panel, Text

PANELS: Final[tuple[Panel, ...]] = (
    Panel(
        title=Text("最低按钮电量", "Lowest button battery"),
        description=Text("所有房间中最低的按钮电量", "The lowest button battery of all rooms"),
        fields=("button_battery_percent",),
        style="gauge",
        aggregate="min",
    ),
    Panel(
        title=Text("最低后备电池", "Lowest backup battery"),
        description=Text("断电房间还能撑多久", "How long rooms without mains will last"),
        fields=("backup_battery_percent",),
        style="gauge",
        aggregate="min",
    ),
    Panel(
        title=Text("最高冰箱温度", "Warmest fridge"),
        description=Text(
            "所有房间中最高的冰箱温度；母乳须不高于 4 °C",
            "The warmest fridge of all rooms; milk must stay at 4 °C or below",
        ),
        fields=("fridge_celsius",),
        style="stat",
        aggregate="max",
    ),
    Panel(
        title=Text("各房间冰箱温度", "Fridge of each room"),
        description=Text("每个房间的冰箱温度与报警限", "Each room's fridge with the alarm limits"),
        fields=("fridge_celsius",),
        per_device=True,
    ),
    Panel(
        title=Text("平均室温与湿度", "Air, average"),
        description=Text(
            "房间空气温度与相对湿度的平均值", "Average temperature and relative humidity of the rooms' air"
        ),
        fields=("air_celsius", "air_relative_humidity_percent"),
    ),
    Panel(
        title=Text("各房间室温", "Air temperature of each room"),
        description=Text("找出过冷或过热的房间", "Finds rooms that are too cold or too warm"),
        fields=("air_celsius",),
        per_device=True,
    ),
    Panel(
        title=Text("紫外灯使用时间", "UV lamp hours"),
        description=Text(
            "7500 小时下更换单，8000 小时报警", "Replacement is ordered at 7,500 hours, the alarm comes at 8,000"
        ),
        fields=("lamp_hours",),
        style="bar",
        aggregate="max",
        per_device=True,
    ),
    Panel(
        title=Text("按钮与电池一览", "Buttons and batteries"),
        description=Text("每个房间最新的按钮与后备电池电量", "The latest button and backup batteries of each room"),
        fields=("button_battery_percent", "backup_battery_percent"),
        style="table",
        aggregate="last",
        per_device=True,
    ),
)
