"""Shared meal machines (共享售饭机): chilled boxes in 16 slots, heated when sold, dropped past a sensor."""
