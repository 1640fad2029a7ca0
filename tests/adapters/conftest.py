"""Fixtures that start real servers; each says by a skip what is not installed."""

from influx_fixture import influx
from mosquitto_fixture import broker, production

__all__ = ["broker", "influx", "production"]
