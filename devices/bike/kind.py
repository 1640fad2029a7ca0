"""Identity and rhythm of the kind `bike`."""

from typing import Final

from devices.bike import messages
from fleet.kind import Kind, Text

KIND: Final = Kind(
    name="bike",
    title=Text("共享单车", "Shared bike"),
    id_prefix="bike",
    reading=messages.Reading,
    events=(
        messages.LockOpened,
        messages.LockClosed,
        messages.LockJammed,
        messages.MovedWhileLocked,
        messages.Fall,
        messages.Tamper,
        messages.BatteryLow,
    ),
    commands=(
        messages.Unlock,
        messages.Lock,
        messages.Ring,
        messages.Locate,
        messages.Reboot,
        messages.SetInterval,
    ),
    reading_interval_s=900,
    silent_after_s=2_700,
    keep_alive_s=300,
    readings_per_message=2,  # while riding; the agent lets none wait for more than a minute
    demo_count=180,
)
