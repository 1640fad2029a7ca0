"""Many alarms of one cause as one incident with its list."""
