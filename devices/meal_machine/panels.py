"""The Grafana board of the meal machines."""

from typing import Final

from fleet.kind import Panel, Text

PANELS: Final[tuple[Panel, ...]] = (
    Panel(
        title=Text("冷藏温度(最高)", "Chilled temperature, warmest"),
        description=Text("每台机器;8 °C 报警,10 °C 为安全上限", "Per machine; alarm at 8 °C, safe up to 10 °C"),
        fields=("chilled_celsius",),
        aggregate="max",
        per_device=True,
    ),
    Panel(
        title=Text("可售份数", "Boxes that can be sold"),
        description=Text("未过期、未锁定、未卡住的餐盒", "Not expired, not locked, not jammed"),
        fields=("stock_count",),
        aggregate="last",
        per_device=True,
    ),
    Panel(
        title=Text("全部机器的可售份数", "Boxes that can be sold, all machines"),
        description=Text("各机器最新值之和", "Sum of each machine's latest value"),
        fields=("stock_count",),
        style="stat",
        aggregate="sum",
    ),
    Panel(
        title=Text("加热器温度(最高)", "Heater temperature, hottest"),
        description=Text("高于 160 °C 报警", "Alarm above 160 °C"),
        fields=("heater_celsius",),
        aggregate="max",
        per_device=True,
    ),
    Panel(
        title=Text("加热队列", "Heating queue"),
        description=Text("正在加热或等待的订单", "Sales being heated or waiting"),
        fields=("heating_queue_count",),
        aggregate="max",
        per_device=True,
    ),
)
