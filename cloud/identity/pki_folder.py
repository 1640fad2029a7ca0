"""Where keys and certificates lie: the folder of `fleet pki`.

    pki/
      offline/devices-root.key  services-root.key     the two roots' keys: carried away after `init`
      online/devices.pem .key   services.pem .key     intermediates that sign every day; mode 0600
      online/previous/…                               forerunners, until the last certificate they signed has ended
      trust/devices.pem         services.pem          the two roots' certificates: public
      crl/devices.pem                                 the revocation list of the devices: public
      issued/broker.pem .key    fleet.ingester.pem …  identities of ours
      issued/devices/<id>.pem                         devices prepared in bulk

Two domains: the *devices* root is what the broker's listener for devices trusts, the *services* root what devices
trust when they meet the broker, and what the broker's listener for our processes trusts.
"""

import datetime as dt
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from cloud.identity import pki
from cloud.identity.authority import (
    SERVICE_NAME_PATTERN,
    Authority,
    DeviceAuthority,
    IssuedCertificate,
    Revoked,
    write_secret,
)
from cloud.identity.pki import BACKDATED, LEAF_DAYS, PkiError
from cloud.identity.revocation_list import ListState, RevocationList, WatchedReload
from fleet.topics import is_device_id

__all__ = ["DOMAINS", "PASSPHRASE_CHARACTERS_MIN", "Domain", "Expiry", "FolderSigner", "PkiError", "PkiFolder"]

Domain = Literal["devices", "services"]
DOMAINS: Final[tuple[Domain, ...]] = ("devices", "services")
PASSPHRASE_CHARACTERS_MIN: Final = 12
PRUNED_AFTER: Final = dt.timedelta(days=7)
"""So long after everything that they signed has ended forerunners of an intermediate are kept."""
_PUBLIC: Final = 0o644
_HOST: Final = re.compile(r"[A-Za-z0-9.:_-]{1,253}")


@dataclass(frozen=True, slots=True)
class Expiry:
    """One thing that ends. `path` is relative to the folder."""

    what: str
    path: str
    ends_at: dt.datetime
    action_days: float
    """Somebody has to act when fewer days than this are left."""
    fix: str

    def days_left(self, now: dt.datetime) -> float:
        """Negative once it has ended."""
        return (self.ends_at - now).total_seconds() / 86_400


