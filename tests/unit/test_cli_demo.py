"""What the demo's exit code answers for, and where its words and its JSON go."""

import json

import pytest
from cli_support import fleet

from cli.broker import BrokerError
from cli.demo import command
from cli.demo.command import DemoError, Result

FIGURES = {"devices_online": 3, "calls_pressed": 1, "calls_notified": 1}


@pytest.fixture
def end_with(monkeypatch):
    """Let the demo end as told instead of running."""

    def set_end(outcome):
        async def run(_self):
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome

        monkeypatch.setattr(command._Demo, "run", run)

    return set_end


def test_a_good_run_prints_one_json_document_and_exits_0(end_with):
    end_with(Result(FIGURES, []))
    result = fleet("demo", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == FIGURES
    assert len(result.stdout.splitlines()) == 1


def test_a_complaint_is_said_and_exits_1_with_the_figures_and_the_logs(end_with, tmp_path):
    end_with(Result({**FIGURES, "calls_notified": 0}, ["1 presses were not notified"]))
    result = fleet("demo", "--json", "--directory", tmp_path)
    assert result.exit_code == 1
    assert json.loads(result.stdout)["calls_notified"] == 0
    assert "1 presses were not notified" in result.stderr
    assert str(tmp_path) in result.stderr.replace("\n", "")


@pytest.mark.parametrize("error", [DemoError("the cloud keeps dying"), BrokerError("Mosquitto is missing")])
def test_a_part_that_does_not_start_exits_1_and_says_which(end_with, error):
    end_with(error)
    result = fleet("demo", "--json")
    assert result.exit_code == 1
    assert str(error) in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("outcome", [None, KeyboardInterrupt(), Result(FIGURES, [])])
def test_its_temporary_folder_is_gone_when_nothing_is_wrong(end_with, monkeypatch, tmp_path, outcome):
    place = tmp_path / "demo"
    place.mkdir()
    monkeypatch.setattr(command.tempfile, "mkdtemp", lambda **_: str(place))
    end_with(outcome)
    fleet("demo", "--json")
    assert not place.exists()


def test_its_temporary_folder_stays_when_something_is_wrong(end_with, monkeypatch, tmp_path):
    monkeypatch.setattr(command.tempfile, "mkdtemp", lambda **_: str(tmp_path))
    end_with(Result(FIGURES, ["1 presses were not notified"]))
    fleet("demo", "--json")
    assert tmp_path.exists()


def test_stopped_before_anything_happened_is_neither_good_nor_bad(end_with):
    end_with(None)
    result = fleet("demo", "--json")
    assert result.exit_code == 130
    assert result.stdout == ""
