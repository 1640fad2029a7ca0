"""Joins what enrolment, renewal and revocation need, for each role that takes part in them."""

import secrets
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import structlog

from cloud.adapters.sql.database import SqlDatabase
from cloud.bootstrap.identity import OnlineIdentity, disconnect_device
from cloud.device_commands.keys import KeyRingFile
from cloud.enrolment.service import EnrolmentService, Trust
from cloud.identity.authority import public_pem
from cloud.identity.desk import IdentityDesk
from cloud.identity.files import ConfigurationError
from cloud.identity.fingerprints import pin_of_root
from cloud.identity.pki_folder import PkiFolder
from cloud.identity.registrar import Registrar, Surroundings
from cloud.ports import Publish
from cloud.settings import CloudSettings
from cloud.watch import Condition, Watch

if TYPE_CHECKING:
    from cloud.bootstrap import parts


_log = structlog.get_logger(__name__)


def services_root(settings: CloudSettings) -> str:
    """PEM of the root that boxes are to trust: of the PKI folder, or the one we meet the broker with; may be empty.

    Raises:
        ConfigurationError: it is named and can't be used.
    """
    file = settings.broker_ca_file
    if settings.pki_directory is not None:
        file = PkiFolder(settings.pki_directory).root_file("services")
    if file is None:
        return ""
    try:
        pem = file.read_bytes()
        pin_of_root(pem)
        return pem.decode()
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"the services' root certificate can't be used: {file}: {error}; name the right file"
        ) from error


def trust_of(settings: CloudSettings, keys: KeyRingFile) -> Trust:
    """What boxes are given at their enrolment."""

    def command_keys() -> dict[str, str]:
        return {key.id: public_pem(key.private.public_key()).decode() for key in keys.ring.active}

    host = settings.devices_broker_host or urlsplit(settings.public_url).hostname or settings.broker_host
    try:
        root = services_root(settings)
    except ConfigurationError as error:  # boxes can't be enrolled until it is mended; everything else goes on
        if settings.pki_directory is None:
            raise
        _log.error("no box can be enrolled", reason=str(error))
        root = ""
    return Trust(root, host, settings.devices_broker_port, command_keys)


def enrolment_service(
    settings: CloudSettings, around: "parts.Surroundings", database: SqlDatabase, keys: KeyRingFile
) -> EnrolmentService:
    """The service for people and boxes."""
    return EnrolmentService(
        database, around.clock, around.real_now_ms, around.new_id, secrets.token_bytes, trust_of(settings, keys)
    )


def make_registrar(
    settings: CloudSettings,
    around: "parts.Surroundings",
    database: SqlDatabase,
    identity: OnlineIdentity,
    service: EnrolmentService,
) -> Registrar:
    """Signs and revokes in this process, and is woken by its people."""
    registrar = Registrar(
        database, identity.signer, Surroundings(around.clock, around.real_now_ms, around.new_id),
        publish_list=identity.keeper.refresh, end_session=_disconnect(settings),
        prepared=(lambda _: ()) if settings.pki_directory is None else PkiFolder(settings.pki_directory).prepared,
    )  # fmt: skip
    service.wake = registrar.wake
    return registrar


def watch_registrar(watch: Watch, registrar: Registrar) -> None:
    """How many certificates are about to end, and a notice about it."""
    watch.numbers.single["fleet_certificates_expiring"] = (
        "Devices whose certificate ends within 14 days and was not renewed", lambda: registrar.expiring,
    )  # fmt: skip
    watch.conditions.append(
        Condition(
            "certificates", lambda: registrar.expiring > 0,
            "有设备证书将在 14 天内到期且未续签:请运行 fleet devices certificates --expiring",
            "Certificates of devices end within 14 days and were not renewed: fleet devices certificates --expiring",
        )
    )  # fmt: skip


def identity_desk(
    settings: CloudSettings, around: "parts.Surroundings", database: SqlDatabase, publish: Publish
) -> IdentityDesk:
    """What an ingester does about certificates."""
    return IdentityDesk(database, publish, _disconnect(settings), around.real_now_ms)


def _disconnect(settings: CloudSettings) -> Callable[[str], Awaitable[None]]:
    return partial(disconnect_device, settings)
