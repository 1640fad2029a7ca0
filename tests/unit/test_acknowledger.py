"""What devices are told, and when: no mark before it is committed."""

from cloud.ingest.acknowledger import TELEMETRY_ACK_EVERY_S, Acknowledger
from cloud.ingest.intake import Intake
from cloud.model import DeviceLane
from fleet.envelope import Lane, Welcome, decode_downlink


class NoSigner:
    def sign(self, _data):
        return b"s" * 64


def lane_of(device_id="bike-001", **marks):
    return DeviceLane(device_id, "bike", None, None, generation=1, **marks)


def told(messages):
    return [decode_downlink(message.payload) for message in messages]


def test_telemetry_is_acknowledged_when_its_mark_is_committed_and_not_before():
    acknowledger, lane = Acknowledger("key", NoSigner()), lane_of()
    lanes = {lane.device_id: lane}
    lane.telemetry_seq = 3  # durable in the spool, and no more than that
    acknowledger.note(Intake(), 10.0)
    assert acknowledger.due(10.0, lanes) == []
    acknowledger.committed([lane], 10.5)
    (acknowledgement,) = told(acknowledger.due(10.5, lanes))
    assert acknowledgement.marks[Lane.TELEMETRY] == 3


def test_an_urgent_acknowledgement_in_between_does_not_run_ahead():
    acknowledger, lane = Acknowledger("key", NoSigner()), lane_of(telemetry_seq=3)
    acknowledger.committed([lane], 1.0)
    acknowledger.due(1.0, {lane.device_id: lane})
    lane.telemetry_seq, lane.emergency_seq = 5, 1
    intake = Intake()
    intake.ack(lane.device_id).urgent = True
    acknowledger.note(intake, 1.1)
    acknowledger.welcome(lane, "0" * 32, 1_000)
    welcome, acknowledgement = told(acknowledger.due(1.1, {lane.device_id: lane}))
    assert isinstance(welcome, Welcome)
    for marks in (welcome.marks, acknowledgement.marks):
        assert marks == {Lane.EMERGENCY: 1, Lane.EVENT: 0, Lane.TELEMETRY: 3}


def test_a_device_is_told_of_telemetry_at_most_once_a_second_and_of_the_last_message_for_sure():
    acknowledger, lane = Acknowledger("key", NoSigner()), lane_of()
    lanes, times, last = {lane.device_id: lane}, [], None
    for step in range(60):
        now_s = step / 20
        if step <= 40:
            lane.telemetry_seq += 1
            acknowledger.committed([lane], now_s)
        for acknowledgement in told(acknowledger.due(now_s, lanes)):
            times.append(now_s)
            last = acknowledgement.marks[Lane.TELEMETRY]
    assert all(later - earlier >= TELEMETRY_ACK_EVERY_S for earlier, later in zip(times, times[1:], strict=False))
    assert last == lane.telemetry_seq


def test_a_repeat_of_what_is_committed_is_answered_again():
    acknowledger, lane = Acknowledger("key", NoSigner()), lane_of(telemetry_seq=7, telemetry_committed_seq=7)
    intake = Intake()
    intake.ack(lane.device_id)
    acknowledger.note(intake, 5.0)
    (acknowledgement,) = told(acknowledger.due(5.0, {lane.device_id: lane}))
    assert acknowledgement.marks[Lane.TELEMETRY] == 7
