"""How bad the network and the messages are just now."""

from fleet.randomness import Randomness


class Weather:
    """How bad the network and the messages are just now. All zero: nothing is delayed or damaged."""

    latency_s = 0.0
    latency_s_tail = 0.0
    duplicated = 0.0
    truncated = 0.0
    dropped = 0.0
    """Share of messages that the broker acknowledged and lost (its queue was full)."""
    replayed = 0.0
    forged = 0.0

    def __init__(self, randomness: Randomness) -> None:
        self.randomness = randomness

    def delay_s(self) -> float:
        """Of one message in one direction."""
        if not self.latency_s:
            return 0.0
        draw = self.randomness.random()
        tail = self.latency_s_tail * self.randomness.random() if draw > 0.97 else 0.0
        return self.latency_s * (0.2 + draw) + tail

    def strikes(self, share: float) -> bool:
        """Whether a fault of this share happens now."""
        return share > 0.0 and self.randomness.random() < share
