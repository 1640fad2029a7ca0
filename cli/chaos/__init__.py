"""`fleet chaos`: the real processes under a seeded schedule of faults, and an oracle that counts what they did."""

from cli.chaos.command import chaos

__all__ = ["chaos"]
