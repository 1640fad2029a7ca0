"""`fleet edge status`: asks the agent, or reads the journal of one that does not run, and prints the findings."""

import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from rich.markup import escape

from cli.clock import real_now_ms
from cli.edge_findings import Finding, Situation, judge
from cli.output import data

if TYPE_CHECKING:
    from edge.settings import EdgeSettings

SIGNS: Final = {"ok": "[green]✓[/green]", "warning": "[yellow]![/yellow]", "problem": "[red]✗[/red]"}
SECONDS_PER_DAY: Final = 86_400


@dataclass(frozen=True, slots=True)
class Status:
    """What was found."""

    device_id: str
    situation: Situation
    findings: Sequence[Finding]

    @property
    def healthy(self) -> bool:
        """Whether nobody has to do anything now."""
        return all(found.verdict != "problem" for found in self.findings)

    def document(self) -> dict[str, Any]:
        """For `--json`."""
        situation = self.situation
        return {
            "healthy": self.healthy,
            "device_id": self.device_id,
            "findings": [found.document() for found in self.findings],
            "agent": situation.agent,
            "journal": situation.journal,
            "disk": {
                "used_bytes": situation.disk_used_bytes,
                "bound_bytes": situation.disk_bound_bytes,
                "free_bytes": situation.disk_free_bytes,
            },
            "certificate_days": situation.certificate_days,
        }


def look(settings: "EdgeSettings") -> Status:
    """Ask everybody; nothing that fails ends the command."""
    from cli.edge_install import service_name
    from edge.disk import disk_use, figures_without_agent
    from edge.status import NoAnswerError, ask

    agent, silence = None, ""
    try:
        agent = ask(settings.status_path)
    except NoAnswerError as error:
        silence = str(error)
    journal, journal_error = agent and agent["waiting"], "its thread does not answer"
    if agent is None:
        try:
            journal = figures_without_agent(settings.journal_path, settings.device_id)
        except (sqlite3.Error, OSError) as error:
            journal_error = f"{settings.journal_path}: {error}"
    used = free = 0
    try:
        use = disk_use(settings.data_directory)
        used, free = use.used_bytes, use.free_bytes
    except OSError as error:
        journal_error = f"{settings.data_directory}: {error.strerror}"
    days, certificate_error = certificate_days(settings)
    situation = Situation(
        agent=agent, silence=silence, journal=journal, journal_error=journal_error, now_ms=real_now_ms(),
        disk_used_bytes=used, disk_bound_bytes=settings.disk_bytes_max, disk_free_bytes=free,
        certificate_days=days, certificate_error=certificate_error, service=service_name(settings),
    )  # fmt: skip
    return Status(settings.device_id, situation, judge(situation))


def certificate_days(settings: "EdgeSettings") -> tuple[float | None, str]:
    """(days until the certificate ends, what is wrong with the file); (None, "") for a plain connection."""
    path = settings.broker.certificate
    if settings.broker.plain or path is None:
        return None, ""
    from cryptography import x509

    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        return None, f"{path} cannot be read: {error.strerror}"
    except ValueError as error:
        return None, f"{path} is no certificate: {error}"
    return (certificate.not_valid_after_utc.timestamp() - time.time()) / SECONDS_PER_DAY, ""


def print_status(status: Status) -> None:
    """For people."""
    data.print(f"[bold]{escape(status.device_id)}[/bold]")
    print_findings(status.findings)
    agent = status.situation.agent
    if agent:
        counts = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in agent["counts"].items() if count)
        data.print(f"  counted since the start: {escape(counts) or 'nothing'}")


def print_findings(findings: Sequence[Finding]) -> None:
    """One line each, and an arrow with the fix."""
    for found in findings:
        data.print(f"{SIGNS[found.verdict]} {found.check}: {escape(found.found)}")
        if found.fix:
            data.print(f"    → {escape(found.fix)}")
