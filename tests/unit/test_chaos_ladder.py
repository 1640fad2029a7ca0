"""The judge of calls finds each way in which a ladder can go wrong."""

import pytest

from cli.chaos import ladder
from cli.chaos.ladder import Step

T = 1_800_000_000_000
KEY = "k" * 32


def run(*found):
    """(step, before, after, business seconds, event id) of one call."""
    return [
        Step("c1", step, before, after, T + round(at_s * 1000), event_id)
        for step, before, after, at_s, event_id in found
    ]


def press(at_s, before="idle"):
    return ("press", before, "calling", at_s, f"{round(at_s):032x}")


def escalate(level, at_s, before="calling"):
    return ("escalate", before, before, at_s, f"escalation:{level}")


ACCEPT = ("acknowledge", "calling", "acknowledged", 130, "")
CLEAR = ("clear_at_origin", "acknowledged", "cleared", 300, KEY)
GOOD = run(press(0), escalate(1, 60), escalate(2, 120), ACCEPT, CLEAR)


def judged(steps, state="cleared", cleared=(KEY,), **options):
    finding = ladder.judge(steps, {"c1": state}, set(cleared), **{"clocks_jumped": False, **options})
    return len(finding.lost), len(finding.doubled)


def test_a_good_call_is_good():
    assert judged(GOOD) == (0, 0)
    again = run(press(0), escalate(1, 60), ACCEPT, press(200, "acknowledged"), escalate(1, 260))
    assert judged(again, "calling") == (0, 0), "a call that is opened again begins its ladder anew"
    late = run(press(0), escalate(1, 3_000), escalate(2, 3_060))
    assert judged(late, "calling") == (0, 0), "after an outage one step follows, and then the next in its time"


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (run(press(0), escalate(2, 120), ACCEPT, CLEAR), (1, 0)),
        (run(press(0), escalate(1, 60), escalate(1, 120), ACCEPT, CLEAR), (0, 1)),
        (run(press(0), escalate(1, 20), ACCEPT, CLEAR), (0, 1)),
        (run(press(0), ACCEPT, escalate(1, 200, "acknowledged"), CLEAR), (0, 1)),
        (run(press(0), ACCEPT, ("acknowledge", "acknowledged", "acknowledged", 140, ""), CLEAR), (0, 1)),
        (run(press(0), ACCEPT, ("clear_at_origin", "calling", "cleared", 300, KEY)), (1, 0)),
    ],
    ids=["missed", "repeated", "too early", "after the acknowledgement", "accepted twice", "another state before"],
)
def test_each_fault_of_a_ladder_is_found(steps, expected):
    assert judged(steps) == expected


def test_a_call_that_nobody_cleared_in_its_room_is_found():
    assert judged(GOOD, cleared=()) == (1, 0)
    assert judged(GOOD, "acknowledged") == (1, 0), "the row says something else than the steps"
    assert judged([], "calling") == (1, 0), "a row without steps"


def test_a_wrong_clock_excuses_an_early_step_and_nothing_else():
    assert judged(run(press(0), escalate(1, 20), ACCEPT, CLEAR), clocks_jumped=True) == (0, 0)
    assert judged(run(press(0), escalate(2, 120), ACCEPT, CLEAR), clocks_jumped=True) == (1, 0)


def test_a_step_that_never_comes_is_overdue_until_somebody_accepts():
    calling = run(press(0), escalate(1, 60))
    assert ladder.overdue(calling, T + 140_000) == []
    assert ladder.overdue(calling, T + 151_000) == ["c1"]
    assert ladder.overdue(GOOD, T + 10_000_000) == []
