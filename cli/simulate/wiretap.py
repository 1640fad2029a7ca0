"""What somebody between the cloud and the devices has heard, keeps back, and says again at the wrong time."""

from collections import defaultdict
from typing import Final

import msgspec

from fleet.envelope import EnvelopeError, Welcome, decode_downlink
from fleet.randomness import Randomness
from fleet.signing import CommandOrder, SignedCommand
from fleet.topics import DownChannel

_KEPT_MAX: Final = 40


class Wiretap:
    """Keeps the first acknowledgements of every generation, the latest welcome, and commands that it holds up."""

    def __init__(self, randomness: Randomness) -> None:
        self.listening = False
        self.withheld: dict[str, list[bytes]] = {}
        """Device whose commands do not get through now → those commands."""
        self.welcomes: dict[str, tuple[int, bytes]] = {}
        """Device → (its time, the latest welcome)."""
        self._generations: dict[str, dict[int, list[bytes]]] = defaultdict(dict)
        self._randomness = randomness

    def hear(self, device_id: str, channel: DownChannel, payload: bytes) -> bool:
        """Something for a device passes by; whether it is held up."""
        if channel is DownChannel.COMMAND:
            if device_id not in self.withheld:
                return False
            self.withheld[device_id].append(payload)
            return True
        if self.listening and channel is DownChannel.ACK:
            try:
                message = decode_downlink(payload)
            except EnvelopeError:
                return False
            if isinstance(message, Welcome):
                self.welcomes[device_id] = message.time_ms, payload
            elif message.signature:
                kept = self._generations[device_id].setdefault(message.generation, [])
                if len(kept) < _KEPT_MAX:
                    kept.append(payload)
        return False

    def outdated(self, device_id: str) -> bytes | None:
        """A signed acknowledgement of an earlier generation of the device; None if there was none."""
        generations = self._generations[device_id]
        kept = [payload for one in sorted(generations)[:-1] for payload in generations[one]]
        return kept[self._randomness.randint(0, len(kept) - 1)] if kept else None

    def forged(self, payload: bytes) -> bytes:
        """The same command under an id that nobody gave, with the signature of the genuine one, well spelled."""
        signed = msgspec.json.decode(payload, type=SignedCommand)
        order = msgspec.json.decode(signed.order, type=CommandOrder)
        changed = msgspec.structs.replace(order, id=f"e{order.id[1:]}")
        return msgspec.json.encode(msgspec.structs.replace(signed, order=msgspec.json.encode(changed).decode()))


def order_of(payload: bytes) -> CommandOrder:
    """What a signed command says; the signature is not looked at."""
    return msgspec.json.decode(msgspec.json.decode(payload, type=SignedCommand).order, type=CommandOrder)
