"""Bike rides: an unlock is a transaction, and only the lock's own evidence starts and ends a ride."""
