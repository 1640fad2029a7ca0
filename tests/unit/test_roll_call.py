"""Whoever is there when we are back is told so once, some at a time, whatever comes and goes meanwhile."""

from types import SimpleNamespace

from cloud.ingest.roll_call import TOLD_AT_ONCE_MAX, RollCall


def lanes_of(*device_ids):
    return {
        device_id: SimpleNamespace(device_id=device_id, generation=1, retired=False, revoked=False)
        for device_id in device_ids
    }


def told(roll_call, lanes, *, connected=True):
    return [message.topic.split("/")[2] for message in roll_call.messages(lanes, connected=connected)]


def test_all_are_told_once_in_their_order_some_at_a_time():
    lanes = lanes_of(*(f"bike-{number:04}" for number in range(2 * TOLD_AT_ONCE_MAX + 1)))
    roll_call = RollCall()
    rounds = [told(roll_call, lanes) for _ in range(4)]
    assert [len(one) for one in rounds] == [TOLD_AT_ONCE_MAX, TOLD_AT_ONCE_MAX, 1, 0]
    assert [device_id for one in rounds for device_id in one] == list(lanes)


def test_who_is_gone_is_passed_over_and_who_came_is_told():
    lanes = lanes_of(*(f"bike-{number:04}" for number in range(TOLD_AT_ONCE_MAX + 2)))
    roll_call = RollCall()
    first = told(roll_call, lanes)
    gone = list(lanes)[-1]
    del lanes[gone]
    lanes |= lanes_of("room-001")
    rest = told(roll_call, lanes) + told(roll_call, lanes)
    assert sorted(first + rest) == sorted(lanes)
    assert told(roll_call, lanes) == []


def test_a_new_connection_tells_all_again():
    lanes, roll_call = lanes_of("bike-1", "bike-2"), RollCall()
    assert told(roll_call, lanes) == ["bike-1", "bike-2"]
    assert told(roll_call, lanes, connected=False) == []
    assert told(roll_call, lanes) == ["bike-1", "bike-2"]


def test_who_may_not_be_spoken_to_is_not():
    lanes, roll_call = lanes_of("bike-1", "bike-2", "bike-3"), RollCall()
    lanes["bike-1"].retired = lanes["bike-2"].revoked = True
    assert told(roll_call, lanes) == ["bike-3"]
