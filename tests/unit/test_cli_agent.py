"""`fleet edge --config FILE` on an edge box: straight to the agent, without the command tree or the cloud."""

import subprocess
import sys
from pathlib import Path

import pytest

from cli.agent import config_of

TREE = Path(__file__).parent.parent.parent
LOADED = """
import runpy, sys, atexit
atexit.register(lambda: print("\\n".join(sys.modules)))
import edge.run
edge.run.main = lambda *_: None
sys.argv = ["fleet", "edge", "--config", {config!r}]
runpy.run_module("cli.main", run_name="__main__")
"""
CONFIG = """
device_id = "room-001"
kind = "nursing_room"
transport = "serial:/dev/null"
data_directory = "data"
[broker]
host = "127.0.0.1"
plain = true
[command_keys]
main = "main.pem"
"""


@pytest.mark.parametrize(
    ("arguments", "config"),
    [
        (["--config", "edge.toml"], Path("edge.toml")),
        (["--config=edge.toml"], Path("edge.toml")),
        ([], None),
        (["--help"], None),
        (["--config"], None),
        (["--config="], None),
        (["--config", "--help"], None),
        (["--config", "edge.toml", "--json"], None),
        (["run", "--config", "edge.toml"], Path("edge.toml")),
        (["run", "--config=edge.toml"], Path("edge.toml")),
        (["run"], None),
        (["run", "run", "--config=edge.toml"], None),
        (["status", "--config", "edge.toml"], None),
    ],
)
def test_only_a_plain_start_takes_the_short_way(arguments, config):
    assert config_of(arguments) == config


def test_the_short_way_loads_neither_the_command_tree_nor_the_other_side(tmp_path):
    config = tmp_path / "edge.toml"
    config.write_text(CONFIG)
    program = LOADED.format(config=str(config))
    output = subprocess.run(
        [sys.executable, "-c", program], cwd=TREE, capture_output=True, text=True, check=True
    ).stdout
    modules = output.split()
    roots = {name.partition(".")[0] for name in modules}
    assert {"edge", "aiomqtt", "cli"} <= roots
    assert not roots & {
        "typer", "rich", "fastapi", "sqlalchemy", "starlette", "uvicorn", "pydantic_settings", "structlog", "cloud",
        "firmware_sim", "dashboards", "influxdb_client", "apprise", "aiohttp", "pymodbus", "gpiod",
    }  # fmt: skip
    assert {name for name in modules if name.startswith("cli")} == {"cli", "cli.agent", "cli.clock"}


def test_a_wrong_file_is_one_line_and_exit_code_2_there_too():
    ended = subprocess.run(
        [sys.executable, "-m", "cli.main", "edge", "--config", "/nowhere/edge.toml"],
        cwd=TREE, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert "/nowhere/edge.toml" in line
    assert ended.stdout == ""
