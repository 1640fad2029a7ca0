"""What a process that holds the devices' online key does: sign, revoke, end live sessions, keep the list fresh."""

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog
from sqlalchemy import Connection, select

from cloud.adapters.mqtt.options import ReceiverOptions
from cloud.adapters.mqtt.takeover import end_session
from cloud.adapters.sql.database import SqlDatabase
from cloud.identity.authority import DeviceSigner, Revoked
from cloud.identity.files import ConfigurationError, broker_tls, own_certificate_left, own_certificate_problem
from cloud.identity.fingerprints import pin_of_root
from cloud.identity.pki_folder import FolderSigner, PkiError, PkiFolder
from cloud.identity.revocation_list import (
    CommandReload,
    Reload,
    RevocationKeeper,
    RevocationList,
    SignalReload,
    WatchedReload,
)
from cloud.settings import CloudSettings
from cloud.tables import certificate
from cloud.watch import Condition, Watch

_log = structlog.get_logger(__name__)

TAKEOVER_CLIENT_ID: Final = "fleet.takeover"


@dataclass(frozen=True, slots=True)
class OnlineIdentity:
    """Who signs devices' requests in this process, and the list of what was taken back."""

    signer: DeviceSigner
    revocations: RevocationList
    keeper: RevocationKeeper


def open_identity(
    settings: CloudSettings, real_now_ms: Callable[[], int], database: SqlDatabase
) -> OnlineIdentity | None:
    """None without FLEET_PKI_DIRECTORY: this process signs nobody.

    A damaged folder is told of loudly (`folder_problem`), and signing waits until it is mended: calls for help must
    not wait for that. Raises ConfigurationError if there is no such folder at all.
    """
    if settings.pki_directory is None:
        return None
    folder = PkiFolder(settings.pki_directory)
    if not (folder.directory / "online").is_dir():
        raise ConfigurationError(
            f"pki_directory: {folder.directory} is no folder of fleet pki init; make it, or correct FLEET_PKI_DIRECTORY"
        )
    if problem := folder_problem(folder):
        _log.error("no certificate is signed and no revocation published until this is mended", reason=problem)
    revocations = RevocationList(folder.device_authority, folder.revocation_file, reload_of(settings))

    async def source() -> Sequence[Revoked]:
        return await database.read(revoked_certificates)

    def real_now() -> dt.datetime:
        return dt.datetime.fromtimestamp(real_now_ms() / 1000, dt.UTC)

    return OnlineIdentity(FolderSigner(folder), revocations, RevocationKeeper(revocations, source, real_now))


def folder_problem(folder: PkiFolder) -> str:
    """What is wrong with the keys that sign devices, with the fix; "" when all is well."""
    try:
        folder.device_authority()
        pin_of_root(folder.root_file("services").read_bytes())
    except PkiError as error:
        return str(error)
    except (OSError, ValueError) as error:
        return f"{folder.root_file('services')}: {error}; restore it from a backup, then restart"
    return ""


def watch_folder(watch: Watch, settings: CloudSettings) -> dict[str, Callable[[], str]]:
    """A check that fails while the keys can't be used, and a notice; nothing without FLEET_PKI_DIRECTORY."""
    if settings.pki_directory is None:
        return {}
    folder = PkiFolder(settings.pki_directory)
    watch.conditions.append(
        Condition(
            "pki_folder", lambda: bool(folder_problem(folder)),
            "签发设备证书的密钥目录已损坏:暂停签发、续签和吊销,请在服务器上运行 fleet pki status 并从备份恢复",
            "The keys that sign devices' certificates are damaged: nothing is signed, renewed or revoked; "
            "fleet pki status, then restore the folder from a backup",
        )
    )  # fmt: skip
    return {"identity": lambda: folder_problem(folder) or "ok"}


