"""Jinja environments, one per language, and the filters the pages share."""

import json
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

from babel.dates import format_datetime, format_timedelta
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from cloud.web.language import LANGUAGES, translations
from cloud.web.refusals import refusal
from cloud.web.words import explain, word
from fleet.clock import MILLISECONDS_PER_SECOND
from fleet.units import FEN_PER_YUAN

TIME_ZONE: Final = ZoneInfo("Asia/Shanghai")
_TEMPLATES: Final = Path(__file__).parent / "templates"
STATIC: Final = Path(__file__).parent / "static"


@cache
def environment(language: str) -> Environment:
    """Templates in one language; undefined names raise, everything is escaped."""
    made = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        extensions=["jinja2.ext.i18n"],
        trim_blocks=True,
        lstrip_blocks=True,
    )
    catalogue = translations(language)
    made.install_gettext_translations(catalogue, newstyle=True)  # type: ignore[attr-defined]  # added by the extension

    def moment(at_ms: int | None, style: str = "MM-dd HH:mm:ss") -> str:
        if at_ms is None:
            return "—"
        at = datetime.fromtimestamp(at_ms / MILLISECONDS_PER_SECOND, tz=UTC)
        return format_datetime(at, style, tzinfo=TIME_ZONE, locale=language)

    def duration(milliseconds: int) -> str:
        seconds = timedelta(seconds=max(0, milliseconds) // MILLISECONDS_PER_SECOND)
        return format_timedelta(seconds, locale=language, format="short", threshold=2)

    def yuan(fen: int) -> str:
        return f"¥{fen / FEN_PER_YUAN:.2f}"

    made.filters.update(
        moment=moment,
        duration=duration,
        yuan=yuan,
        word=lambda name: word(catalogue, language, name),
        refusal=lambda reason: refusal(catalogue, reason),
        text=lambda text: text.zh if language.startswith("zh") else text.en,
        explain=lambda problem: explain(catalogue, problem.code, problem.detail or problem.title),
        compact_json=lambda value: json.dumps(value, ensure_ascii=False),
    )
    made.globals.update(language=language, languages=LANGUAGES)
    return made


def render(template: str, language: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A page."""
    return HTMLResponse(environment(language).get_template(template).render(**values), status)
