"""Pages of a list that grows: a mark is a row's place in its order, so rows of one moment are not lost."""

from typing import Annotated, Any, Final

from fastapi import Query
from sqlalchemy import ColumnElement, tuple_

from cloud.api.problem import ProblemError

SEPARATOR: Final = "."
DIGITS_MAX: Final = 15
MARK_LENGTH_MAX: Final = 200

Before = Annotated[
    str | None, Query(max_length=MARK_LENGTH_MAX, description="`next_before` of the page before, or a time in ms")
]


def mark(*place: int | str) -> str:
    """The place of a row: the numbers it is ordered by, most significant first, then its id."""
    return SEPARATOR.join(map(str, place))


def place_of(text: str, numbers: int = 1) -> tuple[Any, ...]:
    """What `mark` was made of: `numbers` numbers and an id, which is empty for a bare time.

    Raises:
        ProblemError: 422, the text is no mark of such a list.
    """
    *digits, last = text.split(SEPARATOR, numbers)
    if len(digits) < numbers:
        digits, last = [*digits, last], ""
    if len(digits) != numbers or not all(_is_number(one) for one in digits):
        raise ProblemError(422, "invalid_input", "Input not valid", "Take `next_before` as the page before gave it.")
    return (*map(int, digits), last)


def older(time: ColumnElement[Any], identity: ColumnElement[Any], before: str) -> ColumnElement[bool]:
    """Rows behind the mark `before` in a list ordered by time and id, both descending."""
    return tuple_(time, identity) < tuple_(*place_of(before))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= DIGITS_MAX
