"""What crews do and how well: service levels, proofs, notes and photos, preventive plans, rounds."""

from sqlalchemy import Column, Index, Integer, Text, UniqueConstraint, text

from cloud.tables.base import Id, Ms, Real, table


def service_columns() -> tuple[Column[object], ...]:
    """Columns of `work_order` that its service level, its proof and its figures need."""
    return (
        Column("subject", Text, nullable=False, server_default="", index=True),  # key of the alarm, cause of the need
        Column("limit_ms", Ms, nullable=False, server_default=text("0")),  # the cause's own; 0: that of the priority
        Column("clock_from", Ms, nullable=False, server_default=text("0")),  # when the service level began to count
        Column("acknowledge_by", Ms),
        Column("on_site_by", Ms),
        Column("paused_at", Ms),  # set while the clock stands still
        Column("paused_ms", Ms, nullable=False, server_default=text("0")),
        Column("told_overdue", Integer, nullable=False, server_default=text("0")),  # bits of the stages announced
        Column("told_nobody", Integer, nullable=False, server_default=text("0")),  # that nobody can take it
        Column("acknowledged_at", Ms),
        Column("on_site_at", Ms),
        Column("done_at", Ms),
        Column("verify_by", Ms),  # until when the device must be back to normal
        Column("verified_at", Ms),
        Column("scanned_at", Ms),
        Column("scanned_by", Text),
        Column("reopened", Integer, nullable=False, server_default=text("0")),
        Column("repeat_of", Text),  # the order after which the same fault came back within a day
        Column("to_latitude", Real),  # where what is picked up goes to
        Column("to_longitude", Real),
        Column("to_name", Text, nullable=False, server_default=""),
    )


order_note = table(
    "order_note",
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("order_id", Text, nullable=False, index=True),
    Column("at", Ms, nullable=False),
    Column("author", Text, nullable=False),
    Column("text", Text, nullable=False),
)

order_photo = table(  # the file lies in the data directory under its hash
    "order_photo",
    Column("id", Text, primary_key=True),
    Column("order_id", Text, nullable=False, index=True),
    Column("hash", Text, nullable=False),
    Column("at", Ms, nullable=False),
    Column("author", Text, nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("bytes", Integer, nullable=False),
    UniqueConstraint("order_id", "hash"),
)

device_code = table(  # the opaque text in the QR code on a device
    "device_code",
    Column("device_id", Text, primary_key=True),
    Column("code", Text, nullable=False, unique=True),
    Column("made_at", Ms, nullable=False),
)

crew_position = table(  # where somebody last was for certain: the device they scanned
    "crew_position",
    Column("person_id", Text, primary_key=True),
    Column("latitude", Real, nullable=False),
    Column("longitude", Real, nullable=False),
    Column("device_id", Text, nullable=False),
    Column("at", Ms, nullable=False),
)

preventive_plan = table(
    "preventive_plan",
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("skill", Text, nullable=False),
    Column("title_zh", Text, nullable=False),
    Column("title_en", Text, nullable=False),
    Column("instructions_zh", Text, nullable=False, server_default=""),
    Column("instructions_en", Text, nullable=False, server_default=""),
    Column("priority", Text, nullable=False),
    Column("period_days", Integer, nullable=False),
    Column("proves", Text, nullable=False, server_default=""),  # key of an alarm that must be over afterwards
    Column("enabled", Integer, nullable=False, server_default=text("1")),
    Column("created_at", Ms, nullable=False),
    Column("changed_at", Ms, nullable=False),
)

crew_plan = table(  # one planning of all open work
    "crew_plan",
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("made_at", Ms, nullable=False),
    Column("signature", Text, nullable=False),  # of the work it was made for
    Column("reason", Text, nullable=False),
    Column("solver", Text, nullable=False),
    Column("solve_ms", Ms, nullable=False),
    Column("moved", Integer, nullable=False),  # planned jobs that changed person or order
    Column("unassigned", Text, nullable=False),  # JSON order → why
)

crew_round = table(
    "crew_round",
    Column("plan_id", Ms, primary_key=True),
    Column("person_id", Text, primary_key=True),
    Column("starts_at", Ms, nullable=False),
    Column("ends_at", Ms, nullable=False),
    Column("distance_m", Integer, nullable=False),
    Column("travel_s", Integer, nullable=False),
)

crew_stop = table(
    "crew_stop",
    Column("plan_id", Ms, primary_key=True),
    Column("person_id", Text, primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("order_id", Text, nullable=False),
    Column("act", Text, nullable=False),  # `visit`, `pickup`, `delivery`
    Column("latitude", Real, nullable=False),
    Column("longitude", Real, nullable=False),
    Column("arrives_at", Ms, nullable=False),
    Column("leaves_at", Ms, nullable=False),
    Column("late", Integer, nullable=False),  # 1: after the time its service level allows
    Index("crew_stop_by_order", "order_id", "plan_id"),
)
