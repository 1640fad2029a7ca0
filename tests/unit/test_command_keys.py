"""The ring of command keys in the cloud, and what a device trusts."""

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cloud.device_commands.keys import KeyRingError, KeyRingFile, parse_ring, public_key_of
from cloud.identity.authority import load_or_create_command_key
from edge.command_keys import TrustedKeys
from fleet.envelope import CommandKeys
from fleet.signing import CommandOrder, announce_keys, announced_keys, sign_command, verify_command

ONE, TWO, THREE = (Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (1, 2, 3))


@pytest.fixture
def ring(tmp_path):
    """A ring that began as one bare key and then got two more."""
    file = KeyRingFile(tmp_path / "command.key")
    return file.ring.with_new_key(TWO, 10).with_new_key(THREE, 20)


def ids(ring):
    return [key.id for key in ring.keys]


# --- the cloud's ring ----------------------------------------------------------------------------------------------


def test_a_bare_key_is_a_ring_that_announces_nothing(tmp_path):
    load_or_create_command_key(tmp_path / "key")
    file = KeyRingFile(tmp_path / "key")
    (key,) = file.ring.keys
    assert (file.version, key.state, file.announced_ids) == (0, "active", (key.id,))
    assert file.announcement(()) is None
    assert file.for_command(()) == (key.id, key.private)
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600


def test_a_ring_survives_its_file(ring):
    again = parse_ring(ring.retired(ids(ring)[0], 30).text())
    assert (again.version, ids(again)) == (30, ids(ring))
    assert [key.state for key in again.keys] == ["retired", "active", "active"]
    assert [key.public_raw for key in again.keys] == [key.public_raw for key in ring.keys]


def test_each_device_is_told_in_a_key_it_trusts(ring):
    first, second, third = ids(ring)
    assert ring.for_command([first])[0] == first
    assert ring.for_command([first, third])[0] == third
    assert ring.for_command([])[0] == first, "who never said trusts what it was installed with"
    later = ring.retired(first, 30)
    assert later.for_command([first])[0] == second, "a retired key signs no command"
    assert later.for_welcome([first])[0] == first, "but the welcome from which that device learns another"
    assert later.for_welcome([first, second])[0] == second
    gone = later.without(first, 40)
    assert gone.for_welcome([first])[0] != first


def test_news_is_announced_to_those_for_whom_it_is_news(ring):
    assert ring.announcement(ids(ring)) is None
    found = ring.announcement([ids(ring)[0]])
    assert found.version == ring.version
    assert announced_keys(found) == {key.id: key.public_raw for key in ring.active}
    assert set(ring.retired(ids(ring)[0], 30).announcement(ids(ring)).keys) == set(ids(ring)[1:])


def test_versions_only_grow(ring):
    assert ring.version == 20
    assert ring.with_new_key(ONE, 5).version == 21, "also when the clock went back"


def test_the_last_active_key_stays(ring):
    first, second, third = ids(ring)
    only = ring.retired(first, 30).retired(second, 31)
    for change in (only.retired, only.without):
        with pytest.raises(KeyRingError, match="only active key"):
            change(third, 40)
        with pytest.raises(KeyRingError, match="there is no key"):
            change("nobody", 40)


def test_a_ring_has_a_bound(ring):
    for number in range(10, 15):
        ring = ring.with_new_key(Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32), 50)
    with pytest.raises(KeyRingError, match="retire or remove one first"):
        ring.with_new_key(ONE, 60)


def _ec_pem():
    return generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda _: b"", "no Ed25519 private key"),
        (lambda _: b"\xff\xfe", "no PEM"),
        (lambda ring: ring.text()[:-40], "damaged"),
        (lambda ring: ring.text().replace(b"active", b"retired"), "no active key"),
        (lambda ring: ring.text().replace(ids(ring)[0].encode(), b"0" * 16), "somebody edited"),
        (lambda ring: ring.text() + _ec_pem(), "no Ed25519"),
    ],
    ids=["empty", "binary", "cut", "all retired", "renamed", "another kind"],
)
def test_what_is_no_ring_is_refused_with_the_reason(ring, content, words):
    with pytest.raises(KeyRingError, match=words):
        parse_ring(content(ring))


def test_a_running_process_notices_a_replaced_file_and_survives_a_broken_one(tmp_path, ring):
    running = KeyRingFile(tmp_path / "command.key")
    assert running.refresh() is False
    KeyRingFile(running.path).replace(ring)
    assert running.refresh() is True
    assert running.announced_ids == ring.announced_ids
    running.path.write_bytes(b"oops")
    assert running.refresh() is False
    assert running.announced_ids == ring.announced_ids
    assert public_key_of(KeyRingFile(_saved(tmp_path / "other", ring)).path, tmp_path)[0] == ids(ring)[-1]


