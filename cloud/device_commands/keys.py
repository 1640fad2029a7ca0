"""The public half of the command key, as devices need it."""

from pathlib import Path

from cloud.identity.authority import command_key_id, load_or_create_command_key, public_pem


def public_key_of(private_file: Path, directory: Path) -> tuple[str, Path]:
    """(key id, PEM file written into `directory`) for the private key in `private_file`."""
    key = load_or_create_command_key(private_file).public_key()
    path = directory / "command.pem"
    path.write_bytes(public_pem(key))
    return command_key_id(key), path
