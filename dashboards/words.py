"""What the codes in tags and text fields are called, in both languages. Codes without a word are shown as they are."""

from collections.abc import Mapping
from typing import Final

from dashboards.scales import CALM
from fleet.text import Text

PRIORITIES: Final[Mapping[str, Text]] = {
    "emergency": Text("紧急", "emergency"),
    "high": Text("高", "high"),
    "medium": Text("中", "medium"),
    "low": Text("低", "low"),
}
PRIORITY_COLOURS: Final[Mapping[str, str]] = {
    "emergency": "dark-red", "high": "red", "medium": "orange", "low": "yellow",
}  # fmt: skip

ALARM_STEPS: Final[Mapping[str, Text]] = {
    "activate": Text("发生", "began"),
    "return": Text("恢复", "returned"),
    "return_latched": Text("恢复，待现场检查", "returned, to be inspected"),
    "realarm": Text("再次提醒", "said again"),
    "acknowledge": Text("已确认", "acknowledged"),
    "reset": Text("现场检查完毕", "inspected on site"),
    "show": Text("重新显示", "shown again"),
    "shelve": Text("搁置", "shelved"),
    "suppress": Text("被其他报警抑制", "hidden behind another"),
    "take_out_of_service": Text("设备停用", "taken out of service"),
}
ALARM_STATES: Final[Mapping[str, Text]] = {
    "normal": Text("正常", "over"),
    "unacknowledged": Text("未确认", "not acknowledged"),
    "acknowledged": Text("已确认", "acknowledged"),
    "returned_unacknowledged": Text("已恢复，未确认", "returned, not acknowledged"),
    "latched_unacknowledged": Text("待检查，未确认", "to be inspected, not acknowledged"),
    "latched_acknowledged": Text("待现场检查", "to be inspected on site"),
}
ALARM_VIEWS: Final[Mapping[str, Text]] = {
    "shown": Text("显示", "shown"),
    "shelved": Text("已搁置", "shelved"),
    "suppressed_by_design": Text("按设计抑制", "follows from another alarm"),
    "out_of_service": Text("设备停用", "out of service"),
}
CALL_STEPS: Final[Mapping[str, Text]] = {
    "press": Text("按下", "pressed"),
    "acknowledge": Text("已受理", "accepted"),
    "escalate": Text("升级", "escalated"),
    "attend": Text("到场", "somebody there"),
    "clear_at_origin": Text("现场解除", "cleared on site"),
}
CALL_STATES: Final[Mapping[str, Text]] = {
    "idle": Text("空闲", "idle"),
    "calling": Text("呼叫中", "calling"),
    "acknowledged": Text("已受理", "accepted"),
    "attended": Text("已到场", "somebody there"),
    "cleared": Text("已解除", "cleared"),
}
CALL_PURPOSES: Final[Mapping[str, Text]] = {"help": Text("求助", "for help"), "test": Text("测试", "test")}
ORDER_STEPS: Final[Mapping[str, Text]] = {
    "release": Text("可派", "released"),
    "assign": Text("指派", "assigned"),
    "accept": Text("接受", "accepted"),
    "travel": Text("出发", "on the way"),
    "start": Text("到场", "begun"),
    "hold": Text("暂停", "on hold"),
    "resume": Text("恢复", "resumed"),
    "complete": Text("完成", "done"),
    "give_up": Text("无法完成", "given up"),
    "cancel": Text("取消", "cancelled"),
    "reopen": Text("重新打开", "opened again"),
}
ORDER_STATES: Final[Mapping[str, Text]] = {
    "draft": Text("草稿", "draft"),
    "dispatchable": Text("待派", "to be given out"),
    "assigned": Text("已派", "assigned"),
    "accepted": Text("已接受", "accepted"),
    "travelling": Text("途中", "on the way"),
    "in_progress": Text("处理中", "in progress"),
    "on_hold": Text("暂停", "on hold"),
    "done": Text("完成", "done"),
    "cannot_complete": Text("无法完成", "cannot be done"),
    "cancelled": Text("已取消", "cancelled"),
}
SKILLS: Final[Mapping[str, Text]] = {
    "repair": Text("维修", "repair"),
    "restock": Text("补货", "restock"),
    "battery": Text("换电", "battery"),
    "rebalance": Text("调度", "rebalancing"),
    "inspection": Text("检查", "inspection"),
}
RIDE_STEPS: Final[Mapping[str, Text]] = {
    "asked": Text("扫码", "asked for"),
    "opened": Text("开锁", "begun"),
    "closed": Text("还车", "ended"),
    "jammed": Text("车锁卡住", "lock jammed"),
    "failed": Text("开锁失败", "did not open"),
    "expired": Text("开锁超时", "opened too late"),
    "revoked": Text("设备被吊销", "bike revoked"),
    "flagged": Text("待人工查看", "to be looked at"),
}
PURCHASE_STEPS: Final[Mapping[str, Text]] = {
    "ask_payment": Text("请求付款", "payment asked"),
    "pay": Text("已付款", "paid"),
    "refuse_payment": Text("付款被拒", "payment refused"),
    "cancel": Text("取消", "cancelled"),
    "reserve": Text("预留", "reserved"),
    "heat": Text("加热", "heating"),
    "dispense": Text("出餐", "dispensing"),
    "deliver": Text("已取餐", "delivered"),
    "fail": Text("出餐失败", "failed"),
    "lose": Text("结果不明", "outcome unknown"),
    "ask_refund": Text("申请退款", "refund asked"),
    "refund": Text("已退款", "refunded"),
    "refuse_refund": Text("退款被拒", "refund refused"),
    "hand_over": Text("人工处理", "handed to a person"),
}
COMMAND_STEPS: Final[Mapping[str, Text]] = {
    "queued": Text("排队", "queued"),
    "sent": Text("已发送", "sent"),
    "accepted": Text("已接受", "accepted"),
    "executing": Text("执行中", "executing"),
    "succeeded": Text("成功", "succeeded"),
    "failed": Text("失败", "failed"),
    "refused": Text("拒绝", "refused"),
    "expired": Text("过期", "expired"),
}
REASONS: Final[Mapping[str, Text]] = {
    "": Text("无", "none"),
    "jam": Text("卡住", "jam"),
    "output_not_empty": Text("取餐口有餐", "output not empty"),
    "heater_fault": Text("加热器故障", "heater fault"),
    "timeout": Text("超时", "timeout"),
    "cancelled": Text("取消", "cancelled"),
    "power_lost": Text("断电", "power lost"),
    "out_of_stock": Text("无货", "out of stock"),
    "lot_expired": Text("批次过期", "lot expired"),
    "locked_out": Text("食品安全锁定", "locked for food safety"),
    "unknown": Text("不明", "unknown"),
    "expired": Text("已过期", "expired"),
    "replayed": Text("重放", "replayed"),
    "bad_signature": Text("签名不符", "bad signature"),
    "unknown_key": Text("未知密钥", "unknown key"),
    "wrong_device": Text("设备不符", "meant for another device"),
    "wrong_generation": Text("密钥已换代", "older generation of keys"),
    "untrusted_time": Text("设备时间不可信", "clock not trusted"),
    "unknown_action": Text("未知指令", "unknown command"),
    "invalid_arguments": Text("参数无效", "invalid arguments"),
    "busy": Text("设备忙", "busy"),
    "link_lost": Text("连接中断", "link lost"),
    "hardware_silent": Text("硬件无应答", "hardware silent"),
    "not_possible": Text("当前不可执行", "not possible now"),
    "refused": Text("被拒绝", "refused"),
    "failed": Text("失败", "failed"),
    "bike_revoked": Text("设备被吊销", "bike revoked"),
    "insufficient_funds": Text("余额不足", "insufficient funds"),
    "delivered_late": Text("出餐过晚", "delivered late"),
    "other": Text("其他", "other"),
}
WRITER_STATES: Final[Mapping[str, Text]] = {
    "flowing": Text("正常写入", "flowing"),
    "waiting": Text("等待重试", "waiting to try again"),
    "no_access": Text("令牌无权限", "no access: check the token"),
    "standby": Text("由另一进程写入", "another process writes"),
}
WRITER_COLOURS: Final[Mapping[str, str]] = {
    "flowing": CALM, "waiting": "orange", "no_access": "red", "standby": CALM,
}  # fmt: skip
WASTE_REASONS: Final[Mapping[str, Text]] = {
    "expired": Text("过期", "expired"),
    "spoiled": Text("变质", "spoiled"),
    "excursion": Text("温度超限", "was too warm"),
    "miscounted": Text("清点有误", "miscounted"),
}
YES_NO: Final[Mapping[str, Text]] = {"true": Text("是", "yes"), "false": Text("否", "no")}

