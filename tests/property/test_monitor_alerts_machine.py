from __future__ import annotations

from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ondol.monitor.alerting import AlertDesk
from ondol.monitor.alerts import AlertEvaluator, AlertEvent, AlertRule
from ondol.monitor.query import Query, Reading
from ondol.testing import FakeClock

VALUES = st.sampled_from([0.0, 7.0, 8.0, 9.0, 10.0, 11.0, 20.0])
PAUSES = st.sampled_from([1.0, 5.0, 10.0, 30.0, 299.0, 300.0, 301.0, 1000.0])
SPANS = st.sampled_from([0.0, 5.0, 20.0, 60.0, 400.0])


@st.composite
def alert_rules(draw: st.DrawFn, name: str = "r") -> AlertRule:
    operator = draw(st.sampled_from([">", ">=", "<", "<=", "==", "!="]))
    clears = {">": [8.0, 10.0], ">=": [8.0, 10.0], "<": [10.0, 11.0], "<=": [10.0, 11.0]}.get(operator, [])
    return AlertRule(
        name,
        "t",
        10.0,
        operator,
        draw(SPANS),
        clear_threshold=draw(st.sampled_from([None, *clears])),
        keep_firing_seconds=draw(SPANS),
        aggregate=draw(st.sampled_from(["last", "max"])),
        no_data=draw(st.sampled_from(["resolve", "keep", "alert"])),
    )


class Look(NamedTuple):
    """What one evaluation sees."""

    now_s: float
    reading: Reading | None


@st.composite
def looks(draw: st.DrawFn) -> list[Look]:
    """Values that come, values that do not come any more, and windows that nothing is in."""
    seen: list[Look] = []
    now_s, reading = 0.0, None
    for pause_s, what, value in draw(
        st.lists(st.tuples(PAUSES, st.sampled_from(["new", "new", "new", "old", "none"]), VALUES), max_size=40)
    ):
        now_s += pause_s
        if what == "new":
            reading = Reading(value, now_s)
        seen.append(Look(now_s, None if what == "none" else reading))
    return seen


class Verdict(NamedTuple):
    now_s: float
    is_value: bool
    value: float
    at_s: float


def verdict_of(alert: AlertRule, past: list[Look]) -> Verdict | None:
    """Return what the last of ``past`` says: a value that counts, missing data, or nothing."""
    now_s, reading = past[-1]
    if reading is not None and (alert.aggregate != "last" or now_s - reading.at_s <= 300.0):
        return Verdict(now_s, True, reading.value, reading.at_s if alert.aggregate == "last" else now_s)
    last_at_s = max([0.0, *(look.reading.at_s for look in past if look.reading is not None)])
    is_missing = now_s - last_at_s > 300.0 and alert.no_data != "keep"
    return Verdict(now_s, False, 0.0, now_s) if is_missing else None


def is_bad(alert: AlertRule, verdict: Verdict, *, is_firing: bool) -> bool:
    if not verdict.is_value:
        return alert.no_data == "alert"
    limit = alert.threshold
    if is_firing and alert.clear_threshold is not None:
        limit = alert.clear_threshold
    value = verdict.value
    return {
        ">": value > limit,
        ">=": value >= limit,
        "<": value < limit,
        "<=": value <= limit,
        "==": value == limit,
        "!=": value != limit,
    }[alert.operator]


def straightforward(alert: AlertRule, seen: list[Look]) -> list[tuple[float, str]]:
    """Say what happens by looking back over everything at every moment; slow, and without any state but firing."""
    found = [verdict_of(alert, seen[: number + 1]) for number in range(len(seen))]
    verdicts = [verdict for verdict in found if verdict is not None]
    told: list[tuple[float, str]] = []
    is_firing, begin = False, 0  # nothing before the last change matters for the next one
    for number, verdict in enumerate(verdicts):
        run = []  # the longest unbroken stretch up to now
        for earlier in reversed(verdicts[begin : number + 1]):
            if is_bad(alert, earlier, is_firing=is_firing) is is_firing:
                break
            run.append(earlier)
        if not run:
            continue
        first = run[-1]
        held_s = verdict.now_s - first.now_s
        if not is_firing:
            if min(held_s, verdict.at_s - first.at_s) >= alert.duration_seconds:
                told.append((verdict.now_s, "fired"))
                is_firing, begin = True, number + 1
        elif held_s >= alert.keep_firing_seconds:
            told.append((verdict.now_s, "resolved"))
            is_firing, begin = False, number + 1
    return told


