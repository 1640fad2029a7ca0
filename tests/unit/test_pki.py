"""What the certificates say, whom an authority signs, and what the folder of `fleet pki` refuses."""

import datetime as dt

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store

from cloud.identity import pki
from cloud.identity.authority import LEAF_DAYS, RequestRefusedError
from cloud.identity.pki_folder import DOMAINS, FolderSigner, PkiError, PkiFolder
from cloud.identity.revocation_list import read_list

NOW = dt.datetime(2027, 1, 15, 12, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)


@pytest.fixture
def folder(tmp_path):
    made = PkiFolder(tmp_path / "pki")
    made.initialise(NOW)
    return made


def loaded(chain):
    return x509.load_pem_x509_certificates(chain)


def extension(certificate, kind):
    return certificate.extensions.get_extension_for_class(kind)


# --- what the certificates say -----------------------------------------------------------------------------------


def test_a_device_is_signed_for_its_own_name_whatever_it_asks_for(folder):
    key = pki.new_key()
    issued = folder.device_authority().sign(pki.make_request("fleet.ingester", key), "bike-001", NOW)
    leaf, intermediate = loaded(issued.chain)
    assert pki.common_name(leaf) == "bike-001"
    assert leaf.public_key() == key.public_key()
    assert list(extension(leaf, x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert extension(leaf, x509.BasicConstraints).value.ca is False
    usage = extension(leaf, x509.KeyUsage).value
    assert (usage.digital_signature, usage.key_cert_sign, usage.crl_sign) == (True, False, False)
    assert issued.serial == f"{leaf.serial_number:x}"
    assert leaf.not_valid_before_utc == NOW - dt.timedelta(hours=1)
    assert issued.not_after == leaf.not_valid_after_utc == NOW + LEAF_DAYS * DAY
    leaf.verify_directly_issued_by(intermediate)
    own = extension(intermediate, x509.SubjectKeyIdentifier).value.digest
    assert extension(leaf, x509.AuthorityKeyIdentifier).value.key_identifier == own


@pytest.mark.parametrize("domain", sorted(DOMAINS))
def test_roots_and_intermediates_sign_certificates_and_lists_and_nothing_else(folder, domain):
    root = pki.load_certificate(folder.root_file(domain).read_bytes())
    online = pki.load_certificate(folder.online_files(domain)[0].read_bytes())
    for certificate, length in ((root, 1), (online, 0)):
        constraints = extension(certificate, x509.BasicConstraints)
        assert constraints.critical
        assert (constraints.value.ca, constraints.value.path_length) == (True, length)
        usage = extension(certificate, x509.KeyUsage)
        assert usage.critical
        assert (usage.value.key_cert_sign, usage.value.crl_sign, usage.value.digital_signature) == (True, True, False)
    online.verify_directly_issued_by(root)


def test_the_domains_do_not_vouch_for_each_other(folder):
    roots = {domain: pki.load_certificate(folder.root_file(domain).read_bytes()) for domain in DOMAINS}
    for domain, wrong in (("devices", "services"), ("services", "devices")):
        _, between = loaded(folder.authority(domain).issue_client("bike-001", NOW).certificate)
        between.verify_directly_issued_by(roots[domain])
        with pytest.raises(ValueError, match="does not match"):
            between.verify_directly_issued_by(roots[wrong])


def test_a_server_names_its_hosts_and_is_no_client(folder):
    issued = folder.issue_server(["broker.example", "127.0.0.1"], NOW)
    leaf = loaded(issued.chain)[0]
    names = extension(leaf, x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["broker.example"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    assert list(extension(leaf, x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.SERVER_AUTH]
    store = Store([pki.load_certificate(folder.root_file("services").read_bytes())])
    verifier = PolicyBuilder().store(store).time(NOW).build_server_verifier(x509.DNSName("broker.example"))
    verifier.verify(leaf, loaded(issued.chain)[1:])


def test_a_leaf_never_outlives_its_issuer(folder):
    authority = folder.device_authority()
    ends_at = authority.certificate.not_valid_after_utc
    made = authority.leaf("bike-001", pki.new_key().public_key(), ends_at - 10 * DAY)
    assert made.not_after == ends_at


# --- what is refused ---------------------------------------------------------------------------------------------


def request_of(key):
    builder = x509.CertificateSigningRequestBuilder().subject_name(pki.name_of("bike-001"))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def tampered():
    """A request for somebody else's public key: signed by another key than it names."""
    der = x509.load_pem_x509_csr(pki.make_request("bike-001", pki.new_key())).public_bytes(Encoding.DER)
    own = pki.new_key().public_key().public_bytes(Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    start = der.index(own[:27])
    return x509.load_der_x509_csr(der[:start] + own + der[start + len(own) :]).public_bytes(Encoding.PEM)


@pytest.mark.parametrize(
    ("request_pem", "words"),
    [
        (lambda: request_of(rsa.generate_private_key(65537, 2048)), "P-256"),
        (lambda: request_of(ec.generate_private_key(ec.SECP384R1())), "P-256"),
        (tampered, "not signed by its own key"),
        (lambda: b"garbage", "no PEM certificate request"),
        (lambda: b"", "no PEM certificate request"),
        (lambda: b"x" * 10_000, "larger than"),
    ],
    ids=["rsa", "p384", "another key", "garbage", "empty", "huge"],
)
def test_a_request_that_proves_no_p256_key_is_refused(folder, request_pem, words):
    with pytest.raises(RequestRefusedError, match=words):
        folder.device_authority().sign(request_pem(), "bike-001", NOW)


@pytest.mark.parametrize("name", ["", "BIKE", "bike 1", "bike/1", "fleet.ingester", "x" * 33, "bike\n"])
def test_what_is_no_device_id_is_signed_for_nobody(folder, name):
    with pytest.raises(RequestRefusedError, match="no device id"):
        folder.device_authority().sign(pki.make_request("x", pki.new_key()), name, NOW)
    with pytest.raises(PkiError, match="no device id"):
        folder.issue_device(name, NOW)


def test_a_service_never_has_a_name_that_a_device_could_have(folder):
    for name in ("bike-001", "fleet", "fleet.", "fleet.A", "other.ingester"):
        with pytest.raises(PkiError, match="no name of a service"):
            folder.issue_service(name, NOW)
    with pytest.raises(PkiError, match="no host"):
        folder.issue_server([], NOW)


def test_nothing_is_replaced_unasked(folder):
    with pytest.raises(PkiError, match="never replaced"):
        folder.initialise(NOW)
    folder.issue_service("fleet.ingester", NOW)
    before = folder.issued_files("fleet.ingester")[0].read_bytes()
    with pytest.raises(PkiError, match="--replace"):
        folder.issue_service("fleet.ingester", NOW)
    assert folder.issued_files("fleet.ingester")[0].read_bytes() == before
    folder.issue_service("fleet.ingester", NOW, replace=True)
    assert folder.issued_files("fleet.ingester")[0].read_bytes() != before


# --- the folder --------------------------------------------------------------------------------------------------


def test_every_key_is_read_by_its_owner_alone(folder):
    folder.issue_server(["localhost"], NOW)
    folder.issue_device("bike-001", NOW)
    keys = sorted(folder.directory.rglob("*.key"))
    assert len(keys) == 6
    for key in keys:
        assert key.stat().st_mode & 0o777 == 0o600, key
    for path in folder.directory.rglob("*.pem"):
        assert b"PRIVATE" not in path.read_bytes(), path


def test_daily_work_needs_no_offline_key_and_a_renewal_does(folder, tmp_path):
    away = tmp_path / "away"
    (folder.directory / "offline").rename(away)
    folder.issue_device("bike-001", NOW)
    folder.refresh_list(NOW)
    with pytest.raises(PkiError, match="--offline"):
        folder.renew_intermediate("devices", NOW)
    folder.renew_intermediate("devices", NOW, offline=away)


def test_a_passphrase_protects_the_offline_keys_alone(tmp_path):
    folder = PkiFolder(tmp_path)
    folder.initialise(NOW, b"correct horse battery")
    assert b"ENCRYPTED" in folder.root_key_file("devices").read_bytes()
    folder.issue_device("bike-001", NOW)
    for passphrase in (None, b"wrong"):
        with pytest.raises(PkiError, match="passphrase"):
            folder.renew_intermediate("devices", NOW, passphrase=passphrase)
    folder.renew_intermediate("devices", NOW, passphrase=b"correct horse battery")


def test_after_a_renewal_old_certificates_count_until_their_end_and_both_issuers_have_a_list(folder):
    signer = FolderSigner(folder)
    old = signer.sign(pki.make_request("x", pki.new_key()), "bike-001", NOW)
    before = folder.device_authority().certificate
    folder.renew_intermediate("devices", NOW + DAY)
    new = signer.sign(pki.make_request("x", pki.new_key()), "bike-002", NOW + DAY)
    root = pki.load_certificate(folder.root_file("devices").read_bytes())
    issuers = set()
    for issued in (old, new):
        leaf, between = loaded(issued.chain)
        leaf.verify_directly_issued_by(between)
        between.verify_directly_issued_by(root)
        issuers.add(between.subject)
    assert len(issuers) == 2
    assert before.subject in issuers
    assert read_list(folder.revocation_file.read_bytes()).issuers == issuers


def test_another_roots_key_renews_nothing(folder, tmp_path):
    other = PkiFolder(tmp_path / "other")
    other.initialise(NOW)
    with pytest.raises(PkiError, match="is not the key of"):
        folder.renew_intermediate("devices", NOW, offline=other.directory / "offline")


def test_a_key_and_a_certificate_that_do_not_belong_together_are_found(folder, tmp_path):
    other = PkiFolder(tmp_path / "other")
    other.initialise(NOW)
    folder.online_files("devices")[1].write_bytes(other.online_files("devices")[1].read_bytes())
    with pytest.raises(PkiError, match="same backup"):
        folder.device_authority()


def test_a_missing_or_broken_folder_names_the_fix(folder, tmp_path):
    with pytest.raises(PkiError, match="fleet pki init"):
        PkiFolder(tmp_path / "nowhere").device_authority()
    folder.online_files("devices")[0].write_bytes(b"garbage")
    with pytest.raises(PkiError, match="backup"):
        folder.device_authority()


def test_whatever_ends_is_listed_and_says_when_somebody_has_to_act(folder):
    folder.issue_server(["localhost"], NOW)
    folder.issue_service("fleet.ingester", NOW)
    folder.issue_device("bike-001", NOW)

    def asks(at):
        return {one.what for one in folder.expiries() if one.days_left(at) < one.action_days}

    assert asks(NOW) == set()
    assert asks(NOW + 4 * DAY) == {"revocation list"}
    assert asks(NOW + 61 * DAY) == {"revocation list", "broker", "fleet.ingester"}
    assert "bike-001" in asks(NOW + 91 * DAY)
    assert "devices intermediate" in asks(NOW + 920 * DAY)
    assert "services root" in asks(NOW + 7000 * DAY)


def test_forerunners_go_when_nothing_they_signed_is_valid_any_more(folder):
    folder.renew_intermediate("devices", NOW + dt.timedelta(days=10))
    previous = folder.directory / "online" / "previous"
    kept = sorted(path.name for path in previous.iterdir())
    assert len(kept) == 2
    folder.refresh_list(NOW + dt.timedelta(days=10 + pki.LEAF_DAYS))
    assert sorted(path.name for path in previous.iterdir()) == kept, "a leaf of the last minute may still be valid"
    folder.refresh_list(NOW + dt.timedelta(days=10 + pki.LEAF_DAYS + 8))
    assert list(previous.iterdir()) == []
