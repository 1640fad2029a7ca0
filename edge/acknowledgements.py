"""What an acknowledgement is worth: whether the cloud itself said it, and what becomes of the messages it refused."""

import logging
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress

from edge.journal import Journal
from edge.records import JournalFullError
from fleet.envelope import Acknowledgement
from fleet.signing import BadSignatureError, Verifier, verify_acknowledgement

_log = logging.getLogger(__name__)


def is_genuine(acknowledgement: Acknowledgement, device_id: str, verifiers: Mapping[str, Verifier]) -> bool:
    """Whether a trusted key signed it for this device; what did not may speak of telemetry alone (ADR 0015)."""
    if not acknowledgement.signature:
        return False
    try:
        verify_acknowledgement(acknowledgement, device_id, verifiers)
    except BadSignatureError:
        return False
    return True


async def keep_refused(
    journal: Journal, device_id: str, acknowledgement: Acknowledgement, counts: Counter[str]
) -> None:
    """Copy what the cloud refused, for people; the cloud has the original in quarantine."""
    for refused in acknowledgement.refused:
        counts["refused"] += 1
        name = f"{device_id}: {refused.lane.value} {refused.seq}"
        _log.error("%s refused by the cloud: %s", name, refused.reason)
        with suppress(JournalFullError):
            await journal.set_aside(device_id, refused.lane, refused.seq, refused.reason, remove=False)
