"""Ends a device's live session: a connection of ours with its client id takes the session over, and leaves.

On the devices' listener the client id is the identity of the certificate, so nobody else can do this; on the
listener of the services client ids are free, and session takeover is plain MQTT on any broker. With a clean start and
an expiry of 0 nothing of the old session is left: neither subscriptions nor queued messages come back with it.
"""

import asyncio
from dataclasses import replace
from typing import Final

import structlog

from cloud.adapters.mqtt.connection import Connection
from cloud.adapters.mqtt.inbox import Inbox
from cloud.adapters.mqtt.options import LinkRefusedError, LinkStatistics, ReceiverOptions
from fleet.topics import is_device_id

_log = structlog.get_logger(__name__)

END_S_MAX: Final = 5.0
_PACKET_BYTES_MAX: Final = 2048


class SessionEndError(Exception):
    """The broker could not be reached or refused: the device may still be connected. Try again."""


async def end_session(options: ReceiverOptions, device_id: str) -> None:
    """Disconnect `device_id` from the broker if it is connected, and drop its stored session.

    `options` are those of any connection of ours on the services' listener. Returns when the broker has
    confirmed the takeover, which is after it has closed the device's connection. A device that is still
    allowed in comes back at once: revoke first.

    Raises:
        ValueError: `device_id` is no device id; nobody else's session is ever touched.
        SessionEndError: not confirmed.
    """
    if not is_device_id(device_id):
        raise ValueError(f"{device_id!r} is no device id")
    own = replace(options, client_id=device_id, receive_max=1, packet_bytes_max=_PACKET_BYTES_MAX, coalesce_s=0.0)
    connection = Connection(
        1, own, Inbox(), statistics=LinkStatistics(), on_published=lambda _: None, on_writable=lambda: None
    )
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(END_S_MAX):
            if own.unix_path is not None:
                await loop.create_unix_connection(lambda: connection, str(own.unix_path))
            else:
                await loop.create_connection(
                    lambda: connection, own.host, own.port, ssl=own.tls,
                    server_hostname=(own.server_hostname or own.host) if own.tls is not None else None,
                )  # fmt: skip
            await connection.accepted
            connection.disconnect()
            await connection.closed
    except (OSError, TimeoutError, LinkRefusedError) as error:
        connection.abort("gave up ending a session")
        raise SessionEndError(f"{own.host}:{own.port}: {str(error) or type(error).__name__}") from error
    _log.info("session ended", device=device_id)
