"""The parts of a simulated room; only `devices.nursing_room.simulator` puts them together."""
