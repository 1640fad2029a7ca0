"""What stays of a box that is enrolled anew: its settings, its journal and whose its files are."""

import os
import re
import stat
import tomllib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from edge import keys

_TABLE: Final = re.compile(r"^\[+\s*([A-Za-z0-9_-]+)")
_KEY: Final = re.compile(r"^\s*([A-Za-z0-9_-]+)\s*=")
_OURS: Final = frozenset({"device_id", "kind", "transport", "data_directory"})
_OUR_BROKER: Final = frozenset({"host", "port", "authority", "certificate", "private_key", "plain"})


@dataclass(frozen=True, slots=True)
class Former:
    """Settings of before, without what an enrolment writes: text that goes into the new file as it stands."""

    device_id: str = ""
    transport: str = ""
    data_directory: str = "data"
    top: str = ""
    broker: str = ""
    tables: str = ""

    @classmethod
    def read(cls, settings: Path) -> Self:
        """Of a settings file. Raises OSError and ValueError."""
        text = settings.read_text()
        values = tomllib.loads(text)
        parts: dict[str, str] = {"": "", "broker": ""}
        tables, table = "", ""
        for line in text.splitlines(keepends=True):
            if found := _TABLE.match(line):
                table = found[1]
                if table in {"broker", "command_keys"}:
                    continue
            if table not in {"", "broker", "command_keys"}:
                tables += line
                continue
            name = _KEY.match(line)
            ours = _OUR_BROKER if table == "broker" else _OURS
            if table != "command_keys" and line.strip() and not line.startswith("#") and not (name and name[1] in ours):
                parts[table] += line
        former = cls(
            str(values.get("device_id", "")), str(values.get("transport", "")),
            str(values.get("data_directory", "data")), parts[""], parts["broker"],
            f"\n{tables}" if tables else "",
        )  # fmt: skip
        tomllib.loads(f"{former.top}\n[broker]\n{former.broker}\n{former.tables}")
        return former


def write_like_before(path: Path, content: bytes, mode: int) -> None:
    """Replace a file that goes on belonging to whom it belonged, with the rights it had: the agent has to read it."""
    before = None
    with suppress(FileNotFoundError):
        before = path.stat()
    keys.write_whole(path, content, mode if before is None else stat.S_IMODE(before.st_mode))
    if before is not None and (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
        os.chown(path, before.st_uid, before.st_gid)


def drop_renewal(identity: Path) -> None:
    """Forget a renewal that was under way for the former identity."""
    for suffix in (".next-key", ".next"):
        identity.with_name(f"{identity.name}{suffix}").unlink(missing_ok=True)
