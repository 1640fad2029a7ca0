"""The alarms of a meal machine: what is wrong, what follows, what to do and how soon.

Food-safety limits: chilled at most 10 °C until sale, alarm at 8 °C (thermometer error ±1.5 °C).
"""

from typing import Final

from devices.meal_machine.restock import expired_count, is_low
from devices.meal_machine.state import State
from fleet.incident import Priority
from fleet.kind import NOT_HEARD, AlarmDefinition, Flag, Text, Threshold, When
from fleet.sensors import Sensor, no_values_alarm


def _has_slot(state: State, status: str) -> bool:
    return state.reading is not None and any(slot.status == status for slot in state.reading.slots)


def _jammed(state: State) -> bool:
    return _has_slot(state, "jammed")


def _slot_locked(state: State) -> bool:
    return state.reading is not None and not state.reading.locked_out and _has_slot(state, "locked")


def _expired(state: State) -> bool:
    return state.reading is not None and expired_count(state.reading) > 0


def _low(state: State) -> bool:
    if state.reading is None or not state.reading.slots or state.reading.stock_count == 0:
        return False
    return is_low(state, state.reading.at)


def _sold_out(state: State) -> bool:
    return state.reading is not None and state.reading.stock_count == 0 and not state.reading.locked_out


FAILURES_IN_A_ROW_MAX: Final = 3


def _sales_failing(state: State) -> bool:
    return state.failures_in_a_row >= FAILURES_IN_A_ROW_MAX


def _doubtful(state: State) -> bool:
    return state.doubtful_sales > 0


MISSING_BOXES_MAX: Final = 2


def _missing(state: State) -> bool:
    return state.missing_boxes > MISSING_BOXES_MAX


STUCK_READINGS: Final = 20
STUCK_MS: Final = 30 * 60_000
"""A thermometer that gives exactly one value in so many readings and for so long is stuck: the compressor's cycle
alone moves the true temperature by 1.5 °C in this time."""


def _chilled_missing(state: State) -> bool:
    reading = state.reading
    if reading is None:
        return False
    return reading.chilled_celsius is None or (
        state.chilled_same_count >= STUCK_READINGS
        and state.chilled_changed_at is not None
        and reading.at - state.chilled_changed_at >= STUCK_MS
    )


_CHILLED: Final = Sensor(
    key="chilled",
    title=Text("冷藏温度计", "Chilled thermometer"),
    fields=("chilled_celsius",),
    missing=When(_chilled_missing),
    stale_after_s=120.0,
    good_at=lambda state: state.chilled_changed_at,
)
_HEATER: Final = Sensor(
    key="heater",
    title=Text("加热器温度计", "Heater thermometer"),
    fields=("heater_celsius",),
    missing=Flag("heater_celsius", value=None),
    stale_after_s=600.0,
)
SENSORS: Final = (_CHILLED, _HEATER)

