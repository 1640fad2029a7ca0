"""Money: a double-entry ledger that only grows."""

from typing import Final

from sqlalchemy import CheckConstraint, Column, Connection, ForeignKey, Integer, Text, text
from sqlalchemy import event as sql_event

from cloud.tables.base import Id, Ms, metadata, table

ledger_account = table(
    "ledger_account",
    Column("id", Text, primary_key=True),  # `wallet:<person>`, `sales`, `rides`, `funding`
    Column("balance_fen", Ms, nullable=False, server_default=text("0")),
    Column("may_be_negative", Integer, nullable=False),
    CheckConstraint("may_be_negative = 1 OR balance_fen >= 0", name="ledger_balance_not_negative"),
)

ledger_transaction = table(
    "ledger_transaction",
    Column("id", Text, primary_key=True),  # derived from its cause, so that a repeat is refused
    Column("cause", Text, nullable=False),
    Column("at", Ms, nullable=False),
)

ledger_entry = table(
    "ledger_entry",
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("transaction_id", Text, ForeignKey("ledger_transaction.id"), nullable=False, index=True),
    Column("account_id", Text, ForeignKey("ledger_account.id"), nullable=False, index=True),
    Column("amount_fen", Ms, nullable=False),  # debit positive, credit negative; a transaction sums to zero
)


APPEND_ONLY: Final = ("ledger_transaction", "ledger_entry")


def append_only_statements(dialect: str) -> list[str]:
    """Triggers that refuse UPDATE and DELETE on the tables of `APPEND_ONLY`; for `sqlite` or `postgresql`."""
    if dialect == "sqlite":
        return [
            f"CREATE TRIGGER IF NOT EXISTS {name}_no_{verb.lower()} BEFORE {verb} ON {name} "
            f"BEGIN SELECT RAISE(ABORT, '{name} is append-only'); END"
            for name in APPEND_ONLY
            for verb in ("UPDATE", "DELETE")
        ]
    refuse = (
        "CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION USING MESSAGE = TG_TABLE_NAME || ' is append-only'; END $$"
    )
    return [
        refuse,
        *(
            f"CREATE OR REPLACE TRIGGER {name}_no_change BEFORE UPDATE OR DELETE ON {name} "
            "FOR EACH ROW EXECUTE FUNCTION refuse_change()"
            for name in APPEND_ONLY
        ),
    ]


@sql_event.listens_for(metadata, "after_create")
def _make_append_only(_target: object, connection: Connection, **_options: object) -> None:
    for statement in append_only_statements(connection.dialect.name):
        connection.exec_driver_sql(statement)
