"""Commands that nobody may carry out: one maker per way of forging, mutating, delaying or misdirecting one.

Every maker starts from what a thief could hold: commands that were truly signed and never delivered, for this device
and for others, old ones, welcomes, and keys of his own. Each call gives the bytes of one attempt.
"""

import base64
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fleet.envelope import Lane, Welcome
from fleet.signing import COMMAND_BYTES_MAX, CommandOrder, SignedCommand, sign_command, welcome_bytes

DEVICE: Final = "bike-001"
KEY_ID: Final = "cloud-1"
GENERATION: Final = 3
LIFETIME_MS: Final = 10_000
HOUR_MS: Final = 3_600_000
POOL_COMMANDS: Final = 256
"""Signed, in time and never delivered: whatever is accepted of their mutations is a hole, not a repetition."""

Maker = Callable[[], bytes]


class Thief:
    """What somebody on the broker may know, and what he makes of it. `now_ms` tells the cloud's time."""

    def __init__(self, seed: int, now_ms: Callable[[], int], generation: int = GENERATION) -> None:
        self.random = random.Random(seed)
        self.key = Ed25519PrivateKey.from_private_bytes(self.random.randbytes(32))
        """The cloud's; the thief never signs with it, except for what the cloud itself signed."""
        self.delivered: list[bytes] = []
        """Commands the device has carried out, to be played again."""
        self._now_ms = now_ms
        self._generation = generation
        self._own_key = Ed25519PrivateKey.from_private_bytes(self.random.randbytes(32))
        self._pool: list[SignedCommand] = []
        self._pool_bytes: list[bytes] = []
        self._pool_until_ms = -1
        self.makers: Mapping[str, tuple[int, Maker]] = {
            "bit_flipped": (200, self._bit_flipped),
            "bytes_replaced": (100, self._bytes_replaced),
            "truncated": (100, self._truncated),
            "extended": (60, self._extended),
            "field_edited": (120, self._field_edited),
            "signature_swapped": (100, self._signature_swapped),
            "signature_random": (80, self._signature_random),
            "foreign_key_under_our_name": (80, self._foreign_key),
            "unknown_key": (50, self._unknown_key),
            "welcome_signature": (50, self._welcome_signature),
            "garbage": (30, self._garbage),
            "cross_device": (12, self._cross_device),
            "replayed": (12, self._replayed),
            "expired": (2, self._expired),
            "from_the_future": (2, self._from_the_future),
            "wrong_generation": (2, self._wrong_generation),
        }
        """Class → (weight, maker)."""

    def attempts(self, count: int) -> Sequence[str]:
        """Classes of so many attempts, every class among them, in seeded order."""
        weights = [weight for weight, _ in self.makers.values()]
        chosen = [*self.makers, *self.random.choices(list(self.makers), weights, k=max(0, count - len(self.makers)))]
        self.random.shuffle(chosen)
        return chosen[:count]

    def make(self, name: str) -> bytes:
        """One attempt of a class."""
        self._refill()
        return self.makers[name][1]()

    def legitimate(self) -> tuple[str, bytes]:
        """(id, bytes) of a command that is to be carried out, once."""
        order = self._order()
        return order.id, sign_command(order, KEY_ID, self.key)

    # --- what was truly signed ---------------------------------------------------------------------------------

    def _order(
        self, *, device_id: str = DEVICE, generation: int = 0, at_ms: int | None = None, life_ms: int = LIFETIME_MS
    ) -> CommandOrder:
        issued_at = self._now_ms() if at_ms is None else at_ms
        return CommandOrder(
            id=f"{self.random.getrandbits(128):032x}", device_id=device_id, generation=generation or self._generation,
            issued_at=issued_at, not_after=issued_at + life_ms,
            command=msgspec.Raw(b'{"action":"ring","duration_seconds":1}'),
        )  # fmt: skip

    def _sealed(self, order: CommandOrder) -> bytes:
        return sign_command(order, KEY_ID, self.key)

    def _refill(self) -> None:
        """The pool is always in time, or its mutations would be refused for their age."""
        if self._now_ms() < self._pool_until_ms:
            return
        self._pool_until_ms = self._now_ms() + LIFETIME_MS // 2
        self._pool_bytes = [self._sealed(self._order()) for _ in range(POOL_COMMANDS)]
        self._pool = [msgspec.json.decode(data, type=SignedCommand) for data in self._pool_bytes]

    # --- bytes that changed ------------------------------------------------------------------------------------

    def _bytes(self) -> bytearray:
        return bytearray(self.random.choice(self._pool_bytes))

    def _bit_flipped(self) -> bytes:
        data = self._bytes()
        for place in self.random.sample(range(8 * len(data)), self.random.randint(1, 8)):
            data[place // 8] ^= 1 << place % 8
        return bytes(data)

    def _bytes_replaced(self) -> bytes:
        data = self._bytes()
        before = bytes(data)
        for place in self.random.sample(range(len(data)), self.random.randint(1, 4)):
            data[place] = self.random.randrange(256)
        return bytes(data) if data != before else self._bit_flipped()

    def _truncated(self) -> bytes:
        data = self._bytes()
        return bytes(data[: self.random.randrange(len(data))])

    def _extended(self) -> bytes:
        data = self._bytes()
        place = self.random.randrange(len(data) + 1)
        more = self.random.choice((b" ", b"\n", b"\x00", b"}", b"{}", b'"', self.random.randbytes(3)))
        return bytes(data[:place] + more + data[place:])

    def _garbage(self) -> bytes:
        if self.random.random() < 0.01:
            return self.random.randbytes(COMMAND_BYTES_MAX + 1)
        return self.random.randbytes(self.random.randrange(600))

    # --- contents that changed ---------------------------------------------------------------------------------

    def _field_edited(self) -> bytes:
        signed = self.random.choice(self._pool)
        order = msgspec.json.decode(signed.order, type=CommandOrder)
        edits: list[dict[str, object]] = [
            {"id": f"{self.random.getrandbits(128):032x}"},
            {"not_after": order.not_after + self.random.randint(1, HOUR_MS)},
            {"issued_at": order.issued_at + self.random.randint(1, HOUR_MS)},
            {"generation": order.generation + 1},
            {"command": msgspec.Raw(b'{"action":"unlock"}')},
            {"command": msgspec.Raw(b'{"action":"ring","duration_seconds":2}')},
        ]
        body = msgspec.json.encode(msgspec.structs.replace(order, **self.random.choice(edits)))
        return msgspec.json.encode(SignedCommand(body.decode(), signed.key_id, signed.signature))

    def _with_signature(self, signature: bytes, key_id: str = KEY_ID) -> bytes:
        order = self.random.choice(self._pool).order
        return msgspec.json.encode(SignedCommand(order, key_id, base64.b64encode(signature).decode()))

    def _signature_swapped(self) -> bytes:
        one, other = self.random.sample(self._pool, 2)
        return msgspec.json.encode(SignedCommand(one.order, one.key_id, other.signature))

    def _signature_random(self) -> bytes:
        return self._with_signature(self.random.randbytes(self.random.choice((0, 1, 32, 63, 64, 64, 64, 65, 70))))

    def _foreign_key(self) -> bytes:
        return sign_command(self._order(), KEY_ID, self._own_key)

    def _unknown_key(self) -> bytes:
        return sign_command(self._order(), self.random.choice(("cloud-2", "main", "x", "cloud-10")), self._own_key)

    def _welcome_signature(self) -> bytes:
        """The cloud signs welcomes with the same key: such a signature must be worth nothing on a command."""
        welcome = Welcome("0" * 32, self._now_ms(), self._generation, {Lane.EVENT: 1})
        covered = welcome_bytes(welcome, DEVICE)
        signature = self.key.sign(covered)
        if self.random.random() < 0.5:
            return self._with_signature(signature)
        body = covered.decode("latin-1")
        return msgspec.json.encode(SignedCommand(body, KEY_ID, base64.b64encode(signature).decode()))

    # --- signed by the cloud, and not for here and now -----------------------------------------------------------

    def _cross_device(self) -> bytes:
        return self._sealed(self._order(device_id=f"bike-{self.random.randint(2, 180):03d}"))

    def _replayed(self) -> bytes:
        return self.random.choice(self.delivered) if self.delivered else self._expired()

    def _expired(self) -> bytes:
        ago_ms = LIFETIME_MS + self.random.randint(1_000, 24 * HOUR_MS)
        return self._sealed(self._order(at_ms=self._now_ms() - ago_ms))

    def _from_the_future(self) -> bytes:
        return self._sealed(self._order(at_ms=self._now_ms() + self.random.randint(60_000, 24 * HOUR_MS)))

    def _wrong_generation(self) -> bytes:
        return self._sealed(self._order(generation=self._generation + self.random.choice((-2, -1, 1, 2))))
