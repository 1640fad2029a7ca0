"""Channels to single people against real receivers on loopback, and what they do when those misbehave."""

import asyncio
import base64
import email
import email.policy
import json
import os
import socket
from contextlib import asynccontextmanager

import pytest
from aiosmtpd.controller import Controller
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from cloud.adapters.notify import addresses, web_push, words
from cloud.adapters.notify.apprise_channel import PersonalAppriseChannel
from cloud.adapters.notify.gateway import GatewayChannel
from cloud.adapters.notify.mail import MailChannel
from cloud.adapters.notify.webhook import WebhookChannel, is_genuine, signature_of
from cloud.model import Notification, Recipient
from cloud.notifications.addresses import is_public
from cloud.ports import AddressRefusedError, NotDeliveredError
from tests.adapters.http_receiver import http_receiver
from tests.unit.dispatch_cases import NOW

REAL_NOW = 1_700_000_000_000
PAGE = Notification(
    "call", "call-1", "emergency", "room-001", "紧急呼叫：A 座", "Emergency call: Tower A",
    {"device_name": "A", "device_id": "room-001", "call_id": "call-1", "state": "calling", "asked": "Ann"}, NOW,
)  # fmt: skip
LINK = words.links("https://fleet.example.org/")


def to(address, language="zh_CN"):
    return Recipient("ann", "contact-1", address, language)


@pytest.fixture
async def receiver():
    async with http_receiver() as opened:
        yield opened


# --- web push ------------------------------------------------------------------------------------------------------


def test_encryption_is_the_example_of_rfc_8291():
    """Appendix A of the RFC, byte for byte."""
    receiver_point = web_push.from_unpadded(
        "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"
    )
    private = int.from_bytes(web_push.from_unpadded("yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"), "big")
    own = ec.derive_private_key(private, ec.SECP256R1())
    secret = web_push.from_unpadded("BTBZMqHH6r4Tts7J_aSIgg")
    salt = web_push.from_unpadded("DGv6ra1nlYgDCS1FRnbzlw")
    body = web_push.encrypt(b"When I grow up, I want to be a watermelon", receiver_point, secret, own=own, salt=salt)
    assert web_push.unpadded(body) == (
        "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A"
        "_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
    )


class Browser:
    """A browser's half: subscribes, and opens what was pushed."""

    def __init__(self, endpoint):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.secret = os.urandom(16)
        self.point = web_push.point_of(self.key.public_key())
        self.address = json.dumps({
            "endpoint": endpoint,
            "keys": {"p256dh": web_push.unpadded(self.point), "auth": web_push.unpadded(self.secret)},
        })  # fmt: skip

    def open(self, body):
        salt, point, sealed = body[:16], body[21:86], body[86:]
        shared = self.key.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point))
        derive = lambda material, salt, info, size: HKDF(hashes.SHA256(), size, salt, info).derive(material)  # noqa: E731
        material = derive(shared, self.secret, b"WebPush: info\0" + self.point + point, 32)
        key = derive(material, salt, b"Content-Encoding: aes128gcm\0", 16)
        nonce = derive(material, salt, b"Content-Encoding: nonce\0", 12)
        return json.loads(AESGCM(key).decrypt(nonce, sealed, None).rstrip(b"\x02"))


def vapid(folder):
    return web_push.Vapid(web_push.open_key(folder / "push.key"), "mailto:it@example.org", lambda: REAL_NOW)


async def test_a_pushed_page_can_be_read_by_the_browser_alone_and_names_us(receiver, tmp_path):
    browser, own = Browser(f"{receiver.url}/push/1"), vapid(tmp_path)
    async with web_push.WebPushChannel(own, link=LINK, allow_private=True) as push:
        await push.send_to(PAGE, to(browser.address, "en"), delivery_id="d1")
        await push.send_to(PAGE, to(browser.address), delivery_id="d2")
    english, chinese = (browser.open(got.body) for got in receiver.got)
    assert (english["title"], english["tag"], english["urgent"]) == ("Emergency call: Tower A", "call-1", True)
    assert english["link"] == "https://fleet.example.org/alarms#call-call-1"
    assert chinese["title"] == "紧急呼叫：A 座"
    headers = receiver.got[0].headers
    assert (headers["Content-Encoding"], headers["Urgency"], headers["TTL"]) == ("aes128gcm", "high", "600")
    token, key = (part.partition("=")[2] for part in headers["Authorization"].removeprefix("vapid ").split(", "))
    assert key == own.public
    head, claims, signature = token.split(".")
    assert json.loads(base64.urlsafe_b64decode(claims + "==")) == {
        "aud": receiver.url, "exp": REAL_NOW // 1000 + 12 * 3600, "sub": "mailto:it@example.org",
    }  # fmt: skip
    raw = web_push.from_unpadded(signature)
    encoded = utils.encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), web_push.from_unpadded(key))
    public.verify(encoded, f"{head}.{claims}".encode(), ec.ECDSA(hashes.SHA256()))


