"""Series of a fleet that never was: plausible, the same for the same seed, written straight as points.

For measuring and drawing boards; what is proved about them is proved on simulated devices (`tests/adapters`).
"""
