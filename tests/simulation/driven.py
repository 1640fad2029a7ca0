"""A world with a driver on every line, as an edge agent would attach them."""

import devices
from firmware_sim.scenario import Scenario

STARTED_MS = 1_799_985_600_000  # Friday noon in Dalian
KINDS = ("bike", "meal_machine", "nursing_room")
THIRTY = dict.fromkeys(KINDS, 10)
CALM = {"mishap_factor": 0.0, "presses_per_day": 0.0, "visits_per_workday": 0.0}
CLEAN = Scenario(name="clean", description="no faults, no script", facts={"line_fault_probability": 0.0})


class Edge:
    """Drivers on every line of a world, as an edge agent would attach them; keeps every byte and event."""

    def __init__(self, world):
        self.wire, self.events, self.readings, self.drivers = [], [], [], {}
        self._world = world
        for device_id in world.device_ids:
            driver = self.drivers[device_id] = devices.role(world.kind_of(device_id), "driver").create(device_id)
            world.line(device_id).attach(lambda data, device_id=device_id: self._on_bytes(device_id, data))
            world.line(device_id).from_driver(driver.on_start(world.now_ms).to_hardware)

    def _on_bytes(self, device_id, data):
        self.wire.append((device_id, data))
        output = self.drivers[device_id].on_bytes(data, self._world.now_ms)
        self.events += [(device_id, at, event) for at, event in output.events]
        self.readings += [(device_id, reading) for reading in output.readings]
        self._world.line(device_id).from_driver(output.to_hardware + output.after_commit)
