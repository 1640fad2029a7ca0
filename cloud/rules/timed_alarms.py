"""Alarms of a room with an emergency button whose condition is time; `proof_tests` begins and ends them."""

from typing import Any, Final

from fleet.incident import Priority
from fleet.kind import AlarmDefinition, Kind, Text, When

TEST_OVERDUE: Final = "test_overdue"
SUBSTITUTE_DUE: Final = "substitute_due"


def timed_alarms(kind: Kind) -> tuple[AlarmDefinition, ...]:
    """The two alarms; empty for a kind without an emergency button."""
    if not kind.emergency:
        return ()
    return (
        AlarmDefinition(
            key=TEST_OVERDUE,
            title=Text("呼叫按钮测试逾期", "Proof test of the emergency button overdue"),
            priority=Priority.MEDIUM,
            condition=When(_never),
            cause=Text(
                "七天内既无自检通过也无按下记录", "For seven days the button neither passed a self-test nor was pressed"
            ),
            consequence=Text("按钮是否可用无从得知", "Nobody knows whether the button works"),
            action=Text(
                "远程启动自检；失败则到场以测试模式试按",
                "Start the self-test remotely; if it fails, test the button on site in test mode",
            ),
            respond_within_s=86_400,
        ),
        AlarmDefinition(
            key=SUBSTITUTE_DUE,
            title=Text(
                "无法呼救超过两小时，须登记替代措施", "No way to call for two hours: record a substitute measure"
            ),
            priority=Priority.HIGH,
            condition=When(_never),
            cause=Text(
                "房间失联或按钮故障两小时内未排除",
                "The room is silent, or its button out of order, and was not repaired within two hours",
            ),
            consequence=Text("房间没有求助手段", "The room has no way to call for help"),
            action=Text(
                "安排专人值守或关闭房间，并登记责任人与期限",
                "Post a person or close the room, and record who is responsible and until when",
            ),
            respond_within_s=15 * 60,
        ),
    )


def _never(_state: Any) -> bool:
    return False
