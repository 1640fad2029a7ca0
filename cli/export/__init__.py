"""`fleet export`: the series as files for other tools."""

from cli.export.command import export

__all__ = ["export"]
