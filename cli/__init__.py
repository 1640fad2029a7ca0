"""The commands. The composition root: it may import everything, and nothing imports it."""
