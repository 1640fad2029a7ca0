"""The web inbox as people read it: every notice that those on duty were given in the application."""
