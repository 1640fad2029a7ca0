"""What the fleet is and does now: devices, their state, their history, and commands to them."""
