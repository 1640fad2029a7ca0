"""What the outbox counts for `/metrics`."""

from prometheus_client import Counter, Histogram

DELIVERED = Counter("fleet_outbox_delivered", "Notifications accepted by a channel", ["channel"])
FAILED = Counter("fleet_outbox_attempts_failed", "Attempts that a channel did not accept", ["channel"])
GIVEN_UP = Counter("fleet_outbox_given_up", "Notifications given up after their last attempt", ["channel"])
FENCED = Counter("fleet_outbox_fenced", "Outcomes of a lease that somebody else holds by now")
SATURATED = Counter("fleet_outbox_saturated", "Times a channel had as many in hand as it may", ["channel"])
RECALLED = Counter("fleet_outbox_recalled", "Leased notifications withdrawn right before they were sent", ["channel"])
NOT_RECALLED = Counter("fleet_outbox_not_recalled", "Notifications delivered after they had been withdrawn")
SEND_SECONDS = Histogram(
    "fleet_outbox_send_seconds",
    "Real seconds from the start of an attempt to its end",
    ["channel"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
