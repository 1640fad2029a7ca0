"""Commands: signed, for this device and storage, in time, and carried out at most once."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fleet.signing import CommandOrder, sign_command
from fleet.topics import DownChannel
from tests.edge_support import DEVICE, Rig, doorbell_kind, eventually

RING = {"action": "ring", "times": 2}
ID = "c" * 32


@pytest.fixture(autouse=True)
def kind():
    with doorbell_kind() as kind:
        yield kind


async def test_a_command_goes_through_all_its_replies(tmp_path):
    async with Rig(tmp_path).running() as rig:
        rig.command(RING)
        await eventually(lambda: rig.bell.heard(f"C {ID} 2"))
        rig.bell.say(f"D {ID}")
        await eventually(lambda: len(rig.replies()) == 3)
        assert rig.replies() == [("accepted", ""), ("executing", ""), ("succeeded", "")]
        await eventually(lambda: rig.agent.downlink.unacknowledged_replies == 0)


async def test_the_hardware_s_reason_is_reported(tmp_path):
    async with Rig(tmp_path).running() as rig:
        rig.command(RING)
        await eventually(lambda: rig.bell.heard(f"C {ID} 2"))
        rig.bell.say(f"X {ID}")
        await eventually(lambda: rig.replies()[-1:] == [("failed", "jam")])


@pytest.mark.parametrize(
    ("command", "changes", "answer"),
    [
        (RING, {"lifetime_ms": -1_000}, ("expired", "expired")),
        (RING, {"issued_at": 1, "lifetime_ms": 10**9}, ("expired", "expired")),
        (RING, {"generation": 2}, ("refused", "wrong_generation")),
        ({"action": "explode"}, {}, ("refused", "unknown_action")),
        ({"times": 2}, {}, ("refused", "unknown_action")),
        ({"action": "ring", "times": 99}, {}, ("refused", "invalid_arguments")),
        ({"action": "ring", "loud": True}, {}, ("refused", "invalid_arguments")),
    ],
)
async def test_a_signed_command_is_refused_with_its_reason(tmp_path, command, changes, answer):
    async with Rig(tmp_path).running() as rig:
        rig.command(command, **changes)
        await eventually(lambda: rig.replies() == [answer])
        rig.command(RING)  # the id is spent, whatever comes under it
        await eventually(lambda: rig.agent.downlink.counts["replayed"] == 1)
        assert rig.replies() == [answer]
        assert b"C " not in rig.bell.told


def forged(rig):
    order = CommandOrder(ID, DEVICE, 1, rig.clock.now_ms(), rig.clock.now_ms() + 9_000, b"{}")
    return sign_command(order, "main", Ed25519PrivateKey.generate())


def unknown_key(rig):
    return rig.cloud.command(DEVICE, RING).replace(b'"main"', b'"other"')


def mutated(rig):
    return rig.cloud.command(DEVICE, RING).replace(rb"\"times\":2", rb"\"times\":9")


def for_another(rig):
    return rig.cloud.command(DEVICE, RING, device_id="bell-002")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (forged, "bad_signature"),
        (mutated, "bad_signature"),
        (unknown_key, "unknown_key"),
        (for_another, "wrong_device"),
        (lambda _: b"\xff{", "unreadable"),
        (lambda _: b'{"id":1}', "unreadable"),
    ],
)
async def test_what_was_not_signed_for_us_is_ignored_without_an_answer(tmp_path, make, reason):
    async with Rig(tmp_path).running() as rig:
        rig.link.send(DownChannel.COMMAND, make(rig))
        await eventually(lambda: rig.agent.downlink.counts[f"ignored_{reason}"] == 1)
        rig.command(RING)  # a stranger has not spent the id either
        await eventually(lambda: rig.bell.heard(f"C {ID} 2") == 1)


async def test_without_a_verified_welcome_there_is_no_time_to_trust(tmp_path):
    first = Rig(tmp_path)
    async with first.running():
        pass
    second = Rig(tmp_path, cloud=first.cloud)
    second.cloud.welcomes = False
    async with second.running(connected=False):
        await eventually(lambda: len(second.cloud.hellos) > 2)
        second.command(RING)
        await eventually(lambda: second.replies() == [("refused", "untrusted_time")])
        assert b"C " not in second.bell.told


async def test_setting_the_wall_clock_back_makes_no_old_command_fresh(tmp_path):
    async with Rig(tmp_path).running() as rig:
        old = rig.cloud.command(DEVICE, RING, lifetime_ms=-1_000)
        rig.clock.skew_ms = -10 * 365 * 86_400_000
        rig.link.send(DownChannel.COMMAND, old)
        await eventually(lambda: rig.replies() == [("expired", "expired")])


async def test_a_replayed_command_moves_nothing_and_gets_the_same_answer(tmp_path):
    first = Rig(tmp_path)
    async with first.running():
        order = first.cloud.command(DEVICE, RING)
        first.link.send(DownChannel.COMMAND, order)
        first.link.send(DownChannel.COMMAND, order)
        await eventually(lambda: first.bell.heard(f"C {ID} 2"))
        first.bell.say(f"D {ID}")
        await eventually(lambda: first.agent.downlink.counts["succeeded"] == 1)
        await eventually(lambda: first.agent.downlink.unacknowledged_replies == 0)
        assert first.bell.heard(f"C {ID} 2") == 1
    second = Rig(tmp_path, cloud=first.cloud)
    second.cloud.replies.clear()
    async with second.running():
        second.link.send(DownChannel.COMMAND, order)
        await eventually(lambda: second.replies() == [("succeeded", "")])
        assert b"C " not in second.bell.told


async def test_a_command_that_was_running_at_a_crash_fails_unless_the_hardware_knows(tmp_path):
    first = Rig(tmp_path)
    async with first.running():
        for command_id in (ID, "d" * 32):
            first.command(RING, command_id=command_id)
        await eventually(lambda: first.bell.heard(f"C {'d' * 32} 2"))
    second = Rig(tmp_path, cloud=first.cloud)
    async with second.running():
        second.bell.say(f"D {ID}")
        await eventually(lambda: second.replies()[-1:] == [("succeeded", "")])
        await eventually(lambda: second.replies("d" * 32)[-1:] == [("failed", "unknown")])
        second.bell.say(f"D {'d' * 32}")  # too late: the first final answer stands
        await eventually(lambda: second.agent.downlink.counts["progress_ignored"] == 1)
        assert b"C " not in second.bell.told


async def test_a_final_reply_is_repeated_until_acknowledged_over_connections_and_restarts(tmp_path):
    first = Rig(tmp_path)
    first.cloud.acknowledges_replies = False
    async with first.running():
        first.command(RING)
        await eventually(lambda: first.bell.heard(f"C {ID} 2"))
        first.bell.say(f"D {ID}")
        await eventually(lambda: [reply.status for reply in first.cloud.replies].count("succeeded") >= 3)
    second = Rig(tmp_path, cloud=first.cloud)
    second.cloud.replies.clear()
    async with second.running():
        await eventually(lambda: ("succeeded", "") in second.replies())
        second.cloud.acknowledges_replies = True
        await eventually(lambda: second.agent.downlink.unacknowledged_replies == 0)
    third = Rig(tmp_path, cloud=first.cloud)
    third.cloud.replies.clear()
    async with third.running():
        third.bell.say(f"P {'1' * 32}")
        await eventually(lambda: third.bell.heard(f"L {'1' * 32}"))
    assert third.replies() == []


async def test_an_id_that_cannot_be_kept_is_never_carried_out(tmp_path):
    async with Rig(tmp_path).running() as rig:
        store = rig.host._journal.store

        def refuse(*_):
            error = __import__("sqlite3").OperationalError("database or disk is full")
            error.sqlite_errorcode = 13
            raise error

        keep, store.remember_command = store.remember_command, refuse
        rig.command(RING)
        await eventually(lambda: rig.replies() == [("refused", "not_possible")])
        store.remember_command = keep
        rig.command(RING)
        await eventually(lambda: rig.agent.downlink.counts["replayed"] == 1)
        assert b"C " not in rig.bell.told
