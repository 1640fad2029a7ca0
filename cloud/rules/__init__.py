"""Third stage: state and time in, alarms, calls and work out. Pure: tables of the kinds, desks in memory."""
