"""The ways to tell people that this installation has: those that many read, and those that lead to one person."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Final

from cloud.adapters.notify import words
from cloud.adapters.notify.inbox import InboxChannel
from cloud.api.changes import Changes
from cloud.data_directory import one_at_a_time
from cloud.dispatch.letters import PERSONAL_STAGES
from cloud.dispatch.personal import PersonalNotices
from cloud.identity.files import ConfigurationError
from cloud.ports import Database, NotificationChannel, PersonalChannel
from cloud.settings import CloudSettings
from fleet.clock import Clock

WEBHOOK_NAME: Final = "webhook"
PUSH_KEY_NAME: Final = "push.key"


@dataclass(slots=True)
class Channels:
    """`common` are read by many; `personal` take a person's own address, and `router` decides which of them."""

    common: list[NotificationChannel]
    personal: list[PersonalChannel] = field(default_factory=list)
    router: PersonalNotices | None = None
    push_public_key: str = ""

    @property
    def personal_names(self) -> list[str]:
        """Those that lead to one person."""
        return [channel.name for channel in self.personal]

    @property
    def names(self) -> list[str]:
        """All of them, as `Dispatch` is told."""
        return [*(channel.name for channel in self.common), *(channel.name for channel in self.personal)]


def personal_names(settings: CloudSettings) -> list[str]:
    """Names of the personal channels that these settings give, without opening any."""
    has = {
        "push": settings.web_push,
        "chat": settings.personal_chat,
        "mail": bool(settings.smtp_url.get_secret_value()),
        "sms": bool(settings.sms_url.get_secret_value()),
        "voice": bool(settings.voice_url.get_secret_value()),
    }
    return [name for name in PERSONAL_STAGES if has[name]]


async def open_channels(
    settings: CloudSettings,
    clock: Clock,
    real_now_ms: Callable[[], int],
    database: Database,
    changes: Changes,
    *,
    stack: AsyncExitStack,
) -> Channels:
    """Make them all. Raises ConfigurationError, which names the setting."""
    opened = Channels([InboxChannel(database, changes)])
    link = words.links(settings.public_url)
    try:
        await _open_common(opened, settings, real_now_ms, link, stack)
        await _open_personal(opened, settings, real_now_ms, link, stack)
    except ValueError as error:
        raise ConfigurationError(
            f"notifications: {error}; correct FLEET_WEBHOOK_URL, FLEET_APPRISE_URLS or the channel's own setting"
        ) from error
    own = [channel.name for channel in opened.personal]
    if own:
        opened.router = PersonalNotices(database, clock, own)
        opened.personal.append(opened.router)
    return opened


async def _open_common(
    opened: Channels,
    settings: CloudSettings,
    real_now_ms: Callable[[], int],
    link: words.Link,
    stack: AsyncExitStack,
) -> None:
    if settings.webhook_url:
        from cloud.adapters.notify.webhook import WebhookChannel  # noqa: PLC0415  # only where it is used

        webhook = WebhookChannel(
            settings.webhook_url, secret=settings.webhook_secret.get_secret_value(),
            real_now_ms=real_now_ms, name=WEBHOOK_NAME, allow_private=settings.webhook_allow_private,
        )  # fmt: skip
        opened.common.append(await stack.enter_async_context(webhook))
    if settings.apprise_urls:
        from cloud.adapters.notify import apprise_channel  # noqa: PLC0415  # half a second of imports

        for channel in apprise_channel.channels(settings.apprise_urls, link):
            stack.callback(channel.close)
            opened.common.append(channel)


async def _open_personal(
    opened: Channels,
    settings: CloudSettings,
    real_now_ms: Callable[[], int],
    link: words.Link,
    stack: AsyncExitStack,
) -> None:
    if settings.web_push:
        from cloud.adapters.notify import web_push  # noqa: PLC0415  # only where it is used

        with one_at_a_time(settings.data_directory):
            key = web_push.open_key(settings.web_push_key_file or settings.data_directory / PUSH_KEY_NAME)
        vapid = web_push.Vapid(key, settings.web_push_contact, real_now_ms)
        push = web_push.WebPushChannel(vapid, link=link, allow_private=settings.webhook_allow_private)
        opened.personal.append(await stack.enter_async_context(push))
        opened.push_public_key = vapid.public
    if settings.personal_chat:
        from cloud.adapters.notify.apprise_channel import PersonalAppriseChannel  # noqa: PLC0415

        chat = PersonalAppriseChannel("chat", link=link)
        stack.callback(chat.close)
        opened.personal.append(chat)
    if smtp_url := settings.smtp_url.get_secret_value():
        from cloud.adapters.notify.mail import MailChannel  # noqa: PLC0415

        mail = MailChannel(smtp_url, link=link)
        stack.callback(mail.close)
        opened.personal.append(mail)
    for name in ("sms", "voice"):
        if url := getattr(settings, f"{name}_url").get_secret_value():
            opened.personal.append(await _gateway(name, url, settings, link, stack))


async def _gateway(
    name: str, url: str, settings: CloudSettings, link: words.Link, stack: AsyncExitStack
) -> PersonalChannel:
    if not url.startswith(("http://", "https://")):
        from cloud.adapters.notify.apprise_channel import PersonalAppriseChannel  # noqa: PLC0415

        service = PersonalAppriseChannel(name, template=url, link=link)
        stack.callback(service.close)
        return service
    from cloud.adapters.notify.gateway import GatewayChannel  # noqa: PLC0415

    own: dict[str, Any] = {part: getattr(settings, f"{name}_{part}") for part in ("body", "headers", "method")}
    gateway = GatewayChannel(
        name, url, own["body"], headers=own["headers"].get_secret_value(), method=own["method"], link=link,
        allow_private=settings.webhook_allow_private,
    )  # fmt: skip
    return await stack.enter_async_context(gateway)
