"""Go-back-N against any order of losses: in order, without holes that are not declared, and it always gets through."""

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.records import Row
from edge.timing import Timing
from edge.window import LaneWindow
from fleet.envelope import Lane

TIMING = Timing()


def row(seq):
    return Row(Lane.EVENT, seq, 0, 0, b"{}")


def window(mark=0):
    return LaneWindow(Lane.EVENT, TIMING, mark, lambda: 1.0)


def read(lane, rows):
    wanted = lane.begin_reading()
    if wanted:
        token, after, count = wanted
        found = [r for r in rows if r.seq > after][:count]
        lane.fill(token, found, more=len(found) == count)


@settings(max_examples=200, deadline=None)
@given(
    present=st.sets(st.integers(1, 60), min_size=1),
    fates=st.lists(st.sampled_from(["deliver", "lose", "lose_acknowledgement", "reconnect"]), max_size=300),
)
def test_everything_present_arrives_once_in_order_and_every_hole_is_declared(present, fates):
    rows = [row(seq) for seq in sorted(present)]
    lane, now_s, mark, arrived, declared = window(), 0.0, 0, [], set()
    fate = iter(fates)
    for _ in range(5_000):
        if len(arrived) == len(rows):
            break
        read(lane, rows)
        lane.expire(now_s)
        outgoing = lane.take(now_s)
        if outgoing is None:
            assert lane.deadline_s is not None, "nothing to do and nothing to wait for"
            now_s = max(now_s, lane.deadline_s)
            continue
        what = next(fate, "deliver")
        if what == "reconnect":
            lane.restart()
        if what in ("lose", "reconnect"):
            continue
        first = outgoing.evicted_from or outgoing.row.seq
        gap = first > mark + 1
        if not gap and outgoing.row.seq > mark:
            declared.update(range(first, outgoing.row.seq))
            arrived.append(outgoing.row.seq)
            mark = outgoing.row.seq
        if what == "deliver":
            lane.acknowledge(mark, now_s)
            if gap:
                lane.go_back(now_s)
        now_s += 0.01
    assert arrived == sorted(present)
    assert declared == set(range(1, max(present))) - present


def test_the_window_is_bounded_and_probes_with_one_after_silence():
    lane = window()
    rows = [row(seq) for seq in range(1, 40)]
    read(lane, rows)
    sent = [lane.take(0.0).row.seq for _ in range(TIMING.window_messages_max)]
    assert sent == list(range(1, TIMING.window_messages_max + 1))
    assert lane.take(0.0) is None
    pauses = []
    now_s = 0.0
    for _ in range(5):
        pauses.append(lane.deadline_s - now_s)
        now_s = lane.deadline_s
        assert lane.expire(now_s)
        assert lane.take(now_s).row.seq == 1
        assert lane.take(now_s) is None
    assert pauses == [2.0, 4.0, 8.0, 15.0, 15.0]
    assert [done.seq for done in lane.acknowledge(3, now_s)] == [1, 2, 3]
    assert lane.take(now_s).row.seq == 4
    assert lane.take(now_s) is not None, "progress opens the window again"


def test_rows_offered_while_the_journal_is_read_are_not_skipped():
    lane = window()
    token, *_ = lane.begin_reading()
    lane.offer(row(3))
    lane.fill(token, [row(1), row(2)], more=False)
    assert [lane.take(0.0).row.seq for _ in range(2)] == [1, 2]
    read(lane, [row(1), row(2), row(3)])
    assert lane.take(0.0).row.seq == 3


def test_a_reading_that_was_cut_off_is_done_again():
    lane = window()
    token, *_ = lane.begin_reading()
    lane.restart()
    lane.fill(token, [row(1)], more=False)
    assert lane.take(0.0) is None
    read(lane, [row(1)])
    assert lane.take(0.0).row.seq == 1


def test_an_old_mark_in_a_welcome_is_believed_only_if_asked_after_ours():
    lane = window(mark=5)
    read(lane, [row(6)])
    lane.take(0.0)
    lane.acknowledge(6, 10.0)
    lane.settle(5, 9.0, 11.0)
    assert lane.mark == 6
    lane.settle(4, 12.0, 13.0)
    assert lane.mark == 4


def test_silence_of_a_dead_cloud_is_no_strike():
    lane = window()
    read(lane, [row(1)])
    now_s = 0.0
    for _ in range(100):
        lane.take(now_s)
        now_s = lane.deadline_s
        lane.expire(now_s)
    assert lane.strikes == 0
    assert not lane.stuck(now_s)
    for _ in range(TIMING.stuck_strikes_max):
        lane.take(now_s)
        now_s = lane.deadline_s
        lane.expire(now_s)
        lane.settle(0, now_s, now_s)
    assert lane.stuck(now_s)
    assert lane.drop_head().seq == 1


def test_emergencies_are_sent_again_quickly_at_first_and_back_off_when_the_cloud_is_too_slow():
    lane = LaneWindow(Lane.EMERGENCY, Timing(), 0, lambda: 1.0)
    read(lane, [row(1)])
    now_s, pauses = 0.0, []
    for _ in range(9):
        assert lane.take(now_s).row.seq == 1
        pauses.append(lane.deadline_s - now_s)
        now_s = lane.deadline_s
        assert lane.expire(now_s)
    assert pauses == [1.0, 2.0, 2.0, 2.0, 2.0, 4.0, 8.0, 8.0, 8.0]
    lane.take(now_s)
    lane.settle(0, now_s, now_s + 0.1)  # the cloud answered a hello: at once again
    assert lane.take(now_s + 0.1).row.seq == 1
    assert lane.deadline_s == now_s + 0.1 + 8.0


def test_pauses_of_many_boxes_drift_apart_when_they_get_long():
    spread = []
    for factor in (0.9, 1.1):
        lane = LaneWindow(Lane.EMERGENCY, Timing(), 0, lambda factor=factor: factor)
        read(lane, [row(1)])
        now_s = 0.0
        for _ in range(8):
            lane.take(now_s)
            pause_s = lane.deadline_s - now_s
            now_s = lane.deadline_s
            lane.expire(now_s)
        spread.append(pause_s)
    assert spread[1] > 2 * spread[0]
