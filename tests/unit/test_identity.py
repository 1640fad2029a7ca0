"""Certificates and keys say who is who; secrets are readable by their owner alone."""

import datetime as dt

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloud.device_commands.keys import public_key_of
from cloud.identity.authority import (
    LEAF_DAYS,
    Authority,
    command_key_id,
    load_or_create_command_key,
    public_pem,
    write_secret,
)

NOW = dt.datetime(2027, 1, 15, 12, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def authority():
    return Authority.create(NOW)


def loaded(pem):
    return x509.load_pem_x509_certificate(pem)


def test_a_devices_certificate_names_it_and_is_for_clients_alone(authority):
    credentials = authority.issue_client("bike-001", NOW)
    certificate = loaded(credentials.certificate)
    certificate.verify_directly_issued_by(loaded(authority.certificate_pem))
    (name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert name.value == "bike-001"
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    assert (
        certificate.not_valid_before_utc <= NOW < certificate.not_valid_after_utc == NOW + dt.timedelta(days=LEAF_DAYS)
    )
    key = serialization.load_pem_private_key(credentials.key, None)
    assert key.public_key() == certificate.public_key()


def test_a_brokers_certificate_names_its_hosts_and_addresses(authority):
    certificate = loaded(authority.issue_server(["broker.example", "127.0.0.1"], NOW).certificate)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["broker.example"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]


def test_every_identity_has_a_key_and_a_number_of_its_own(authority):
    made = [authority.issue_client("bike-001", NOW) for _ in range(3)]
    assert len({credentials.key for credentials in made}) == 3
    assert len({loaded(credentials.certificate).serial_number for credentials in made}) == 3


def test_the_command_key_is_made_once_and_read_by_its_owner_alone(tmp_path):
    path = tmp_path / "keys" / "command.key"
    first, second = load_or_create_command_key(path), load_or_create_command_key(path)
    assert first.private_bytes_raw() == second.private_bytes_raw()
    assert path.stat().st_mode & 0o777 == 0o600
    key_id, public = public_key_of(path, tmp_path)
    assert key_id == command_key_id(first.public_key())
    assert public.read_bytes() == public_pem(first.public_key())
    assert b"PRIVATE" not in public.read_bytes()


def test_a_file_with_another_key_is_refused_with_the_fix(tmp_path, authority):
    path = tmp_path / "command.key"
    write_secret(path, authority.issue_client("x", NOW).key)
    with pytest.raises(ValueError, match="command_key_file"):
        load_or_create_command_key(path)


def test_a_secret_replaces_a_file_that_everybody_could_read(tmp_path):
    path = tmp_path / "secret"
    path.write_bytes(b"old and long")
    path.chmod(0o644)
    write_secret(path, b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
