"""The port between the agent and the network: any message service with topics, acknowledgements and a last will."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from fleet.envelope import Status
from fleet.topics import DownChannel, UpChannel


class LinkError(Exception):
    """The connection could not be made or has ended; nothing is known about what was under way."""


class RenewConnectionError(LinkError):
    """A new generation was granted: the next connection's last will must carry it."""


class IdentityRefusedError(LinkError):
    """One side does not accept the other's certificate. The text says whose, why, and what a person has to do."""


class Session(Protocol):
    """One connection."""

    async def publish(self, channel: UpChannel, payload: bytes) -> None:
        """Hand one message to the broker, at least once; returns when the broker has it. Raises LinkError."""
        ...

    def received(self) -> AsyncIterator[tuple[DownChannel, bytes]]:
        """What the cloud sends to this device. Raises LinkError when the connection ends."""
        ...


class Link(Protocol):
    """Makes connections for one device; nothing of an earlier connection lives on in the broker."""

    def connect(self, will: Status, keep_alive_s: int) -> AbstractAsyncContextManager[Session]:
        """A connection that is subscribed to the device's own channels; the broker publishes `will` if it breaks.

        Raises LinkError on entering.
        """
        ...


def leaf_of(errors: BaseExceptionGroup[LinkError]) -> BaseException:
    """The first single error in a group of groups."""
    found: BaseException = errors
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
