"""What all tables share: one metadata, and types that mean the same on both databases."""

from sqlalchemy import (
    REAL,
    BigInteger,
    CheckConstraint,
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    Table,
    UniqueConstraint,
)
from sqlalchemy.types import TypeEngine

metadata = MetaData()

# SQLite makes a column the row id only for exactly INTEGER; PostgreSQL needs 64 bits.
Id: TypeEngine[int] = BigInteger().with_variant(Integer(), "sqlite")
Ms: TypeEngine[int] = BigInteger().with_variant(Integer(), "sqlite")
Real: TypeEngine[float] = Float(53).with_variant(REAL(), "sqlite")


def table(name: str, *items: Column[object] | Index | UniqueConstraint | CheckConstraint) -> Table:
    """A table of ours: STRICT on SQLite, so that a wrong type is refused there as well."""
    return Table(name, metadata, *items, sqlite_strict=True)
