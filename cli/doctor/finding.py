"""One finding of `fleet doctor`, and how a look that fails becomes one."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

Verdict = Literal["ok", "warning", "problem"]
FOUND_CHARACTERS_MAX: Final = 300


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was looked at, what was found, and what to do about it."""

    check: str
    verdict: Verdict
    found: str
    fix: str = ""


def reason_of(error: BaseException) -> str:
    """What went wrong in one short line."""
    cause = getattr(error, "orig", None) or getattr(error, "reason", None) or error
    text = " ".join(str(cause).split()) or type(error).__name__
    return text[:FOUND_CHARACTERS_MAX]


def checked(check: str, look: Callable[[], str], fix: str) -> Finding:
    """What `look` found; whatever it raises is a problem with this fix."""
    try:
        return Finding(check, "ok", look())
    except Exception as error:  # noqa: BLE001  # whatever is wrong is the finding
        return Finding(check, "problem", reason_of(error), fix)


def guarded(check: str, findings: Callable[[], Iterable[Finding]], fix: str) -> Iterator[Finding]:
    """The findings of a group of checks; what none of them foresaw is a finding of its own and ends the group."""
    try:
        yield from findings()
    except Exception as error:  # noqa: BLE001  # a doctor explains, it does not fall over
        yield Finding(check, "problem", f"{type(error).__name__}: {reason_of(error)}", fix)