def test_the_key_is_made_once_and_kept(tmp_path):
    assert vapid(tmp_path).public == vapid(tmp_path).public
    assert (tmp_path / "push.key").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(("status", "error"), [(404, AddressRefusedError), (410, AddressRefusedError)])
async def test_a_subscription_that_ended_is_given_up(receiver, tmp_path, status, error):
    receiver.answers = [status]
    async with web_push.WebPushChannel(vapid(tmp_path), link=LINK, allow_private=True) as push:
        with pytest.raises(error, match="ended"):
            await push.send_to(PAGE, to(Browser(receiver.url).address), delivery_id="d")
        receiver.answers = [503]
        with pytest.raises(NotDeliveredError, match="503") as refusal:
            await push.send_to(PAGE, to(Browser(receiver.url).address), delivery_id="d")
        assert not isinstance(refusal.value, AddressRefusedError)


@pytest.mark.parametrize("address", ["", "{}", '{"endpoint": "https://x", "keys": {"p256dh": "AA", "auth": "AA"}}'])
async def test_what_is_no_subscription_is_refused(tmp_path, address):
    async with web_push.WebPushChannel(vapid(tmp_path), link=LINK) as push:
        with pytest.raises(AddressRefusedError):
            await push.send_to(PAGE, to(address), delivery_id="d")


async def test_push_services_in_our_own_network_are_refused(receiver, tmp_path):
    async with web_push.WebPushChannel(vapid(tmp_path), link=LINK) as push:
        for host in (receiver.url, receiver.url.replace("127.0.0.1", "localhost")):
            with pytest.raises(NotDeliveredError, match="private network"):
                await push.send_to(PAGE, to(Browser(host).address), delivery_id="d")
    assert receiver.got == []


# --- our own network -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
     "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "::ffff:127.0.0.1", "64:ff9b::a00:1", "2002:7f00:1::", "::"],
)  # fmt: skip
def test_private_addresses(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "114.114.114.114", "2606:4700:4700::1111", "::ffff:8.8.8.8"])
def test_public_addresses(address):
    assert is_public(address)


class Rebinding(addresses.AbstractResolver):
    """Says a public address first, and loopback ever after."""

    def __init__(self, port, *hosts):
        self.port = port
        self.hosts = list(hosts)
        self.asked = 0

    async def resolve(self, host, port=0, family=socket.AF_INET):
        del port, family
        self.asked += 1
        here = self.hosts.pop(0) if len(self.hosts) > 1 else self.hosts[0]
        return [{"hostname": host, "host": here, "port": self.port, "family": socket.AF_INET, "proto": 0, "flags": 0}]

    async def close(self):
        pass


async def test_a_name_is_resolved_once_and_the_connection_goes_to_what_was_judged(receiver, monkeypatch):
    port = int(receiver.url.rpartition(":")[2])
    judged = []
    monkeypatch.setattr(addresses, "is_public", lambda address: judged.append(address) or address == "127.0.0.1")
    resolver = Rebinding(port, "127.0.0.1", "10.0.0.1")
    async with addresses.session(allow_private=False, timeout_s=2, resolver=resolver) as client:
        status = await addresses.post(client, f"http://name.example:{port}/", data=b"", headers={}, allow_private=False)
    assert (status, resolver.asked, judged) == (204, 1, ["127.0.0.1"])


async def test_a_name_with_one_private_address_is_refused():
    resolver = Rebinding(80, "10.0.0.1")
    async with addresses.session(allow_private=False, timeout_s=2, resolver=resolver) as client:
        with pytest.raises(NotDeliveredError, match=r"name.example \(10.0.0.1\).*FLEET_WEBHOOK_ALLOW_PRIVATE"):
            await addresses.post(client, "http://name.example/", data=b"", headers={}, allow_private=False)


