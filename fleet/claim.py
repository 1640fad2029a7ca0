"""The text an installer carries from the admin to the box: a single-use secret and the pin of whom the box may trust.

`ABCD-EFGH-…`: 32 letters and digits of base32 in groups of four. The first 16 are the secret (80 bits), the last 16 the
first 80 bits of the SHA-256 of the services' root certificate. Without the pin a box that trusts nobody yet would have
to believe whoever answers.
"""

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import Final

SECRET_BYTES: Final = 10
PIN_BYTES: Final = 10
_GROUP: Final = 4
_HASH_CONTEXT: Final = b"fleet-claim-1\x00"


class ClaimError(ValueError):
    """The text is no claim; the words name the fix."""


@dataclass(frozen=True, slots=True)
class Claim:
    """`secret` is worth a certificate for 15 minutes; `pin` is public."""

    secret: bytes
    pin: bytes

    def __repr__(self) -> str:
        """Without the secret: it must not reach a log."""
        return f"Claim(pin={self.pin.hex()})"

    @property
    def text(self) -> str:
        """What is shown once and typed in."""
        letters = base64.b32encode(self.secret + self.pin).decode()
        return "-".join(letters[start : start + _GROUP] for start in range(0, len(letters), _GROUP))


def parse_claim(text: str) -> Claim:
    """Read what somebody typed: case, blanks and hyphens do not matter. Raises ClaimError."""
    letters = "".join(text.split()).replace("-", "").upper()
    length = (SECRET_BYTES + PIN_BYTES) * 8 // 5
    if len(letters) != length:
        raise ClaimError(f"a claim has {length} letters and digits, this one {len(letters)}; type all of it")
    try:
        content = base64.b32decode(letters)
    except binascii.Error:
        raise ClaimError("a claim has only the letters A-Z and the digits 2-7; compare it with the one shown") from None
    return Claim(content[:SECRET_BYTES], content[SECRET_BYTES:])


def claim_hash(secret: bytes) -> str:
    """What the cloud keeps of a secret; an attacker who reads it has 15 minutes for 80 bits."""
    return hashlib.sha256(_HASH_CONTEXT + secret).hexdigest()


def pin_of(root_der: bytes) -> bytes:
    """The pin of a root certificate."""
    return hashlib.sha256(root_der).digest()[:PIN_BYTES]
