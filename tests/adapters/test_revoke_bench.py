"""`fleet bench revoke`: its figures are of revocations that held, among devices that stayed."""

import pytest

from cli.bench import revoke
from cli.bench.rig import BenchError
from cli.broker import find_mosquitto

pytestmark = pytest.mark.mosquitto


@pytest.fixture(autouse=True)
def installed():
    if find_mosquitto() is None:
        pytest.skip("Mosquitto is not installed; `make test` installs it when it is root")


def test_the_revoked_are_gone_and_nobody_else(tmp_path):
    found = revoke.measure(tmp_path, devices=12, revoked=3)
    assert (found["devices"], found["revoked"]) == (12, 3)
    assert (found["came_back"], found["others_disconnected"]) == (0, 0)
    assert 0 < found["revoke_to_disconnected_ms"]["max"] < 2_000


def test_a_revocation_that_does_not_hold_is_no_figure(tmp_path, monkeypatch):
    """A broker that is never told goes on letting them in."""

    async def deaf(_):
        pass

    monkeypatch.setattr(revoke.SignalReload, "__call__", deaf)
    with pytest.raises(BenchError, match="came back"):
        revoke.measure(tmp_path, devices=4, revoked=1)


def test_somebody_has_to_stay(tmp_path):
    with pytest.raises(BenchError, match="somebody has to stay"):
        revoke.measure(tmp_path, devices=3, revoked=3)
