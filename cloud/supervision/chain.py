"""The way of a call, stage by stage, and which of them is dead. Pure: evidence in, verdict out.

    synthetic room ─► broker ─► ingest ─► SQL commit ─► dispatch (outbox) ─► channel ─► handed back

The room sees for itself that the broker took its press, that the cloud acknowledged it (which it does after its
commit alone), and that the delivery came back. What lies between is asked of database and cloud only when one of
these is missing.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from fleet.kind import Text

INTERVAL_S: Final = 10.0
DEADLINE_S: Final = 10.0
"""Real seconds. A stage that dies right after a round is announced at the end of the next one: within 20 s."""


class Stage(StrEnum):
    """In the order of the way."""

    BROKER = "broker"
    INGEST = "ingest"
    SQL = "sql"
    DISPATCH = "dispatch"
    CHANNEL = "channel"


TITLES: Final = {
    Stage.BROKER: Text("消息服务器", "the broker"),
    Stage.INGEST: Text("接收与规则", "ingest and rules"),
    Stage.SQL: Text("数据库提交", "the commit to the database"),
    Stage.DISPATCH: Text("分派与发件箱", "dispatch and its outbox"),
    Stage.CHANNEL: Text("通知渠道", "the way out to channels"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """The outbox row of the press."""

    attempts: int
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known of one synthetic press when its deadline is over, or when it came back.

    `database` and `cloud` are empty where they work, else what is wrong with them. `delivery` is None without a row.
    """

    published: bool
    acknowledged: bool
    handed_back: bool
    took_s: float
    link: str = ""
    database: str = ""
    cloud: str = ""
    delivery: Delivery | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The first dead stage and why; `stage` None: the chain is whole."""

    stage: Stage | None
    reason: str = ""


def judge(found: Evidence) -> Verdict:
    """Which stage the press did not get through."""
    if found.handed_back:
        return Verdict(None)
    if not found.published or found.link:
        return Verdict(Stage.BROKER, found.link or "it did not take the press")
    if found.database:
        return Verdict(Stage.SQL, found.database)
    if not found.acknowledged:
        return Verdict(Stage.INGEST, found.cloud or "the press was not acknowledged")
    return _judge_delivery(found)


def _judge_delivery(found: Evidence) -> Verdict:
    if found.delivery is None:
        return Verdict(Stage.DISPATCH, "no delivery was planned for the press")
    if not found.delivery.attempts:
        return Verdict(Stage.DISPATCH, found.cloud or "nobody took the delivery out of the outbox")
    return Verdict(Stage.CHANNEL, found.delivery.error or "the delivery left the outbox and did not arrive")


@dataclass(frozen=True, slots=True)
class Announcement:
    """What is to be told at once, outside of everything that it is about."""

    stage: Stage | None
    reason: str
    at_s: float
    dead_for_s: float

    @property
    def title(self) -> Text:
        """One line."""
        if self.stage is None:
            return Text(
                f"呼叫链路已恢复（中断 {self.dead_for_s:.0f} 秒）",
                f"The way of emergency calls is whole again (it was broken for {self.dead_for_s:.0f} s)",
            )
        name = TITLES[self.stage]
        return Text(f"紧急呼叫链路中断：{name.zh}", f"The way of emergency calls is broken at {name.en}")

    def document(self) -> dict[str, Any]:
        """For machines."""
        return {
            "kind_of": "supervision",
            "stage": self.stage.value if self.stage else None,
            "whole": self.stage is None,
            "reason": self.reason,
            "dead_for_s": round(self.dead_for_s, 1),
            "title_zh": self.title.zh,
            "title_en": self.title.en,
        }


class Chain:
    """The state of the way over time; seconds are monotonic and given by the caller."""

    def __init__(self, started_s: float) -> None:
        self.verdict: Verdict | None = None
        """None before the first round ended."""
        self.rounds = 0
        self.whole_at_s: float | None = None
        self.took_s: float | None = None
        self.announced: list[Announcement] = []
        """The latest of them; bounded."""
        self._since_s = started_s

    def took(self, found: Evidence, at_s: float) -> Announcement | None:
        """One more round ended; what must be told now, once per change."""
        verdict = judge(found)
        before, self.verdict = self.verdict, verdict
        self.rounds += 1
        if verdict.stage is None:
            broken_since_s = self._since_s
            self.whole_at_s, self.took_s, self._since_s = at_s, found.took_s, at_s
            if before is None or before.stage is None:
                return None
            return self._tell(Announcement(None, "", at_s, at_s - broken_since_s))
        if before is not None and before.stage is verdict.stage:
            return None
        return self._tell(Announcement(verdict.stage, verdict.reason, at_s, at_s - self._since_s))

    def _tell(self, announcement: Announcement) -> Announcement:
        self.announced = [*self.announced, announcement][-20:]
        return announcement

    def document(self, now_s: float) -> dict[str, Any]:
        """For the status page."""
        verdict = self.verdict
        return {
            "whole": verdict is not None and verdict.stage is None,
            "stage": verdict.stage.value if verdict is not None and verdict.stage else None,
            "reason": verdict.reason if verdict is not None else "no round has ended yet",
            "rounds": self.rounds,
            "round_trip_s": None if self.took_s is None else round(self.took_s, 3),
            "whole_before_s": None if self.whole_at_s is None else round(now_s - self.whole_at_s, 1),
            "announced": [
                {**one.document(), "before_s": round(now_s - one.at_s, 1)} for one in reversed(self.announced)
            ],
        }