def _saved(path, ring):
    path.write_bytes(ring.text())
    return path


# --- what a device trusts ------------------------------------------------------------------------------------------


def announcement(version, **keys):
    return announce_keys(version, {name: key.public_key().public_bytes_raw() for name, key in keys.items()})


def trusted(tmp_path, **configured):
    configured = configured or {"one": ONE}
    return TrustedKeys({name: key.public_key() for name, key in configured.items()}, tmp_path / "keys.json")


def obeys(keys, name, private):
    order = CommandOrder("a" * 32, "bike-001", 1, 1, 2, msgspec.Raw(b"{}"))
    try:
        verify_command(sign_command(order, name, private), keys.verifiers)
    except ValueError:
        return False
    return True


async def test_an_announcement_replaces_what_was_trusted_and_survives_a_restart(tmp_path):
    keys = trusted(tmp_path)
    assert await keys.adopt(announcement(5, one=ONE, two=TWO))
    assert keys.ids == ("one", "two")
    assert await keys.adopt(announcement(6, two=TWO))
    for now in (keys, trusted(tmp_path)):
        assert (now.ids, now.version) == (("two",), 6)
        assert obeys(now, "two", TWO)
        assert not obeys(now, "one", ONE)


async def test_an_older_announcement_brings_no_dropped_key_back(tmp_path):
    keys = trusted(tmp_path)
    assert await keys.adopt(announcement(6, two=TWO))
    for keys_now in (keys, trusted(tmp_path)):
        assert not await keys_now.adopt(announcement(5, one=ONE, two=TWO))
        assert not await keys_now.adopt(announcement(6, one=ONE))
        assert keys_now.ids == ("two",)
    assert keys.counts["keys_outdated"] == 1


async def test_keys_that_cannot_be_stored_do_not_count(tmp_path):
    keys = trusted(tmp_path)
    (tmp_path / "keys.json.new").mkdir()  # like a full or broken disk: nothing can be written there
    assert not await keys.adopt(announcement(5, two=TWO))
    assert (keys.ids, keys.version, keys.counts["keys_not_stored"]) == (("one",), 0, 1)
    (tmp_path / "keys.json.new").rmdir()
    assert await keys.adopt(announcement(5, two=TWO)), "announced again, taken then"


async def test_a_kill_before_the_file_is_replaced_leaves_the_old_keys(tmp_path):
    keys = trusted(tmp_path)
    await keys.adopt(announcement(5, one=ONE, two=TWO))
    (tmp_path / "keys.json.new").write_bytes(b'{"configured":["one"],"announ')  # as far as it came
    assert trusted(tmp_path).ids == ("one", "two")


@pytest.mark.parametrize("content", [b"", b"{}", b"\x00" * 100, b"\xff"])
def test_a_damaged_file_leaves_the_keys_of_the_settings(tmp_path, content):
    (tmp_path / "keys.json").write_bytes(content)
    keys = trusted(tmp_path)
    assert (keys.ids, keys.counts["keys_unreadable"]) == (("one",), 1)


async def test_keys_that_somebody_put_into_the_settings_win(tmp_path):
    await trusted(tmp_path).adopt(announcement(5, two=TWO))
    by_hand = trusted(tmp_path, three=THREE)
    assert by_hand.ids == ("three",)
    assert not await by_hand.adopt(announcement(5, one=ONE)), "an old version says nothing new"
    assert not await by_hand.adopt(announcement(4, two=TWO)), "an old announcement stays old"
    assert await by_hand.adopt(announcement(6, two=TWO, three=THREE))


async def test_an_unusable_announcement_changes_nothing(tmp_path):
    keys = trusted(tmp_path)
    assert not await keys.adopt(CommandKeys(5, {"x": "QUJD"}))
    assert (keys.ids, keys.counts["keys_unusable"]) == (("one",), 1)


async def test_settings_that_were_set_back_to_a_retired_key_are_led_out_by_the_announcement_known_already(tmp_path):
    box = trusted(tmp_path, one=ONE)
    known = announcement(7, two=TWO)
    assert await box.adopt(known)
    back = trusted(tmp_path, retired=THREE)  # somebody restored old settings: what they name counts
    assert back.ids == ("retired",)
    assert not await back.adopt(announcement(7, three=THREE)), "the version is known with another content"
    assert not await back.adopt(announcement(6, two=TWO)), "and an older one stays old"
    assert await back.adopt(known)
    assert obeys(back, "two", TWO)
    assert trusted(tmp_path, retired=THREE).ids == ("two",), "it survives a restart"
