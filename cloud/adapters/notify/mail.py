"""Mail over SMTP. smtplib blocks, so it runs in threads; each message is a connection of its own."""

import asyncio
import smtplib
import ssl
from concurrent.futures import ThreadPoolExecutor
from email.message import EmailMessage
from email.utils import parseaddr
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

from cloud.adapters.notify import words
from cloud.model import Notification, Recipient
from cloud.ports import AddressRefusedError, NotDeliveredError

THREADS_MAX: Final = 8
PORTS: Final = {"smtp": 587, "smtps": 465}


class MailChannel:
    """Delivered means that the server took the message (250)."""

    name = "mail"

    def __init__(self, url: str, *, link: words.Link, timeout_s: float = 10.0) -> None:
        """`url`: `smtp[s]://user:password@host:port?from=address`.

        Raises:
            ValueError: the URL has another scheme, no host or no sender.
        """
        parts = urlsplit(url)
        if parts.scheme not in PORTS or not parts.hostname:
            raise ValueError("smtp_url must look like smtp://user:password@host:587?from=fleet@example.org")
        sender = parse_qs(parts.query).get("from", [unquote(parts.username or "")])[0]
        if "@" not in parseaddr(sender)[1]:
            raise ValueError("smtp_url needs a sender: ?from=fleet@example.org")
        self._tls = parts.scheme == "smtps"
        self._host = parts.hostname
        self._port = parts.port or PORTS[parts.scheme]
        self._user = unquote(parts.username or "") if parts.password is not None else ""
        self._password = unquote(parts.password or "")
        self._sender = sender
        self._link = link
        self._timeout_s = timeout_s
        self._threads = ThreadPoolExecutor(THREADS_MAX, thread_name_prefix=self.name)

    async def send_to(self, notification: Notification, recipient: Recipient, *, delivery_id: str) -> None:
        """Raises AddressRefusedError for a mailbox that is not there, NotDeliveredError for all else."""
        message = self._message(notification, recipient, delivery_id)
        await asyncio.get_running_loop().run_in_executor(self._threads, self._send, message)

    def _message(self, notification: Notification, recipient: Recipient, delivery_id: str) -> EmailMessage:
        message = EmailMessage()
        message["From"] = self._sender
        message["To"] = recipient.address
        message["Subject"] = " ".join(words.heading(notification, recipient.language).split())
        message["Message-ID"] = f"<{delivery_id}@{parseaddr(self._sender)[1].rpartition('@')[2]}>"
        message["Auto-Submitted"] = "auto-generated"
        link = self._link(notification)
        text = f"{words.heading(notification, recipient.language)}\n\n{words.text(notification, recipient.language)}"
        message.set_content(f"{text}\n\n{link}".rstrip() + "\n")
        return message

    def _send(self, message: EmailMessage) -> None:
        try:
            with self._connection() as server:
                if not self._tls and server.has_extn("starttls"):
                    server.starttls(context=ssl.create_default_context())
                    server.ehlo()
                if self._user:
                    server.login(self._user, self._password)
                server.send_message(message)
        except smtplib.SMTPRecipientsRefused as refusal:
            code, reason = next(iter(refusal.recipients.values()))
            words_of_server = f"{code} {reason.decode(errors='replace')}"
            if 500 <= code < 600:
                raise AddressRefusedError(words_of_server) from refusal
            raise NotDeliveredError(words_of_server) from refusal
        except (smtplib.SMTPException, OSError) as error:
            raise NotDeliveredError(f"{type(error).__name__}: {error}") from error

    def _connection(self) -> smtplib.SMTP:
        if self._tls:
            context = ssl.create_default_context()
            server: smtplib.SMTP = smtplib.SMTP_SSL(self._host, self._port, timeout=self._timeout_s, context=context)
        else:
            server = smtplib.SMTP(self._host, self._port, timeout=self._timeout_s)
        server.ehlo()
        return server

    def close(self) -> None:
        """Start nothing new; threads that hang are left to their time-out."""
        self._threads.shutdown(wait=False, cancel_futures=True)
