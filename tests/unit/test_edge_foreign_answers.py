"""What comes down may be rubbish, old, forged or for others: nothing is forgotten without the cloud's word."""

import asyncio
import random

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fleet import envelope
from fleet.envelope import Acknowledgement, EnvelopeError, Lane, Refused, Welcome, decode_downlink
from fleet.signing import (
    BadSignatureError,
    sign_acknowledgement,
    sign_welcome,
    verify_acknowledgement,
)
from fleet.topics import DownChannel
from tests.edge_support import DEVICE, Rig, doorbell_kind, eventually

FUZZED = 100_000
SEED = 20_261


@pytest.fixture(autouse=True)
def kind():
    with doorbell_kind() as kind:
        yield kind


def everything_pending(rig):
    return {
        (lane, row.seq, row.event_id)
        for lane in (Lane.EMERGENCY, Lane.EVENT)
        for row in rig.host.journal.store.pending(DEVICE, lane, 0, 1_000)
    }


async def fill(rig):
    """Ten presses and ten events that were sent and are not acknowledged."""
    rig.cloud.answer = lambda *_: []
    for number in range(10):
        rig.bell.say(f"P {number:032x}")
        rig.bell.say(f"O {number + 100:032x}")
    await eventually(lambda: len(everything_pending(rig)) == 20)
    await eventually(lambda: rig.agent.uplink._windows[Lane.EVENT].highest_taken >= 10)
    return everything_pending(rig)


def fuzzed(rng, genuine):
    """One payload: noise, a damaged genuine one, or a well-formed lie."""
    choice = rng.random()
    if choice < 0.2:
        return rng.randbytes(rng.randrange(200))
    if choice < 0.6:
        data = bytearray(rng.choice(genuine))
        for _ in range(rng.randint(1, 6)):
            place = rng.randrange(len(data))
            data[place] = rng.randrange(256) if rng.random() < 0.5 else data[place] ^ (1 << rng.randrange(8))
        if rng.random() < 0.2:
            del data[rng.randrange(len(data)) :]
        return bytes(data)
    lie = Acknowledgement(
        rng.choice([0, 1, 2, 2**31]),
        {lane: rng.choice([0, 1, 5, 10, 11, 2**40]) for lane in rng.sample(list(Lane), rng.randint(0, 3))},
        tuple(rng.sample(list(Lane), rng.randint(0, 3))),
        (Refused(rng.choice(list(Lane)), rng.randint(1, 12), "lie"),) if rng.random() < 0.3 else (),
        (f"{rng.randrange(100):032x}",) if rng.random() < 0.3 else (),
        signature=rng.choice(["", "main:", "main:AAAA", "other:AAAA", ":", "main:" + "A" * 88]),
    )
    return envelope.encode(lie)


async def test_fuzzed_answers_crash_nothing_and_no_event_is_forgotten(tmp_path):
    rng = random.Random(SEED)
    rig = Rig(tmp_path)
    forger = Ed25519PrivateKey.generate()
    async with rig.running():
        old = [
            envelope.encode(rig.cloud.signed(DEVICE, Acknowledgement(1, {Lane.EMERGENCY: 0, Lane.EVENT: 0}))),
            envelope.encode(
                sign_welcome(Welcome("0" * 32, 1, 1, dict.fromkeys(Lane, 9)), DEVICE, "main", rig.cloud.key)
            ),
            envelope.encode(rig.cloud.signed("bell-002", Acknowledgement(1, dict.fromkeys(Lane, 9)))),
            envelope.encode(sign_acknowledgement(Acknowledgement(1, dict.fromkeys(Lane, 9)), DEVICE, "main", forger)),
        ]
        before = await fill(rig)
        uplink, readable = rig.agent.uplink, 0
        for number in range(FUZZED):
            data = old[number % len(old)] if number % 50 == 0 else fuzzed(rng, old)
            try:
                message = decode_downlink(data)
            except EnvelopeError:
                continue
            readable += 1
            if isinstance(message, Welcome):
                await uplink.on_welcome(message)
            else:
                await uplink.on_acknowledgement(message)
            if number % 1_000 == 0:
                await asyncio.sleep(0)
        assert readable > FUZZED / 4
        for data in (b"", b"\xff", b"{}", b'{"type":"ack"}', *old):
            rig.link.send(DownChannel.ACK, data)  # through the agent's own door
        await eventually(lambda: rig.agent.counts["unreadable"] >= 4)
        await asyncio.sleep(0.6)  # longer than acknowledged rows stay
        assert everything_pending(rig) == before
        assert uplink.counts["acknowledgements_not_believed"] > 0
        assert rig.bell.heard(f"L {0:032x}") == 0, "no light without the cloud's word"
        real = rig.cloud.signed(DEVICE, Acknowledgement(uplink.generation, {Lane.EMERGENCY: 10, Lane.EVENT: 10}))
        rig.link.send(DownChannel.ACK, envelope.encode(real))
        await eventually(lambda: not everything_pending(rig))
        assert rig.bell.heard(f"L {0:032x}") == 1


def test_a_signature_holds_for_one_device_and_one_content():
    key = Ed25519PrivateKey.generate()
    verifiers = {"main": key.public_key()}
    signed = sign_acknowledgement(Acknowledgement(1, {Lane.EVENT: 3}), DEVICE, "main", key)
    verify_acknowledgement(signed, DEVICE, verifiers)
    verify_acknowledgement(decode_downlink(envelope.encode(signed)), DEVICE, verifiers)
    for device_id, message in (
        ("bell-002", signed),
        (DEVICE, msgspec.structs.replace(signed, marks={Lane.EVENT: 4})),
        (DEVICE, msgspec.structs.replace(signed, generation=2)),
        (DEVICE, msgspec.structs.replace(signed, refused=(Refused(Lane.EVENT, 3, ""),))),
        (DEVICE, msgspec.structs.replace(signed, replies=("a" * 32,))),
        (DEVICE, msgspec.structs.replace(signed, signature="")),
    ):
        with pytest.raises(BadSignatureError):
            verify_acknowledgement(message, device_id, verifiers)


async def test_what_was_set_aside_is_counted_shown_and_can_be_sent_again(tmp_path):
    rig = Rig(tmp_path)
    rig.cloud.never_take = {(Lane.EVENT, 2)}
    async with rig.running():
        for number in range(4):
            rig.bell.say(f"O {number:032x}")
        await eventually(lambda: len(rig.cloud.committed) == 3)
        assert (await rig.host.statistics()).set_aside == 1
        (aside,) = await rig.host.journal.set_aside_messages(10)
        assert (aside.lane, aside.seq, aside.reason) == (Lane.EVENT, 2, "never acknowledged")
        assert not await rig.host.journal.resend_set_aside(aside.id + 1)
        assert await rig.host.journal.resend_set_aside(aside.id)
        await eventually(lambda: len(rig.cloud.committed) == 4)
        assert (await rig.host.statistics()).set_aside == 0
        assert not await rig.host.journal.resend_set_aside(aside.id)
    assert rig.cloud.event_ids(Lane.EVENT) == [f"{number:032x}" for number in (0, 2, 3, 1)]
