"""Words for people: gettext catalogues, read from the committed `.po` files when the process starts.

Messages are written in English in the sources; `locale/<language>/LC_MESSAGES/fleet.po` translates them.
"""

import gettext
import io
from functools import cache
from pathlib import Path
from typing import Final

from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from fastapi import Request

from cloud.api.access import Person

LANGUAGES: Final = {"zh_CN": "中文", "en": "English"}
DEFAULT_LANGUAGE: Final = "zh_CN"
LANGUAGE_COOKIE: Final = "fleet-language"
CATALOGUES: Final = Path(__file__).parent / "locale"


@cache
def translations(language: str) -> gettext.NullTranslations:
    """The catalogue of a language; English is the source and has none."""
    path = CATALOGUES / language / "LC_MESSAGES" / "fleet.po"
    if not path.is_file():
        return gettext.NullTranslations()
    with path.open("rb") as file:
        catalogue = read_po(file, locale=language)
    compiled = io.BytesIO()
    write_mo(compiled, catalogue)
    compiled.seek(0)
    return gettext.GNUTranslations(compiled)


def language_of(request: Request, person: Person | None) -> str:
    """A person's own setting, else what was chosen before signing in, else the browser's wish."""
    if person is not None and person.language in LANGUAGES:
        return person.language
    chosen = request.cookies.get(LANGUAGE_COOKIE, "")
    return chosen if chosen in LANGUAGES else _wished(request.headers.get("accept-language", ""))


def _wished(accept_language: str) -> str:
    wishes = []
    for part in accept_language.split(",")[:20]:
        tag, _, quality = part.strip().partition(";q=")
        try:
            weight = float(quality) if quality else 1.0
        except ValueError:
            continue
        wishes.append((weight, tag.lower()))
    for _, tag in sorted(wishes, key=lambda wish: -wish[0]):
        if tag.startswith("zh"):
            return "zh_CN"
        if tag.startswith("en"):
            return "en"
    return DEFAULT_LANGUAGE