@pytest.mark.parametrize("target", ["http://169.254.169.254/latest", "http://127.0.0.1/", "https://other.example/"])
async def test_a_redirect_to_a_private_address_is_followed_nowhere(receiver, target):
    receiver.answers, receiver.headers = [302], {"Location": target}
    hook = WebhookChannel(receiver.url, secret="", real_now_ms=lambda: REAL_NOW, allow_private=True)
    async with hook:
        with pytest.raises(NotDeliveredError, match="redirects are not followed"):
            await hook.send(PAGE, delivery_id="d")
    assert len(receiver.got) == 1


def test_a_private_webhook_needs_a_word_of_the_admin():
    with pytest.raises(ValueError, match="FLEET_WEBHOOK_ALLOW_PRIVATE"):
        WebhookChannel("http://192.168.1.5/hook", secret="", real_now_ms=lambda: REAL_NOW)


def test_a_receiver_can_tell_our_messages_from_others_and_from_old_ones():
    signature = signature_of("s", str(REAL_NOW), b"{}")
    assert is_genuine("s", str(REAL_NOW), signature, b"{}", now_ms=REAL_NOW + 299_000)
    for change in (
        {"now_ms": REAL_NOW + 301_000}, {"now_ms": REAL_NOW - 301_000}, {"body": b"{ }"}, {"secret": "t"},
        {"timestamp": str(REAL_NOW + 1)}, {"timestamp": "soon"}, {"signature": "sha256=00"},
    ):  # fmt: skip
        facts = {"secret": "s", "timestamp": str(REAL_NOW), "signature": signature, "body": b"{}", "now_ms": REAL_NOW}
        assert not is_genuine(**{**facts, **change})


# --- SMS and voice -------------------------------------------------------------------------------------------------

BODY = '{"to": ["{address}"], "message": {"text": "{text}", "lang": "{language}"}, "id": "{delivery_id}", "type": 1}'


def gateway(receiver, **options):
    return GatewayChannel(
        "sms", f"{receiver.url}/send", BODY, headers='{"Authorization": "Bearer k"}', link=LINK,
        **{"allow_private": True, **options},
    )  # fmt: skip


async def test_a_gateway_is_sent_its_template_filled_in(receiver):
    async with gateway(receiver) as sms:
        await sms.send_to(PAGE, to("+8613800000000", "en"), delivery_id="d1")
    (got,) = receiver.got
    body = json.loads(got.body)
    assert (body["to"], body["id"], body["type"]) == (["+8613800000000"], "d1", 1)
    assert body["message"]["lang"] == "en"
    assert body["message"]["text"].startswith("Emergency call: Tower A\nWhere: A (room-001)")
    assert body["message"]["text"].endswith("https://fleet.example.org/alarms#call-call-1")
    assert got.headers["Authorization"] == "Bearer k"


async def test_words_of_a_notification_cannot_break_out_of_the_template(receiver):
    nasty = Notification("system", "s", "high", "", "", '"}, "to": "{address}{delivery_id}', {}, NOW)
    async with gateway(receiver) as sms:
        await sms.send_to(nasty, to("1234567", "en"), delivery_id="d1")
    body = json.loads(receiver.got[0].body)
    assert body["to"] == ["1234567"]
    assert '"}, "to": "' in body["message"]["text"]


@pytest.mark.parametrize(
    ("status", "error"), [(400, AddressRefusedError), (500, NotDeliveredError), (302, NotDeliveredError)]
)
async def test_a_gateway_that_refuses(receiver, status, error):
    receiver.answers = [status]
    async with gateway(receiver) as sms:
        with pytest.raises(error) as refusal:
            await sms.send_to(PAGE, to("1"), delivery_id="d")
        assert type(refusal.value) is error


async def test_a_gateway_that_hangs_or_closes_the_connection(receiver):
    receiver.hold.clear()
    async with gateway(receiver, timeout_s=0.1) as sms:
        with pytest.raises(NotDeliveredError, match="Timeout"):
            await sms.send_to(PAGE, to("1"), delivery_id="d")
    closing = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = closing.sockets[0].getsockname()[1]
    async with closing, GatewayChannel("sms", f"http://127.0.0.1:{port}/", BODY, link=LINK, allow_private=True) as sms:
        with pytest.raises(NotDeliveredError, match=r"Disconnected|reset|Closed"):
            await sms.send_to(PAGE, to("1"), delivery_id="d")


