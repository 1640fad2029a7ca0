"""What a bike's state asks of people."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from devices.bike.state import State
from fleet.incident import Priority
from fleet.kind import NOT_HEARD, AlarmDefinition, CallStep, Flag, Need, Text, Threshold, When
from fleet.messages import Command
from fleet.sensors import Sensor, no_values_alarm

MINUTE_S: Final = 60
HOUR_S: Final = 3_600
BATTERY_CRITICAL_PERCENT: Final = 10.0
BATTERY_RENT_PERCENT_MIN: Final = 15.0  # a ride of 5 km must end with the lock still working
# The zone with a margin of about 2 km, so that GNSS drift at its edge tells nobody anything.
ZONE_LATITUDE: Final = (38.82, 38.91)
ZONE_LONGITUDE: Final = (121.455, 121.585)


def _outside_zone(state: Any) -> bool:
    reading = state.reading
    return reading is not None and not (
        ZONE_LATITUDE[0] <= reading.latitude <= ZONE_LATITUDE[1]
        and ZONE_LONGITUDE[0] <= reading.longitude <= ZONE_LONGITUDE[1]
    )


def _left_unlocked(state: Any) -> bool:
    return state.lock_state == "unlocked" and state.reading is not None and state.reading.speed_metres_per_second < 0.3


_GNSS: Final = Sensor(
    key="gnss",
    title=Text("卫星定位", "Satellite positioning"),
    fields=("latitude", "longitude", "accuracy_metres", "speed_metres_per_second"),
    missing=Threshold("fix_age_seconds", above=4.0 * HOUR_S, deadband=4.0 * HOUR_S - MINUTE_S),
    stale_after_s=4 * HOUR_S,  # a bike inside a lobby sees no sky for a while; in four hours it is moved or reported
    age_field="fix_age_seconds",
)
_BATTERY_THERMOMETER: Final = Sensor(
    key="battery_thermometer",
    title=Text("电池温度传感器", "Battery thermometer"),
    fields=("temperature_celsius",),
    missing=Flag("temperature_celsius", value=None),
    stale_after_s=2 * HOUR_S,
)
SENSORS: Final = (_GNSS, _BATTERY_THERMOMETER)


ALARMS: Final[tuple[AlarmDefinition, ...]] = (
    AlarmDefinition(
        key="moved_while_locked",
        title=Text("锁车状态下被移动", "Moved while locked"),
        priority=Priority.HIGH,
        condition=When(lambda state: state.moved_at is not None),
        cause=Text("车辆上锁时被搬动或拖走", "Somebody carries or drags the locked bike"),
        consequence=Text("车辆可能被盗或停到无法使用的位置", "The bike may be stolen or end where nobody can use it"),
        action=Text(
            "查看实时位置，前往最后位置寻找；必要时报警", "Follow its position, go there; call the police if it goes on"
        ),
        respond_within_s=15 * MINUTE_S,
        off_delay_s=10 * MINUTE_S,
        skill="inspection",
        realarm_s=HOUR_S,
        latching=True,
    ),
    AlarmDefinition(
        key="carried_by_vehicle",
        title=Text("速度异常，疑似被车辆运走", "Faster than any rider"),
        priority=Priority.HIGH,
        condition=Threshold("speed_metres_per_second", above=12.5, deadband=3.0),
        cause=Text("车辆在汽车上运输", "The bike is on a van or truck"),
        consequence=Text("车辆离开园区", "It leaves the zone"),
        action=Text(
            "确认是否为调度车运输；否则报警并跟踪位置",
            "Check with the rebalancing van; otherwise call the police and track it",
        ),
        respond_within_s=15 * MINUTE_S,
        on_delay_s=30,
        off_delay_s=5 * MINUTE_S,
        realarm_s=HOUR_S,
        latching=True,
    ),
    AlarmDefinition(
        key="opened_without_command",
        title=Text("未经指令开锁", "Open without a command"),
        priority=Priority.HIGH,
        condition=When(lambda state: state.lock_state == "unlocked" and state.opened_by is None),
        cause=Text("锁被撬开、机械故障，或开锁确认丢失", "The lock was forced, failed, or its confirmation was lost"),
        consequence=Text("车辆可被任何人骑走且不计费", "Anybody can ride away, outside any ride"),
        action=Text("远程上锁；失败则到现场检查锁体", "Lock it remotely; if that fails, go and check the lock"),
        respond_within_s=30 * MINUTE_S,
        on_delay_s=60,
        skill="repair",
        realarm_s=2 * HOUR_S,
        latching=True,
    ),
    AlarmDefinition(
        key="lock_jammed",
        title=Text("车锁卡住", "Lock jammed"),
        priority=Priority.HIGH,
        condition=When(lambda state: state.lock_state == "jammed"),
        cause=Text("锁舌被异物或辐条卡住，或电机损坏", "Dirt or a spoke blocks the bolt, or its motor failed"),
        consequence=Text("无法租用；骑行者可能无法结束行程", "Nobody can rent it; a rider may be unable to end a ride"),
        action=Text("到现场清理锁舌，测试开锁和关锁各两次", "Clear the bolt on site, then open and close it twice"),
        respond_within_s=HOUR_S,
        skill="repair",
        realarm_s=4 * HOUR_S,
        suppressed_by=("opened_without_command", *NOT_HEARD),
    ),
    AlarmDefinition(
        key="tampered",
        title=Text("疑似被破坏", "Tampering"),
        priority=Priority.HIGH,
        condition=When(lambda state: state.tampered_at is not None),
        cause=Text("外壳被打开或锁体受到敲击", "The casing was opened or the lock was struck"),
        consequence=Text("锁可能失效，车辆可能被盗", "The lock may fail and the bike may be stolen"),
        action=Text(
            "到现场检查；用指令开锁一次以确认锁体正常",
            "Inspect on site; unlock it once by command to prove the lock works",
        ),
        respond_within_s=HOUR_S,
        skill="inspection",
        realarm_s=4 * HOUR_S,
        latching=True,
    ),
    AlarmDefinition(
        key="battery_hot",
        title=Text("电池过热", "Battery too hot"),
        priority=Priority.HIGH,
        condition=Threshold("temperature_celsius", above=60.0, deadband=10.0),
        cause=Text("电芯故障、短路或暴晒", "A failing cell, a short circuit or fierce sun"),
        consequence=Text("有起火风险", "Risk of fire"),
        action=Text("疏散周围人员，取下电池并隔离存放", "Keep people away, take the pack out and store it apart"),
        respond_within_s=20 * MINUTE_S,
        off_delay_s=10 * MINUTE_S,
        skill="battery",
        realarm_s=30 * MINUTE_S,
        latching=True,
    ),
    AlarmDefinition(
        key="battery_critical",
        title=Text("电量即将耗尽", "Battery nearly empty"),
        priority=Priority.MEDIUM,
        condition=Threshold("battery_percent", below=BATTERY_CRITICAL_PERCENT, deadband=5.0),
        cause=Text("电池未及时更换", "The pack was not swapped in time"),
        consequence=Text("锁将无法打开，只保留防盗定位", "The lock will stop working; only theft tracking stays on"),
        action=Text("优先更换电池", "Swap the pack first on this round"),
        respond_within_s=4 * HOUR_S,
    ),
    AlarmDefinition(
        key="left_unlocked",
        title=Text("长时间未上锁", "Left unlocked"),
        priority=Priority.MEDIUM,
        condition=When(_left_unlocked),
        cause=Text("骑行者忘记上锁", "The rider walked away without locking"),
        consequence=Text("持续计费，车辆可能丢失", "The fee runs on and the bike may vanish"),
        action=Text("联系骑行者；确认无人后远程上锁", "Call the rider; lock it remotely once nobody is on it"),
        respond_within_s=HOUR_S,
        on_delay_s=20 * MINUTE_S,
        suppressed_by=("opened_without_command", "lock_jammed", *NOT_HEARD),
    ),
    AlarmDefinition(
        key="outside_zone",
        title=Text("驶出运营区域", "Outside the zone"),
        priority=Priority.MEDIUM,
        condition=When(_outside_zone),
        cause=Text("骑出或被运出园区", "It was ridden or carried out of the zone"),
        consequence=Text("其他员工无法使用", "Other employees cannot use it"),
        action=Text("安排下一班调度取回", "Bring it back on the next rebalancing round"),
        respond_within_s=8 * HOUR_S,
        on_delay_s=5 * MINUTE_S,
        off_delay_s=5 * MINUTE_S,
        skill="rebalance",
        suppressed_by=("carried_by_vehicle", "moved_while_locked"),
    ),
    AlarmDefinition(
        key="fallen",
        title=Text("车辆倒地", "Fallen over"),
        priority=Priority.LOW,
        condition=When(lambda state: state.fallen_at is not None),
        cause=Text("被风吹倒或碰倒", "Wind or somebody knocked it over"),
        consequence=Text("阻碍通行，可能损坏", "It blocks the path and may be damaged"),
        action=Text("扶起车辆并检查车把和刹车", "Put it up, check handlebar and brakes"),
        respond_within_s=4 * HOUR_S,
        on_delay_s=10 * MINUTE_S,
        skill="inspection",
        latching=True,
        suppressed_by=("carried_by_vehicle", "moved_while_locked", *NOT_HEARD),
    ),
    AlarmDefinition(
        key="signal_weak",
        title=Text("信号弱", "Weak signal"),
        priority=Priority.LOW,
        condition=Threshold("signal_dbm", below=-115.0, deadband=8.0),
        cause=Text("停放在地下或信号盲区，或天线损坏", "Parked underground or in a dead spot, or a broken antenna"),
        consequence=Text("开锁慢或失败", "Unlocking is slow or fails"),
        action=Text("把车移到开阔处；如仍弱则检查天线", "Move it into the open; if still weak, check the antenna"),
        respond_within_s=24 * HOUR_S,
        on_delay_s=HOUR_S,
        off_delay_s=10 * MINUTE_S,
        suppressed_by=("unstable_link", *NOT_HEARD),
    ),
    AlarmDefinition(
        key="position_lost",
        title=Text("定位不准", "Position uncertain"),
        priority=Priority.LOW,
        condition=Threshold("accuracy_metres", above=100.0, deadband=50.0),
        cause=Text("停放在室内，或卫星天线损坏", "Parked indoors, or a broken GNSS antenna"),
        consequence=Text("骑行者找不到车，无法核对停车区", "Riders cannot find it, parking cannot be checked"),
        action=Text("响铃寻找并移到室外；检查天线", "Ring to find it, move it outdoors; check the antenna"),
        respond_within_s=24 * HOUR_S,
        on_delay_s=HOUR_S,
        off_delay_s=10 * MINUTE_S,
        suppressed_by=("sensor_gnss", *NOT_HEARD),
    ),
    no_values_alarm(
        _GNSS,
        priority=Priority.MEDIUM,
        consequence=Text(
            "不知道车在哪里，不能租用，被盗也不易找回", "Nobody knows where it is, to rent it or to find it again"
        ),
        action=Text(
            "到最后位置寻找，检查天线，移到露天处",
            "Look for it where it was last seen, check the antenna, move it outdoors",
        ),
        respond_within_s=12 * HOUR_S,
    ),
    no_values_alarm(
        _BATTERY_THERMOMETER,
        priority=Priority.MEDIUM,
        consequence=Text("电池过热时无人知晓", "A pack that overheats stays unnoticed"),
        action=Text("更换电池组或其温度传感器", "Swap the pack, or its temperature sensor"),
        respond_within_s=12 * HOUR_S,
        skill="battery",
    ),
)


def needs(state: State, now_ms: int) -> Sequence[Need]:  # noqa: ARG001  # a swap is due by charge, not by time
    """A battery swap from 25 % down until the pack was changed."""
    if not state.battery_swap_wanted:
        return ()
    critical = state.reading is not None and state.reading.battery_percent < BATTERY_CRITICAL_PERCENT
    return (
        Need(
            cause="battery_swap",
            skill="battery",
            title=Text("更换电池", "Swap the battery"),
            priority=Priority.MEDIUM if critical else Priority.LOW,
            due_within_s=4 * HOUR_S if critical else 24 * HOUR_S,
            items={"battery_pack": 1},
        ),
    )


def rentable(state: State) -> bool:
    """Whether a rider may be given this bike: locked, charged, upright and under no suspicion.

    A bike whose locked state was not reported yet is not rentable.
    """
    return (
        state.lock_state == "locked"
        and state.reading is not None
        and state.reading.battery_percent >= BATTERY_RENT_PERCENT_MIN
        and state.fallen_at is None
        and state.tampered_at is None
        and state.moved_at is None
        and not _outside_zone(state)
    )


def call_steps() -> Mapping[str, CallStep]:
    """A bike has no emergency button."""
    return {}


def call_feedback(state: State, *, acknowledged: bool) -> Command | None:  # noqa: ARG001  # the role's signature
    """A bike shows nothing to a caller."""
    return None
