"""The Grafana boards, in four tiers: the fleet, each kind, one device of a kind, and the platform.

Pure: same kinds, same JSON. Rows of a kind come from its `panels.py`, limits from its `rules.py`, everything else from
`fleet.series`; so a new kind has its boards by its folder alone.
"""

from typing import Any, Final

import devices
from dashboards.frame import BOARD_WIDTH, PANELS_MAX, TAG
from dashboards.kind_boards import alarms_of, build_device, build_kind, device_panels_of, panels_of
from dashboards.links import OPERATIONS_UID, OVERVIEW_UID, device_uid_of, uid_of
from dashboards.operations import build_operations
from dashboards.overview import build_overview

__all__ = [
    "BOARD_WIDTH", "LANGUAGES", "OPERATIONS_UID", "OVERVIEW_UID", "PANELS_MAX", "TAG", "alarms_of", "build_all",
    "build_device", "build_kind", "device_panels_of", "device_uid_of", "panels_of", "uid_of",
]  # fmt: skip

LANGUAGES: Final = ("zh", "en")


def build_all(language: str) -> dict[str, dict[str, Any]]:
    """Every board by its uid, as Grafana's JSON model, with texts in `zh` or `en`.

    Raises:
        BoardError: a kind's panels ask for what its reading does not have.
    """
    kinds = list(devices.kinds().values())
    boards = {OVERVIEW_UID: build_overview(kinds, language)}
    for kind in kinds:
        boards[uid_of(kind.name)] = build_kind(kind, language)
        boards[device_uid_of(kind.name)] = build_device(kind, language)
    boards[OPERATIONS_UID] = build_operations(language)
    return boards
