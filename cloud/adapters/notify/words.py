"""Notifications as text for people: Chinese first, then English, from what the notification carries."""

from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import quote

from cloud.model import Notification

LANGUAGES: Final = ("zh", "en")
LISTED_MAX: Final = 20

_LINES: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "call": {
        "zh": ("地点：{device_name}（{device_id}）", "状态：{state_word}", "已通知：{asked}", "呼叫编号：{call_id}"),
        "en": ("Where: {device_name} ({device_id})", "State: {state_word}", "Asked: {asked}", "Call: {call_id}"),
    },
    "alarm": {
        "zh": (
            "地点：{device_name}（{device_id}）",
            "原因：{cause}",
            "后果：{consequence}",
            "处理：{action}",
            "时限：{respond_within}",
        ),
        "en": (
            "Where: {device_name} ({device_id})",
            "Cause: {cause}",
            "Consequence: {consequence}",
            "What to do: {action}",
            "Within: {respond_within}",
        ),
    },
    "order": {
        "zh": ("地点：{device_name}（{device_id}）", "携带：{items}", "时限：{due_within}"),
        "en": ("Where: {device_name} ({device_id})", "Bring: {items}", "Within: {due_within}"),
    },
    "contact": {"zh": ("有效期：10 分钟", "验证码：{code}"), "en": ("Valid for 10 minutes", "Code: {code}")},
    "system": {"zh": ("原因：{error}",), "en": ("Reason: {error}",)},
}

_STATES: Final[Mapping[str, Mapping[str, str]]] = {
    "zh": {"calling": "等待接警", "acknowledged": "已接警", "attended": "已到场", "cleared": "已在现场解除"},
    "en": {
        "calling": "nobody has answered yet",
        "acknowledged": "somebody is on the way",
        "attended": "somebody is there",
        "cleared": "cleared at the place itself",
    },
}


def title(notification: Notification) -> str:
    """One line with both languages: for what people of both read."""
    return f"{notification.title_zh} / {notification.title_en}"


def body(notification: Notification) -> str:
    """Some lines per language; facts that are missing leave their line out."""
    return "\n\n".join("\n".join(_lines(notification, language)) for language in LANGUAGES)


def language_of(language: str) -> str:
    """`zh` or `en` for a person's language."""
    return "en" if language.startswith("en") else "zh"


def heading(notification: Notification, language: str) -> str:
    """One line in one language."""
    return notification.title_zh if language_of(language) == "zh" else notification.title_en


def text(notification: Notification, language: str) -> str:
    """The lines below the heading, in one language."""
    return "\n".join(_lines(notification, language_of(language))[1:])


Link = Callable[[Notification], str]
"""Where somebody who reads this clicks; empty: nowhere."""


def links(public_url: str) -> Link:
    """Addresses of our pages, below FLEET_PUBLIC_URL; without one there are none."""
    base = public_url.rstrip("/")

    def link(notification: Notification) -> str:
        path = _PATHS.get(notification.kind_of)
        if not base or path is None:
            return ""
        return base + path.format(reference=quote(notification.reference, safe=""))

    return link


def nowhere(notification: Notification) -> str:
    """A `Link` for messages without one."""
    del notification
    return ""


_PATHS: Final[Mapping[str, str]] = {
    "call": "/alarms#call-{reference}",
    "alarm": "/alarms#alarm-{reference}",
    "order": "/orders#order-{reference}",
    "digest": "/alarms#notices-title",
    "system": "/alarms#notices-title",
    "contact": "/me/notifications",
}


def _lines(notification: Notification, language: str) -> list[str]:
    first = heading(notification, language)
    facts = notification.facts
    if "alarms" in facts:
        return [first, *_list(facts, language)]
    if "notices" in facts:
        return [first, *(f"- {entry[language]}" for entry in facts["notices"][:LISTED_MAX])]
    words = _words(facts, language)
    lines = [first]
    for line in _LINES.get(notification.kind_of, {}).get(language, ()):
        try:
            lines.append(line.format_map(words))
        except KeyError:
            continue
    return lines


def _list(facts: Mapping[str, Any], language: str) -> list[str]:
    lines = [
        f"- {entry['device_name']}（{entry['device_id']}）"
        if language == "zh"
        else f"- {entry['device_name']} ({entry['device_id']})"
        for entry in facts["alarms"][:LISTED_MAX]
    ]
    more = int(facts["count"]) - len(lines)
    if more > 0:
        lines.append(f"……另有 {more} 项" if language == "zh" else f"… and {more} more")
    return lines


def _words(facts: Mapping[str, Any], language: str) -> dict[str, str]:
    words: dict[str, str] = {}
    for name, value in facts.items():
        if isinstance(value, Mapping) and language in value:
            words[name] = str(value[language])
        elif name == "items" and isinstance(value, Mapping):
            if value:
                words[name] = ", ".join(f"{article} × {count}" for article, count in value.items())
        elif isinstance(value, str | int | float) and value != "":
            words[name] = str(value)
    if "state" in words:
        words["state_word"] = _STATES[language].get(words["state"], words["state"])
    for name in ("respond_within", "due_within"):
        if f"{name}_s" in facts:
            words[name] = _duration(float(facts[f"{name}_s"]), language)
    return words


def _duration(seconds: float, language: str) -> str:
    minutes = max(1, round(seconds / 60))
    if minutes < 120:
        return f"{minutes} 分钟" if language == "zh" else f"{minutes} min"
    return f"{round(minutes / 60)} 小时" if language == "zh" else f"{round(minutes / 60)} h"