@pytest.mark.parametrize(("body", "headers"), [("[]", "{}"), ("{}", "{}"), (BODY, "x"), ('{"a": "{address}"}', "{}")])
def test_a_wrong_template_stops_the_start(body, headers):
    with pytest.raises(ValueError, match="sms_"):
        GatewayChannel("sms", "https://x.example/", body, headers=headers, link=LINK)


async def test_a_chat_address_is_a_bot_and_nothing_else():
    chat = PersonalAppriseChannel("chat", link=LINK)
    for address in ("json://127.0.0.1/", "https://x.example", "file:///etc/passwd", ""):
        with pytest.raises(AddressRefusedError, match="wecombot"):
            await chat.send_to(PAGE, to(address), delivery_id="d")
    chat.close()


async def test_an_apprise_template_takes_the_number(receiver):
    with pytest.raises(ValueError, match="address"):
        PersonalAppriseChannel("sms", template="json://127.0.0.1/")
    host = receiver.url.removeprefix("http://")
    sms = PersonalAppriseChannel("sms", template=f"json://{host}/{{address}}", link=LINK)
    await sms.send_to(PAGE, to("+86138", "en"), delivery_id="d")
    sms.close()
    (got,) = receiver.got
    assert (got.path, json.loads(got.body)["title"]) == ("/+86138", "Emergency call: Tower A")


# --- mail ----------------------------------------------------------------------------------------------------------


class Mailbox:
    """A real SMTP server's opinion: `answers` by recipient."""

    def __init__(self):
        self.got = []
        self.answers = {}

    async def handle_RCPT(self, server, session, envelope, address, rcpt_options):  # noqa: N802  # aiosmtpd's name
        del server, session, rcpt_options
        if address in self.answers:
            return self.answers[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):  # noqa: N802
        del server, session
        self.got.append(envelope)
        return "250 taken"


@asynccontextmanager
async def smtp_server():
    mailbox = Mailbox()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    controller = Controller(mailbox, hostname="127.0.0.1", port=port)
    await asyncio.to_thread(controller.start)
    try:
        yield mailbox, port
    finally:
        await asyncio.to_thread(controller.stop)


async def test_mail_is_taken_in_the_readers_language_with_a_link_and_its_delivery_id():
    async with smtp_server() as (mailbox, port):
        mail = MailChannel(f"smtp://127.0.0.1:{port}?from=fleet@example.org", link=LINK)
        await mail.send_to(PAGE, to("ann@example.org"), delivery_id="d1")
        mailbox.answers = {"gone@example.org": "550 no such box", "full@example.org": "452 full"}
        with pytest.raises(AddressRefusedError, match="550 no such box"):
            await mail.send_to(PAGE, to("gone@example.org"), delivery_id="d2")
        with pytest.raises(NotDeliveredError, match="452 full") as refusal:
            await mail.send_to(PAGE, to("full@example.org"), delivery_id="d3")
        assert not isinstance(refusal.value, AddressRefusedError)
        mail.close()
    (got,) = mailbox.got
    message = email.message_from_bytes(got.content, policy=email.policy.default)
    assert (got.mail_from, got.rcpt_tos) == ("fleet@example.org", ["ann@example.org"])
    assert (message["Message-ID"], message["Subject"]) == ("<d1@example.org>", "紧急呼叫：A 座")
    assert "https://fleet.example.org/alarms#call-call-1" in message.get_content()


async def test_a_mail_server_that_is_gone_or_hangs():
    mail = MailChannel("smtp://127.0.0.1:1?from=fleet@example.org", link=LINK)
    with pytest.raises(NotDeliveredError, match="refused"):
        await mail.send_to(PAGE, to("ann@example.org"), delivery_id="d")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        hanging = MailChannel(f"smtp://127.0.0.1:{port}?from=fleet@example.org", link=LINK, timeout_s=0.1)
        with pytest.raises(NotDeliveredError, match="timed out"):
            await hanging.send_to(PAGE, to("ann@example.org"), delivery_id="d")


@pytest.mark.parametrize("url", ["http://x", "smtp://", "smtp://host", "smtp://host?from=nobody"])
def test_a_wrong_mail_setting_stops_the_start(url):
    with pytest.raises(ValueError, match="smtp_url"):
        MailChannel(url, link=LINK)
