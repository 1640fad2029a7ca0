"""Web Push: a browser is told although none of our pages is open.

Encryption after RFC 8291 (aes128gcm, RFC 8188), our identity towards the push service after RFC 8292 (VAPID). The
push service sees who and when, never what. It is named by the browser, so its host is judged like any typed address.
"""

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from cloud.adapters.notify import addresses, words
from cloud.adapters.notify.http_channel import HttpChannel
from cloud.model import Notification, Recipient
from cloud.ports import AddressRefusedError, NotDeliveredError
from fleet.clock import MILLISECONDS_PER_SECOND
from fleet.incident import Priority

RECORD_BYTES: Final = 4096
TEXT_CHARACTERS_MAX: Final = 600
TOKEN_LIFETIME_S: Final = 12 * 3600
TOKEN_RENEWED_S: Final = 3600
EMERGENCY_LIFETIME_S: Final = 600
OTHER_LIFETIME_S: Final = 24 * 3600
_GONE: Final = frozenset({404, 410})
_SALT_BYTES: Final = 16
_POINT_BYTES: Final = 65


def unpadded(data: bytes) -> str:
    """base64url as the push standards write it."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def from_unpadded(text: str) -> bytes:
    """Raises ValueError."""
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


def point_of(key: ec.EllipticCurvePublicKey) -> bytes:
    """A public key as an uncompressed point."""
    return key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)


def encrypt(
    text: bytes, receiver_point: bytes, secret: bytes, *, own: ec.EllipticCurvePrivateKey, salt: bytes
) -> bytes:
    """One record after RFC 8291. `own` and `salt` are fresh for every message.

    Raises:
        ValueError: the receiver's key is no point of the curve, or the text is too long for one record.
    """
    if len(text) > RECORD_BYTES - 103:
        raise ValueError(f"{len(text)} bytes don't fit into one record")
    receiver = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), receiver_point)
    own_point = point_of(own.public_key())
    shared = own.exchange(ec.ECDH(), receiver)
    info = b"WebPush: info\0" + receiver_point + own_point
    material = _derive(shared, secret, info, 32)
    key = _derive(material, salt, b"Content-Encoding: aes128gcm\0", 16)
    nonce = _derive(material, salt, b"Content-Encoding: nonce\0", 12)
    sealed = AESGCM(key).encrypt(nonce, text + b"\x02", None)  # 2: the last record
    return salt + RECORD_BYTES.to_bytes(4, "big") + bytes([len(own_point)]) + own_point + sealed


def _derive(material: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    return HKDF(hashes.SHA256(), length, salt, info).derive(material)


def subscription_of(address: str) -> tuple[str, bytes, bytes]:
    """(endpoint, receiver's point, secret) from a contact point's address.

    Raises:
        ValueError: it is no subscription of a browser.
    """
    try:
        found: Any = json.loads(address)
        endpoint, keys = found["endpoint"], found["keys"]
        point, secret = from_unpadded(keys["p256dh"]), from_unpadded(keys["auth"])
        ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    except (KeyError, TypeError, ValueError, InvalidKey) as error:
        raise ValueError("no push subscription: endpoint, keys.p256dh and keys.auth are needed") from error
    if not isinstance(endpoint, str) or urlsplit(endpoint).scheme not in {"https", "http"}:
        raise ValueError("the endpoint of a push subscription must begin with https://")
    if len(point) != _POINT_BYTES or len(secret) != _SALT_BYTES:
        raise ValueError("the keys of a push subscription have a wrong length")
    return endpoint, point, secret


def open_key(file: Path) -> ec.EllipticCurvePrivateKey:
    """Our key towards push services; made at the first start. Browsers subscribe to exactly this one.

    Raises:
        ValueError: the file holds something else.
    """
    if file.exists():
        key = serialization.load_pem_private_key(file.read_bytes(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
            raise ValueError(f"{file} holds no EC P-256 key")
        return key
    key = ec.generate_private_key(ec.SECP256R1())
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    fresh = file.with_suffix(".new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    fresh.replace(file)  # a key is there as a whole or not at all
    return key


class Vapid:
    """Tells push services who we are: a signed token per service, renewed before it ends."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, contact: str, real_now_ms: Callable[[], int]) -> None:
        self._key = key
        self._contact = contact
        self._real_now_ms = real_now_ms
        self.public = unpadded(point_of(key.public_key()))
        """What browsers subscribe to (`applicationServerKey`)."""
        self._tokens: dict[str, tuple[int, str]] = {}

    def authorization(self, endpoint: str) -> str:
        """Value of the header for this endpoint."""
        parts = urlsplit(endpoint)
        audience = f"{parts.scheme}://{parts.netloc}"
        now_s = self._real_now_ms() // MILLISECONDS_PER_SECOND
        ends_s, token = self._tokens.get(audience, (0, ""))
        if not now_s + TOKEN_RENEWED_S < ends_s <= now_s + TOKEN_LIFETIME_S:
            ends_s = now_s + TOKEN_LIFETIME_S
            token = self._signed({"aud": audience, "exp": ends_s, "sub": self._contact})
            if len(self._tokens) >= addresses.CONNECTIONS_MAX:
                self._tokens.clear()
            self._tokens[audience] = ends_s, token
        return f"vapid t={token}, k={self.public}"

    def _signed(self, claims: dict[str, Any]) -> str:
        header = {"typ": "JWT", "alg": "ES256"}
        text = ".".join(unpadded(json.dumps(part, separators=(",", ":")).encode()) for part in (header, claims))
        r, s = utils.decode_dss_signature(self._key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{text}.{unpadded(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


class WebPushChannel(HttpChannel):
    """Delivered means that the push service took it; it shows it as soon as the browser is connected."""

    name = "push"

    def __init__(self, vapid: Vapid, *, link: words.Link, allow_private: bool = False, timeout_s: float = 5.0) -> None:
        """See HttpChannel."""
        super().__init__(allow_private=allow_private, timeout_s=timeout_s)
        self._vapid = vapid
        self._link = link

    async def send_to(self, notification: Notification, recipient: Recipient, *, delivery_id: str) -> None:
        """Raises AddressRefusedError for a subscription that ended, NotDeliveredError for all else."""
        try:
            endpoint, point, secret = subscription_of(recipient.address)
        except ValueError as error:
            raise AddressRefusedError(str(error)) from error
        shown = json.dumps(self._shown(notification, recipient, delivery_id), ensure_ascii=False).encode()
        body = encrypt(shown, point, secret, own=ec.generate_private_key(ec.SECP256R1()), salt=os.urandom(_SALT_BYTES))
        is_emergency = notification.priority == Priority.EMERGENCY.value
        headers = {
            "Content-Encoding": "aes128gcm",
            "Content-Type": "application/octet-stream",
            "TTL": str(EMERGENCY_LIFETIME_S if is_emergency else OTHER_LIFETIME_S),
            "Urgency": "high" if is_emergency else "normal",
            "Authorization": self._vapid.authorization(endpoint),
        }
        status = await self._request(endpoint, body, headers)
        if status in _GONE:
            raise AddressRefusedError(f"HTTP {status}: the browser ended this subscription; subscribe again")
        if not 200 <= status < 300:
            raise NotDeliveredError(f"HTTP {status}")

    def _shown(self, notification: Notification, recipient: Recipient, delivery_id: str) -> dict[str, Any]:
        return {
            "title": words.heading(notification, recipient.language),
            "body": words.text(notification, recipient.language)[:TEXT_CHARACTERS_MAX],
            "link": self._link(notification),
            "tag": notification.reference,  # a later word on the same call takes the place of the page
            "urgent": notification.priority == Priority.EMERGENCY.value,
            "delivery_id": delivery_id,
        }
