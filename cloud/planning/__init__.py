"""Rounds of the crews: all open work of all kinds, planned by vehicle routing; preventive work."""
