"""What a simulated room has to do, and when: at most one entry per name, taken in the order of time."""


class Agenda:
    """Named due times in ms. The names are a fixed, small set, so a plain scan is the fastest queue."""

    def __init__(self) -> None:
        self._due: dict[str, int] = {}

    def set(self, name: str, due_ms: int) -> None:
        """Do `name` at `due_ms` instead of whenever it was due before."""
        self._due[name] = due_ms

    def cancel(self, name: str) -> None:
        """Forget `name`, if it was due at all."""
        self._due.pop(name, None)

    def has(self, name: str) -> bool:
        """Whether `name` is due at some time."""
        return name in self._due

    @property
    def next_due_ms(self) -> int:
        """When the earliest entry is due; the agenda of a room is never empty."""
        return min(self._due.values())

    def take(self, now_ms: int) -> tuple[int, str] | None:
        """Remove and return the earliest (due, name) that is due by `now_ms`; ties go by name."""
        due_ms = min(self._due.values())
        if due_ms > now_ms:
            return None
        name = min([name for name, its_due_ms in self._due.items() if its_due_ms == due_ms])
        del self._due[name]
        return due_ms, name
