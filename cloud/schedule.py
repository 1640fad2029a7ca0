"""Due times of devices: one entry per device, earliest first. The durable copy is `twin.next_due_at`."""

import heapq


class Schedule:
    """A heap with lazy deletion; an entry counts only while it is its device's current one."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, str]] = []
        self._current: dict[str, int] = {}

    def put(self, device_id: str, due_at: int | None) -> None:
        """Set, move or (None) remove the due time of a device."""
        if due_at is None:
            self._current.pop(device_id, None)
            return
        if self._current.get(device_id) == due_at:
            return
        self._current[device_id] = due_at
        heapq.heappush(self._heap, (due_at, device_id))

    @property
    def next_due(self) -> int | None:
        """Earliest due time of any device."""
        self._drop_stale()
        return self._heap[0][0] if self._heap else None

    def due(self, now_ms: int, count_max: int | None = None) -> list[str]:
        """Devices that are due, at most `count_max`, earliest first; each is removed and must be put again."""
        found: list[str] = []
        while count_max is None or len(found) < count_max:
            self._drop_stale()
            if not self._heap or self._heap[0][0] > now_ms:
                return found
            _, device_id = heapq.heappop(self._heap)
            del self._current[device_id]
            found.append(device_id)
        return found

    def _drop_stale(self) -> None:
        heap, current = self._heap, self._current
        while heap and current.get(heap[0][1]) != heap[0][0]:
            heapq.heappop(heap)