class PkiFolder:
    """The folder and what can be done with it. All methods that take `now` want real UTC time."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    # --- places ------------------------------------------------------------------------------------------------

    def root_file(self, domain: Domain) -> Path:
        """Certificate of a root; who trusts the domain is given this."""
        return self.directory / "trust" / f"{domain}.pem"

    def root_key_file(self, domain: Domain, offline: Path | None = None) -> Path:
        """Key of a root, here or where it was carried to."""
        return (offline or self.directory / "offline") / f"{domain}-root.key"

    def online_files(self, domain: Domain) -> tuple[Path, Path]:
        """Certificate and key of the intermediate that signs now."""
        folder = self.directory / "online"
        return folder / f"{domain}.pem", folder / f"{domain}.key"

    def issued_files(self, name: str) -> tuple[Path, Path]:
        """Certificate chain and key of the broker, a service (`fleet.…`) or a device."""
        folder = self.directory / "issued"
        if is_device_id(name) and name != "broker":
            folder /= "devices"
        return folder / f"{name}.pem", folder / f"{name}.key"

    @property
    def revocation_file(self) -> Path:
        """The broker's `crlfile`."""
        return self.directory / "crl" / "devices.pem"

    # --- making ------------------------------------------------------------------------------------------------

    def initialise(self, now: dt.datetime, passphrase: bytes | None = None) -> None:
        """Make both domains and an empty revocation list. Raises PkiError if there is one already."""
        for domain in DOMAINS:
            for path in (self.root_file(domain), self.root_key_file(domain), *self.online_files(domain)):
                _refuse_existing(
                    path, "an authority is never replaced: everybody trusts it; choose another --directory"
                )
        for name in ("offline", "online", "trust", "crl", "issued"):
            folder = self.directory / name
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o755 if name in {"trust", "crl"} else 0o700)
        for domain in DOMAINS:
            root_key = pki.new_key()
            root = pki.make_root(f"fleet {domain} root", root_key, now)
            write_secret(self.root_key_file(domain), pki.key_pem(root_key, passphrase))
            write_secret(self.root_file(domain), pki.certificate_pem(root), _PUBLIC)
            self._put_intermediate(domain, root, root_key, now)
        self.refresh_list(now)

    def renew_intermediate(
        self, domain: Domain, now: dt.datetime, *, offline: Path | None = None, passphrase: bytes | None = None
    ) -> x509.Certificate:
        """A new intermediate with a new key; the old one moves to `online/previous`. Needs the root's key."""
        key_file = self.root_key_file(domain, offline)
        if not key_file.exists():
            raise PkiError(f"{key_file} is missing: bring the offline keys back and name their folder with --offline")
        root = self._certificate(self.root_file(domain))
        root_key = _key(key_file, passphrase)
        if not pki.same_key(root, root_key):
            raise PkiError(f"{key_file} is not the key of {self.root_file(domain)}; bring the right one")
        certificate_file, own_key_file = self.online_files(domain)
        old = self._certificate(certificate_file)
        previous = self.directory / "online" / "previous"
        previous.mkdir(mode=0o700, exist_ok=True)
        name = f"{domain}-{pki.serial_hex(old)[:12]}"
        # Copies first: at no moment is a key that signed something gone.
        write_secret(previous / f"{name}.key", own_key_file.read_bytes())
        write_secret(previous / f"{name}.pem", certificate_file.read_bytes(), _PUBLIC)
        made = self._put_intermediate(domain, root, root_key, now)
        if domain == "devices":
            self.refresh_list(now)
        return made

    def issue_server(self, hosts: Sequence[str], now: dt.datetime, *, replace: bool = False) -> IssuedCertificate:
        """Key and certificate of the broker, for these names and addresses."""
        wrong = [host for host in hosts if not _HOST.fullmatch(host)]
        if not hosts or wrong:
            raise PkiError(f"{(wrong or [''])[0]!r} is no host; name those under which devices reach the broker")
        return self._issue("broker", self.authority("services"), now, hosts=tuple(hosts), replace=replace)

    def issue_service(self, name: str, now: dt.datetime, *, replace: bool = False) -> IssuedCertificate:
        """Key and certificate of a process of ours, such as `fleet.ingester`."""
        if not re.fullmatch(SERVICE_NAME_PATTERN, name):
            raise PkiError(f"{name!r} is no name of a service; write fleet.<a-z0-9-> such as fleet.ingester")
        return self._issue(name, self.authority("services"), now, replace=replace)

    def issue_device(self, device_id: str, now: dt.datetime, *, replace: bool = False) -> IssuedCertificate:
        """Key and certificate of a device, both made here: for bulk preparation, demo and tests."""
        self._refuse_other_names(device_id)
        return self._issue(device_id, self.device_authority(), now, replace=replace)

    def sign_device(self, device_id: str, request: bytes, now: dt.datetime, *, replace: bool = False) -> tuple[
        IssuedCertificate, Path
    ]:  # fmt: skip
        """Sign a device's own request; where the certificate was put. Raises also RequestRefusedError."""
        self._refuse_other_names(device_id)
        path, _ = self.issued_files(device_id)
        if not replace:
            _refuse_existing(path, "add --replace to issue another one")
        issued = self.device_authority().sign(request, device_id, now)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_secret(path, issued.chain, _PUBLIC)
        return issued, path

    def refresh_list(self, now: dt.datetime, revoked: Iterable[Revoked] = ()) -> ListState:
        """Write the revocation list again: same entries and `revoked`, new dates. The broker is not told.

        Forerunners of the intermediate of which nothing is valid any more go: they need no list.
        """
        self._prune("devices", now)
        return RevocationList(self.device_authority, self.revocation_file, WatchedReload()).write(revoked, now)

    # --- reading -----------------------------------------------------------------------------------------------

    def authority(self, domain: Domain) -> Authority:
        """The online authority of a domain. Raises PkiError."""
        return Authority(*self._online(domain), previous=tuple(self._previous(domain)))

    def device_authority(self) -> DeviceAuthority:
        """Signs devices' requests and the revocation list. Raises PkiError."""
        return DeviceAuthority(*self._online("devices"), previous=tuple(self._previous("devices")))

    def expiries(self, *, devices: bool = True) -> Iterator[Expiry]:
        """Everything that ends, what to do then; not `devices`: only ours. Raises PkiError if the folder is none."""
        for domain in DOMAINS:
            root, (online, _) = self.root_file(domain), self.online_files(domain)
            yield self._expiry(f"{domain} root", root, 365, "plan a new authority: fleet pki init in another folder")
            yield self._expiry(
                f"{domain} intermediate", online, 180, f"fleet pki renew-intermediate {domain}, with the offline keys"
            )
        try:
            state = RevocationList(self.device_authority, self.revocation_file, WatchedReload()).state()
            ends_at = state.next_update
        except RuntimeError:
            ends_at = dt.datetime.fromtimestamp(0, dt.UTC)
        path = str(self.revocation_file.relative_to(self.directory))
        yield Expiry("revocation list", path, ends_at, 4, "fleet pki crl; then see why nothing refreshes it daily")
        issued = self.directory / "issued"
        for path_found in sorted(issued.glob("*.pem")):
            name = path_found.stem
            fix = "fleet pki server --replace --host …" if name == "broker" else f"fleet pki service {name} --replace"
            yield self._expiry(name, path_found, 30, f"{fix}, then restart what uses it")
        for path_found in sorted((issued / "devices").glob("*.pem")) if devices else ():
            yield self._expiry(path_found.stem, path_found, 0, "the device renews by itself; enrol it again if not")

    def prepared(self, since_s: float = 0.0) -> Iterator[tuple[str, str, int, int]]:
        """(serial, device, from, until in ms) of devices' certificates put here after `since_s`; no unreadable ones."""
        for path in sorted((self.directory / "issued" / "devices").glob("*.pem")):
            with suppress(OSError, PkiError):
                if path.stat().st_mtime >= since_s:
                    made = self._certificate(path)
                    at, until = made.not_valid_before_utc, made.not_valid_after_utc
                    yield pki.serial_hex(made), path.stem, round(at.timestamp() * 1000), round(until.timestamp() * 1000)

    # --- inside ------------------------------------------------------------------------------------------------

    def _put_intermediate(
        self, domain: Domain, root: x509.Certificate, root_key: ec.EllipticCurvePrivateKey, now: dt.datetime
    ) -> x509.Certificate:
        key = pki.new_key()
        # The name must differ from its forerunner's: a revocation list is found by its issuer's name.
        name = f"fleet {domain} intermediate {now:%Y-%m-%d} {pki.short_name(key)}"
        made = pki.make_intermediate(name, key.public_key(), root, root_key, now)
        certificate_file, key_file = self.online_files(domain)
        write_secret(key_file, pki.key_pem(key))
        write_secret(certificate_file, pki.certificate_pem(made), _PUBLIC)
        return made

    def _issue(
        self, name: str, authority: Authority, now: dt.datetime, *, hosts: tuple[str, ...] = (), replace: bool
    ) -> IssuedCertificate:
        path, key_file = self.issued_files(name)
        if not replace:
            for one in (path, key_file):
                _refuse_existing(one, "add --replace to issue another one")
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        key = pki.new_key()
        issued = authority.leaf(hosts[0] if hosts else name, key.public_key(), now, hosts=hosts)
        _write_like_before(key_file, pki.key_pem(key))
        write_secret(path, issued.chain, _PUBLIC)
        return issued

    def _online(self, domain: Domain) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        certificate_file, key_file = self.online_files(domain)
        certificate, key = self._certificate(certificate_file), _key(key_file)
        if not pki.same_key(certificate, key):
            raise PkiError(f"{key_file} is not the key of {certificate_file}; restore both from the same backup")
        return certificate, key

    def _previous(self, domain: Domain) -> Iterator[tuple[x509.Certificate, ec.EllipticCurvePrivateKey]]:
        for path in sorted((self.directory / "online" / "previous").glob(f"{domain}-*.pem")):
            yield self._certificate(path), _key(path.with_suffix(".key"))

    def _prune(self, domain: Domain, now: dt.datetime) -> None:
        # Its forerunners signed nothing after the present one was made.
        last_signed = self._certificate(self.online_files(domain)[0]).not_valid_before_utc + BACKDATED
        if now < last_signed + dt.timedelta(days=LEAF_DAYS) + PRUNED_AFTER:
            return
        for path in (self.directory / "online" / "previous").glob(f"{domain}-*"):
            path.unlink()

    def _certificate(self, path: Path) -> x509.Certificate:
        try:
            return pki.load_certificate(path.read_bytes())
        except OSError as error:
            raise PkiError(
                f"{path} can't be read ({error.strerror}); make the folder with fleet pki init, or name it with "
                "--directory (FLEET_PKI_DIRECTORY)"
            ) from error
        except ValueError as error:
            raise PkiError(f"{path} is no certificate; restore it from a backup") from error

    def _expiry(self, what: str, path: Path, action_days: float, fix: str) -> Expiry:
        ends_at = self._certificate(path).not_valid_after_utc
        return Expiry(what, str(path.relative_to(self.directory)), ends_at, action_days, fix)

    def _refuse_other_names(self, device_id: str) -> None:
        if not is_device_id(device_id):
            raise PkiError(f"{device_id!r} is no device id; use 1 to 32 of a-z, 0-9 and hyphen")
        if device_id == "broker":
            raise PkiError("'broker' is the broker's own name here; choose another device id")


