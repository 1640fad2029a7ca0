"""How a box comes to its identity: its own key, a claim that somebody typed in, and the cloud's answer.

The key is made here and stays here. The claim pins the root certificate that the box is to trust, so nobody who
stands between can pass for the cloud: the root is fetched first, over a connection that proves nothing, and believed
only if it matches the pin; the claim itself is sent over a connection that this root, or the system's own, vouches for.

What was begun is kept in the folder: the same key is asked for again after a lost answer, a cut or a restart.
"""

import base64
import ipaddress
import json
import secrets
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from edge import keys
from edge.enrolled_before import Former, drop_renewal, write_like_before
from fleet.claim import Claim, pin_of

KEY_FILE: Final = "enrolment.key"
STATE_FILE: Final = "enrolment.json"
IDENTITY_FILE: Final = "device.pem"
AUTHORITY_FILE: Final = "authority.pem"
SETTINGS_FILE: Final = "edge.toml"
ANSWER_BYTES_MAX: Final = 262_144
CALL_S_MAX: Final = 15.0
POLL_S: Final = 3.0
DEFAULT_TRANSPORT: Final = "serial:/dev/ttyUSB0?baud=115200"
_PUBLIC: Final = 0o644


class EnrolmentError(Exception):
    """It did not work; one line that says why and what to do. `final`: trying again with this claim is of no use."""

    def __init__(self, text: str, *, final: bool = True) -> None:
        super().__init__(text)
        self.final = final


@dataclass(frozen=True, slots=True)
class Box:
    """What the installer says of this box."""

    server: str
    claim: Claim
    hardware_serial: str
    directory: Path
    transport: str
    """The line to the hardware; "" takes the default, or what a box that is enrolled anew has."""
    anew: bool = False
    """It is enrolled and gets another identity: its settings and what it has not delivered yet stay."""


def check_server(url: str) -> str:
    """The address without a slash at its end; https, or http on this very machine. Raises EnrolmentError."""
    parts = urlsplit(url)
    if parts.scheme not in {"https", "http"} or not parts.hostname:
        raise EnrolmentError(f"--server {url!r} is no address; write for example https://fleet.example.org")
    if parts.scheme == "http" and not _is_loopback(parts.hostname):
        raise EnrolmentError(f"--server {url!r}: a claim is not sent in plain; write https://{parts.netloc}")
    return url.rstrip("/")


