"""Events of alerts and notifiers that do what a test tells them."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Literal

from ondol.monitor.alerts import AlertEvent
from ondol.monitor.notice_ports import DeliveryTerms

if TYPE_CHECKING:
    from ondol.clock import Clock
    from ondol.monitor.notice import Notice

State = Literal["fired", "resolved"]


def make_event(
    name: str, state: State, at: float, *, starts_at: float | None = None, message: str = "", **labels: str
) -> AlertEvent:
    severity = labels.get("severity", "warning")
    return AlertEvent(
        name=name,
        state=state,
        severity=severity,
        metric_name="api.latency",
        condition="api.latency > 2 for 60 s",
        threshold=2.0,
        value=3.0 if state == "fired" else 1.0,
        at=at,
        active_seconds=60.0,
        message=message,
        reason=f"api.latency is {3 if state == 'fired' else 1}",
        labels={"alertname": name, "severity": severity, "metric": "api.latency", **labels},
        starts_at=at if starts_at is None else starts_at,
    )


class Alerts:
    """Fires and resolves alerts at the times of a clock, as the evaluator does: each in turn."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.firing: dict[str, AlertEvent] = {}

    def fire(self, name: str, **labels: str) -> AlertEvent:
        now_s = self._clock.wall()
        event = self.firing[name] = make_event(name, "fired", now_s, starts_at=None, message="", **labels)
        return event

    def resolve(self, name: str) -> AlertEvent:
        fired = self.firing.pop(name)
        return fired._replace(state="resolved", at=self._clock.wall(), value=1.0, reason="api.latency is 1")


class FakeNotifier:
    """Keeps what it took, and when; ``plan`` says how its next attempts go, then all succeed."""

    def __init__(self, clock: Clock, name: str = "fake", **terms: float) -> None:
        self.name = name
        self.terms = DeliveryTerms(**terms)  # type: ignore[arg-type]  # a bool is a number too
        self.plan: deque[Exception | Literal["hang", "ok"]] = deque()
        self.taken: list[tuple[float, Notice]] = []
        self.attempts: list[float] = []
        self._clock = clock

    async def send(self, notice: Notice) -> None:
        self.attempts.append(self._clock.monotonic())
        step = self.plan.popleft() if self.plan else "ok"
        if step == "hang":
            await asyncio.Event().wait()
        if isinstance(step, Exception):
            raise step
        self.taken.append((self._clock.monotonic(), notice))

    @property
    def told(self) -> list[tuple[int, str]]:
        """Whole second and content of each notice, such as ``(10, "firing: a+ b-")``."""
        return [(int(at_s), summary(notice)) for at_s, notice in self.taken]


def summary(notice: Notice) -> str:
    marks = [f"{a.labels['alertname']}{'+' if a.status == 'firing' else '-'}" for a in notice.alerts]
    return f"{notice.status}: {' '.join(sorted(marks))}"
