"""What both series stores agree on about reading."""

from typing import Final

AGGREGATES: Final = frozenset({"mean", "min", "max", "last", "sum", "count"})


class FieldNotNumericError(ValueError):
    """The aggregate needs numbers: texts can only be counted, booleans not averaged or summed."""


def check_query(aggregate: str, step_ms: int) -> None:
    """Raise ValueError for what no store offers."""
    if aggregate not in AGGREGATES:
        raise ValueError(f"unknown aggregate {aggregate!r}; known: {', '.join(sorted(AGGREGATES))}")
    if step_ms < 1:
        raise ValueError(f"step of {step_ms} ms")
