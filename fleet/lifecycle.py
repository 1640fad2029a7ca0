"""Lifecycles as tables: (from, event) → to. Everything not in the table is illegal."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

State = TypeVar("State", bound=StrEnum)
Happening = TypeVar("Happening", bound=StrEnum)


class IllegalTransitionError(ValueError):
    """The event may not happen in this state; nothing was changed."""


@dataclass(frozen=True)
class Lifecycle(Generic[State, Happening]):
    """A named transition table.

    `final` states have no way out. The diagram in the docs and the test of every illegal transition
    are both made from `table`.
    """

    name: str
    initial: State
    table: Mapping[tuple[State, Happening], State]
    final: frozenset[State] = frozenset()

    def next(self, state: State, event: Happening) -> State:
        """The state after `event`; raises IllegalTransitionError."""
        following = self.table.get((state, event))
        if following is None:
            raise IllegalTransitionError(f"{self.name}: {event.value!r} is not possible in state {state.value!r}")
        return following

    def allows(self, state: State, event: Happening) -> bool:
        """Whether `event` may happen in `state`."""
        return (state, event) in self.table

    def reachable(self) -> frozenset[State]:
        """Every state that can be reached from the initial one."""
        seen = {self.initial}
        frontier: Iterable[State] = (self.initial,)
        while frontier:
            frontier = [to for (origin, _), to in self.table.items() if origin in frontier and to not in seen]
            seen.update(frontier)
        return frozenset(seen)

    def mermaid(self) -> str:
        """A Mermaid state diagram of the table."""
        lines = ["stateDiagram-v2", f"    [*] --> {self.initial.value}"]
        lines += [f"    {origin.value} --> {to.value}: {event.value}" for (origin, event), to in self.table.items()]
        lines += [f"    {state.value} --> [*]" for state in sorted(self.final)]
        return "\n".join(lines)