def revoked_certificates(tx: Connection) -> list[Revoked]:
    """Every certificate that was revoked; the list itself forgets those that have ended."""
    rows = tx.execute(
        select(certificate.c.serial, certificate.c.revoked_at).where(certificate.c.revoked_at.is_not(None))
    )
    return [Revoked(row.serial, dt.datetime.fromtimestamp(row.revoked_at / 1000, dt.UTC)) for row in rows]


async def disconnect_device(settings: CloudSettings, device_id: str) -> None:
    """End the live session of a device, and what is stored of it. Raises SessionEndError."""
    options = ReceiverOptions(
        client_id=TAKEOVER_CLIENT_ID, host=settings.broker_host, port=settings.broker_port, tls=broker_tls(settings)
    )
    await end_session(options, device_id)


def watch_identity(watch: Watch, keeper: RevocationKeeper) -> None:
    """The list's age as a number, and a notice when nobody refreshes it."""
    single = watch.numbers.single
    single["fleet_revocation_list_left_s"] = "Seconds until the list ends and all devices are refused", keeper.left_s
    single["fleet_revocation_list_entries"] = "Certificates on the revocation list", keeper.entries
    watch.conditions.append(
        Condition(
            "revocation_list", lambda: bool(keeper.problem()),
            "证书吊销列表未能更新:过期后所有设备都会被拒绝,请在服务器上运行 fleet pki status",
            "The certificate revocation list is not refreshed; once it ends every device is refused: fleet pki status",
        )
    )  # fmt: skip


def watch_own_certificate(watch: Watch, settings: CloudSettings, real_now_ms: Callable[[], int]) -> None:
    """Our own certificate towards the broker: logged at the start, a number, and a notice two weeks before its end."""

    def now() -> dt.datetime:
        return dt.datetime.fromtimestamp(real_now_ms() / 1000, dt.UTC)

    def left_s() -> float:
        left = own_certificate_left(settings, now())
        return 0.0 if left is None else left.total_seconds()

    if settings.broker_certificate_file is None:
        return
    if problem := own_certificate_problem(settings, now()):
        _log.error("our certificate for the broker needs renewing", reason=problem)
    watch.numbers.single["fleet_broker_certificate_left_s"] = "Seconds until the broker refuses us", left_s
    watch.conditions.append(
        Condition(
            "broker_certificate", lambda: bool(own_certificate_problem(settings, now())),
            "连接消息服务器的证书即将过期或已过期,请运行 fleet pki service fleet.ingester --replace 并重启",
            "Our certificate for the broker is about to end or has ended: fleet pki service fleet.ingester --replace, "
            "then restart",
        )
    )  # fmt: skip


def watch_authorities(watch: Watch, settings: CloudSettings, real_now_ms: Callable[[], int]) -> None:
    """A notice before anything of the PKI folder ends that all devices depend on: the broker's certificate above all.

    Devices refuse a broker whose certificate has ended, and it lives as short as any.
    """
    if settings.pki_directory is None:
        return
    folder = PkiFolder(settings.pki_directory)

    def ending() -> bool:
        now = dt.datetime.fromtimestamp(real_now_ms() / 1000, dt.UTC)
        try:
            return any(one.days_left(now) < one.action_days for one in folder.expiries(devices=False))
        except PkiError:
            return True

    watch.conditions.append(
        Condition(
            "authorities", ending,
            "消息服务器或签发机构的证书即将过期,届时所有设备都会断开:请在服务器上运行 fleet pki status",
            "A certificate of the broker or an authority is about to end, and every device depends on it: "
            "fleet pki status",
        )
    )  # fmt: skip


def reload_of(settings: CloudSettings) -> Reload:
    """How the broker is told of a new list, from FLEET_BROKER_PID_FILE or FLEET_BROKER_RELOAD_COMMAND."""
    if settings.broker_pid_file is not None:
        return SignalReload(settings.broker_pid_file)
    if settings.broker_reload_command:
        return CommandReload(settings.broker_reload_command)
    return WatchedReload()
