"""What feeds the history in the time series: how far it came, and logs of what is otherwise overwritten.

`alarm_transition`, `call_transition`, `work_order_transition` and `purchase_step` are logs already. A ride and a
command are one row that changes: triggers write each of its steps down, in the transaction that makes it, whatever
part of the code that was.
"""

from typing import Final

from sqlalchemy import Column, Connection, Index, LargeBinary, Text
from sqlalchemy import event as sql_event

from cloud.tables.base import Id, Ms, metadata, table

history_mark = table(  # per followed table: every row up to `position` is in the series, or in `pending`
    "history_mark",
    Column("name", Text, primary_key=True),
    Column("position", Ms, nullable=False),
    Column("pending", LargeBinary),  # points of the latest rows, exactly as they are to be written (again)
)

history_sample = table(  # samples on their way into the series; deleted when they are there
    "history_sample",
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("at", Ms, nullable=False),
    Column("points", LargeBinary, nullable=False),  # JSON of cloud.history.steps.HistoryPoint
)

ride_step = table(
    "ride_step",
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("ride_id", Text, nullable=False),
    Column("before", Text, nullable=False),
    Column("after", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("flagged", Text, nullable=False),
    Column("at", Ms, nullable=False),
    Index("ride_step_by_time", "at"),
)

command_step = table(
    "command_step",
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("command_id", Text, nullable=False),
    Column("device_id", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("issued_at", Ms, nullable=False),
    Column("at", Ms, nullable=False),
    Index("command_step_by_time", "at"),
)

FOLLOWED: Final = (
    "alarm_transition",
    "call_transition",
    "command_step",
    "history_sample",
    "purchase_step",
    "ride_step",
    "work_order_transition",
)
"""Tables the feed follows by the id of their rows."""

_IDS_RETURN: Final = (
    "CREATE TRIGGER IF NOT EXISTS {0}_ids_return AFTER DELETE ON {0} BEGIN UPDATE history_mark "
    "SET position = (SELECT coalesce(max(id), 0) FROM {0}) WHERE name = '{0}' "
    "AND position > (SELECT coalesce(max(id), 0) FROM {0}); END"
)
_RIDE: Final = (
    "INSERT INTO ride_step (ride_id, before, after, reason, flagged, at) "
    "VALUES (NEW.id, {before}, NEW.state, NEW.reason, NEW.flagged, NEW.changed_at);"
)
_COMMAND: Final = (
    "INSERT INTO command_step (command_id, device_id, action, status, reason, issued_at, at) "
    "VALUES (NEW.id, NEW.device_id, NEW.action, NEW.status, NEW.reason, NEW.issued_at, NEW.changed_at);"
)
_RIDE_MOVED: Final = "OLD.state <> NEW.state OR OLD.flagged <> NEW.flagged"
_COMMAND_MOVED: Final = "OLD.status <> NEW.status"


def history_statements(dialect: str) -> list[str]:
    """Triggers, for `sqlite` or `postgresql`: the steps of rides and commands; on SQLite also the marks.

    SQLite gives the id of a deleted last row to the next one: where the last rows of a followed table are deleted,
    its mark goes back with them, or the next row would count as followed already.
    """
    if dialect == "sqlite":
        return [
            f"CREATE TRIGGER IF NOT EXISTS ride_begins AFTER INSERT ON ride BEGIN {_RIDE.format(before=repr(''))} END",
            (
                f"CREATE TRIGGER IF NOT EXISTS ride_moves AFTER UPDATE ON ride WHEN {_RIDE_MOVED} "
                f"BEGIN {_RIDE.format(before='OLD.state')} END"
            ),
            f"CREATE TRIGGER IF NOT EXISTS command_begins AFTER INSERT ON command BEGIN {_COMMAND} END",
            (
                f"CREATE TRIGGER IF NOT EXISTS command_moves AFTER UPDATE ON command WHEN {_COMMAND_MOVED} "
                f"BEGIN {_COMMAND} END"
            ),
            *(_IDS_RETURN.format(name) for name in FOLLOWED),
        ]
    ride = (
        f"IF TG_OP = 'INSERT' THEN {_RIDE.format(before=repr(''))} ELSIF {_RIDE_MOVED} THEN "
        f"{_RIDE.format(before='OLD.state')} END IF;"
    )
    command = f"IF TG_OP = 'INSERT' THEN {_COMMAND} ELSIF {_COMMAND_MOVED} THEN {_COMMAND} END IF;"
    return [
        statement
        for name, body in (("ride", ride), ("command", command))
        for statement in (
            (
                f"CREATE OR REPLACE FUNCTION note_{name}_step() RETURNS trigger LANGUAGE plpgsql AS "
                f"$$ BEGIN {body} RETURN NULL; END $$"
            ),
            (
                f"CREATE OR REPLACE TRIGGER {name}_moves AFTER INSERT OR UPDATE ON {name} "
                f"FOR EACH ROW EXECUTE FUNCTION note_{name}_step()"
            ),
        )
    ]


@sql_event.listens_for(metadata, "after_create")
def _follow(_target: object, connection: Connection, **_options: object) -> None:
    for statement in history_statements(connection.dialect.name):
        connection.exec_driver_sql(statement)
