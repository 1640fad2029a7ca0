"""Named points on the way of a message, at which a test may look on or end the process.

The code calls `reached` with a name of `MILESTONES`. In production nobody observes: the call is one comparison.
A composition root may install an observer (`fleet chaos`: ends the process with SIGKILL; the simulation: crashes
the simulated one). An observer is called on whatever thread comes by, and anything that it raises goes through.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Final

MILESTONES: Final[Mapping[str, str]] = MappingProxyType({
    "edge.journal.before_commit": "written to the journal's transaction, not yet durable",
    "edge.journal.after_commit": "durable on the device, not yet acknowledged to the hardware",
    "edge.reserve.after_write": "an emergency is durable in the reserve because the journal took nothing",
    "edge.uplink.after_publish": "the broker took it, the cloud has not acknowledged it",
    "edge.uplink.after_acknowledgement": "the cloud acknowledged it, the journal still holds it",
    "edge.command.after_remember": "the command's id is durable, nothing moved",
    "edge.command.before_execute": "the driver is about to be told",
    "edge.command.after_execute": "the hardware was told, the outcome is not known",
    "ingest.after_decode": "read, nothing stored",
    "ingest.after_spool_append": "telemetry written to the spool, not yet durable",
    "ingest.after_spool_sync": "telemetry durable in the spool, marks not committed",
    "ingest.after_twin_save": "the twins are in the SQL transaction, nothing else is",
    "ingest.before_sql_commit": "everything is in the SQL transaction, not yet committed",
    "ingest.after_sql_commit": "committed, the broker has no PUBACK",
    "ingest.before_puback": "durable, the broker has no PUBACK",
    "ingest.after_puback": "the broker forgets it, the device still waits for the acknowledgement",
    "ingest.before_acknowledgement": "the acknowledgement for the device is about to leave",
    "ingest.after_acknowledgement": "the acknowledgement was given to the link",
    "drain.after_series_write": "points are in the series, the position is not saved",
    "drain.after_position_save": "the position is saved, the spool is not released",
    "history.after_mark": "rows are followed and their points kept, the series has none of them",
    "history.after_series_write": "the points are in the series, and still kept to be written again",
    "dispatch.after_lease": "outbox rows are leased, nothing was sent",
    "dispatch.before_delivery": "a notification is about to be sent",
    "dispatch.after_delivery": "the receiver accepted, the outbox does not know",
    "dispatch.before_delivered_mark": "finished deliveries are about to be written down",
    "dispatch.after_delivered_mark": "deliveries are written down, their room is not free yet",
})  # fmt: skip
"""Name → what is true there."""

Observer = Callable[[str], None]

_observer: Observer | None = None


def reached(name: str) -> None:
    """Tell the observer, if there is one."""
    if _observer is not None:
        _observer(name)


def observe(observer: Observer | None) -> Observer | None:
    """Install `observer` for this process (None: nobody); returns the one before. For composition roots and tests."""
    global _observer  # one process has one observer, and a call must cost nothing without it
    before, _observer = _observer, observer
    return before


@contextmanager
def observed(observer: Observer) -> Iterator[None]:
    """`observer` for the length of a block."""
    before = observe(observer)
    try:
        yield
    finally:
        observe(before)
