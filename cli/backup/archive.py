"""The file of a backup: an uncompressed tar whose first member lists all others with size and SHA-256.

    fleet-backup-20261121T031500Z.tar        …or .tar.sealed with a key file
      manifest.json     what, when, by which release, of which schema, and what everything must hash to
      sql/…             the database (`cli.backup.sql_copy`)
      files/…           keys, certificates, photos
      settings.json     FLEET_ variables without secrets

It is written beside its place and moved there once it is on the disk: a name is there as a whole or not at all.
"""

import fcntl
import hashlib
import io
import json
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final

from cli.backup.sealing import SealError, open_sealed, seal

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
AGE_HOURS_MAX: Final = 26
"""A daily job that is two hours late is one that failed."""
MANIFEST_BYTES_MAX: Final = 8 << 20
SCRATCH_PREFIX: Final = ".fleet-backup-"
_BLOCK: Final = 1 << 20
_NAME: Final = re.compile(r"fleet-backup-(\d{8}T\d{6}Z)\.tar(\.sealed)?")
_STAMP: Final = "%Y%m%dT%H%M%SZ"


class BackupError(ValueError):
    """One line for people: what is wrong with an archive, or with where it is to go."""


@dataclass(frozen=True, slots=True)
class Member:
    """One file of the archive."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What an archive says of itself. `tables`: rows of each, as counted in the copied snapshot."""

    made_at_ms: int
    release: str
    dialect: str
    schema: str
    tables: Mapping[str, int]
    members: tuple[Member, ...] = ()
    left_out: tuple[str, ...] = ()
    """What a restored installation needs from elsewhere: names of settings that are secrets, the offline keys."""
    format: int = FORMAT


@dataclass(frozen=True, slots=True)
class Listed:
    """An archive as its name shows it."""

    path: Path
    made_at_ms: int
    sealed: bool


def archives(directory: Path) -> list[Listed]:
    """Those in a folder, oldest first; by name alone."""
    found = []
    for path in directory.iterdir():
        match = _NAME.fullmatch(path.name)
        if match is not None and path.is_file():
            made = datetime.strptime(match[1], _STAMP).replace(tzinfo=UTC)
            found.append(Listed(path, int(made.timestamp() * 1000), match[2] is not None))
    return sorted(found, key=lambda one: one.made_at_ms)


def name_of(made_at_ms: int, *, sealed: bool) -> str:
    """Of an archive made then."""
    stamp = datetime.fromtimestamp(made_at_ms / 1000, UTC).strftime(_STAMP)
    return f"fleet-backup-{stamp}.tar{'.sealed' if sealed else ''}"


# --- writing -----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Contents:
    """What goes into an archive: a scratch folder with `files`, name in the archive → path."""

    scratch: Path
    files: dict[str, Path] = field(default_factory=dict)

    def add_text(self, name: str, text: str) -> None:
        """A member that is made here."""
        path = self.scratch / name.replace("/", "-")
        path.write_text(text, encoding="utf-8")
        self.files[name] = path


@contextmanager
def scratch_folder(directory: Path) -> Iterator[Path]:
    """A folder beside the archives that goes whatever happens: copies of the database are large, and secret.

    Those of processes that were killed go at the next call: nobody holds their lock any more.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for left in directory.glob(f"{SCRATCH_PREFIX}*"):
        with suppress(OSError), _locked(left):
            shutil.rmtree(left, ignore_errors=True)
    with ExitStack() as stack:
        while True:
            folder = Path(tempfile.mkdtemp(prefix=SCRATCH_PREFIX, dir=directory))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            stack.enter_context(_locked(folder, waits=True))
            if folder.exists():  # else somebody took it for one that was left, before it was locked
                break
        yield folder


@contextmanager
def _locked(folder: Path, *, waits: bool = False) -> Iterator[None]:
    """Raises OSError where another process works in it and we do not wait."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if waits else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def write(
    directory: Path, contents: Contents, manifest: Manifest, key: bytes | None, check: Callable[[Path], object]
) -> Path:
    """Write the archive, have it checked, and only then put it into `directory`; its path.

    One that does not pass is kept as `….damaged`. Raises BackupError, also if there is one of the same second.
    """
    target = directory / name_of(manifest.made_at_ms, sealed=key is not None)
    if target.exists():
        raise BackupError(f"{target} exists; try again in a second")
    members = tuple(_member(name, path) for name, path in sorted(contents.files.items()))
    full = json.dumps({**asdict(manifest), "members": [asdict(one) for one in members]}, ensure_ascii=False).encode()
    partial = contents.scratch / target.name
    with _open_private(partial) as raw:
        if key is None:
            _write_tar(raw, full, contents.files, manifest.made_at_ms)
        else:
            with seal(raw, key) as sealed:
                _write_tar(sealed, full, contents.files, manifest.made_at_ms)
        raw.flush()
        os.fsync(raw.fileno())
    try:
        check(partial)
    except BackupError:
        partial.replace(target.with_name(f"{target.name}.damaged"))
        raise
    partial.replace(target)
    sync_folder(directory)
    return target