@settings(max_examples=400, deadline=None)
@given(alert_rules(), looks())
def test_alerts_are_those_of_a_straightforward_reference(alert: AlertRule, seen: list[Look]) -> None:
    evaluator = AlertEvaluator()
    evaluator.add(alert, now_s=0.0, wall_s=0.0)
    told = []
    for look in seen:

        def read(query: Query, reading: Reading | None = look.reading) -> Reading | None:
            assert query == alert.query
            return reading

        events = evaluator.evaluate(read, now_s=look.now_s, wall_s=look.now_s)
        told += [(event.at, event.state) for event in events]
    assert told == straightforward(alert, seen)
    assert [state for _at, state in told] == (["fired", "resolved"] * len(told))[: len(told)]


class AlertMachine(RuleBasedStateMachine):
    """Rules and silences come and go while values come and go; what was told must add up."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.desk = AlertDesk(self.clock)
        self.told: list[AlertEvent] = []
        self.desk.listen(self.told.append)
        self.reading: Reading | None = None
        self.silence_ends_s: dict[str, float] = {}

    @rule(alert=alert_rules("a") | alert_rules("b"))
    def add(self, alert: AlertRule) -> None:
        self.desk.add(alert)
        assert alert in self.desk.rules()

    @rule(name=st.sampled_from("ab"))
    def remove(self, name: str) -> None:
        is_known = name in {alert.name for alert in self.desk.rules()}
        assert self.desk.remove(name) is is_known

    @rule(pause_s=PAUSES, value=VALUES)
    def measure(self, pause_s: float, value: float) -> None:
        self.clock.advance(pause_s)
        self.reading = Reading(value, self.clock.monotonic())
        self.desk.evaluate(lambda _query: self.reading)

    @rule(pause_s=PAUSES, is_answered=st.booleans())
    def measure_nothing(self, pause_s: float, is_answered: bool) -> None:
        self.clock.advance(pause_s)
        self.desk.evaluate(lambda _query: self.reading if is_answered else None)

    @rule()
    def reset(self) -> None:
        self.desk.reset("off")
        assert self.desk.active() == []

    @rule()
    def pause(self) -> None:
        firing = self.desk.active()
        self.desk.forget_pending()
        assert self.desk.active() == firing
        assert self.desk.get_stats()["pending"] == []

    @rule(name=st.sampled_from(["a", "?", "x"]), duration_s=st.sampled_from([1.0, 60.0, 1000.0]))
    def silence(self, name: str, duration_s: float) -> None:
        made = self.desk.silence({"alertname": name}, duration_s)
        self.silence_ends_s[made.id] = self.clock.monotonic() + duration_s

    @precondition(lambda self: self.silence_ends_s)
    @rule(data=st.data())
    def unsilence(self, data: st.DataObject) -> None:
        which = data.draw(st.sampled_from(sorted(self.silence_ends_s)))
        assert self.desk.unsilence(which) is (self.silence_ends_s.pop(which) > self.clock.monotonic())

    @invariant()
    def fired_and_resolved_alternate(self) -> None:
        for name in "ab":
            states = [event.state for event in self.told if event.name == name]
            assert states == (["fired", "resolved"] * len(states))[: len(states)]
            starts = [event.starts_at for event in self.told if event.name == name]
            assert starts[1::2] == starts[: 2 * (len(starts) // 2) : 2]

    @invariant()
    def what_is_active_is_what_was_told(self) -> None:
        last = {event.name: event for event in self.told}
        active = {event.name: event for event in self.desk.active()}
        assert active == {name: event for name, event in last.items() if event.state == "fired"}
        assert {row["name"] for row in self.desk.rules_state() if row["state"] == "firing"} == set(active)
        assert self.desk.history() == self.told[-1000:]

    @invariant()
    def silences_are_those_that_have_not_ended(self) -> None:
        now_s = self.clock.monotonic()
        current = {silence.id for silence in self.desk.silences()}
        assert current == {key for key, ends_s in self.silence_ends_s.items() if ends_s > now_s}
        assert (self.desk.is_silenced({"alertname": "a"}) is None) or current


TestAlertMachine = AlertMachine.TestCase
TestAlertMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
