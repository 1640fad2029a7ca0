"""`fleet doctor`: looks at a machine and a running deployment, and names the fix for each finding."""

from cli.doctor.command import doctor
from cli.doctor.finding import Finding, Verdict

__all__ = ["Finding", "Verdict", "doctor"]
