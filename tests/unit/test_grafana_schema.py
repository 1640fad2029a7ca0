"""Boards fit Grafana's own types in the version they are made for; and a board that does not is found."""

import copy
from importlib.metadata import version

import pytest

from dashboards.build import LANGUAGES, build_all
from scripts.grafana_schema_check import BoardSchema, grafana_version, schema


@pytest.fixture(scope="module")
def types():
    return BoardSchema(schema())


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.timeout(400)  # the first run of a machine fetches the types
def test_every_board_fits(types, language):
    assert {uid: found for uid, board in build_all(language).items() if (found := types.faults(board))} == {}


def test_the_types_are_of_the_builders_version():
    assert version("grafana-foundation-sdk").split("!")[1] == grafana_version()


@pytest.mark.parametrize("damage", ["board", "option", "type", "custom", "override", "panel"])
def test_a_board_that_grafana_would_not_understand_is_found(types, damage):
    board = copy.deepcopy(build_all("en")["fleet-overview"])
    panel = next(one for one in board["panels"] if one["type"] == "timeseries")
    if damage == "board":
        board["refreshing"] = "30s"
    elif damage == "option":
        panel["options"]["legends"] = {}
    elif damage == "type":
        panel["gridPos"]["w"] = "wide"
    elif damage == "custom":
        panel["fieldConfig"]["defaults"]["custom"]["lineThickness"] = 2
    elif damage == "override":
        wrong = {"id": "custom.colour", "value": "red"}
        panel["fieldConfig"]["overrides"].append({"matcher": {"id": "byName", "options": "x"}, "properties": [wrong]})
    else:
        panel["type"] = "piechart3d"
    assert types.faults(board)
