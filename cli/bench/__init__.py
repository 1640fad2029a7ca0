"""`fleet bench`: what things cost here, always with their rate and as a ratio measured in the same run."""

from cli.bench.command import app

__all__ = ["app"]
