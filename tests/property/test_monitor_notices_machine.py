"""Alerts that come and go under silences, told to receivers that fail in every way, on virtual time.

Each receiver hears of each alert in turn that it fires and that it was resolved; in the end what it heard is true.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ondol.monitor.notice_ports import DeliveryTerms, NoticeRejectedError
from ondol.monitor.notices import Notices
from ondol.monitor.targets import Grouping
from ondol.testing import VirtualClock, VirtualTimeLoop
from tests.service.notices_fakes import Alerts

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    from ondol.monitor.notice import Notice, NoticeAlert

NAMES = ("a", "b", "c", "d")
GROUPS = {"a": "x", "b": "x", "c": "y", "d": "y"}
WAIT_S, INTERVAL_S, RETRY_S, TIMEOUT_S = 10.0, 60.0, 100.0, 5.0
SURE = ("refuses", "answers 503", "asks for patience")
TROUBLE = (*SURE, "hangs", "loses the answer", "hangs up")


class Receiver:
    """What a receiver believes of each alert, and every complaint it could have."""

    def __init__(self, name: str, silenced: set[str], *, sends_resolved: bool = True) -> None:
        self.name = name
        self.terms = DeliveryTerms(TIMEOUT_S, RETRY_S, sends_resolved)
        self.trouble = "none"
        self._silenced = silenced
        self.firing: dict[str, float] = {}
        """When what it believes to fire began."""
        self.ended: dict[str, float] = {}
        self.doubtful: set[str] = set()
        """Alerts that it may hear of twice: the sender cannot know that it heard."""
        self.complaints: list[str] = []

    async def send(self, notice: Notice) -> None:
        firing = {alert.labels["alertname"] for alert in notice.alerts if alert.status == "firing"}
        self.complaints += [f"told of {name}, which is silenced" for name in firing & self._silenced]
        if self.trouble == "refuses":
            raise ConnectionRefusedError
        if self.trouble == "answers 503":
            raise NoticeRejectedError("503", is_permanent=False)
        if self.trouble == "asks for patience":
            raise NoticeRejectedError("429", is_permanent=False, retry_after_s=30.0)
        if self.trouble == "rejects":
            raise NoticeRejectedError("400", is_permanent=True)
        if self.trouble == "hangs up":
            self.doubtful |= {alert.labels["alertname"] for alert in notice.alerts}
            raise ConnectionResetError
        names = {alert.labels["alertname"] for alert in notice.alerts}
        excused = self.doubtful.copy()
        self.doubtful |= names
        await asyncio.sleep(0.5)
        for alert in notice.alerts:
            self._hear(alert, is_excused=alert.labels["alertname"] in excused)
        if self.trouble == "loses the answer":
            raise ConnectionResetError
        if self.trouble == "hangs":
            await asyncio.Event().wait()
        self.doubtful -= names

    def _hear(self, alert: NoticeAlert, *, is_excused: bool) -> None:
        known = self.firing.get(alert.labels["alertname"])
        is_new = alert.starts_at > self.ended.get(alert.labels["alertname"], 0.0)
        if alert.status == "firing":
            # Who is not told of resolutions hears of the next episode only.
            if known is not None and self.terms.sends_resolved and not is_excused:
                self.complaints.append(f"told twice that {alert.labels['alertname']} fires")
            if not self.terms.sends_resolved and known == alert.starts_at and not is_excused:
                self.complaints.append(f"told twice of an episode of {alert.labels['alertname']}")
            self.firing[alert.labels["alertname"]] = alert.starts_at
            return
        if not self.terms.sends_resolved:
            self.complaints.append("told of a resolution")
        if known is None and not is_new and not is_excused:
            self.complaints.append(f"told twice that {alert.labels['alertname']} was resolved")
        self.firing.pop(alert.labels["alertname"], None)
        self.ended[alert.labels["alertname"]] = alert.starts_at


class NoticesMachine(RuleBasedStateMachine):
    """The whole service, in the hands of chance."""

    @initialize(seed=st.integers(0, 2**16))
    def begin(self, seed: int) -> None:
        self.loop = VirtualTimeLoop()
        self.clock = VirtualClock(self.loop)
        self.alerts = Alerts(self.clock)
        self.silenced: set[str] = set()
        self.good, self.bad = Receiver("good", self.silenced), Receiver("bad", self.silenced)
        self.strict = Receiver("strict", self.silenced)
        self.brief = Receiver("brief", self.silenced, sends_resolved=False)
        self.receivers = [self.good, self.bad, self.strict, self.brief]
        self.notices = Notices(
            self.receivers,
            Grouping(("team",), WAIT_S, INTERVAL_S),
            clock=self.clock,
            random=random.Random(seed),
            is_silenced=self.silence_of,
        )
        self.is_running = False
        self.start()

    def silence_of(self, labels: Mapping[str, str]) -> str | None:
        return "a silence" if labels["alertname"] in self.silenced else None

    def run(self, scenario: Coroutine[object, object, None]) -> None:
        self.loop.run_until_complete(scenario)

    def start(self) -> None:
        self.run(self.notices.start())
        self.is_running = True

    @rule(name=st.sampled_from(NAMES))
    def change(self, name: str) -> None:
        if name in self.alerts.firing:
            self.notices.take(self.alerts.resolve(name))
        else:
            self.notices.take(self.alerts.fire(name, team=GROUPS[name]))

    @rule(name=st.sampled_from(NAMES), is_told_of_it=st.booleans())
    def silence(self, name: str, is_told_of_it: bool) -> None:
        self.silenced ^= {name}
        if is_told_of_it:
            self.notices.silences_changed()

    @rule(trouble=st.sampled_from((*TROUBLE, "none")))
    def trouble(self, trouble: str) -> None:
        self.bad.trouble = trouble

    @rule(is_rejecting=st.booleans())
    def reject(self, is_rejecting: bool) -> None:
        self.strict.trouble = "rejects" if is_rejecting else "none"

    @rule(seconds=st.sampled_from((0.1, 1.0, 4.0, 9.5, 11.0, 45.0, 70.0, 200.0)))
    def pass_time(self, seconds: float) -> None:
        self.run(asyncio.sleep(seconds))

    @precondition(lambda self: self.is_running)
    @rule(grace_s=st.sampled_from((0.0, 2.0, 20.0)))
    def stop(self, grace_s: float) -> None:
        self.run(self.notices.stop(grace_s))
        self.is_running = False

    @precondition(lambda self: not self.is_running)
    @rule()
    def start_again(self) -> None:
        self.start()

    @invariant()
    def nobody_complains(self) -> None:
        for receiver in getattr(self, "receivers", []):
            assert receiver.complaints == []
        assert all(figures["faults"] == 0 for figures in self.notices.get_stats().values())

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return
        try:
            self._settle()
        finally:
            self.run(self.notices.stop(0.0))
            assert asyncio.all_tasks(self.loop) == set()
            self.loop.close()

    def _settle(self) -> None:
        self.silenced.clear()
        self.bad.trouble = self.strict.trouble = "none"
        if not self.is_running:
            self.start()
        self.run(asyncio.sleep(3 * INTERVAL_S + RETRY_S))
        self.nobody_complains()
        truth = set(self.alerts.firing)
        for receiver in (self.good, self.bad):
            assert set(receiver.firing) == truth, receiver.name
        assert all(figures["queued"] == 0 for figures in self.notices.get_stats().values())


TestNotices = NoticesMachine.TestCase
TestNotices.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
