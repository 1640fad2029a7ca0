"""What a file of either format says, before it is compared with the database."""

from dataclasses import dataclass, field
from typing import Final

from cloud.roster.duty import DUTY_MANAGER, ON_CALL, SECOND_CREW
from fleet.kind import Text

BYTES_MAX: Final = 1_000_000
PLANS_MAX: Final = 2000

TIER_TEXTS: Final = {
    ON_CALL: Text("当班", "On call"),
    SECOND_CREW: Text("第二梯队", "Second crew"),
    DUTY_MANAGER: Text("值班经理", "Duty manager"),
}
_TIER_WORDS: Final = {
    **{tier: tier for tier in TIER_TEXTS},
    **{text.zh: tier for tier, text in TIER_TEXTS.items()},
    **{text.en.lower().replace(" ", "_"): tier for tier, text in TIER_TEXTS.items()},
    "当班人员": ON_CALL,
}


@dataclass(frozen=True, slots=True)
class Draft:
    """One plan as a file has it. Exactly one of `person` (login, id or name) and `crew` (id or name) is set."""

    line: int
    id: str
    tier: str
    person: str
    crew: str
    calendar: str
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class BadLine:
    """What is wrong with one line, counted from 1 as editors do, and how to mend it."""

    line: int
    why: Text
    fix: Text


@dataclass(slots=True)
class Reading:
    """All of a file: nothing is imported while `bad` holds anything."""

    drafts: list[Draft] = field(default_factory=list)
    bad: list[BadLine] = field(default_factory=list)

    def refuse(self, line: int, why: Text, fix: Text) -> None:
        """Note a bad line."""
        self.bad.append(BadLine(line, why, fix))


def tier_of(text: str) -> str | None:
    """The tier somebody wrote, in either language."""
    return _TIER_WORDS.get(text.strip().lower().replace(" ", "_"))


UNKNOWN_TIER_FIX: Final = Text(
    "写 当班（on_call）、第二梯队（second_crew）或 值班经理（duty_manager）",
    "write on_call, second_crew or duty_manager",
)
