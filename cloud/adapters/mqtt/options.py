"""Settings, counters and errors of the MQTT link."""

from dataclasses import dataclass
from pathlib import Path
from ssl import SSLContext


class LinkRefusedError(Exception):
    """The broker answered and said no: a refused CONNECT or a refused subscription."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiverOptions:
    """One connection to the broker. Times are real seconds: this is a network, not the business clock.

    `coalesce_s`: reading pauses for so long after each read, because behind a broker wake-ups cost more
    than messages. Zero for the connection that carries emergencies. After a read of less than `few_bytes` it
    pauses for `coalesce_few_s`, and what then waited completes a batch: at low rates one wake-up makes one.
    `patient_suffix`: messages on topics that end so may wait for a batch to fill; any other completes it.
    `held_max`: received and not yet committed messages at which reading stops; the broker then queues.
    """

    client_id: str
    host: str = "127.0.0.1"
    port: int = 1883
    unix_path: Path | None = None
    """Set: a Unix socket on the broker's own host, instead of host and port (decision 21)."""
    tls: SSLContext | None = None
    server_hostname: str | None = None
    username: str | None = None
    password: str | None = None

    keep_alive_s: int = 30
    connect_s_max: float = 10.0
    reconnect_base_s: float = 0.5
    reconnect_s_max: float = 1.0
    """Few processes connect, and until they do nobody hears a press: they knock often."""

    receive_max: int = 65_535
    held_max: int = 20_000
    coalesce_s: float = 0.010
    coalesce_few_s: float = 0.0
    """0: no difference is made."""
    few_bytes: int = 131_072
    """Less than a socket's buffer grows to: nothing is held back at the broker."""
    patient_suffix: str = ""
    packet_bytes_max: int = 262_144
    """Told to the broker, which drops larger packets by itself; four times the largest legal message."""
    filters_per_subscribe: int = 50

    publish_queue_max: int = 20_000
    """Messages to devices that are queued or not yet acknowledged by the broker."""
    publish_window_max: int = 1_000
    publish_expiry_s: int | None = 60
    """Message expiry at the broker; the signed payload has its own limit and does not depend on this."""


@dataclass(slots=True)
class LinkStatistics:
    """Counters since the start of the process, for metrics; plain numbers, so that the hot loop stays cheap."""

    connections: int = 0
    connections_failed: int = 0
    connections_lost: int = 0
    messages_received: int = 0
    messages_acknowledged: int = 0
    acknowledgements_stale: int = 0
    """For a connection that is gone, or given twice; not sent."""
    packets_salvaged: int = 0
    """PUBLISH packets whose properties the codec refused; topic and payload were read by hand."""
    reads: int = 0
    backpressure_pauses: int = 0
    published: int = 0
    publishes_dropped: int = 0
    """Refused at the bound `publish_queue_max`, or larger than the broker takes."""
    publishes_expired: int = 0
    """Past their time before the broker could take them."""
    publishes_refused: int = 0
    """Answered by the broker with an error."""
