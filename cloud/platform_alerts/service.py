"""Alerts of the platform become notices of the system, each outbreak and its end once, whatever is repeated."""

import hmac
from collections.abc import Callable, Sequence

from sqlalchemy import Connection

from cloud.api.problem import ProblemError
from cloud.dispatch import audience, notices
from cloud.model import Notification
from cloud.platform_alerts.schemas import WORDS_MAX, Alert, AlertPost, AlertsTaken
from cloud.ports import Database
from fleet.clock import Clock
from fleet.incident import Priority

SEVERITIES = {"emergency": Priority.EMERGENCY, "high": Priority.HIGH, "low": Priority.LOW}
"""Label `severity` of our rules; an alert without it counts as high."""


class PlatformAlertService:
    """`secret`: what the sender must show; empty: nothing is taken. `channels`: of the outbox."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self.secret = ""
        self.channels: Sequence[str] = ()
        self.wake_outbox: Callable[[], None] = lambda: None
        self._database = database
        self._clock = clock

    def admit(self, shown: str) -> None:
        """Raises ProblemError 401 unless the header `Authorization` shows our secret, 503 if there is none."""
        if not self.secret:
            raise ProblemError(
                503, "not_set_up", "Not set up", "Set FLEET_PLATFORM_ALERT_SECRET here and in Grafana's contact point."
            )
        scheme, _, secret = shown.partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(secret.strip().encode(), self.secret.encode()):
            raise ProblemError(
                401, "wrong_secret", "Wrong secret", "Give Grafana's contact point FLEET_PLATFORM_ALERT_SECRET."
            )

    async def take(self, post: AlertPost) -> AlertsTaken:
        """Notices for the duty manager and the common channels; urgent ones leave with the emergencies."""
        now_ms = self._clock.now_ms()

        def write(tx: Connection) -> int:
            return sum(self._tell(tx, alert, now_ms) > 0 for alert in post.alerts)

        new = await self._database.write(write)
        if new:
            self.wake_outbox()
        return AlertsTaken(alerts=len(post.alerts), new=new)

    def _tell(self, tx: Connection, alert: Alert, now_ms: int) -> int:
        is_over = alert.status == "resolved"
        severity = SEVERITIES.get(alert.labels.get("severity", ""), Priority.HIGH)
        name = alert.labels.get("alertname", "alert")
        zh, en = (alert.annotations.get(f"title_{language}", name)[:WORDS_MAX] for language in ("zh", "en"))
        process = alert.labels.get("process", "")
        if process:
            zh, en = f"{zh}（{process}）", f"{en} ({process})"
        if is_over:
            zh, en = f"已恢复:{zh}", f"Over: {en}"
        facts = {
            "alert": name, "holds": not is_over, "process": process, "since": alert.starts_at,
            "values": alert.value_string[:WORDS_MAX], "action_zh": alert.annotations.get("action_zh", "")[:WORDS_MAX],
            "action_en": alert.annotations.get("action_en", "")[:WORDS_MAX],
        }  # fmt: skip
        priority = Priority.LOW if is_over else severity
        reference = f"platform:{alert.fingerprint}"
        notice = Notification("system", reference, priority.value, "", zh, en, facts, now_ms, "everybody")
        urgent = severity is Priority.EMERGENCY and not is_over
        step = f"{alert.status}:{alert.starts_at}"
        return notices.put(tx, audience.system_rows(tx, notice, step, self.channels, urgent=urgent))
