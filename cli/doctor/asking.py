"""Asking other programs over HTTP: an answer or a `NoAnswerError`, nothing else."""

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cli.doctor.finding import reason_of

ANSWER_S_MAX: Final = 5.0
BODY_BYTES_MAX: Final = 8 << 20


class NoAnswerError(Exception):
    """Nobody answered, or nothing that is HTTP; the text says why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, body and headers, whatever the status is."""

    status: int
    text: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def document(self) -> Any:
        """The JSON in it, or None if it is none."""
        try:
            return json.loads(self.text)
        except ValueError:
            return None


def ask(url: str, *, headers: Mapping[str, str] | None = None, body: bytes | None = None) -> Answer:
    """GET, or POST with a body. Raises NoAnswerError."""
    try:
        request = urllib.request.Request(url, data=body, headers=dict(headers or {}))
        try:
            with _opener().open(request, timeout=ANSWER_S_MAX) as answer:
                return _answer(answer.status, answer)
        except urllib.error.HTTPError as refusal:
            with refusal:
                return _answer(refusal.code, refusal)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise NoAnswerError(reason_of(error)) from error


def _opener() -> urllib.request.OpenerDirector:
    # Never through a proxy of the environment: what is asked stands in our own network.
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _answer(status: int, answer: Any) -> Answer:
    text = answer.read(BODY_BYTES_MAX).decode(errors="replace")
    return Answer(status, text, {name.lower(): value for name, value in answer.headers.items()})
