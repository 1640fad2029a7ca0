"""The alarms of a nursing room, as a table. Each says its cause, its consequence, what to do and how soon.

Limits after the domain notes: milk at 4 °C or below for all but a short time. Proof tests that are overdue and
substitute measures for a button out of order are alarms of every kind with a button: `cloud.rules.timed_alarms`.
"""

from typing import Any, Final

from fleet.incident import Priority
from fleet.kind import NOT_HEARD, AlarmDefinition, Flag, Text, Threshold, When
from fleet.sensors import Sensor, no_values_alarm

LAMP_HOURS_MAX: Final = 8_000.0
_HOUR_S: Final = 3_600.0
_DAY_S: Final = 86_400.0


def self_test_failed(state: Any) -> bool:
    """The latest self-test found something wrong."""
    return bool(state.self_test_failure != "none")


STUCK_READINGS: Final = 120
STUCK_MS: Final = 2 * 3_600_000
"""The fridge's thermostat moves the true temperature by 1 °C in less: one value for so long is a broken probe."""


def fridge_probe_stuck(state: Any) -> bool:
    """Its thermometer gave exactly one value for two hours."""
    return (
        state.reading is not None
        and state.fridge_same_count >= STUCK_READINGS
        and state.fridge_changed_at is not None
        and state.reading.at - state.fridge_changed_at >= STUCK_MS
    )


BUTTON: Final = Sensor(
    key="button",
    title=Text("呼叫按钮", "Emergency button"),
    fields=("button_link_ok", "button_battery_percent"),
    missing=Flag("button_link_ok", value=False),
    stale_after_s=60.0,
    alarm="button_disconnected",  # said at once, without any delay
)
FRIDGE: Final = Sensor(
    key="fridge",
    title=Text("冰箱温度计", "Fridge thermometer"),
    fields=("fridge_celsius",),
    missing=When(fridge_probe_stuck),
    stale_after_s=600.0,
    good_at=lambda state: state.fridge_changed_at,
)
SENSORS: Final = (BUTTON, FRIDGE)

