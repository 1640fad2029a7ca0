"""`fleet watchdog`: calls for help all day through the whole product, and says when nobody would come."""

from cli.watchdog.command import watchdog

__all__ = ["watchdog"]
