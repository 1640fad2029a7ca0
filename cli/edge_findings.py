"""What is wrong with an edge box and how to mend it, judged from what the agent and its journal say. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

Verdict = Literal["ok", "warning", "problem"]

MEMORY_MB_MAX: Final = 90
"""Twice what an agent takes; the unit ends it at 128."""
FREE_BYTES_MIN: Final = 64_000_000
DISCONNECTED_S_MAX: Final = 120.0
EMERGENCY_AGE_S_MAX: Final = 10.0
AGE_S_MAX: Final = 900.0
"""While the link is up nothing waits for so long."""
CERTIFICATE_DAYS_WARNING: Final = 30
"""A third of its life: renewal should have happened."""
CLOCK_OFF_S_MAX: Final = 300.0
_JOURNALCTL: Final = "journalctl --namespace fleet-edge"


@dataclass(frozen=True, slots=True)
class Finding:
    """One look: what at, what was found, and what to do about it."""

    check: str
    verdict: Verdict
    found: str
    fix: str = ""

    def document(self) -> dict[str, str]:
        """For `--json`."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """Everything that is known when somebody asks."""

    agent: Mapping[str, Any] | None
    """`edge.report` of the running agent."""
    silence: str = ""
    """Why there is none."""
    journal: Mapping[str, Any] | None
    """`edge.disk.journal_figures`."""
    journal_error: str = ""
    now_ms: int
    disk_used_bytes: int
    disk_bound_bytes: int
    disk_free_bytes: int
    certificate_days: float | None = None
    certificate_error: str = ""
    service: str = ""
    """Name of the systemd service, for the fixes."""


def judge(found: Situation) -> list[Finding]:
    """All findings, in the order in which they are mended."""
    return [
        *_agent(found),
        *_line(found),
        *_certificate(found),
        *_link(found),
        *_journal(found),
        *_disk(found),
    ]


def _agent(found: Situation) -> Iterator[Finding]:
    if found.agent is None:
        fix = f"systemctl start {found.service}, then {_JOURNALCTL} -u {found.service} -n 20"
        yield Finding("Agent", "problem", found.silence, fix)
        return
    agent = found.agent
    if agent["stuck"]:
        yield Finding(
            "Progress", "problem", agent["stuck"], "the service manager restarts it; if it returns, change the disk"
        )
    running = f"version {agent['version']}, running for {_for(agent['running_for_s'])}, {agent['memory_mb']} MB"
    if agent["memory_mb"] > MEMORY_MB_MAX:
        yield Finding("Agent", "warning", running, f"restart it and report this: systemctl restart {found.service}")
    else:
        yield Finding("Agent", "ok", running)
    if agent["recent_problems"]:
        last = agent["recent_problems"][-1]
        yield Finding(
            "Words", "warning", f"{agent['problems']} warnings and errors, the last at {last['at']}: {last['text']}",
            f"{_JOURNALCTL} -u {found.service} -p warning",
        )  # fmt: skip


def _line(found: Situation) -> Iterator[Finding]:
    line = found.agent and found.agent["line"]
    if not line:
        return
    if line["open"]:
        heard = "nothing heard yet" if line["heard_s"] is None else f"last heard {_for(line['heard_s'])} ago"
        verdict: Verdict = "warning" if line["heard_s"] is None and line["open_for_s"] > DISCONNECTED_S_MAX else "ok"
        fix = "is the controller powered, and are speed and wiring right?" if verdict == "warning" else ""
        yield Finding("Line", verdict, f"{line['address']} open, {heard}", fix)
    else:
        yield Finding(
            "Line", "problem", f"{line['address']}: {line['error'] or 'not open yet'}",
            "plug it in; the port's name is in /dev/serial/by-id, its group must be one of the agent's user",
        )  # fmt: skip


def _certificate(found: Situation) -> Iterator[Finding]:
    if found.certificate_error:
        yield Finding("Certificate", "problem", found.certificate_error, "enrol the device anew, or restore its files")
    elif found.certificate_days is not None and found.certificate_days < 0:
        yield Finding(
            "Certificate", "problem", f"expired {-found.certificate_days:.0f} days ago", "enrol the device anew"
        )
    elif found.certificate_days is not None:
        late = found.certificate_days < CERTIFICATE_DAYS_WARNING
        yield Finding(
            "Certificate", "warning" if late else "ok", f"{found.certificate_days:.0f} days left",
            "it should have been renewed by itself: is the device connected and approved?" if late else "",
        )  # fmt: skip


def _link(found: Situation) -> Iterator[Finding]:
    link = found.agent and found.agent["link"]
    if not found.agent or not link:
        return
    if link["connected"]:
        yield Finding("Link", "ok", f"{link['broker']}, welcomed {_for(link['welcomed_for_s'])} ago")
    else:
        since_s = found.agent["running_for_s"] if link["last_welcome_s"] is None else link["last_welcome_s"]
        never = "never welcomed" if link["last_welcome_s"] is None else f"last welcomed {_for(since_s)} ago"
        yield Finding(
            "Link", "problem" if since_s > DISCONNECTED_S_MAX else "warning",
            f"not connected to {link['broker']}, {never}" + (f": {link['error']}" if link["error"] else ""),
            f"fleet edge check --config … looks at the way there; events wait in the journal ({found.service})",
        )  # fmt: skip
    clock = found.agent["clock"]
    if not clock["trusted"]:
        yield Finding(
            "Clock", "warning", "not vouched for by the cloud yet", "comes with the first welcome; until then commands "
            "that expire are refused",
        )  # fmt: skip
    elif abs(clock["off_by_s"]) > CLOCK_OFF_S_MAX:
        yield Finding(
            "Clock", "warning", f"this box is {clock['off_by_s']:.0f} s off; the cloud's time is used instead",
            "start a time service: systemctl enable --now systemd-timesyncd",
        )  # fmt: skip
    else:
        yield Finding("Clock", "ok", f"vouched for, {clock['off_by_s']:.1f} s off")


def _journal(found: Situation) -> Iterator[Finding]:
    if found.journal is None:
        yield Finding("Journal", "problem", found.journal_error, "is data_directory right, and who may read it?")
        return
    lanes = found.journal["lanes"]
    rows = ", ".join(f"{name} {lane['rows']}" for name, lane in sorted(lanes.items())) or "empty"
    connected = bool(found.agent and found.agent["link"] and found.agent["link"]["connected"])
    late = [
        f"{name} for {_for(age_s)}"
        for name, lane in sorted(lanes.items())
        if lane["oldest_at"] is not None
        and (age_s := (found.now_ms - lane["oldest_at"]) / 1000)
        > (EMERGENCY_AGE_S_MAX if name == "emergency" else AGE_S_MAX)
    ]
    if late:
        yield Finding(
            "Journal", "problem" if connected or lanes.get("emergency", {}).get("rows") else "warning",
            f"waiting: {rows}; {', '.join(late)}",
            "the cloud does not take them: look at its quarantine and its log" if connected else "mend the link",
        )  # fmt: skip
    else:
        yield Finding("Journal", "ok", f"waiting: {rows}")
    evicted = sum(lane["evicted"] for lane in lanes.values())
    if evicted:
        yield Finding(
            "Evicted", "warning", f"{evicted} messages had to go to bound the disk; the cloud knows which",
            "raise bounds.journal_mb if outages last longer",
        )  # fmt: skip
    if found.journal["set_aside"]:
        yield Finding(
            "Set aside", "warning", f"{found.journal['set_aside']} messages the cloud never took",
            "fleet quarantine shows why; they stay in the table set_aside",
        )  # fmt: skip
    if found.agent and found.agent["journal"]["reserve_rows"]:
        yield Finding(
            "Reserve", "problem", f"{found.agent['journal']['reserve_rows']} emergencies are in the reserve: "
            "the database takes nothing", "free disk space; is the disk read-only?",
        )  # fmt: skip


def _disk(found: Situation) -> Iterator[Finding]:
    if found.journal is None:
        return
    used = f"{found.disk_used_bytes / 1e6:.1f} MB of {found.disk_bound_bytes / 1e6:.0f} used"
    free = f"{found.disk_free_bytes / 1e6:.0f} MB free"
    if found.disk_free_bytes < FREE_BYTES_MIN:
        yield Finding("Disk", "problem", f"{used}, {free}", "free space: telemetry is given up before emergencies")
    elif found.disk_used_bytes > found.disk_bound_bytes:
        yield Finding("Disk", "warning", f"{used}, {free}", "something else writes into data_directory: remove it")
    else:
        yield Finding("Disk", "ok", f"{used}, {free}")


def _for(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7_200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3_600:.0f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} days"
