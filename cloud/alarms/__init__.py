"""Alarms as people see them: the list, one alarm with its history and what to do, and acknowledging it."""