class Enrolment:
    """One enrolment, step by step; each step may be repeated."""

    def __init__(self, box: Box) -> None:
        """Makes the folder and the key. Raises EnrolmentError."""
        self._box = box
        self._server = check_server(box.server)
        self._tls: ssl.SSLContext | None = None
        self._root = ""
        settings = box.directory / SETTINGS_FILE
        if settings.exists() and not box.anew:
            raise EnrolmentError(
                f"{settings} is there already: this box is enrolled; add --anew to give it another identity (its "
                "settings and what it has not delivered yet stay), or name another --directory for another device"
            )
        try:
            self._before = Former.read(settings) if box.anew else Former()
        except (OSError, ValueError) as error:
            raise EnrolmentError(f"{settings} cannot be used: {error}; leave --anew out for a new box") from error
        try:
            box.directory.mkdir(parents=True, exist_ok=True)
            self._key = self._own_key()
            self._poll_secret, self._id = self._begun()
        except (OSError, ValueError) as error:
            raise EnrolmentError(f"{box.directory} cannot be used: {error}; name another --directory") from error
        self.fingerprint = keys.fingerprint_of_key(self._key)

    def _own_key(self) -> bytes:
        path = self._box.directory / KEY_FILE
        with suppress(FileNotFoundError):
            known = path.read_bytes()
            keys.fingerprint_of_key(known)
            return known
        fresh = keys.make_key()
        keys.write_whole(path, fresh)
        return fresh

    def _begun(self) -> tuple[str, str]:
        path = self._box.directory / STATE_FILE
        with suppress(FileNotFoundError, ValueError, KeyError):
            known = json.loads(path.read_text())
            return str(known["poll_secret"]), str(known["id"])
        poll_secret = secrets.token_hex(32)
        keys.write_whole(path, json.dumps({"poll_secret": poll_secret, "id": ""}).encode())
        return poll_secret, ""

    # --- the steps ---------------------------------------------------------------------------------------------

    def meet(self) -> None:
        """Fetch the root and believe it only if the claim's pin says so. Raises EnrolmentError."""
        if urlsplit(self._server).scheme == "https":
            blind = ssl.create_default_context()
            blind.check_hostname, blind.verify_mode = False, ssl.CERT_NONE  # checked by the pin, right below
            self._tls = blind
        root = str(self._call("GET", "/api/v1/enrolments/authority").get("authority", ""))
        try:
            matches = pin_of(ssl.PEM_cert_to_DER_cert(root)) == self._box.claim.pin
        except ValueError:
            matches = False
        if not matches:
            raise EnrolmentError(
                f"{self._server} is not the server this claim was made by: correct --server; if it is right, somebody "
                "is in between, or the claim was mistyped"
            )
        self._root = root
        if self._tls is not None:
            self._tls = ssl.create_default_context()
            self._tls.load_verify_locations(cadata=root)

    def ask(self) -> str:
        """Send the request; the device id that the cloud decided on. Raises EnrolmentError."""
        body = {
            "secret": base64.b32encode(self._box.claim.secret).decode(),
            "hardware_serial": self._box.hardware_serial,
            "request": keys.make_request(self._key, "box"),
            "poll_secret": self._poll_secret,
        }
        answer = self._call("POST", "/api/v1/enrolments", body)
        self._id = str(answer["id"])
        state = {"poll_secret": self._poll_secret, "id": self._id}
        keys.write_whole(self._box.directory / STATE_FILE, json.dumps(state).encode())
        return str(answer["device_id"])

    def look(self) -> Mapping[str, Any]:
        """How far the request came. Raises EnrolmentError, final if it was rejected or nobody decided in time."""
        answer = self._call("GET", f"/api/v1/enrolments/{self._id}", secret=self._poll_secret)
        if answer.get("state") in {"rejected", "expired"}:
            self._forget()
            raise EnrolmentError(
                f"not approved: {answer.get('reason') or answer['state']}; ask the admin for a new claim"
            )
        return answer

    def wait(self, sleep: Callable[[float], None], rounds_max: int) -> Mapping[str, Any]:
        """Look until it is granted. Raises EnrolmentError; not final when nobody decided within `rounds_max` looks."""
        for _ in range(rounds_max):
            try:
                answer = self.look()
            except EnrolmentError as error:
                if error.final:
                    raise
            else:
                if answer.get("chain"):
                    return answer
            sleep(POLL_S)
        raise EnrolmentError("nobody has approved yet; run the same command again to go on waiting", final=False)

    def install(self, answer: Mapping[str, Any]) -> Path:
        """Write identity, authority, command keys and the settings; the settings' path. Raises EnrolmentError."""
        folder = self._box.directory
        chain = str(answer["chain"])
        if self._before.device_id not in {"", answer["device_id"]}:
            raise EnrolmentError(
                f"{folder / SETTINGS_FILE} belongs to {self._before.device_id}, and what it has not delivered too; "
                f"enrol {answer['device_id']} in another --directory"
            )
        try:
            if keys.fingerprint_of_certificate(chain.encode()) != self.fingerprint:
                raise EnrolmentError("the certificate that came is for another key; ask the admin for a new claim")
            data = folder / "data" / "identity"
            data.mkdir(parents=True, exist_ok=True, mode=0o700)
            drop_renewal(data / IDENTITY_FILE)
            write_like_before(data / IDENTITY_FILE, self._key + chain.encode(), 0o600)
            keys.write_whole(folder / AUTHORITY_FILE, str(answer["authority"]).encode(), _PUBLIC)
            command_keys: dict[str, str] = {}
            for key_id, pem in sorted(answer["command_keys"].items()):
                command_keys[key_id] = f"command-{key_id}.pem"
                keys.write_whole(folder / command_keys[key_id], pem.encode(), _PUBLIC)
            settings = folder / SETTINGS_FILE
            write_like_before(settings, self._settings(answer, command_keys).encode(), _PUBLIC)
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise EnrolmentError(f"the answer cannot be installed in {folder}: {error}", final=False) from error
        self._forget()
        return settings

    def _settings(self, answer: Mapping[str, Any], command_keys: Mapping[str, str]) -> str:
        named = "\n".join(f"{json.dumps(key_id)} = {json.dumps(file)}" for key_id, file in command_keys.items())
        text = json.dumps  # a JSON string is a TOML string
        return f"""# Written by `fleet edge enrol`; every key is described in docs/operations.md.
device_id = {text(answer["device_id"])}
kind = {text(answer["kind"])}
transport = {text(self._box.transport or self._before.transport or DEFAULT_TRANSPORT)}
data_directory = {text(self._before.data_directory)}
{self._before.top}
[broker]
host = {text(answer["broker_host"])}
port = {int(answer["broker_port"])}
authority = {text(AUTHORITY_FILE)}
# Key and certificate in one file: one rename brings a renewed pair into use.
certificate = "data/identity/{IDENTITY_FILE}"
private_key = "data/identity/{IDENTITY_FILE}"
{self._before.broker}
[command_keys]
{named}
{self._before.tables}"""

    def _forget(self) -> None:
        for name in (KEY_FILE, STATE_FILE):
            with suppress(OSError):
                keys.remove(self._box.directory / name)

    # --- HTTP --------------------------------------------------------------------------------------------------

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None, secret: str = "") -> dict[str, Any]:
        headers = {"accept": "application/json", "content-type": "application/json"}
        if secret:
            headers["x-enrolment-secret"] = secret
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self._server}{path}", content, headers, method=method)  # noqa: S310  # checked
        try:
            with urllib.request.urlopen(request, timeout=CALL_S_MAX, context=self._tls) as response:  # noqa: S310
                answer = json.loads(response.read(ANSWER_BYTES_MAX))
        except urllib.error.HTTPError as error:
            raise self._refusal(error) from error
        except (urllib.error.URLError, HTTPException, OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, ssl.SSLCertVerificationError):
                raise EnrolmentError(
                    f"{self._server} shows a certificate that nobody vouches for ({reason.verify_message}): correct "
                    "--server, or the clock of this box"
                ) from error
            raise EnrolmentError(
                f"{self._server} does not answer ({reason}); check network and --server, then run the same command "
                "again", final=False,
            ) from error  # fmt: skip
        if not isinstance(answer, dict):
            raise EnrolmentError(f"{self._server} is no fleet server; correct --server")
        return answer

    def _refusal(self, error: urllib.error.HTTPError) -> EnrolmentError:
        try:
            problem = json.loads(error.read(ANSWER_BYTES_MAX))
            text = str(problem["detail"] or problem["title"])
        except (ValueError, KeyError, TypeError, OSError):
            text = f"{self._server} answered {error.code}; correct --server"
        return EnrolmentError(text, final=error.code < 500 and error.code != 429)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
