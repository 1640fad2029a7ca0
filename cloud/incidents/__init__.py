"""Incidents as people see them: many alarms with one cause, told as one; and the sites that devices share."""
