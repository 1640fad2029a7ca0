"""`fleet backup`: database, keys, certificates and settings in one checked file, and back again."""

from cli.backup.commands import app

__all__ = ["app"]
