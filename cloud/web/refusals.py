"""Why a message was set aside, in the reader's language: the ingester's sentences, which are stored as they were."""

import re
from gettext import NullTranslations
from typing import Final


def _(text: str) -> str:
    """Marks a message for extraction."""
    return text


_SENTENCES: Final = tuple(
    (re.compile(pattern), sentence)
    for pattern, sentence in (
        (r"time stamp is (?P<count>\d+) s in the future", _("The time stamp is %(count)s s in the future")),
        (r"time stamp is (?P<count>\d+) days old", _("The time stamp is %(count)s days old")),
        (r"(?P<device>\S+) is retired", _("%(device)s is retired")),
        (r"(?P<device>\S+) is revoked: enrol it anew", _("%(device)s is revoked: enrol it anew")),
        (
            r"(?P<device>\S+) is enrolled as (?P<kind>\w+), not (?P<other>\w+)",
            _("%(device)s is enrolled as %(kind)s, not %(other)s"),
        ),
        (r"unknown device '?(?P<device>[^']+)'?: enrol it first", _("Unknown device %(device)s: enrol it first")),
        (r"unknown kind '?(?P<kind>[^']+)'?: no folder offers it", _("Unknown kind %(kind)s")),
        (
            r"topic says '?(?P<device>[^',]+)'?, the message says '?(?P<other>[^']+)'?",
            _("Sent under the name of %(device)s, the message says %(other)s"),
        ),
        (r"envelope version (?P<count>\d+) is not accepted.*", _("Message version %(count)s is not accepted")),
        (r"(?P<count>\d+) bytes, more than (?P<most>\d+)", _("%(count)s bytes, more than %(most)s")),
        (r"JSON is malformed.*|Input data was truncated.*|Invalid JSON.*", _("The message is damaged")),
    )
)


def refusal(catalogue: NullTranslations, reason: str) -> str:
    """`reason` in the reader's language; one that nobody translated as it is, because it names the field."""
    for pattern, sentence in _SENTENCES:
        found = pattern.fullmatch(reason)
        if found is not None:
            return catalogue.gettext(sentence) % found.groupdict()
    return reason
