"""Rows of the meal machines' Grafana boards."""

from typing import Final

from fleet.kind import Panel, Text
from fleet.panel import Group, Where

PANELS: Final[tuple[Panel, ...]] = (
    Panel(
        title=Text("能否售卖", "Which of them sell"),
        description=Text(
            "按每台机器最后一次上报；没有机器的组不显示，一台机器可在多组",
            "By each machine's last reading; a group without machines is left out, a machine may be in several",
        ),
        style="stat",
        groups=(
            Group(Text("在售", "selling"), (Where("stock_count", 0, ">"), Where("locked_out", value=False)), "green"),
            Group(Text("售罄", "sold out"), (Where("stock_count", 0), Where("locked_out", value=False)), "orange"),
            Group(Text("食品安全锁定", "locked for food safety"), (Where("locked_out", value=True),), "red"),
            Group(Text("加热器故障", "heater fault"), (Where("heater_fault", value=True),), "red"),
            Group(Text("断电", "without power"), (Where("mains_power", value=False),), "red"),
            Group(Text("柜门打开", "door open"), (Where("door_open", value=True),), "yellow"),
        ),
    ),
    Panel(
        title=Text("各机器库存", "Stock of each machine"),
        description=Text(
            "未过期、未锁定、未卡住的餐盒；点击打开该机器", "Not expired, locked or jammed; a bar leads to its machine"
        ),
        fields=("stock_count",),
        style="bar",
        aggregate="last",
        per_device=True,
        lowest_first=True,
    ),
    Panel(
        title=Text("预计售罄", "When it will be sold out"),
        description=Text(
            "按学到的销量，最先售罄的机器在前；补货须在此之前到达",
            "At the rate learned from past sales, the first ones first; the restock must arrive before",
        ),
        measurement="machine_forecast",
        fields=("stock_out_hours",),
        style="bar",
        aggregate="last",
        per_device=True,
        no_data=Text("没有预测：此时段内没有机器在售卖", "no forecast: no machine sold anything in this time"),
    ),
    Panel(
        title=Text("冷藏温度（最高）", "Chilled temperature, warmest"),
        description=Text("每台机器；温度计误差 ±1.5 °C", "Of each machine; the thermometer may be off by 1.5 °C"),
        fields=("chilled_celsius",),
        aggregate="max",
        per_device=True,
    ),
    Panel(
        title=Text("加热器温度（最高）", "Heater temperature, hottest"),
        description=Text("每台机器", "Of each machine"),
        fields=("heater_celsius",),
        aggregate="max",
        per_device=True,
    ),
    Panel(
        title=Text("售卖（每小时）", "Sales, per hour"),
        description=Text("已取餐、出餐失败与结果不明的订单", "Purchases delivered, failed, and of unknown outcome"),
        measurement="purchase_step",
        where=(Where("step", ("deliver", "fail", "lose")),),
        fields=("purchase_id",),
        aggregate="count",
        by="step",
        every="1h",
        no_data=Text("此时段内没有售卖", "nothing was sold in this time"),
    ),
    Panel(
        title=Text("营业额与退款（每小时）", "Takings and refunds, per hour"),
        description=Text(
            "付款与退款的金额；退款为出餐失败或结果不明",
            "Money paid and given back; a refund follows a failed or unknown sale",
        ),
        measurement="purchase_step",
        where=(Where("step", ("pay", "refund")),),
        fields=("fen",),
        aggregate="sum",
        by="step",
        every="1h",
        no_data=Text("此时段内没有付款", "nothing was paid in this time"),
    ),
    Panel(
        title=Text("退款原因", "Refunds by cause"),
        description=Text("所示时段内每种原因的退款次数", "Refunds for each cause in the time shown"),
        measurement="purchase_step",
        where=(Where("step", "refund"),),
        fields=("purchase_id",),
        style="ranking",
        aggregate="count",
        by="reason",
        no_data=Text("此时段内没有退款", "nothing was refunded in this time"),
    ),
    Panel(
        title=Text("报废原因", "Waste by cause"),
        description=Text("补货时取出、不再售卖的餐盒", "Boxes that restockers took out because they cannot be sold"),
        measurement="waste_step",
        fields=("boxes",),
        style="ranking",
        aggregate="sum",
        by="reason",
        no_data=Text("此时段内没有报废", "nothing was thrown away in this time"),
    ),
)

DEVICE_PANELS: Final[tuple[Panel, ...]] = (
    Panel(
        title=Text("预计售罄", "When it will be sold out"),
        description=Text("按学到的销量", "At the rate learned from past sales"),
        measurement="machine_forecast",
        fields=("stock_out_hours", "first_meal_out_hours"),
        no_data=Text("没有预测：此时段内没有售卖", "no forecast: nothing was sold in this time"),
    ),
    Panel(
        title=Text("订单", "Purchases"),
        description=Text(
            "此机器订单的每一步，最新在前；不含购买者",
            "Every step of its purchases, newest first; buyers are not in it",
        ),
        measurement="purchase_step",
        fields=("meal", "fen", "since_paid_ms"),
        style="list",
        no_data=Text("此时段内没有订单", "no purchase in this time"),
    ),
)

TOGETHER: Final = (("chilled_celsius",), ("heater_celsius",), ("stock_count", "heating_queue_count"))
"""Numbers that share a graph on the board of one machine."""

ACTIONS: Final[dict[str, Text]] = {
    "dispense": Text("出餐", "heat and dispense"), "cancel": Text("取消出餐", "cancel"),
    "lock_lane": Text("锁定货道", "lock a lane"),
    "unlock_after_service": Text("检修后解锁", "unlock after service"),
    "set_menu": Text("设置菜单", "set the menu"), "reboot": Text("重启", "restart"),
}  # fmt: skip
"""Words for the commands."""
