"""Who is on duty when: crews, skills, shifts, and whether every minute of the next days is covered."""
