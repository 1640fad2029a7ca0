"""How the agent is, for whoever asks on the box: a Unix socket in the data directory, one JSON document per question.

Nothing is written to the disk (memory cards wear out), a stuck agent is known by its silence, and only the agent's
user and root may ask.
"""

import asyncio
import json
import logging
import os
import resource
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

SOCKET_NAME: Final = "status.sock"
QUESTIONS_MAX: Final = 4
"""At the same time; more are hung up on."""
ANSWER_BYTES_MAX: Final = 64 * 1024
ANSWER_S_MAX: Final = 3.0

Document = dict[str, Any]
Describe = Callable[[], Awaitable[Document]]

_log = logging.getLogger(__name__)


class NoAnswerError(Exception):
    """No agent answers on the socket; the text says why."""


@contextmanager
def _reachable(path: Path) -> Iterator[str]:
    """A short name of `path`: a socket's may have 107 bytes only, and folders can be deep."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        short = f"/proc/self/fd/{folder}/{path.name}"
        yield short if Path(short).parent.exists() else str(path)
    finally:
        os.close(folder)


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        with _reachable(path) as name:
            _remove(path)  # of a process that was killed
            listener.bind(name)
            path.chmod(0o600)
    except OSError:
        listener.close()
        raise
    return listener


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


@asynccontextmanager
async def answering(path: Path, describe: Describe) -> AsyncIterator[None]:
    """Answer on `path` until the block ends; where no socket can be made, the block runs without answers."""
    asking = 0

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asking
        asking += 1
        try:
            if asking <= QUESTIONS_MAX:
                writer.write(json.dumps(await describe(), ensure_ascii=False).encode())
                async with asyncio.timeout(ANSWER_S_MAX):
                    await writer.drain()
        except (OSError, TimeoutError):
            pass  # who asked is gone or does not read
        finally:
            asking -= 1
            writer.close()

    try:
        listener = _listen(path)
    except OSError as error:  # a file system without sockets: the agent's work does not depend on it
        _log.warning("`fleet edge status` will find nobody: %s cannot be made: %s", path, error)
        yield
        return
    server = await asyncio.start_unix_server(answer, sock=listener)
    try:
        yield
    finally:
        server.close()
        _remove(path)


def ask(path: Path, patience_s: float = ANSWER_S_MAX) -> Document:
    """The agent's own view of itself; raises NoAnswerError."""
    try:
        with _reachable(path) as name, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as question:
            question.settimeout(patience_s)
            question.connect(name)
            answer = b""
            while len(answer) < ANSWER_BYTES_MAX and (data := question.recv(ANSWER_BYTES_MAX)):
                answer += data
        found = json.loads(answer)
    except TimeoutError as error:
        raise NoAnswerError(f"the agent holds {path} and does not answer") from error
    except PermissionError as error:
        raise NoAnswerError(f"{path} belongs to the agent's user; ask as that user or as root") from error
    except (OSError, ValueError) as error:
        raise NoAnswerError(f"no agent answers on {path}") from error
    if not isinstance(found, dict):
        raise NoAnswerError(f"{path} answered something else")
    return found


def resident_bytes() -> int:
    """Memory of this process now; the largest so far where /proc does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return pages * resource.getpagesize()
