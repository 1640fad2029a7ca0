"""`fleet devices enrol`, approve, reject, revoke, retire, certificates: who may speak as which device."""

import datetime as dt
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cli.database import DataOption, with_database
from cli.kinds import KindFolderOption, add_kinds
from cli.output import FAILURE, USAGE, JsonOption, fail, print_json, print_rows, usage_errors, words

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from cloud.identity.revocation import Act

ACTOR: Final = "command line"
ANSWER_WITHIN_S: Final = 20.0
_POLL_S: Final = 0.2

DeviceArgument = Annotated[str, typer.Argument(help="Its id.")]
ReasonOption = Annotated[str, typer.Option(help="Why, for the audit and the device's page.")]


def enrol(
    device_id: Annotated[str, typer.Argument(help="1 to 32 of a-z, 0-9 and hyphen.")],
    kind: Annotated[str, typer.Option(help="Its kind.")],
    serial: Annotated[
        str, typer.Option(help="Serial number of its box: makes a claim for it, good for 15 minutes.")
    ] = "",
    name: Annotated[str, typer.Option(help="Where it is, for people.")] = "",
    latitude: Annotated[float | None, typer.Option(min=-90, max=90, help="WGS-84.")] = None,
    longitude: Annotated[float | None, typer.Option(min=-180, max=180, help="WGS-84.")] = None,
    data_directory: DataOption = None,
    kind_folder: KindFolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a device known, and with --serial a claim by which its box gets a certificate of its own.

    A device that is known already, or was revoked, gets a new claim. Without --serial nobody can speak as the device
    until a claim is made, or it is prepared with `fleet pki device`.

    Example: [bold]fleet devices enrol room-007 --kind nursing_room --serial FB-0042 --name "Tower B, floor 7"[/bold]
    """
    from sqlalchemy.exc import IntegrityError

    import devices
    from cloud.enrolment.acts import EnrolmentRefusedError, NewDevice, make_claim, register
    from fleet.topics import is_device_id

    if not is_device_id(device_id):
        raise fail(f"{device_id!r} is no device id: use 1 to 32 of a-z, 0-9 and hyphen", USAGE)
    with usage_errors(devices.UnknownKindError, ValueError):
        add_kinds(kind_folder)
        devices.kind_named(kind)
    claim = _new_claim(data_directory) if serial else None
    new = NewDevice(kind, name, latitude, longitude)
    act = _act()

    def work(tx: "Connection") -> tuple[bool, int | None]:
        fresh = register(tx, device_id, new, act)
        if claim is None:
            if not fresh:
                text = f"a device {device_id!r} exists already; choose another id, or give --serial for a new claim"
                raise EnrolmentRefusedError("device_exists", text, device_id)
            return fresh, None
        return fresh, make_claim(tx, device_id, serial, claim, act)

    try:
        _, expires_at = with_database(data_directory, work, write=True)
    except (EnrolmentRefusedError, IntegrityError) as error:
        text = str(error) if isinstance(error, EnrolmentRefusedError) else f"{device_id!r} was enrolled just now"
        raise fail(text) from error
    row: dict[str, Any] = {"device_id": device_id, "kind": kind, "name": name, "latitude": latitude,
                           "longitude": longitude, "enrolled_at": act.at}  # fmt: skip
    if claim is not None:
        row |= {"hardware_serial": serial, "claim": claim.text, "claim_expires_at": expires_at}
    if as_json:
        print_json(row)
    words.print(f"enrolled {device_id} as {kind}")
    if claim is not None:
        words.print(f"Claim for serial {serial}, shown this once, good until {moment(expires_at)}:")
        words.print(f"[bold]{claim.text}[/bold]")
        server = _public_url(data_directory)
        words.print(
            f"On the box: fleet edge enrol --server {server} --claim {claim.text} --serial {serial} --directory …"
        )


def _public_url(data_directory: Path | None) -> str:
    from cli.settings_errors import cloud_settings

    return cloud_settings(data_directory=data_directory).public_url.rstrip("/") or "https://…"


def _grouped(fingerprint: str) -> str:
    """As people read it to each other: in fours."""
    return " ".join(fingerprint[place : place + 4] for place in range(0, len(fingerprint), 4))


def _new_claim(data_directory: Path | None) -> Any:
    from cli.settings_errors import SettingsError, cloud_settings
    from cloud.bootstrap.enrolment import services_root
    from cloud.identity.files import ConfigurationError
    from cloud.identity.fingerprints import pin_of_root
    from fleet.claim import SECRET_BYTES, Claim

    with usage_errors(SettingsError, ConfigurationError):
        root = services_root(cloud_settings(data_directory=data_directory))
    if not root:
        raise fail("whom the box may trust is not known here: set FLEET_PKI_DIRECTORY (or FLEET_BROKER_CA_FILE)", USAGE)
    return Claim(secrets.token_bytes(SECRET_BYTES), pin_of_root(root.encode()))


def approve(
    device_id: DeviceArgument,
    fingerprint: Annotated[str, typer.Option(help="What the box shows, at least its first 8 digits.")] = "",
    data_directory: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give the box that waits its certificate; without --fingerprint it shows the box and asks.

    Example: [bold]fleet devices approve room-007 --fingerprint 1f3a9c02[/bold]
    """
    from cloud.enrolment.lifecycle import EnrolmentEvent

    if not fingerprint:
        row = _waiting_box(device_id, data_directory)
        words.print(f"{device_id}: serial {row['hardware_serial']} at {row['address']}, {moment(row['asked_at'])}")
        words.print(f"fingerprint [bold]{_grouped(row['fingerprint'])}[/bold]")
        if as_json:
            raise fail("give --fingerprint with --json: nobody is asked", USAGE)
        typer.confirm("Does the box show the same fingerprint?", abort=True, err=True)
        fingerprint = row["fingerprint"]
    found = _decide(device_id, EnrolmentEvent.APPROVE, data_directory, fingerprint=fingerprint)
    if as_json:
        print_json(found)
    words.print(f"approved {device_id}; its certificate is signed by `fleet serve` and fetched by the box")


def reject(
    device_id: DeviceArgument,
    reason: ReasonOption = "",
    data_directory: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give the box that waits nothing.

    Example: [bold]fleet devices reject room-007 --reason "not our box"[/bold]
    """
    from cloud.enrolment.lifecycle import EnrolmentEvent

    found = _decide(device_id, EnrolmentEvent.REJECT, data_directory, reason=reason)
    if as_json:
        print_json(found)
    words.print(f"rejected the box that waited as {device_id}")


def _decide(device_id: str, event: Any, data_directory: Path | None, **details: str) -> dict[str, Any]:
    from cloud.enrolment.acts import EnrolmentRefusedError, decide

    act = _act()
    try:
        row = with_database(data_directory, lambda tx: decide(tx, device_id, event, act, **details), write=True)
    except EnrolmentRefusedError as error:
        raise fail(str(error)) from error
    return {"device_id": device_id, "event": event.value, "fingerprint": row.fingerprint,
            "hardware_serial": row.hardware_serial, "address": row.address}  # fmt: skip


def waiting(data_directory: DataOption = None, as_json: JsonOption = False) -> None:
    """Boxes that wait for approval: which, from where, since when, and the fingerprint to compare.

    Example: [bold]fleet devices waiting --json[/bold]
    """
    from cloud.enrolment import repository

    found = with_database(data_directory, lambda tx: [row._asdict() for row in repository.waiting(tx, 1000)])
    columns = ("device_id", "hardware_serial", "fingerprint", "address", "asked_at")
    rows = [{name: row[name] for name in columns} for row in found]
    if not as_json:
        rows = [
            {**row, "fingerprint": _grouped(row["fingerprint"]), "asked_at": moment(row["asked_at"])} for row in rows
        ]
    print_rows(rows, columns, as_json=as_json, empty="No box waits for approval.")


def _waiting_box(device_id: str, data_directory: Path | None) -> dict[str, Any]:
    from cloud.enrolment import repository

    row = with_database(data_directory, lambda tx: repository.waiting_of(tx, device_id))
    if row is None:
        raise fail(f"no box waits for approval as {device_id}; run `fleet edge enrol` on the box first")
    return dict(row._asdict())


def revoke(
    device_id: DeviceArgument,
    reason: Annotated[str, typer.Option(help="Why, for the audit and the device's page.")],
    data_directory: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Nobody may speak as this device any more, until it is enrolled anew: its session ends and it never comes back.

    Open emergency calls of it stay open. `fleet serve` carries it to the broker within a second.

    Example: [bold]fleet devices revoke room-007 --reason "box was stolen"[/bold]
    """
    from cloud.identity.revocation import revoke as revoke_device

    act = _act()
    if not with_database(data_directory, lambda tx: revoke_device(tx, device_id, reason, act), write=True):
        raise fail(f"no device {device_id!r}; list them: fleet devices list")
    if as_json:
        print_json({"device_id": device_id, "revoked_at": act.real_ms, "reason": reason})
    words.print(f"revoked {device_id}")


def retire(device_id: DeviceArgument, data_directory: DataOption = None, as_json: JsonOption = False) -> None:
    """Take a device out of service for good, its certificates too; refused while it has an open emergency call.

    Needs a running `fleet serve`, which owns what the device is.

    Example: [bold]fleet devices retire bike-001[/bold]
    """
    from cloud.devices import repository

    row = with_database(data_directory, lambda tx: repository.device_row(tx, device_id))
    if row is None:
        raise fail(f"no device {device_id!r}; list them: fleet devices list")
    if row.retired_at is None:
        _retire_in_lane(device_id, data_directory)
    if as_json:
        print_json({"device_id": device_id, "retired": True})
    words.print(f"retired {device_id}")


def _retire_in_lane(device_id: str, data_directory: Path | None) -> None:
    """Put the act into the device's lane and wait for its owner's answer."""
    from cloud import audit
    from cloud.signals import Topic, notify
    from cloud.tables import intent

    act = _act()
    intent_id = act.new_id()

    def put(tx: "Connection") -> None:
        tx.execute(intent.insert().values(id=intent_id, device_id=device_id, name="retire", actor=ACTOR,
                                          arguments="{}", at=act.at))  # fmt: skip
        notify(tx, Topic.INTENTS)

    with_database(data_directory, put, write=True)
    until_s = time.monotonic() + ANSWER_WITHIN_S
    while time.monotonic() < until_s:
        answer = with_database(data_directory, lambda tx: _answer(tx, intent_id))
        if answer is not None:
            if answer.refused is not None:
                raise fail(f"not retired: {answer.refused}")
            with_database(
                data_directory, lambda tx: audit.record(tx, act.at, ACTOR, "device.retire", device_id, {}), write=True
            )
            return
        time.sleep(_POLL_S)
    withdrawn = {"refused": "withdrawn", "done_at": act.at}
    waiting_still = (intent.c.id == intent_id) & intent.c.done_at.is_(None)
    with_database(
        data_directory, lambda tx: tx.execute(intent.update().where(waiting_still).values(withdrawn)), write=True
    )
    raise fail("no `fleet serve` answered; start it and run the same command again", FAILURE)


def _answer(tx: "Connection", intent_id: str) -> Any:
    from sqlalchemy import select

    from cloud.tables import intent

    return tx.execute(select(intent).where(intent.c.id == intent_id, intent.c.done_at.is_not(None))).one_or_none()


def certificates(
    device_id: Annotated[str, typer.Argument(help="Only of this device.")] = "",
    expiring: Annotated[
        bool, typer.Option("--expiring", help="Only those that end within 14 days, not renewed.")
    ] = False,
    data_directory: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Certificates of devices: which are in use, until when, and which were revoked.

    Example: [bold]fleet devices certificates --expiring --json[/bold]
    """
    from cloud.enrolment.service import certificate_line
    from cloud.identity import certificates as rows_of

    now_ms = _act().real_ms
    before = now_ms + rows_of.EXPIRES_SOON_MS if expiring else None
    found = with_database(data_directory, lambda tx: rows_of.listed(tx, device_id, expiring_before=before))
    rows = [{"device_id": row.device_id, **certificate_line(row, now_ms).model_dump()} for row in found]
    if not as_json:
        rows = [{name: moment(value) if name.endswith("_at") else value for name, value in row.items()} for row in rows]
    columns = ("device_id", "serial", "state", "origin", "issued_at", "expires_at", "proven_at", "revoked_at")
    print_rows(rows, columns, as_json=as_json, empty="No certificates." if not expiring else "None ends soon.")


def moment(ms: int | None) -> str:
    """A moment for people, UTC."""
    return "" if not ms else dt.datetime.fromtimestamp(ms / 1000, dt.UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _act() -> "Act":
    from cli.clock import real_now_ms
    from cloud.identity.revocation import Act

    now_ms = real_now_ms()
    return Act(ACTOR, now_ms, now_ms, lambda: secrets.token_hex(16))
