"""`fleet week`: a seeded normal week of the fleet, its crew and its alarms, in minutes; see docs/week.md."""