ALARMS: Final[tuple[AlarmDefinition, ...]] = (
    AlarmDefinition(
        key="button_disconnected",
        title=Text("呼叫按钮失联", "Emergency button disconnected"),
        priority=Priority.HIGH,
        condition=Flag("button_link_ok", value=False),
        cause=Text(
            "按钮与控制器的连接中断：线路、接头或按钮损坏",
            "The button's link to the controller is broken: wire, plug or button",
        ),
        consequence=Text("此房间内按下按钮无人知晓", "A press in this room reaches nobody"),
        action=Text(
            "立即告知前台派人看守，携带备用按钮到场更换并试按",
            "Have the front desk watch the room, replace the button and test it",
        ),
        respond_within_s=15 * 60,
        skill="repair",
        realarm_s=2 * _HOUR_S,
        latching=True,
        suppressed_by=NOT_HEARD,
    ),
    AlarmDefinition(
        key="cord_removed",
        title=Text("求助拉绳缺失", "Pull cord removed"),
        priority=Priority.HIGH,
        condition=Flag("cord_in_place", value=False),
        cause=Text("拉绳被扯断或取走", "The cord was torn off or taken away"),
        consequence=Text("跌倒在地的人无法够到按钮", "Someone on the floor cannot reach the button"),
        action=Text("到场更换拉绳并试拉", "Replace the cord and pull it once as a test"),
        respond_within_s=_HOUR_S,
        skill="repair",
        realarm_s=2 * _HOUR_S,
        latching=True,
        suppressed_by=NOT_HEARD,
    ),
    AlarmDefinition(
        key="button_battery_low",
        title=Text("按钮电池电量低", "Button battery low"),
        priority=Priority.MEDIUM,
        condition=Threshold("button_battery_percent", below=20, deadband=5),
        cause=Text("按钮电池接近耗尽", "The button's battery is near its end"),
        consequence=Text("数日内按钮将停止工作", "The button will stop working within days"),
        action=Text("按工单更换电池并试按", "Replace the battery after the work order and test the button"),
        respond_within_s=_DAY_S,
        suppressed_by=("button_battery_empty", "button_disconnected", *NOT_HEARD),
    ),
    AlarmDefinition(
        key="button_battery_empty",
        title=Text("按钮电池即将耗尽", "Button battery almost empty"),
        priority=Priority.HIGH,
        condition=Threshold("button_battery_percent", below=8, deadband=5),
        cause=Text("低电量提醒未及时处理", "The low-battery alarm was not served in time"),
        consequence=Text("按钮随时可能失效", "The button may fail at any moment"),
        action=Text("今天内更换电池并试按", "Replace the battery today and test the button"),
        respond_within_s=2 * _HOUR_S,
        realarm_s=4 * _HOUR_S,
        suppressed_by=NOT_HEARD,
    ),
    AlarmDefinition(
        key="self_test_failed",
        title=Text("按钮自检未通过", "Button self-test failed"),
        priority=Priority.HIGH,
        condition=When(self_test_failed),
        cause=Text("自检发现按钮、拉绳或电池异常", "The self-test found the button link, cord or battery wanting"),
        consequence=Text("求助可能无法发出", "A call for help may not get out"),
        action=Text("到场排查，修复后重新自检", "Find the fault on site, repair it and run the self-test again"),
        respond_within_s=_HOUR_S,
        skill="inspection",
        realarm_s=2 * _HOUR_S,
        latching=True,
        suppressed_by=("button_disconnected", "cord_removed", *NOT_HEARD),
    ),
    AlarmDefinition(
        key="fridge_warm",
        title=Text("冰箱温度高于 4 °C", "Fridge above 4 °C"),
        priority=Priority.MEDIUM,
        condition=Threshold("fridge_celsius", above=4.0, deadband=0.5),
        cause=Text("门未关严、频繁开门或制冷不足", "Door ajar, opened too often, or too little cooling"),
        consequence=Text("母乳保存时间缩短，可能变质", "Milk keeps for a shorter time and may spoil"),
        action=Text(
            "检查门封与温控，提醒使用者取走母乳", "Check the door seal and thermostat, ask people to take their milk"
        ),
        respond_within_s=_HOUR_S,
        on_delay_s=600.0,
        skill="inspection",
        suppressed_by=("fridge_hot", "fridge_door_open", "mains_lost", "sensor_fridge", *NOT_HEARD),
    ),
    AlarmDefinition(
        key="fridge_hot",
        title=Text("冰箱温度高于 8 °C", "Fridge above 8 °C"),
        priority=Priority.HIGH,
        condition=Threshold("fridge_celsius", above=8.0, deadband=1.0),
        cause=Text("冰箱故障、断电或门长时间敞开", "Fridge broken, without power, or its door open for long"),
        consequence=Text("箱内母乳不可再用", "The milk inside must not be used any more"),
        action=Text(
            "贴停用标识，通知使用者，维修或更换冰箱",
            "Mark the fridge as unusable, tell its users, repair or replace it",
        ),
        respond_within_s=30 * 60,
        on_delay_s=300.0,
        skill="repair",
        realarm_s=2 * _HOUR_S,
        latching=True,
    ),
    AlarmDefinition(
        key="fridge_freezing",
        title=Text("冰箱温度过低", "Fridge freezing"),
        priority=Priority.LOW,
        condition=Threshold("fridge_celsius", below=-1.0, deadband=0.5),
        cause=Text("温控故障或设定过低", "Thermostat broken or set too low"),
        consequence=Text("奶瓶可能冻裂", "Bottles may burst"),
        action=Text("调整温控，必要时更换", "Adjust the thermostat, replace it if needed"),
        respond_within_s=_DAY_S,
        on_delay_s=900.0,
        skill="inspection",
        suppressed_by=("sensor_fridge", *NOT_HEARD),
    ),
    AlarmDefinition(
        key="fridge_door_open",
        title=Text("冰箱门未关", "Fridge door left open"),
        priority=Priority.MEDIUM,
        condition=Flag("fridge_door_open"),
        cause=Text("取放后门未关严", "The door was not closed after use"),
        consequence=Text("几分钟内温度将超过 4 °C", "It will be above 4 °C within minutes"),
        action=Text("请前台到房间关门", "Ask the front desk to close the door"),
        respond_within_s=15 * 60,
        on_delay_s=180.0,
        suppressed_by=NOT_HEARD,
    ),
    AlarmDefinition(
        key="sterilizer_aborted",
        title=Text("消毒中断", "Sterilizer cycle aborted"),
        priority=Priority.LOW,
        condition=Flag("sterilizer_state", value="aborted"),
        cause=Text("消毒中开门或断电", "The door was opened or power was lost during the cycle"),
        consequence=Text("柜内奶具未完成消毒", "What is inside is not sterile"),
        action=Text(
            "告知使用者重新消毒；反复发生则检查门锁", "Have the cycle repeated; if it recurs, check the door interlock"
        ),
        respond_within_s=4 * _HOUR_S,
        on_delay_s=300.0,
        skill="inspection",
        suppressed_by=("mains_lost", "sterilizer_door_open", *NOT_HEARD),
    ),
    AlarmDefinition(
        key="sterilizer_door_open",
        title=Text("消毒柜门未关", "Sterilizer door left open"),
        priority=Priority.LOW,
        condition=Flag("sterilizer_door_open"),
        cause=Text("使用后未关门或门扣损坏", "Not closed after use, or its latch is broken"),
        consequence=Text("无法消毒，柜内落尘", "It cannot sterilize, and dust gets in"),
        action=Text("关门并检查门扣", "Close it and check the latch"),
        respond_within_s=4 * _HOUR_S,
        on_delay_s=900.0,
        suppressed_by=NOT_HEARD,
    ),
    AlarmDefinition(
        key="lamp_worn",
        title=Text("紫外灯到期", "UV lamp worn out"),
        priority=Priority.LOW,
        condition=Threshold("lamp_hours", above=LAMP_HOURS_MAX),
        cause=Text("紫外灯使用超过 8000 小时", "The UV lamp has burnt for more than 8,000 hours"),
        consequence=Text("杀菌强度不足", "It no longer kills enough germs"),
        action=Text("按工单更换紫外灯并清零计时", "Replace the lamp after the work order and reset its counter"),
        respond_within_s=3 * _DAY_S,
        suppressed_by=NOT_HEARD,
    ),
    AlarmDefinition(
        key="mains_lost",
        title=Text("房间断电", "Room without mains power"),
        priority=Priority.HIGH,
        condition=Flag("mains_power", value=False),
        cause=Text("跳闸、停电或插头松脱", "Breaker tripped, power cut, or plug loose"),
        consequence=Text(
            "后备电池仅支撑数小时，冰箱停止制冷", "The backup battery lasts some hours; the fridge does not cool"
        ),
        action=Text("联系物业恢复供电", "Have the building restore the power"),
        respond_within_s=_HOUR_S,
        on_delay_s=30.0,
        skill="inspection",
        realarm_s=4 * _HOUR_S,
    ),
    AlarmDefinition(
        key="backup_battery_low",
        title=Text("后备电池电量低", "Backup battery low"),
        priority=Priority.HIGH,
        condition=Threshold("backup_battery_percent", below=30, deadband=10),
        cause=Text("长时间断电或电池老化", "A long power cut, or an aged battery"),
        consequence=Text("房间即将失联，无法求助", "The room is about to go silent: no call for help"),
        action=Text("立即恢复供电或更换电池；安排看守", "Restore the power or replace the battery now; post a person"),
        respond_within_s=30 * 60,
        skill="repair",
        realarm_s=_HOUR_S,
    ),
    AlarmDefinition(
        key="room_too_warm",
        title=Text("室温过高", "Room too warm"),
        priority=Priority.LOW,
        condition=Threshold("air_celsius", above=30.0, deadband=1.0),
        cause=Text("空调未开或故障", "Air conditioning off or broken"),
        consequence=Text("母婴不适", "Unfit for mothers and infants"),
        action=Text("联系物业检查空调", "Have the building check the air conditioning"),
        respond_within_s=4 * _HOUR_S,
        on_delay_s=1_800.0,
        suppressed_by=("mains_lost", *NOT_HEARD),
    ),
    AlarmDefinition(
        key="room_too_cold",
        title=Text("室温过低", "Room too cold"),
        priority=Priority.LOW,
        condition=Threshold("air_celsius", below=16.0, deadband=1.0),
        cause=Text("暖气未开或窗户未关", "Heating off or window open"),
        consequence=Text("母婴不适", "Unfit for mothers and infants"),
        action=Text("联系物业检查暖气与窗户", "Have the building check heating and window"),
        respond_within_s=4 * _HOUR_S,
        on_delay_s=1_800.0,
        suppressed_by=("mains_lost", *NOT_HEARD),
    ),
    no_values_alarm(
        FRIDGE,
        priority=Priority.MEDIUM,
        consequence=Text("母乳变暖时无人知晓", "Milk that gets warm stays unnoticed"),
        action=Text("用手持温度计测量冰箱，更换温度计", "Measure the fridge by hand and replace its thermometer"),
        respond_within_s=4 * _HOUR_S,
        skill="inspection",
    ),
)