CODES: Final[Mapping[tuple[str, str], Mapping[str, Text]]] = {
    ("alarm_step", "step"): ALARM_STEPS,
    ("alarm_step", "state"): ALARM_STATES,
    ("alarm_step", "view"): ALARM_VIEWS,
    ("alarm_step", "priority"): PRIORITIES,
    ("call_step", "step"): CALL_STEPS,
    ("call_step", "state"): CALL_STATES,
    ("call_step", "purpose"): CALL_PURPOSES,
    ("order_step", "step"): ORDER_STEPS,
    ("order_step", "state"): ORDER_STATES,
    ("order_step", "skill"): SKILLS,
    ("order_step", "priority"): PRIORITIES,
    ("order_step", "late"): YES_NO,
    ("ride_step", "step"): RIDE_STEPS,
    ("ride_step", "reason"): REASONS,
    ("purchase_step", "step"): PURCHASE_STEPS,
    ("purchase_step", "reason"): REASONS,
    ("waste_step", "reason"): WASTE_REASONS,
    ("command_step", "step"): COMMAND_STEPS,
    ("command_step", "reason"): REASONS,
}
"""(measurement, tag or field) → its codes."""

EVERY_KIND_ALARMS: Final[Mapping[str, Text]] = {
    "silent": Text("设备失联", "Device silent"),
    "no_readings": Text("设备在线但无数据", "Connected, but no readings"),
    "unstable_link": Text("连接反复中断", "Unstable link"),
    "identity_twice": Text("同一身份出现在两处", "One identity in two places"),
}
"""Alarms that every kind has without saying so; the cloud defines them, and a test holds the words equal."""
EMERGENCY_ALARMS: Final[Mapping[str, Text]] = {
    "test_overdue": Text("呼叫按钮测试逾期", "Proof test of the emergency button overdue"),
    "substitute_due": Text(
        "无法呼救超过两小时，须登记替代措施", "No way to call for two hours: record a substitute measure"
    ),
}
"""Further ones of every kind with an emergency button."""

