from devices.doorbell.messages import DoorbellReading, Opened, Pressed, Ring

from fleet.kind import Kind, Text

KIND = Kind(
    name="doorbell",
    title=Text(zh="门铃", en="Doorbell"),
    id_prefix="bell",
    reading=DoorbellReading,
    events=(Pressed, Opened),
    commands=(Ring,),
    reading_interval_s=15,
    silent_after_s=40,
    keep_alive_s=5,
    readings_per_message=2,
    emergency=True,
)
