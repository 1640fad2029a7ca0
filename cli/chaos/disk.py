"""A disk that can be full: a small tmpfs whose size is set to what it holds. Needs root on Linux."""

import asyncio
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from cli.guard import MOUNTED_AS

LEFT_OVER_BYTES: Final = 8_192
"""Room that is left when it is full: less than any transaction needs."""
_TRIES: Final = 20


class Disk:
    """`mount` once, then `fill` and `heal`."""

    def __init__(self, path: Path, size_bytes: int) -> None:
        self.path = path
        self.mounted = False
        self._size_bytes = size_bytes

    def mount(self) -> str:
        """Mount over the folder, which is made; empty when it worked, else why this machine can't."""
        self.path.mkdir(parents=True, exist_ok=True)
        if os.geteuid() != 0:
            return "a small file system can only be mounted by root"
        refusal = _mount("-t", "tmpfs", "-o", f"size={self._size_bytes},mode=0700", MOUNTED_AS, str(self.path))
        self.mounted = not refusal
        return refusal

    async def fill(self) -> None:
        """No byte more."""
        for _ in range(_TRIES):  # somebody writes meanwhile: what is used grew since it was read
            found = os.statvfs(self.path)
            used_bytes = (found.f_blocks - found.f_bfree) * found.f_frsize
            if not await asyncio.to_thread(self._resize, used_bytes + LEFT_OVER_BYTES):
                return

    async def heal(self) -> None:
        """As large as before."""
        await asyncio.to_thread(self._resize, self._size_bytes)

    def unmount(self) -> None:
        """After its users are gone; what it held stays in the folder, for whoever looks for the fault."""
        if not self.mounted:
            return
        kept = self.path.with_name(self.path.name + ".kept")
        shutil.copytree(self.path, kept)
        subprocess.run(["umount", "--lazy", str(self.path)], check=False, capture_output=True)
        self.mounted = False
        self.path.rmdir()
        kept.rename(self.path)

    def _resize(self, size_bytes: int) -> str:
        return _mount("-o", f"remount,size={size_bytes}", str(self.path))


def _mount(*arguments: str) -> str:
    try:
        done = subprocess.run(["mount", *arguments], check=False, capture_output=True, text=True)
    except OSError as error:
        return str(error)
    return "" if done.returncode == 0 else (done.stderr.strip() or "mount failed")