ALARMS: Final[tuple[AlarmDefinition, ...]] = (
    AlarmDefinition(
        key="chilled_warm",
        title=Text("冷藏温度高于 8 °C", "Chilled above 8 °C"),
        priority=Priority.MEDIUM,
        condition=Threshold("chilled_celsius", above=8.0, deadband=1.0),
        cause=Text("柜门未关严、制冷能力下降或补货时间过长", "Door ajar, weak refrigeration or a long restock"),
        consequence=Text("超过 10 °C 后餐品将被锁定", "Above 10 °C the meals will be locked"),
        action=Text("检查柜门与散热口,确认压缩机运转", "Check door and air vents, listen for the compressor"),
        respond_within_s=3600,
        on_delay_s=300,
        off_delay_s=60,
        skill="repair",
        suppressed_by=("chilled_unsafe", "locked_out", "mains_lost", *NOT_HEARD),
    ),
    AlarmDefinition(
        key="chilled_unsafe",
        title=Text("冷藏温度高于 10 °C", "Chilled above 10 °C"),
        priority=Priority.HIGH,
        condition=Threshold("chilled_celsius", above=10.0, deadband=1.0),
        cause=Text("制冷故障、断电或柜门敞开", "Refrigeration failed, no power, or the door is open"),
        consequence=Text("餐品不安全,机器将锁定全部货道", "Meals become unsafe, the machine locks all slots"),
        action=Text("恢复制冷,清出受影响批次并登记", "Restore cooling, remove and record the affected lots"),
        respond_within_s=1800,
        on_delay_s=60,
        off_delay_s=60,
        skill="repair",
        realarm_s=3600,
    ),
    AlarmDefinition(
        key="chilled_frozen",
        title=Text("冷藏温度低于 -1 °C", "Chilled below -1 °C"),
        priority=Priority.LOW,
        condition=Threshold("chilled_celsius", below=-1.0, deadband=1.0),
        cause=Text("温控器失灵或设定错误", "Thermostat stuck or set wrong"),
        consequence=Text("餐品结冰,加热后中心温度可能不足 70 °C", "Frozen boxes may not reach 70 °C inside"),
        action=Text("检查温控设定与传感器", "Check the thermostat's setting and its sensor"),
        respond_within_s=14_400,
        on_delay_s=600,
        off_delay_s=60,
        skill="repair",
        suppressed_by=("sensor_chilled", *NOT_HEARD),
    ),
    AlarmDefinition(
        key="heater_fault",
        title=Text("加热器故障", "Heater fault"),
        priority=Priority.HIGH,
        condition=Flag("heater_fault"),
        cause=Text("加热管损坏或温度传感器故障", "Broken heating element or temperature sensor"),
        consequence=Text("无法售卖热餐,订单自动退款", "No hot meal can be sold, purchases are refunded"),
        action=Text("更换加热模块后执行“检修后解锁”", "Replace the heater module, then unlock after service"),
        respond_within_s=7200,
        skill="repair",
        suppressed_by=("sensor_heater", *NOT_HEARD),
    ),
    AlarmDefinition(
        key="heater_hot",
        title=Text("加热器温度高于 160 °C", "Heater above 160 °C"),
        priority=Priority.HIGH,
        condition=Threshold("heater_celsius", above=160.0, deadband=20.0),
        cause=Text("加热继电器粘连", "Heater relay welded shut"),
        consequence=Text("餐盒损坏,有起火危险", "Boxes melt, risk of fire"),
        action=Text("立即断开市电,通知楼宇值班", "Cut the mains at once and tell the building's desk"),
        respond_within_s=900,
        skill="repair",
        realarm_s=1800,
        latching=True,
    ),
    AlarmDefinition(
        key="lane_jammed",
        title=Text("货道卡住", "Slot jammed"),
        priority=Priority.MEDIUM,
        condition=When(_jammed),
        cause=Text("餐盒倾斜或推杆受阻", "A tilted box or a blocked pusher"),
        consequence=Text("该货道停止售卖", "The slot sells nothing"),
        action=Text("取出卡住的餐盒,试推后“检修后解锁”", "Take the stuck box out, test, unlock after service"),
        respond_within_s=14_400,
        skill="repair",
        suppressed_by=NOT_HEARD,
    ),
    AlarmDefinition(
        key="lane_locked",
        title=Text("货道被人工锁定", "Slot locked by hand"),
        priority=Priority.LOW,
        condition=When(_slot_locked),
        cause=Text("工作人员锁定了货道", "Staff locked the slot"),
        consequence=Text("该货道停止售卖", "The slot sells nothing"),
        action=Text("确认原因,处理后解锁", "Find out why, settle it, unlock"),
        respond_within_s=86_400,
        on_delay_s=3600,
        suppressed_by=("locked_out", *NOT_HEARD),
    ),
    AlarmDefinition(
        key="door_open_long",
        title=Text("柜门敞开过久", "Door open too long"),
        priority=Priority.MEDIUM,
        condition=Flag("door_open"),
        cause=Text("补货后未关门或门锁损坏", "Not closed after a restock, or a broken latch"),
        consequence=Text("约 30 分钟后温度超限", "Temperature out of limits after about 30 minutes"),
        action=Text("到现场关门并检查门锁", "Close the door and check its latch"),
        respond_within_s=900,
        on_delay_s=600,
        skill="restock",
        suppressed_by=NOT_HEARD,
    ),
    AlarmDefinition(
        key="mains_lost",
        title=Text("市电中断", "Mains power lost"),
        priority=Priority.HIGH,
        condition=Flag("mains_power", value=False),
        cause=Text("楼宇停电、跳闸或插头松脱", "Power cut, tripped breaker or a loose plug"),
        consequence=Text("停止售卖,约 4 小时后餐品不安全", "No sales; meals become unsafe in about 4 hours"),
        action=Text("联系楼宇物业恢复供电", "Ask the building's desk to restore power"),
        respond_within_s=3600,
        on_delay_s=60,
        skill="repair",
        realarm_s=14_400,
    ),
    AlarmDefinition(
        key="locked_out",
        title=Text("食品安全锁定", "Locked for food safety"),
        priority=Priority.HIGH,
        condition=Flag("locked_out"),
        cause=Text("冷藏温度超限时间过长", "Chilled temperature was out of limits for too long"),
        consequence=Text("全部货道停售,批次已封存", "Nothing is sold, the lots inside are blocked"),
        action=Text("检修、清空、重新补货后解锁", "Repair, empty, restock, then unlock after service"),
        respond_within_s=7200,
        skill="inspection",
        realarm_s=14_400,
        latching=True,
    ),
    AlarmDefinition(
        key="stock_low",
        title=Text("库存偏低", "Stock low"),
        priority=Priority.LOW,
        condition=When(_low),
        cause=Text("销量高于预计或补货延迟", "Sales above forecast or a late restock"),
        consequence=Text("高峰时将售罄", "It will be sold out at the peak"),
        action=Text("确认补货工单已有人接单", "See that somebody accepted the restock order"),
        respond_within_s=7200,
        suppressed_by=("stock_out", "locked_out", *NOT_HEARD),
    ),
    AlarmDefinition(
        key="stock_out",
        title=Text("已售罄", "Sold out"),
        priority=Priority.MEDIUM,
        condition=When(_sold_out),
        cause=Text("补货未及时到达,或货道全部停用", "Restock came too late, or every slot is out of use"),
        consequence=Text("员工买不到餐", "Employees can't buy a meal"),
        action=Text("优先安排补货", "Restock this machine first"),
        respond_within_s=3600,
        suppressed_by=("locked_out", "mains_lost", *NOT_HEARD),
    ),
    AlarmDefinition(
        key="lots_expired",
        title=Text("有过期餐品", "Expired boxes inside"),
        priority=Priority.LOW,
        condition=When(_expired),
        cause=Text("备货多于销量", "More was stocked than sold"),
        consequence=Text("占用货道;机器不会售出过期餐品", "They fill slots; the machine does not sell them"),
        action=Text("下次补货时取出并登记", "Remove and record them with the next restock"),
        respond_within_s=28_800,
        suppressed_by=("locked_out", *NOT_HEARD),
    ),
    AlarmDefinition(
        key="output_blocked",
        title=Text("取餐口长时间有餐", "Box left in the output"),
        priority=Priority.LOW,
        condition=Flag("output_occupied"),
        cause=Text("顾客未取餐或挡板卡住", "A customer forgot the box, or the flap is stuck"),
        consequence=Text("后续订单失败并退款", "Further sales fail and are refunded"),
        action=Text("取走餐盒,检查挡板", "Take the box away, check the flap"),
        respond_within_s=3600,
        on_delay_s=600,
        skill="inspection",
        suppressed_by=NOT_HEARD,
    ),
    AlarmDefinition(
        key="sales_failing",
        title=Text("连续三次出餐失败", "Three sales failed in a row"),
        priority=Priority.HIGH,
        condition=When(_sales_failing),
        cause=Text("推杆、加热器或落餐传感器异常", "Pusher, heater or drop sensor out of order"),
        consequence=Text("顾客付款后拿不到餐(自动退款)", "Customers pay and get nothing (refunded by itself)"),
        action=Text("现场试售,检查落餐传感器", "Test a sale on site, check the drop sensor"),
        respond_within_s=7200,
        skill="repair",
        realarm_s=14_400,
        suppressed_by=("heater_fault", "mains_lost", "locked_out", *NOT_HEARD),
    ),
    AlarmDefinition(
        key="sale_doubtful",
        title=Text("有结果不明的出餐", "A sale of unknown outcome"),
        priority=Priority.LOW,
        condition=When(_doubtful),
        cause=Text("出餐途中断电或传感器漏检", "Power lost in mid-dispense, or the sensor missed a box"),
        consequence=Text("库存与实物可能不符", "Stock may differ from the boxes inside"),
        action=Text("补货时清点该机器", "Count this machine with the next restock"),
        respond_within_s=86_400,
    ),
    AlarmDefinition(
        key="boxes_missing",
        title=Text("清点缺少餐盒", "Boxes missing at the count"),
        priority=Priority.LOW,
        condition=When(_missing),
        cause=Text("传感器漏检、登记错误或丢失", "Sensor missed drops, a wrong count, or theft"),
        consequence=Text("账实不符", "The books do not match the machine"),
        action=Text("核对补货记录与销售记录", "Compare the visits with the sales"),
        respond_within_s=86_400,
    ),
    no_values_alarm(
        _CHILLED,
        priority=Priority.HIGH,
        consequence=Text(
            "无法证明餐品够冷；机器将在十分钟内停售",
            "Nobody can prove the food is cold; the machine locks in ten minutes",
        ),
        action=Text(
            "现场用手持温度计测量，更换温度计，然后服务复位",
            "Measure by hand on site, replace the probe, then unlock after service",
        ),
        respond_within_s=1_800,
    ),
    no_values_alarm(
        _HEATER,
        priority=Priority.MEDIUM,
        consequence=Text("无法证明餐品已热透", "Nobody can prove a meal is heated through"),
        action=Text("更换加热器温度计，试热一份", "Replace the heater's probe and heat one box as a test"),
        respond_within_s=3_600,
    ),
)
