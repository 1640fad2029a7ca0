"""Whatever leaves for a device between two commits names committed marks: a next owner knows no others (ADR 0008)."""

from cloud.device_commands.keys import OneKey
from cloud.ingest.acknowledger import Acknowledger
from cloud.ingest.intake import Intake
from cloud.model import DeviceLane
from fleet.envelope import Lane, Welcome, decode_downlink


class NoSigner:
    def sign(self, _data):
        return b"s" * 64


def test_neither_a_welcome_nor_an_urgent_acknowledgement_runs_ahead_of_the_commit():
    acknowledger = Acknowledger(OneKey("key", NoSigner()))
    lane = DeviceLane("bike-001", "bike", None, None, generation=1, telemetry_seq=3)
    lanes = {lane.device_id: lane}
    acknowledger.committed([lane], 1.0)
    acknowledger.due(1.0, lanes)
    lane.telemetry_seq, lane.emergency_seq = 5, 1  # the telemetry is in the spool, the emergency is committed
    intake = Intake()
    intake.ack(lane.device_id).urgent = True
    acknowledger.note(intake, 1.1)
    acknowledger.welcome(lane, "0" * 32, 1_000)
    welcome, acknowledgement = (decode_downlink(message.payload) for message in acknowledger.due(1.1, lanes))
    assert isinstance(welcome, Welcome)
    for marks in (welcome.marks, acknowledgement.marks):
        assert marks == {Lane.EMERGENCY: 1, Lane.EVENT: 0, Lane.TELEMETRY: 3}
