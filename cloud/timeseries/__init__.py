"""Telemetry on its way to the series: a durable spool that the ingester appends to, drained later and repeatably."""
