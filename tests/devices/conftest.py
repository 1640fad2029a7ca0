"""These tests walk every kind; those of FLEET_KIND_FOLDERS take part, so a kind's author can run them from outside.

FLEET_KIND_FOLDERS='["/path/to/shuttle_bus"]' pytest tests/devices -k shuttle_bus
"""

from cli.kinds import add_kinds

add_kinds()
