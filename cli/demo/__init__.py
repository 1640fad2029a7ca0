"""`fleet demo`: the whole system on this machine, with simulated hardware and people."""

from cli.demo.command import demo, receiver_command

__all__ = ["demo", "receiver_command"]
