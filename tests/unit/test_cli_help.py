"""Every command explains itself with an example, and everything that prints data can print it as JSON."""

import re

import pytest
import typer
from cli_support import fleet

from cli.app import app

WITHOUT_JSON = {("docs", "asyncapi"), ("docs", "pages")}
"""They write documents; the first one is JSON anyway."""


def leaves(command, path=()):
    children = getattr(command, "commands", None)
    if children is None:
        yield path, command
        return
    for name, child in children.items():
        yield from leaves(child, (*path, name))


COMMANDS = {path: command for path, command in leaves(typer.main.get_command(app)) if not command.hidden}


def test_the_commands_of_the_issue_are_there():
    names = {" ".join(path) for path in COMMANDS}
    assert names >= {
        "demo", "serve", "edge check", "edge install", "edge run", "edge status",
        "sim", "doctor", "quarantine", "devices list", "devices show", "devices enrol",
        "bench ingest", "bench edge", "bench press", "docs asyncapi", "dashboards build",
    }  # fmt: skip


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_shows_an_example_of_this_command(path):
    result = fleet(*path, "--help")
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    assert "Example" in text
    assert f"fleet {' '.join(path)}" in text


@pytest.mark.parametrize("path", sorted(COMMANDS.keys() - WITHOUT_JSON), ids=" ".join)
def test_data_can_be_json(path):
    assert any("--json" in parameter.opts for parameter in COMMANDS[path].params)


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_option_is_described(path):
    for parameter in COMMANDS[path].params:
        assert parameter.help, parameter.name


def test_the_tree_itself_and_its_groups_show_help_when_nothing_is_asked():
    for group in ((), ("devices",), ("bench",), ("docs",), ("dashboards",)):
        result = fleet(*group)
        assert "Usage" in result.output


def test_the_version():
    result = fleet("--version")
    assert result.exit_code == 0
    assert re.fullmatch(r"\d+\.\d+\.\d+|not installed, .*", result.stdout.strip())
