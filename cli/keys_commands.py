"""`fleet keys …`: the keys that sign commands, and which devices trust them (ADR 0014, docs/operations.md).

These work on the key file and the database of this machine; running processes notice a replaced file within a second.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from cli.database import DataOption, with_database
from cli.output import USAGE, JsonOption, data, fail, print_json, usage_errors, words

if TYPE_CHECKING:
    from cloud.device_commands.keys import KeyRing, KeyRingFile

app = typer.Typer(
    help="The keys that sign commands: rotate, retire, remove, and who trusts which.", no_args_is_help=True
)

_SHOWN_MAX = 20
ForceOption = Annotated[
    bool, typer.Option("--force", help="Although some devices trust no other key: they need one by hand.")
]


def _ring_file(data_directory: Path | None) -> "KeyRingFile":
    from cli.settings_errors import SettingsError, cloud_settings
    from cloud.identity.files import ConfigurationError, command_keys

    with usage_errors(SettingsError, ConfigurationError):
        return command_keys(cloud_settings(data_directory=data_directory))


def _status(ring: "KeyRing", data_directory: Path | None) -> dict[str, Any]:
    from cloud.device_commands.repository import trusted_by_devices

    rows = with_database(data_directory, lambda tx: [dict(row) for row in trusted_by_devices(tx)])
    trusted = {row["device_id"]: row["command_keys"].split() for row in rows}
    announced = set(ring.announced_ids)
    newest = ring.active[-1].id
    return {
        "version": ring.version,
        "keys": [
            {
                "id": key.id,
                "state": key.state,
                "newest": key.id == newest,
                "trusted_by": sum(key.id in ids for ids in trusted.values()),
                "only_key_of": sorted(who for who, ids in trusted.items() if ids == [key.id]),
            }
            for key in ring.keys
        ],
        "devices": len(trusted),
        "never_said": sorted(who for who, ids in trusted.items() if not ids),
        "missing_newest": sorted(who for who, ids in trusted.items() if ids and newest not in ids),
        "still_trust_others": sorted(who for who, ids in trusted.items() if set(ids) - announced),
        "unreachable": sorted(who for who, ids in trusted.items() if ids and not set(ids) & {k.id for k in ring.keys}),
    }


@app.command("status")
def status(data_directory: DataOption = None, as_json: JsonOption = False) -> None:
    """Each key, and which devices do not know the newest yet, still trust an old one, or trust none of ours.

    Example: [bold]fleet keys status --json[/bold]
    """
    found = _status(_ring_file(data_directory).ring, data_directory)
    if as_json:
        print_json(found)
        return
    for key in found["keys"]:
        newest = ", newest" if key["newest"] else ""
        data.print(
            f"[bold]{key['id']}[/bold] {key['state']}{newest}: {key['trusted_by']} of {found['devices']} devices"
        )
    for name, meaning in (
        ("missing_newest", "do not know the newest key yet"),
        ("still_trust_others", "still trust a key that is no longer announced"),
        ("unreachable", "trust none of these keys: give them one by hand"),
        ("never_said", "have not said yet which keys they trust"),
    ):
        if found[name]:
            more = f" and {len(found[name]) - _SHOWN_MAX} more" if len(found[name]) > _SHOWN_MAX else ""
            words.print(f"{len(found[name])} {meaning}: {escape(', '.join(found[name][:_SHOWN_MAX]))}{more}")


@app.command("rotate")
def rotate(data_directory: DataOption = None, as_json: JsonOption = False) -> None:
    """Make a new key. Devices learn it from a message signed by a key they trust, and no command is refused meanwhile.

    Next: `fleet keys status` until nobody misses the newest, then `fleet keys retire` the old one.

    Example: [bold]fleet keys rotate --json[/bold]
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from cli.clock import real_now_ms
    from cloud.device_commands.keys import KeyRingError

    file = _ring_file(data_directory)
    try:
        file.replace(file.ring.with_new_key(Ed25519PrivateKey.generate(), real_now_ms()))
    except (KeyRingError, OSError) as error:
        raise fail(str(error)) from None
    _done(file, f"made {file.ring.active[-1].id}; it signs for a device as soon as that trusts it", as_json=as_json)


@app.command("retire")
def retire(
    key_id: Annotated[str, typer.Argument(help="Which; see `fleet keys status`.")],
    force: ForceOption = False,
    data_directory: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let devices drop a key. It signs no commands any more, only the welcome of a device that knows no other.

    Example: [bold]fleet keys retire 0123456789abcdef --json[/bold]
    """
    _change("retired", key_id, data_directory, force=force, as_json=as_json)


@app.command("remove")
def remove(
    key_id: Annotated[str, typer.Argument(help="Which; see `fleet keys status`.")],
    force: ForceOption = False,
    data_directory: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Forget a key for good: after a compromise, or when every device has dropped it.

    Devices that trust nothing else cannot be commanded any more until somebody gives them a key by hand.

    Example: [bold]fleet keys remove 0123456789abcdef --force --json[/bold]
    """
    _change("without", key_id, data_directory, force=force, as_json=as_json)


def _change(how: str, key_id: str, data_directory: Path | None, *, force: bool, as_json: bool) -> None:
    from cli.clock import real_now_ms
    from cloud.device_commands.keys import KeyRingError

    file = _ring_file(data_directory)
    status_now = _status(file.ring, data_directory)
    depend: list[str] = next((key["only_key_of"] for key in status_now["keys"] if key["id"] == key_id), [])
    if depend and not force:
        shown = ", ".join(depend[:_SHOWN_MAX])
        raise fail(
            f"{len(depend)} devices trust no key but {key_id}: {shown}; wait until they have learnt another "
            "(fleet keys status), or repeat with --force", USAGE,
        )  # fmt: skip
    try:
        file.replace(getattr(file.ring, how)(key_id, real_now_ms()))
    except (KeyRingError, OSError) as error:
        raise fail(str(error)) from None
    _done(file, f"{key_id}: {'retired' if how == 'retired' else 'removed'}", as_json=as_json)


def _done(file: "KeyRingFile", told: str, *, as_json: bool) -> None:
    words.print(told)
    if as_json:
        keys = [{"id": key.id, "state": key.state} for key in file.ring.keys]
        print_json({"version": file.ring.version, "keys": keys, "file": str(file.path)})


@app.command("export")
def export(
    directory: Annotated[Path, typer.Argument(help="Where the public keys are written, as <id>.pem.")],
    data_directory: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the active public keys, for the settings of new boxes and for those that need one by hand.

    Example: [bold]fleet keys export ./command-keys --json[/bold]
    """
    from cloud.identity.authority import public_pem

    written = {}
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for key in _ring_file(data_directory).ring.active:
            path = directory / f"{key.id}.pem"
            path.write_bytes(public_pem(key.private.public_key()))
            written[key.id] = str(path)
    except OSError as error:
        raise fail(f"{directory}: {error.strerror}; name a folder that can be written", USAGE) from None
    if as_json:
        print_json({"command_keys": written})
    else:
        for key_id, name in written.items():
            data.print(f'{key_id} = "{name}"')
