"""Keys and certificates that settings name, read with errors that name the fix."""

import ipaddress
import ssl
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ed25519

from cloud.identity.authority import load_or_create_command_key
from cloud.settings import CloudSettings

ERROR_CHARACTERS_MAX: Final = 200


class ConfigurationError(ValueError):
    """The settings don't fit together, or what they name can't be used; the text names the fix."""


def command_key(settings: CloudSettings) -> ed25519.Ed25519PrivateKey:
    """The key that signs commands; raises ConfigurationError."""
    try:
        return load_or_create_command_key(settings.command_key_file or settings.data_directory / "command.key")
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


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