class FolderSigner:
    """Signs devices' requests with the online key that is in the folder at that moment; a `DeviceSigner`."""

    def __init__(self, folder: PkiFolder) -> None:
        self._folder = folder

    def sign(self, csr_pem: bytes, device_id: str, now: dt.datetime) -> IssuedCertificate:
        """A 90-day certificate for `device_id`. Raises RequestRefusedError, and PkiError if the folder is damaged."""
        return self._folder.device_authority().sign(csr_pem, device_id, now)


def _write_like_before(path: Path, secret: bytes) -> None:
    """Replace a key; who could read the former one can read this one: the broker's account, by its group."""
    before = path.stat() if path.exists() else None
    write_secret(path, secret)
    if before is not None:
        if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
            try:
                os.chown(path, before.st_uid, before.st_gid)
            except OSError as error:
                raise PkiError(f"{path} belonged to somebody else, who can't read it now; chown it as root") from error
        path.chmod(before.st_mode & 0o640)


def _refuse_existing(path: Path, fix: str) -> None:
    if path.exists():
        raise PkiError(f"{path} exists; {fix}")


def _key(path: Path, passphrase: bytes | None = None) -> ec.EllipticCurvePrivateKey:
    try:
        return pki.load_key(path.read_bytes(), passphrase)
    except OSError as error:
        raise PkiError(
            f"{path} can't be read ({error.strerror}); run as the user who owns it, or restore it"
        ) from error
    except ValueError as error:
        raise PkiError(f"{path}: {error}; give the right file, and the passphrase if it has one") from error
