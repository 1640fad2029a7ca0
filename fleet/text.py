"""Words for people."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Text:
    """The same words for people in both languages."""

    zh: str
    en: str

    def in_language(self, language: str) -> str:
        """`zh…` gives Chinese, everything else English."""
        return self.zh if language.startswith("zh") else self.en
