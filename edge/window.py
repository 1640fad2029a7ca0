"""What of one lane is under way: go-back-N with a window, pure and without a clock of its own.

    mark ─┬─ rows[0] … rows[sent - 1]   sent, waiting for the application acknowledgement
          └─ rows[sent] …               known, not sent in this pass
                                        (the journal may hold more: `more_in_journal`)

Without an acknowledgement in time the lane goes back to mark + 1 and probes with that one message, slower each
time; the window opens again with the first progress. Emergencies are all under way at the same time and all go out
again together: the cloud takes each by its event id, so one that it never takes must not hide the others. Of them
only what this process sent counts as acknowledged: an answer meant for a lost storage must not drop a fresh press.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from edge.records import Row
from edge.timing import Timing
from fleet.envelope import Lane

_READ_AT_ONCE_MAX: Final = 256


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A row to send, the range to declare as evicted before it, and whether it was sent before."""

    row: Row
    evicted_from: int | None
    repeated: bool


class LaneWindow:
    """The sender's side of one lane. Times are monotonic seconds given by the caller."""

    def __init__(self, lane: Lane, timing: Timing, mark: int, jitter: Callable[[], float]) -> None:
        """`jitter` gives a factor around 1, so that devices do not resend in step."""
        self.lane = lane
        self.mark = mark
        self.more_in_journal = True
        self.strikes = 0
        """Time-outs of the oldest message after which the cloud proved to be alive."""
        self._timing = timing
        self._jitter = jitter
        self._rows: deque[Row] = deque()
        self._reading: object | None = None
        self._sent = 0
        self._urgent = lane is Lane.EMERGENCY
        self._capacity = timing.emergencies_under_way_max if self._urgent else timing.window_messages_max
        self._limit = self._capacity
        self._timeouts = 0
        self._timed_out_since_proof = False
        self.highest_taken = mark
        """The highest seq that was given out to be sent since the start, or acknowledged."""
        self._published = mark
        self._claimable = mark
        self._stuck_since_s: float | None = None
        self._went_back_s = float("-inf")
        self._sent_again_s = float("-inf")
        self._raised_s = float("-inf")
        self.deadline_s: float | None = None
        """When `expire` wants to be called."""

    # --- rows in ---------------------------------------------------------------------------------------------

    def offer(self, row: Row) -> None:
        """A row became durable; it is kept here if it directly follows what is here and fits."""
        if self._reading or self.more_in_journal or len(self._rows) >= self._capacity:
            self.more_in_journal = True
        elif row.seq > self.last_known:
            self._rows.append(row)

    @property
    def last_known(self) -> int:
        """The highest seq that is here or acknowledged; what follows is at most in the journal."""
        return self._rows[-1].seq if self._rows else self.mark

    def begin_reading(self) -> tuple[object, int, int] | None:
        """(token for `fill`, seq to read after, how many rows), or None if the journal has nothing that fits here."""
        room = min(_READ_AT_ONCE_MAX, self._capacity - len(self._rows))
        if not self.more_in_journal or room <= 0:
            return None
        self.more_in_journal = False  # unless something is offered while the journal is being read
        self._reading = object()
        return self._reading, self.last_known, room

    def fill(self, token: object, rows: Sequence[Row], *, more: bool) -> None:
        """Rows that were read; `more` if the journal may have further ones. Ignored if `reload` came between."""
        if token is not self._reading:
            return
        self._reading = None
        for row in rows:
            if row.seq > self.last_known:
                self._rows.append(row)
        self.more_in_journal = self.more_in_journal or more

    def reload(self, mark: int) -> None:
        """Forget all rows (they were renumbered) and read the journal again after `mark`."""
        self._rows.clear()
        self._reading = None
        self.more_in_journal = True
        self.mark = self.highest_taken = self._published = self._claimable = mark
        self.restart()

    # --- rows out ----------------------------------------------------------------------------------------------

    @property
    def head(self) -> Row | None:
        """The oldest unacknowledged row, as far as it is in memory."""
        return self._rows[0] if self._rows else None

    @property
    def waiting(self) -> bool:
        """Whether a row could be sent now."""
        return self._sent < min(self._limit, len(self._rows))

    @property
    def flows(self) -> bool:
        """Whether everything journalled is here, and less than half of what may be under way."""
        return not self.more_in_journal and self._reading is None and len(self._rows) < self._capacity // 2

    def take(self, now_s: float) -> Outgoing | None:
        """The next row to send; it counts as sent at `now_s`."""
        if not self.waiting:
            return None
        row = self._rows[self._sent]
        previous = self._rows[self._sent - 1].seq if self._sent else self.mark
        if self._sent == 0:
            self._stuck_since_s = now_s if self._stuck_since_s is None else self._stuck_since_s
        self._sent += 1
        if self.deadline_s is None:
            self.deadline_s = now_s + self._patience_s()
        repeated = row.seq <= self.highest_taken
        self.highest_taken = max(self.highest_taken, row.seq)
        self._claimable = max(self._claimable, row.seq)
        return Outgoing(row, previous + 1 if row.seq > previous + 1 else None, repeated)

    def published(self, seq: int) -> None:
        """The broker has the message."""
        self._published = max(self._published, seq)

    def _patience_s(self) -> float:
        first, most = self._timing.resend_first_s[self.lane], self._timing.resend_most_s[self.lane]
        doublings = min(self._timeouts, 16)
        if self._urgent:
            doublings = max(min(doublings, 1), doublings - self._timing.urgent_resends)
        seconds = min(most, first * 2.0**doublings)
        if self._urgent and self._timeouts:  # bounds the rate at which many go out again
            seconds *= max(1.0, len(self._rows) / self._timing.window_messages_max)
        if self._urgent and self._timeouts > self._timing.urgent_resends:
            seconds *= self._jitter() ** 4
        return seconds * self._jitter()

    def restart(self) -> None:
        """A new connection: everything unacknowledged goes out again."""
        if self._reading is not None:  # the reader may have been cancelled with its connection
            self._reading = None
            self.more_in_journal = True
        self._sent = 0
        self._limit = self._capacity
        self._claimable = max(self.mark, self._published)  # what broke off may never have left
        self._timed_out_since_proof = False  # silence of a broken connection is no silence of the cloud
        self.deadline_s = None

    def expire(self, now_s: float) -> bool:
        """Whether the acknowledgement is overdue; then the lane has gone back.

        It probes with its oldest message; emergencies all go out again.
        """
        if self.deadline_s is None or now_s < self.deadline_s:
            return False
        self._timeouts += 1
        self._timed_out_since_proof = True
        self._sent = 0
        self._limit = self._capacity if self._urgent else 1
        self.deadline_s = None
        return True

    # --- what the cloud says -----------------------------------------------------------------------------------

    def acknowledge(self, mark: int, now_s: float) -> list[Row]:
        """Everything up to `mark` is committed; the rows of it that were in memory. A lower mark is an old message."""
        if self._urgent:
            mark = min(mark, self._claimable)
        if mark <= self.mark:
            return []
        done: list[Row] = []
        while self._rows and self._rows[0].seq <= mark:
            done.append(self._rows.popleft())
        self.mark = mark
        self._raised_s = now_s
        self._sent = max(0, self._sent - len(done))
        self._limit = self._capacity
        self._timeouts = self.strikes = 0
        self._timed_out_since_proof = False
        self._stuck_since_s = None
        self.deadline_s = now_s + self._patience_s() if self._sent else None
        return done

    def go_back(self, now_s: float) -> bool:
        """The cloud saw a gap: send again from mark + 1, at most once per `go_back_pause_s`.

        The deadline stays: a message that never gets through must not look alive because others behind it do.
        """
        if self._urgent and self._timeouts:  # one the cloud never takes: the deadline alone sends all of them again
            return False
        if now_s - self._went_back_s < self._timing.go_back_pause_s:
            return False
        self._went_back_s = now_s
        self._sent = 0
        return True

    def send_all_again(self, now_s: float) -> None:
        """There is a reason to, and no need to wait for the deadline; at most once per `hello_retry_s`."""
        if now_s - self._sent_again_s >= self._timing.hello_retry_s:
            self._sent_again_s = now_s
            self._timeouts = self._sent = 0
            self.deadline_s = None

    def settle(self, mark: int, asked_s: float, now_s: float) -> list[Row]:
        """The cloud's mark from the welcome to a hello of `asked_s`; counts strikes.

        It may lie before ours if the cloud lost what it had: then the next message declares what is gone here. A mark
        raised after the question was asked is merely newer than the answer.
        """
        if self._timed_out_since_proof and mark <= self.mark:
            self.strikes += 1
            self._timed_out_since_proof = False
            if self._urgent and self._timeouts > self._timing.urgent_resends:  # it hears us: out of the long pause
                self._sent, self.deadline_s = 0, None
        if mark < self.mark and self._raised_s < asked_s:
            self.mark = mark
            self.restart()
        return self.acknowledge(mark, now_s)

    def stuck(self, now_s: float) -> bool:
        """Whether the oldest message was refused in silence for so long that it must not block the lane any more."""
        return (
            self._stuck_since_s is not None
            and self.strikes >= self._timing.stuck_strikes_max
            and now_s - self._stuck_since_s >= self._timing.stuck_s[self.lane]
        )

    def drop_head(self) -> Row:
        """Take the oldest row out; the next one declares its seq as evicted."""
        row = self._rows.popleft()
        self._sent = max(0, self._sent - 1)
        self._timeouts = self.strikes = 0
        self._stuck_since_s = None
        self._limit = self._capacity
        self.deadline_s = None
        return row
