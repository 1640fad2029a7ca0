"""The account the broker runs as, and that it can read what its configuration names.

Mosquitto started by root becomes another account *before* it reads certificates, at the start and at every SIGHUP.
"""

import grp
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cli.broker_configuration import BrokerTls

PACKAGE_ACCOUNT: Final = "mosquitto"


def let_read(account: str, tls: BrokerTls) -> Iterator[str]:
    """As root, let the account's group read the broker's own key; yields what stays for somebody to mend.

    `fleet pki server --replace` keeps these rights.
    """
    if os.geteuid() != 0 or account == "root":
        return
    try:
        entry = pwd.getpwnam(account)
    except KeyError:
        yield (
            f"there is no account {account!r} here: install Mosquitto first and run this again, or name its account "
            "with --user"
        )
        return
    for path, mode in ((tls.key.parent, 0o710), (tls.key, 0o640)):
        os.chown(path, -1, entry.pw_gid)
        path.chmod(mode)
    groups = {entry.pw_gid} | {one.gr_gid for one in grp.getgrall() if account in one.gr_mem}
    closed: dict[Path, Path] = {}
    for path in (tls.devices_root, tls.services_root, tls.certificate, tls.key, tls.revocation_list):
        for place in (*reversed(path.parents), path):
            if not _may(place, entry.pw_uid, groups, 0o1 if place != path else 0o4):
                closed.setdefault(place, path)
                break
    for place, path in closed.items():
        yield f"{account} can't read {path}: {place} is closed to it; chmod o+rX {place}"


def _may(path: Path, uid: int, groups: set[int], right: int) -> bool:
    found = path.stat()
    mode = stat.S_IMODE(found.st_mode)
    if found.st_uid == uid:
        return bool(mode & right << 6)
    return bool(mode & (right << 3 if found.st_gid in groups else right))