LINK: Final[Mapping[str, Text]] = {
    "fleet": Text("设备总览", "Fleet overview"),
    "operations": Text("系统运行", "Operations"),
    "device": Text("打开此设备的看板", "Board of this device"),
    "kind": Text("打开此类设备的看板", "Board of this kind"),
    "application_device": Text("在应用中打开此设备", "This device in the application"),
    "application_alarms": Text("应用：报警台", "Application: alarm desk"),
    "application_calls": Text("应用：紧急呼叫", "Application: emergency calls"),
    "application_orders": Text("应用：工单", "Application: work orders"),
}
TIME: Final = Text("时间", "Time")
COLUMN: Final[Mapping[str, Text]] = {
    "time": TIME,
    "device_id": Text("设备", "Device"),
    "kind": Text("类别", "Kind"),
    "key": Text("报警", "Alarm"),
    "priority": Text("优先级", "Priority"),
    "step": Text("步骤", "Step"),
    "purpose": Text("目的", "Purpose"),
    "skill": Text("工种", "Skill"),
    "action": Text("指令", "Command"),
    "process": Text("进程", "Process"),
    "reason": Text("原因", "Reason"),
    "state": Text("状态", "State"),
    "view": Text("显示", "View"),
}
"""Columns of lists that are tags; columns that are fields have their words in `fleet.series`."""
