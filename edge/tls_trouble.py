"""What a refused certificate means, in words for whoever has to mend it; docs/operations.md lists every line."""

import logging
import ssl
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from edge.link import IdentityRefusedError

_DAY_S: Final = 86_400

_REFUSALS: Final[Mapping[str, str]] = MappingProxyType({
    "certificate revoked": "the broker refuses this device's certificate: it was revoked; if the box is to stay in "
    "service, an admin makes a claim and the box is enrolled anew (fleet edge enrol)",
    "certificate expired": "the broker refuses this device's certificate: it has ended, or the broker's list of "
    "revoked ones has (then every device is refused: fleet pki crl); enrol the box anew (fleet edge enrol)",
    "unknown ca": "the broker refuses this device's certificate: it was signed by another installation; correct "
    "broker.host, or enrol the box here (fleet edge enrol)",
    "certificate required": "the broker wants a certificate and this box sent none; enrol it (fleet edge enrol)",
    "bad certificate": "the broker refuses this device's certificate as broken; enrol the box anew (fleet edge enrol)",
    "decrypt error": "the broker refuses this device's certificate: it and the key do not belong together; enrol the "
    "box anew (fleet edge enrol)",
})  # fmt: skip


class TlsTrouble(logging.Logger):
    """The MQTT library's log of one connection. A refusal after the handshake is told there and nowhere else."""

    def __init__(self, device_id: str) -> None:
        super().__init__(f"mqtt {device_id}", logging.WARNING)
        self.heard = ""
        self.on_refusal: Callable[[], None] | None = None
        """Called at once when the other side refused our certificate: the library would wait out its patience."""

    def handle(self, record: logging.LogRecord) -> None:
        """Keep what names TLS; the rest comes back as the error of the connection itself."""
        text = record.getMessage()
        if "SSL" in text:
            self.heard = text
            if self.on_refusal is not None and explained(text, "") is not None:
                self.on_refusal()


def explained(text: str, host: str) -> str | None:
    """What one side's refusal of the other's certificate means; None if `text` is about something else."""
    plain = text.lower().replace("_", " ")
    if "certificate verify failed" in plain:
        if "mismatch" in plain:
            return (
                f"the broker's certificate is not for {host!r}: correct broker.host, or issue the certificate for this "
                "name too (fleet pki server)"
            )
        return (
            f"the broker at {host!r} shows a certificate that this box does not trust: it is another installation's, "
            "or somebody is in between; correct broker.host, or enrol the box anew if the authority was replaced"
        )
    if "alert" not in plain:
        return None
    return next((words for alert, words in _REFUSALS.items() if alert in plain), None)


def refuse_ended_certificate(connection: Any, trusted_ms: int | None, host: str) -> None:
    """Check the dates of the broker's certificate by the cloud's time: the box's own clock may be years off.

    Before the first welcome of a start there is no such time, and the dates are not checked (ADR 0012).

    Raises:
        IdentityRefusedError: it has ended, or begins later than tomorrow.
    """
    if trusted_ms is None or not isinstance(connection, ssl.SSLSocket):
        return
    found = connection.getpeercert() or {}
    begins, ends = str(found.get("notBefore", "")), str(found.get("notAfter", ""))
    now_s = trusted_ms / 1000
    if ends and now_s > ssl.cert_time_to_seconds(ends):
        raise IdentityRefusedError(
            f"the certificate of the broker at {host!r} ended on {ends}: renew it on the server (fleet pki server)"
        )
    if begins and now_s < ssl.cert_time_to_seconds(begins) - _DAY_S:
        raise IdentityRefusedError(
            f"the certificate of the broker at {host!r} begins on {begins}: correct the server's clock"
        )
