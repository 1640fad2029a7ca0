"""Keys and certificates that settings name, read with errors that name the fix."""

import datetime as dt
import ipaddress
import ssl
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm

from cloud.device_commands.keys import KeyRingFile
from cloud.identity import pki
from cloud.settings import CloudSettings

ERROR_CHARACTERS_MAX: Final = 200
OWN_CERTIFICATE_LEFT_MIN: Final = dt.timedelta(days=14)


class ConfigurationError(ValueError):
    """The settings don't fit together, or what they name can't be used; the text names the fix."""


def command_keys(settings: CloudSettings) -> KeyRingFile:
    """The keys that sign commands; raises ConfigurationError."""
    try:
        return KeyRingFile(settings.command_key_file or settings.data_directory / "command.key")
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        reason = " ".join(str(error).split())[:ERROR_CHARACTERS_MAX]
        raise ConfigurationError(
            f"command_key_file: {reason} (from FLEET_COMMAND_KEY_FILE, or the data directory); "
            "name a PEM file with an Ed25519 private key, or unset it to have one made"
        ) from None


def broker_tls(settings: CloudSettings) -> ssl.SSLContext | None:
    """How to speak to the broker; None is plain, on loopback only. Raises ConfigurationError."""
    if settings.broker_ca_file is None:
        if not _is_loopback(settings.broker_host):
            raise ConfigurationError(
                f"broker_host: {settings.broker_host!r} is another machine, and without TLS anybody could speak for "
                "devices (from FLEET_BROKER_HOST); set FLEET_BROKER_CA_FILE, …_CERTIFICATE_FILE and …_KEY_FILE"
            )
        return None
    if settings.broker_certificate_file is None or settings.broker_key_file is None:
        raise ConfigurationError("broker_ca_file also needs FLEET_BROKER_CERTIFICATE_FILE and FLEET_BROKER_KEY_FILE")
    try:
        context = ssl.create_default_context(cafile=str(settings.broker_ca_file))
        context.load_cert_chain(settings.broker_certificate_file, settings.broker_key_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"broker certificates can't be used: {error}; check the FLEET_BROKER_…_FILE settings"
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def own_certificate_left(settings: CloudSettings, now: dt.datetime) -> dt.timedelta | None:
    """How long the broker still accepts our own certificate; None without one. Zero if it can't be read."""
    if settings.broker_certificate_file is None:
        return None
    try:
        certificate = pki.load_certificate(settings.broker_certificate_file.read_bytes())
    except (OSError, ValueError):
        return dt.timedelta(0)
    return certificate.not_valid_after_utc - now


def own_certificate_problem(settings: CloudSettings, now: dt.datetime) -> str:
    """What is wrong with our own certificate, and the fix; "" if it has days enough left, or there is none."""
    left = own_certificate_left(settings, now)
    if left is None or left > OWN_CERTIFICATE_LEFT_MIN:
        return ""
    state = f"ends in {left.days} days" if left > dt.timedelta(0) else "has ended: the broker refuses us"
    return (
        f"{settings.broker_certificate_file} {state} (from FLEET_BROKER_CERTIFICATE_FILE); issue another one: "
        "fleet pki service fleet.ingester --replace, then restart"
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
