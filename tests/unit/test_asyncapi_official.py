"""The official AsyncAPI parser finds no error in our document, and does find one in a document that has one."""

import json

import pytest

from cli.asyncapi import document
from scripts.asyncapi_check import check, main


@pytest.fixture(scope="module")
def made():
    return document()


def test_the_official_parser_accepts_the_document(made):
    verdict = check(json.dumps(made))
    assert verdict.parsed
    assert verdict.errors == []
    # Anything but the advice to use the newest version of the specification is new, and worth a look.
    assert {remark.code for remark in verdict.remarks} <= {"asyncapi-latest-version"}


@pytest.mark.parametrize("damage", ["info", "reference", "action"])
def test_the_official_parser_refuses_a_wrong_document(made, damage):
    wrong = json.loads(json.dumps(made))
    operation = next(iter(wrong["operations"].values()))
    if damage == "info":
        del wrong["info"]["version"]
    elif damage == "reference":
        operation["channel"]["$ref"] = "#/channels/nowhere"
    else:
        operation["action"] = "shout"
    assert check(json.dumps(wrong)).errors


def test_as_a_command_it_judges_a_file(tmp_path, capsys):
    file = tmp_path / "wrong.json"
    file.write_text('{"asyncapi": "3.0.0"}')
    assert main([str(file)]) == 1
    assert "error" in capsys.readouterr().err
