"""The named points: each is in the code once, and without an observer nothing happens."""

import ast
from collections import Counter
from pathlib import Path

import pytest

from fleet import milestones
from fleet.milestones import MILESTONES, observed, reached

ROOT = Path(__file__).parents[2]


def calls():
    found = Counter()
    for folder in ("edge", "cloud"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "reached":
                    assert isinstance(node.args[0], ast.Constant), f"{path}: a milestone's name must be written out"
                    found[node.args[0].value] += 1
    return found


def test_every_milestone_is_passed_at_exactly_one_place():
    assert calls() == dict.fromkeys(MILESTONES, 1)


def test_nobody_observes_unless_told_to():
    assert milestones.observe(None) is None
    reached("edge.journal.before_commit")


def test_an_observer_hears_names_and_its_exception_goes_through():
    heard = []

    class CrashError(BaseException):
        pass

    def observer(name):
        heard.append(name)
        if len(heard) == 2:
            raise CrashError

    with observed(observer):
        reached("edge.journal.before_commit")
        with pytest.raises(CrashError):
            reached("edge.journal.after_commit")
    reached("edge.journal.before_commit")
    assert heard == ["edge.journal.before_commit", "edge.journal.after_commit"]