def _member(name: str, path: Path) -> Member:
    with path.open("rb") as file:
        return Member(name, path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def _write_tar(raw: Any, manifest: bytes, files: Mapping[str, Path], made_at_ms: int) -> None:
    with tarfile.open(fileobj=raw, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        _add(tar, MANIFEST, io.BytesIO(manifest), len(manifest), made_at_ms)
        for name, path in sorted(files.items()):
            with path.open("rb") as file:
                _add(tar, name, file, path.stat().st_size, made_at_ms)


def _add(tar: tarfile.TarFile, name: str, file: IO[bytes], size: int, made_at_ms: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, 0o600, made_at_ms // 1000
    tar.addfile(info, file)


def _open_private(path: Path) -> IO[bytes]:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def sync_folder(directory: Path) -> None:
    """So that names in it are as durable as what they name."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# --- reading -----------------------------------------------------------------------------------------------------


def unpack(path: Path, folder: Path, key: bytes | None) -> Manifest:
    """Write every member into `folder` and hold it against the manifest. Raises BackupError: then trust nothing."""
    try:
        with path.open("rb") as raw:
            sealed = path.name.endswith(".sealed")
            if sealed and key is None:
                raise BackupError(f"{path.name} is sealed: name its key with --key-file")
            return _unpack_tar(open_sealed(raw, key) if sealed and key is not None else raw, folder, path.name)
    except SealError as error:
        raise BackupError(f"{path.name}: {error}") from None
    except tarfile.TarError as error:
        raise BackupError(f"{path.name} is damaged: {error}; use another one") from None
    except OSError as error:
        raise BackupError(f"{path}: {error.strerror or error}; name an archive of fleet backup") from None


def _unpack_tar(stream: IO[bytes], folder: Path, name: str) -> Manifest:
    with tarfile.open(fileobj=stream, mode="r|") as tar:
        first = tar.next()
        if first is None or first.name != MANIFEST or first.size > MANIFEST_BYTES_MAX:
            raise BackupError(f"{name} is no archive of fleet backup")
        manifest = manifest_of(_bytes_of(tar, first), name)
        wanted = {one.name: one for one in manifest.members}
        for info in iter(tar.next, None):
            member = wanted.pop(info.name, None)
            if member is None or not info.isreg() or _unsafe(info.name):
                raise BackupError(f"{name} holds {info.name!r}, which its manifest does not name")
            _unpack_member(tar, info, member, folder, name)
    if wanted:
        raise BackupError(f"{name} lacks {', '.join(sorted(wanted))}: it was cut off")
    return manifest


def _unpack_member(tar: tarfile.TarFile, info: tarfile.TarInfo, member: Member, folder: Path, name: str) -> None:
    target = folder / member.name
    target.parent.mkdir(parents=True, exist_ok=True)
    source, digest = tar.extractfile(info), hashlib.sha256()
    assert source is not None
    with _open_private(target) as file:
        while block := source.read(_BLOCK):
            digest.update(block)
            file.write(block)
    if info.size != member.size or digest.hexdigest() != member.sha256:
        raise BackupError(f"{name}: {member.name} is not what was backed up (SHA-256 differs); use another one")


def _bytes_of(tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    source = tar.extractfile(info)
    return b"" if source is None else source.read()


def _unsafe(name: str) -> bool:
    return name.startswith("/") or ".." in Path(name).parts


def manifest_of(text: bytes, name: str) -> Manifest:
    """Read and check it. Raises BackupError."""
    try:
        document: dict[str, Any] = json.loads(text)
        if document.get("format") != FORMAT:
            raise BackupError(f"{name} has format {document.get('format')!r}; this release reads {FORMAT}")
        members = tuple(Member(**one) for one in document.pop("members"))
        document["left_out"] = tuple(document["left_out"])
        return Manifest(members=members, **document)
    except (ValueError, TypeError, KeyError) as error:
        if isinstance(error, BackupError):
            raise
        raise BackupError(f"{name}: its manifest can't be read: {error}") from None
