"""The text of the systemd files of an edge box. Pure: nothing is read or written here.

One template serves every device of a box (`fleet-edge@bike-001`); what differs between devices stands in a drop-in.
docs/adr/0017 says why each bound is what it is.
"""

import re
from collections.abc import Sequence
from typing import Final

TEMPLATE_NAME: Final = "fleet-edge@.service"
CONFIGURATION_FOLDER: Final = "/etc/fleet-edge"
STATE_FOLDER: Final = "/var/lib/fleet-edge"
LOG_NAMESPACE: Final = "fleet-edge"
WATCHDOG_S: Final = 60
MEMORY_MAX_MB: Final = 128
LOG_DISK_MAX_MB: Final = 32

_SERIAL_DRIVERS: Final = {
    "ttyUSB": "ttyUSB", "ttyACM": "ttyACM", "ttyS": "ttyS", "ttyAMA": "ttyAMA", "ttymxc": "ttymxc", "pts/": "pts",
}  # fmt: skip


def template(program: Sequence[str], user: str) -> str:
    """`fleet-edge@.service`; `program` is how `fleet` is started."""
    return f"""\
# Written by `fleet edge install`; changes belong into a drop-in: systemctl edit fleet-edge@<device>
[Unit]
Description=Fleet edge agent of %i
After=network.target
# An emergency button has no use for a service that gave up: restart for ever.
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart={" ".join(map(quoted, program))} edge run --config {CONFIGURATION_FOLDER}/%i.toml
# Fed only while the event loop, the journal's thread and the line make progress.
WatchdogSec={WATCHDOG_S}
TimeoutStartSec=90
TimeoutStopSec=15
Restart=always
RestartSec=2

User={user}
Group={user}
UMask=0077
StateDirectory=fleet-edge/%i
StateDirectoryMode=0700
WorkingDirectory={STATE_FOLDER}/%i

# Bounds, so that one agent cannot take the box from the others.
MemoryHigh={MEMORY_MAX_MB * 3 // 4}M
MemoryMax={MEMORY_MAX_MB}M
MemorySwapMax=0
CPUQuota=50%
TasksMax=32
LimitNOFILE=256
LimitCORE=0
IPAccounting=yes
LogNamespace={LOG_NAMESPACE}
LogRateLimitIntervalSec=30s
LogRateLimitBurst=300

# It needs its folder, its line and the network; nothing else.
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateMounts=yes
PrivateIPC=yes
DevicePolicy=closed
ProtectClock=yes
ProtectHostname=yes
ProtectControlGroups=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProcSubset=pid
KeyringMode=private
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RemoveIPC=yes
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"""


def drop_in(
    program: Sequence[str],
    device_id: str,
    config: str,
    *,
    devices: Sequence[str],
    writable: Sequence[str],
    home_is_read: bool,
) -> str:
    """What this device needs beyond the template.

    Args:
        program: how `fleet` is started.
        device_id: instance of the template.
        config: absolute path of the TOML file.
        devices: device files of the line and of other hardware.
        writable: folders outside the state folder that the agent writes.
        home_is_read: whether the program or the file lies in a home directory.
    """
    lines = ["# Written by `fleet edge install`.", "[Service]"]
    if config != f"{CONFIGURATION_FOLDER}/{device_id}.toml":
        lines += ["ExecStart=", f"ExecStart={' '.join(map(quoted, program))} edge run --config {quoted(config)}"]
    lines += [f"DeviceAllow={name} rw" for name in allowed(devices)]
    groups = sorted({"gpio" if "gpiochip" in device else "dialout" for device in devices})
    if groups:
        lines.append(f"SupplementaryGroups={' '.join(groups)}")
    lines += [f"ReadWritePaths={quoted(path)}" for path in writable]
    if home_is_read:
        lines.append("ProtectHome=read-only")
    return "\n".join(lines) + "\n"


def allowed(devices: Sequence[str]) -> list[str]:
    """What `DeviceAllow` names for these files.

    The driver, not the file: an adapter that is plugged in again, or only after the start, has a number of its own.
    """
    names: set[str] = set()
    for device in devices:
        found = re.fullmatch(r"/dev/([A-Za-z]+/?)\d+", device)
        driver = _SERIAL_DRIVERS.get(found[1]) if found else None
        if driver:
            names.add(f"char-{driver}")
        elif "gpiochip" in device:
            names.add("char-gpiochip")
        elif device.startswith("/dev/serial/"):  # links that udev makes for adapters, whichever driver they have
            names |= {"char-ttyUSB", "char-ttyACM"}
        else:
            names.add(device)
    return sorted(names)


def system_users(user: str) -> str:
    """`sysusers.d`: the agent's user, and the groups that own lines and pins."""
    return f'# Written by `fleet edge install`.\ng dialout -\ng gpio -\nu {user} - "Fleet edge agents" {STATE_FOLDER}\n'


def journal_bounds() -> str:
    """`journald@fleet-edge.conf`: what the agents' words may take, beside everybody else's."""
    return (
        "# Written by `fleet edge install`.\n[Journal]\n"
        f"Storage=persistent\nSystemMaxUse={LOG_DISK_MAX_MB}M\nRuntimeMaxUse=8M\nMaxRetentionSec=30day\n"
    )


def quoted(text: str) -> str:
    """A word of a unit file that means itself."""
    text = text.replace("%", "%%")
    return text if re.fullmatch(r"[\w@%+=:,./-]+", text) else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
