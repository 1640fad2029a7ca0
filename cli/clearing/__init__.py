"""Proves from the running code that nothing but the room's own event moves an open emergency call to cleared."""
