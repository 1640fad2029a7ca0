"""`fleet influx …`: makes an InfluxDB ready, rolls it up by hand, backs it up and restores it."""

from cli.influx.commands import app

__all__ = ["app"]
