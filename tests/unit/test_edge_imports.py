"""An edge box is small: importing the agent loads no server, no database layer and no simulator."""

import subprocess
import sys
from pathlib import Path

TREE = Path(__file__).parent.parent.parent
PROGRAM = """
import sys
import edge.run, edge.host, edge.settings, edge.mqtt_link
import devices
for name in devices.kinds():
    devices.role(name, "driver")
print("\\n".join(sys.modules))
"""


def test_importing_the_agent_and_every_driver_loads_nothing_of_the_other_side():
    output = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=TREE, capture_output=True, text=True, check=True
    ).stdout
    loaded = set(output.split())
    roots = {name.partition(".")[0] for name in loaded}
    assert "edge" in roots
    assert not roots & {
        "fastapi",
        "sqlalchemy",
        "starlette",
        "uvicorn",
        "influxdb_client",
        "cloud",
        "firmware_sim",
        "cli",
    }
    roles = {name.rpartition(".")[2] for name in loaded if name.startswith("devices.")}
    assert "driver" in roles
    assert not roles & {"simulator", "panels", "rules", "state"}
    assert not roots & {"cryptography", "serial", "structlog", "rich", "typer"}, "loaded late, or not at all"
