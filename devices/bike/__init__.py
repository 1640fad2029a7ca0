"""Shared smart bikes: a frame with a motor lock, GNSS, an accelerometer and a battery pack."""
