"""Signed commands and signed time: nothing forged, mutated or re-used for another purpose passes."""

import base64
import json

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from fleet import signing
from fleet.envelope import CommandKeys, EnvelopeError, Lane, Welcome
from fleet.signing import BadSignatureError, CommandOrder

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
VERIFIERS = {"cloud-1": KEY.public_key()}
ORDER = CommandOrder(
    "ab" * 16, "bike-001", 1, 1_800_000_000_000, 1_800_000_010_000, msgspec.Raw(b'{"action":"unlock"}')
)
SIGNED = signing.sign_command(ORDER, "cloud-1", KEY)


def test_a_signed_command_is_verified_and_decoded():
    order = signing.verify_command(SIGNED, VERIFIERS)
    assert (order.id, order.device_id, order.not_after) == (ORDER.id, ORDER.device_id, ORDER.not_after)
    assert json.loads(bytes(order.command)) == {"action": "unlock"}


@given(position=st.integers(0, len(SIGNED) - 1), bit=st.integers(0, 7))
def test_no_mutated_byte_passes(position, bit):
    mutated = SIGNED[:position] + bytes((SIGNED[position] ^ (1 << bit),)) + SIGNED[position + 1 :]
    with pytest.raises(EnvelopeError):  # also where JSON or base64 would still mean the same
        signing.verify_command(mutated, VERIFIERS)


@pytest.mark.parametrize("spelling", [lambda data: b" " + data, lambda data: data.replace(b'","', b'", "')])
def test_a_command_has_one_spelling(spelling):
    with pytest.raises(EnvelopeError, match="not as it was signed"):
        signing.verify_command(spelling(SIGNED), VERIFIERS)


def test_a_signature_has_one_spelling():
    outer = json.loads(SIGNED)
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    last = digits.index(outer["signature"][-3])
    outer["signature"] = outer["signature"][:-3] + digits[last ^ 1] + "=="  # the same 64 bytes
    with pytest.raises(BadSignatureError):
        signing.verify_command(msgspec.json.encode(outer), VERIFIERS)


@given(data=st.binary(max_size=300))
def test_any_bytes_are_refused(data):
    with pytest.raises(EnvelopeError):
        signing.verify_command(data, VERIFIERS)


def test_unknown_and_wrong_keys_are_told_apart():
    with pytest.raises(BadSignatureError) as unknown:
        signing.verify_command(SIGNED, {})
    assert unknown.value.reason == "unknown_key"
    with pytest.raises(BadSignatureError) as wrong:
        signing.verify_command(SIGNED, {"cloud-1": OTHER.public_key()})
    assert wrong.value.reason == "bad_signature"


def test_an_edited_order_is_refused():
    outer = json.loads(SIGNED)
    outer["order"] = outer["order"].replace("bike-001", "bike-002")
    with pytest.raises(BadSignatureError):
        signing.verify_command(msgspec.json.encode(outer), VERIFIERS)


def test_a_signature_of_the_bare_order_is_no_command():
    body = msgspec.json.encode(ORDER)
    bare = {"order": body.decode(), "key_id": "cloud-1", "signature": base64.b64encode(KEY.sign(body)).decode()}
    with pytest.raises(BadSignatureError):
        signing.verify_command(msgspec.json.encode(bare), VERIFIERS)


def test_an_oversized_command_is_refused_before_any_work():
    with pytest.raises(EnvelopeError, match="more than"):
        signing.verify_command(b" " * (signing.COMMAND_BYTES_MAX + 1), VERIFIERS)


WELCOME = signing.sign_welcome(Welcome("00" * 16, 1_800_000_000_000, 1, {Lane.EVENT: 3}), "bike-001", "cloud-1", KEY)


def test_signed_time_is_verified():
    signing.verify_welcome(WELCOME, "bike-001", VERIFIERS)


@pytest.mark.parametrize(
    "change", [{"time_ms": 1_900_000_000_000}, {"nonce": "11" * 16}, {"generation": 2}, {"signature": "cloud-1:AAAA"},
               {"signature": ""}, {"signature": "cloud-1:***"}],
)  # fmt: skip
def test_changed_time_is_refused(change):
    with pytest.raises(BadSignatureError):
        signing.verify_welcome(msgspec.structs.replace(WELCOME, **change), "bike-001", VERIFIERS)


def test_time_signed_for_one_device_is_not_anothers():
    with pytest.raises(BadSignatureError):
        signing.verify_welcome(WELCOME, "bike-002", VERIFIERS)


def test_announced_keys_are_covered_by_the_welcomes_signature():
    announcement = signing.announce_keys(7, {"next": OTHER.public_key().public_bytes_raw()})
    assert signing.announced_keys(announcement) == {"next": OTHER.public_key().public_bytes_raw()}
    signed = signing.sign_welcome(
        msgspec.structs.replace(WELCOME, command_keys=announcement), "bike-001", "cloud-1", KEY
    )
    signing.verify_welcome(signed, "bike-001", VERIFIERS)
    other = signing.announce_keys(8, {"next": OTHER.public_key().public_bytes_raw()})
    for forged in (None, other):
        with pytest.raises(BadSignatureError):
            signing.verify_welcome(msgspec.structs.replace(signed, command_keys=forged), "bike-001", VERIFIERS)
    with pytest.raises(BadSignatureError):  # nor can an announcement be added to a welcome without one
        signing.verify_welcome(msgspec.structs.replace(WELCOME, command_keys=announcement), "bike-001", VERIFIERS)


@pytest.mark.parametrize("text", ["", "!!", "QUJD"])
def test_an_announced_key_that_is_none_is_refused(text):
    with pytest.raises(EnvelopeError, match="command key x"):
        signing.announced_keys(CommandKeys(1, {"x": text}))
