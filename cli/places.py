"""Folders, files and addresses that somebody named: whether they can be used, and one line where they cannot."""

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from cli.output import FAILURE, USAGE, fail

ANOTHER: Final = "name a place that can be written"
_FULL: Final = "the disk is full; free space on it, or name a place on another one"
_FORBIDDEN: Final = "this user may not do that there; change its owner or rights, or name a place that can be written"
_FILE: Final = "a file stands where a folder is needed; name a place that can be written"
_WORDS: Final = {
    errno.ENOSPC: _FULL, errno.EDQUOT: _FULL, errno.EACCES: _FORBIDDEN, errno.EPERM: _FORBIDDEN,
    errno.EFBIG: "no file may grow so large here; raise the limit (ulimit -f), or name a place on another disk",
    errno.EROFS: f"that file system can only be read; {ANOTHER}", errno.EEXIST: _FILE, errno.ENOTDIR: _FILE,
    errno.EISDIR: "a folder stands where a file is needed; name a file",
    errno.ENOENT: "nothing can be made there; correct the path, or name a place that can be written",
    errno.EIO: f"the disk answers with errors; look at the system's log, and {ANOTHER}",
}  # fmt: skip
_UNREADABLE: Final = {
    errno.ENOENT: "there is no such file; correct the path", errno.EISDIR: "is a folder; name a file",
    errno.EACCES: "this user may not read it; change its owner or rights",
    errno.ENOTDIR: "there is no such file; correct the path",
}  # fmt: skip
OF_THE_DISK: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
"""What is nobody's mistake on the command line."""


def why_not(error: OSError) -> str:
    """Why something cannot be written, and what to do: the end of a sentence that names the place."""
    return _WORDS.get(error.errno or 0) or f"{_lower(error)}; {ANOTHER}"


def why_unread(error: OSError) -> str:
    """The same for something that is to be read."""
    return _UNREADABLE.get(error.errno or 0) or f"cannot be read: {_lower(error)}"


@contextmanager
def writing_to(what: str) -> Iterator[None]:
    """What is refused in here ends the command with one line; `what` names the place, e.g. `--out build`."""
    try:
        yield
    except OSError as error:
        code = FAILURE if error.errno in OF_THE_DISK else USAGE
        raise fail(f"{what}: {why_not(error)}", code) from error


def need_folder(option: str, folder: Path) -> None:
    """Make it where it is missing, and prove that files can be written into it, before anything long begins."""
    with writing_to(f"{option} {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        _try(folder)


def need_file(option: str, file: Path) -> None:
    """The same for a file in a folder that must be there; what stands in the file stays."""
    with writing_to(f"{option} {file}"):
        if file.is_dir():
            raise IsADirectoryError(errno.EISDIR, "is a folder")
        if file.exists():
            file.open("ab").close()
        else:
            _try(file.absolute().parent)


def address_fault(url: str) -> str:
    """What is wrong with an `http(s)://…`; empty: nothing that can be seen without asking there."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        usable = usable and url.isprintable() and " " not in url
    except ValueError:  # a port that is none, half an IPv6 address
        usable = False
    return "" if usable else f"{url!r} is no address; write for example http://127.0.0.1:8086"


def check_address(option: str, url: str, example: str = "") -> None:
    """Raises ValueError with one line."""
    if fault := address_fault(url):
        raise ValueError(f"{option}: {fault.replace('http://127.0.0.1:8086', example) if example else fault}")


def _try(folder: Path) -> None:
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".fleet-") as file:
        file.write(b"x")


def _lower(error: OSError) -> str:
    text = error.strerror or type(error).__name__
    return text[:1].lower() + text[1:]
