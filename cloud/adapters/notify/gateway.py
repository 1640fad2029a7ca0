"""SMS and voice over the HTTP interface of a provider: one request per message, described by a template."""

import json
from collections.abc import Mapping
from typing import Any, Final

from cloud.adapters.notify import words
from cloud.adapters.notify.http_channel import HttpChannel
from cloud.model import Notification, Recipient
from cloud.ports import AddressRefusedError, NotDeliveredError

TEXT_CHARACTERS_MAX: Final = 300
"""A text message of several parts; a voice reads it in half a minute."""
_ADDRESS_FAULTS: Final = frozenset({400, 404, 410, 422})
NAMES: Final = ("address", "text", "language", "delivery_id")


class GatewayChannel(HttpChannel):
    """Delivered means any 2xx. 400, 404, 410 and 422 speak of the number; everything else of the gateway."""

    def __init__(
        self,
        name: str,
        url: str,
        body: str,
        *,
        headers: str = "{}",
        link: words.Link,
        method: str = "POST",
        allow_private: bool = False,
        timeout_s: float = 8.0,
    ) -> None:
        """`body`: JSON in whose texts `{address}`, `{text}`, `{language}` and `{delivery_id}` are filled in.

        Raises:
            ValueError: `body` or `headers` is no JSON object, or the body has no place for the address and the text.
        """
        super().__init__(allow_private=allow_private, timeout_s=timeout_s)
        self.name = name
        self._url = url
        self._template = _object(body, f"{name}_body")
        if not all(f"{{{needed}}}" in body for needed in ("address", "text")):
            raise ValueError(f"{name}_body needs {{address}} and {{text}}")
        given = _object(headers, f"{name}_headers")
        self._headers = {"Content-Type": "application/json", **{key: str(value) for key, value in given.items()}}
        self._link = link
        self._method = method

    async def send_to(self, notification: Notification, recipient: Recipient, *, delivery_id: str) -> None:
        """Raises AddressRefusedError for a number that the gateway refuses, NotDeliveredError for all else."""
        filled = {
            "address": recipient.address,
            "text": message(notification, recipient.language, self._link),
            "language": words.language_of(recipient.language),
            "delivery_id": delivery_id,
        }
        body = json.dumps(_filled(self._template, filled), ensure_ascii=False).encode()
        status = await self._request(self._url, body, self._headers, method=self._method)
        if status in _ADDRESS_FAULTS:
            raise AddressRefusedError(f"HTTP {status}: the gateway refuses this number")
        if not 200 <= status < 300:
            raise NotDeliveredError(f"HTTP {status}")


def message(notification: Notification, language: str, link: words.Link) -> str:
    """Heading, first facts and where to answer, short enough for a text message."""
    end = link(notification)
    text = f"{words.heading(notification, language)}\n{words.text(notification, language)}"
    room = TEXT_CHARACTERS_MAX - len(end) - 1
    return f"{text[:room].rstrip()}\n{end}".rstrip()


def _object(text: str, name: str) -> dict[str, Any]:
    try:
        found: Any = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ValueError(f"{name} must be a JSON object")  # noqa: TRY004  # one error for every wrong setting
    return found


def _filled(template: Any, words_by_name: Mapping[str, str]) -> Any:
    """The template with its names filled in; only texts hold names, so nothing can break out of its place."""
    if isinstance(template, dict):
        return {key: _filled(value, words_by_name) for key, value in template.items()}
    if isinstance(template, list):
        return [_filled(value, words_by_name) for value in template]
    if not isinstance(template, str):
        return template
    parts = template
    if parts.strip() in {f"{{{name}}}" for name in NAMES}:
        return words_by_name[parts.strip()[1:-1]]
    for name in NAMES:
        parts = parts.replace(f"{{{name}}}", words_by_name[name].replace("{", "("))
    return parts
