"""Fixtures that start real servers; each says by a skip what is not installed."""

from influx_fixture import influx
from mosquitto_fixture import broker

__all__ = ["broker", "influx"]
