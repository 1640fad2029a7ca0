"""Certificates and keys say who is who; secrets are readable by their owner alone."""

import pytest

from cloud.device_commands.keys import public_key_of
from cloud.identity import pki
from cloud.identity.authority import (
    command_key_id,
    load_or_create_command_key,
    public_pem,
    write_secret,
)


def test_the_command_key_is_made_once_and_read_by_its_owner_alone(tmp_path):
    path = tmp_path / "keys" / "command.key"
    first, second = load_or_create_command_key(path), load_or_create_command_key(path)
    assert first.private_bytes_raw() == second.private_bytes_raw()
    assert path.stat().st_mode & 0o777 == 0o600
    key_id, public = public_key_of(path, tmp_path)
    assert key_id == command_key_id(first.public_key())
    assert public.read_bytes() == public_pem(first.public_key())
    assert b"PRIVATE" not in public.read_bytes()


def test_a_file_with_another_key_is_refused_with_the_fix(tmp_path):
    path = tmp_path / "command.key"
    write_secret(path, pki.key_pem(pki.new_key()))
    with pytest.raises(ValueError, match="command_key_file"):
        load_or_create_command_key(path)


def test_a_secret_replaces_a_file_that_everybody_could_read(tmp_path):
    path = tmp_path / "secret"
    path.write_bytes(b"old and long")
    path.chmod(0o644)
    write_secret(path, b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_secret_is_replaced_as_a_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "secret"
    write_secret(path, b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_secret(path, b"new and longer")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
