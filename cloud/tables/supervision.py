"""How the emergency buttons are watched over, and what keeps an open call from ending anywhere but at its origin."""

from typing import Final

from sqlalchemy import Column, Connection, Index, Integer, Text, UniqueConstraint
from sqlalchemy import event as sql_event

from cloud.tables.base import Id, Ms, metadata, table

proof_test = table(  # each time a button was shown to work, or not to
    "proof_test",
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("device_id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("at", Ms, nullable=False),
    Column("received_at", Ms, nullable=False),
    Column("how", Text, nullable=False),  # the type of the event: `self_test_result`, `pressed`
    Column("passed", Integer, nullable=False),
    Column("failure", Text, nullable=False, server_default=""),
    Column("event_id", Text, nullable=False),
    UniqueConstraint("device_id", "event_id"),
    Index("proof_test_by_device", "device_id", "received_at"),
)

substitute_measure = table(  # how help is called while a button is out of order
    "substitute_measure",
    Column("id", Text, primary_key=True),
    Column("device_id", Text, nullable=False),
    Column("measure", Text, nullable=False),
    Column("responsible", Text, nullable=False),
    Column("from_at", Ms, nullable=False),
    Column("until_at", Ms, nullable=False),
    Column("recorded_by", Text, nullable=False),
    Index("substitute_measure_by_device", "device_id", "until_at"),
)


def call_guard_statements(dialect: str) -> list[str]:
    """Triggers: no call becomes cleared without its room's own `clear_at_origin`, and no open call is deleted.

    For `sqlite` or `postgresql`. They are a second lock: the code has no such statement.
    """
    proven = (
        "SELECT 1 FROM call_transition t WHERE t.call_id = OLD.id AND t.step = 'clear_at_origin' "
        "AND t.after = 'cleared' AND t.event_id <> '' AND t.actor = ''"
    )
    cleared = "a call is cleared only at its origin"
    deleted = "an open call cannot be deleted"
    if dialect == "sqlite":
        return [
            (
                "CREATE TRIGGER IF NOT EXISTS call_cleared_at_origin BEFORE UPDATE ON call "
                f"WHEN NEW.state = 'cleared' AND OLD.state <> 'cleared' AND NOT EXISTS ({proven}) "
                f"BEGIN SELECT RAISE(ABORT, '{cleared}'); END"
            ),
            (
                "CREATE TRIGGER IF NOT EXISTS call_open_stays BEFORE DELETE ON call WHEN OLD.state <> 'cleared' "
                f"BEGIN SELECT RAISE(ABORT, '{deleted}'); END"
            ),
        ]
    return [
        (
            "CREATE OR REPLACE FUNCTION guard_call() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            f"IF TG_OP = 'DELETE' THEN IF OLD.state <> 'cleared' THEN RAISE EXCEPTION '{deleted}'; END IF; RETURN OLD; "
            f"END IF; IF NEW.state = 'cleared' AND OLD.state <> 'cleared' AND NOT EXISTS ({proven}) "
            f"THEN RAISE EXCEPTION '{cleared}'; END IF; RETURN NEW; END $$"
        ),
        (
            "CREATE OR REPLACE TRIGGER call_cleared_at_origin BEFORE UPDATE OR DELETE ON call "
            "FOR EACH ROW EXECUTE FUNCTION guard_call()"
        ),
        (
            "CREATE OR REPLACE FUNCTION guard_calls() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "PERFORM 1 FROM call WHERE state <> 'cleared'; "
            f"IF FOUND THEN RAISE EXCEPTION '{deleted}'; END IF; RETURN NULL; END $$"
        ),
        (
            "CREATE OR REPLACE TRIGGER call_not_emptied BEFORE TRUNCATE ON call "
            "FOR EACH STATEMENT EXECUTE FUNCTION guard_calls()"
        ),
    ]


PURPOSES: Final = ("help", "test", "synthetic")
"""Of `call.purpose`: somebody needs help, a button is being tested, the deployment calls itself."""


@sql_event.listens_for(metadata, "after_create")
def _guard_calls(_target: object, connection: Connection, **_options: object) -> None:
    for statement in call_guard_statements(connection.dialect.name):
        connection.exec_driver_sql(statement)
