"""A simulated week of alerts, and the desk that serves them."""

from __future__ import annotations

import itertools
import json
import random
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from ondol.errors import MonitorError
from ondol.monitor.alerting import AlertDesk
from ondol.monitor.alerts import AlertEvent, AlertRule
from ondol.monitor.query import Query, Reading
from ondol.monitor.silences import MAX_SILENCES, PlannedSilence
from ondol.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Iterator

TICK_S = 5.0
HOUR_S = 3600.0
DAY_S = 24 * HOUR_S
WEEK_S = 7 * DAY_S

SLOW = AlertRule(
    "slow", "api.time", 2.0, ">", 60.0, clear_threshold=1.8, keep_firing_seconds=120.0, labels={"team": "web"}
)
SILENT = AlertRule("silent", "api.time", 0.0, "<", severity="critical", no_data="alert")

EPISODES = tuple(
    (day * DAY_S + hour * HOUR_S, minutes * 60.0)
    for day, hour, minutes in (
        (0, 3, 10),
        (1, 14, 45),
        (1, 18, 12),
        (2, 0.5, 90),
        (4, 9, 30),
        (5, 23.8, 40),
        (6, 20, 15),
    )
)
"""When the service is truly slow, and for how long."""

GAP = (3 * DAY_S + 12 * HOUR_S, 20 * 60.0)
"""When nothing is measured at all."""

SILENCED = (4 * DAY_S + 8.5 * HOUR_S, 2 * HOUR_S)
"""Maintenance: the fifth episode falls into it."""


def is_within(now_s: float, span: tuple[float, float]) -> bool:
    return span[0] <= now_s < span[0] + span[1]


def is_slow_at(now_s: float) -> bool:
    return any(is_within(now_s, episode) for episode in EPISODES)


def measured(noise: random.Random, now_s: float) -> float | None:
    """Return a response time: heavy-tailed and restless, with dips below every threshold in a true episode."""
    draw = noise.lognormvariate(0.0, 0.35)
    if is_within(now_s, GAP):
        return None
    if is_slow_at(now_s):
        return draw if noise.random() < 0.03 else 2.5 + draw
    return draw


class JumpyClock(FakeClock):
    """Its wall clock is set back by two hours on Wednesday, as after a wrong time server."""

    def wall(self) -> float:
        return super().wall() - (2 * HOUR_S if self.monotonic() > 2.5 * DAY_S else 0.0)


class Week(NamedTuple):
    events: list[tuple[float, AlertEvent]]
    noticed: list[str]
    naive: int
    """How often a plain threshold would have told of something."""
    desk: AlertDesk


def spend_week() -> Week:
    clock, noise = JumpyClock(), random.Random(20260101)
    desk = AlertDesk(clock)
    events: list[tuple[float, AlertEvent]] = []
    noticed: list[str] = []
    newest: list[Reading] = []

    def listen(event: AlertEvent) -> None:
        events.append((clock.monotonic(), event))
        if desk.is_silenced(event.labels) is None:
            noticed.append(f"{event.name} {event.state}")

    desk.listen(listen)
    desk.add(SLOW)
    desk.add(SILENT)
    desk.silence({"alertname": "slow", "team": "*"}, SILENCED[1], "maintenance", starts_in_s=SILENCED[0])
    naive, was_above = 0, False
    for _ in range(int(WEEK_S / TICK_S)):
        clock.advance(TICK_S)
        value = measured(noise, clock.monotonic())
        if value is not None:
            naive += (value > SLOW.threshold) != was_above
            was_above = value > SLOW.threshold
            newest[:] = [Reading(value, clock.monotonic())]
        desk.evaluate(lambda _query: newest[0] if newest else None)
    return Week(events, noticed, naive, desk)


@pytest.fixture(scope="module")
def week() -> Week:
    return spend_week()


def pairs(week: Week, name: str) -> Iterator[tuple[tuple[float, AlertEvent], tuple[float, AlertEvent]]]:
    own = [item for item in week.events if item[1].name == name]
    assert [event.state for _at_s, event in own] == ["fired", "resolved"] * (len(own) // 2)
    yield from zip(own[::2], own[1::2], strict=True)


def test_every_episode_of_the_week_is_told_once_and_resolved_once(week: Week) -> None:
    told = list(pairs(week, "slow"))
    assert len(told) == len(EPISODES) == 7
    for (start_s, length_s), ((fired_s, _), (resolved_s, _)) in zip(EPISODES, told, strict=True):
        assert start_s + 60.0 <= fired_s < start_s + 300.0
        assert start_s + length_s + 120.0 <= resolved_s < start_s + length_s + 30 * 60.0


def test_the_gap_is_told_after_five_minutes_and_resolved_with_the_first_value(week: Week) -> None:
    (((fired_s, fired), (resolved_s, resolved)),) = pairs(week, "silent")
    assert fired_s == GAP[0] + 300.0  # the last value came one tick before the gap; more than 300 s are needed
    assert resolved_s == GAP[0] + GAP[1]
    assert "no value of api.time came for 305 s" in fired.reason
    assert resolved.active_seconds == GAP[1] - 300.0


def test_the_silence_holds_back_two_notices_and_nothing_else(week: Week) -> None:
    assert len(week.events) == 2 * 7 + 2
    assert len(week.noticed) == 2 * 6 + 2
    assert week.desk.silences() == []
    stats = week.desk.get_stats()
    assert (stats["fired"], stats["resolved"], stats["active"]) == (8, 8, [])


def test_a_plain_threshold_would_have_told_a_hundred_times_more(week: Week) -> None:
    assert week.naive > 100 * len(week.events)


def test_dates_follow_the_wall_clock_and_decisions_do_not(week: Week) -> None:
    epoch = FakeClock().wall()
    for (fired_s, fired), (_, resolved) in pairs(week, "slow"):
        shift_s = 2 * HOUR_S if fired_s > 2.5 * DAY_S else 0.0
        assert fired.at == fired.starts_at == resolved.starts_at == epoch + fired_s - shift_s


def test_the_same_week_again_is_the_same(week: Week) -> None:
    assert spend_week()[:3] == week[:3]


# --- the desk ---


def hot_desk() -> tuple[AlertDesk, FakeClock]:
    """Return a desk with one alert firing, one pending and one inactive."""
    clock, ids = FakeClock(), itertools.count(1)
    desk = AlertDesk(clock, make_id=lambda: f"s{next(ids)}")
    desk.add(AlertRule("hot", "t", 10.0, ">", message="cool it", labels={"team": "web"}))
    desk.add(AlertRule("long", "t", 10.0, ">", 60.0))
    desk.add(AlertRule("cold", "t", 10.0, "<"))
    clock.advance(5.0)
    desk.evaluate(lambda query: Reading(11.0, 5.0) if query == Query("t") else None)
    return desk, clock


def test_the_statistics_tell_firing_from_pending() -> None:
    desk, clock = hot_desk()
    clock.advance(5.0)
    stats = desk.get_stats()
    assert [(alert["name"], alert["silenced_by"], alert["labels"]["team"]) for alert in stats["active"]] == [
        ("hot", None, "web")
    ]
    assert [(alert["name"], alert["state"], alert["since_seconds"]) for alert in stats["pending"]] == [
        ("long", "pending", 5.0)
    ]
    assert (stats["rules"], stats["fired"], stats["resolved"], stats["silences"]) == (3, 1, 0, [])
    assert [event["name"] for event in stats["recent"]] == ["hot"]
    assert {row["name"]: row["state"] for row in desk.rules_state()} == {
        "hot": "firing",
        "long": "pending",
        "cold": "inactive",
    }
    assert set(desk.rules_state()[0]) == {
        *("name", "condition", "severity", "state", "value", "since_seconds", "message", "labels")
    }


def test_a_silenced_alert_is_still_evaluated_and_shown() -> None:
    desk, clock = hot_desk()
    silence = desk.silence({"alertname": "h*"}, 60.0, "known", "ondol")
    stats = desk.get_stats()
    assert [alert["silenced_by"] for alert in stats["active"]] == [silence.id] == ["s1"]
    assert [(row["id"], row["state"], row["ends_in_seconds"]) for row in stats["silences"]] == [("s1", "active", 60.0)]
    assert json.loads(json.dumps(stats)) == stats
    assert desk.is_silenced(desk.active()[0].labels) == silence
    seen: list[AlertEvent] = []
    desk.listen(seen.append)
    desk.evaluate(lambda _query: Reading(1.0, clock.monotonic()))
    assert [(event.name, event.state) for event in seen] == [("hot", "resolved"), ("cold", "fired")]


def test_a_silence_ends_by_time_or_by_hand() -> None:
    desk, clock = hot_desk()
    labels = desk.active()[0].labels
    first = desk.silence({"alertname": "hot"}, 60.0)
    assert desk.unsilence(first.id) is True
    assert desk.unsilence(first.id) is False
    assert desk.is_silenced(labels) is None
    desk.silence({"alertname": "hot"}, 60.0)
    clock.advance(60.0)
    assert desk.is_silenced(labels) is None
    assert desk.silences() == []


def test_silences_on_the_calendar() -> None:
    desk, clock = hot_desk()
    now = clock.wall()
    assert desk.plan(PlannedSilence({"a": "b"}, now)) is None
    assert desk.plan(PlannedSilence({"a": "b"}, now + 9, now + 9)) is None
    running = desk.plan(PlannedSilence({"a": "b"}, now + 60, now - 60, "c", "d"))
    assert running is not None
    assert running[2:] == (now, now + 60, "c", "d")
    assert desk.plan(PlannedSilence({"a": "c"}, now + 60, now + 10)) is not None
    assert [row["state"] for row in desk.get_stats()["silences"]] == ["active", "future"]
    with pytest.raises(MonitorError, match="365 days"):
        desk.plan(PlannedSilence({"a": "b"}, now + 366 * DAY_S))


def test_ids_are_short_and_random_by_default() -> None:
    desk = AlertDesk(FakeClock())
    ids = {desk.silence({"a": "b"}, 60.0).id for _ in range(MAX_SILENCES)}
    assert len(ids) == MAX_SILENCES
    assert all(len(bytes.fromhex(each)) == 4 for each in ids)


def test_each_rule_is_a_gauge() -> None:
    desk, _clock = hot_desk()
    gauges = {snapshot.labels["rule"]: snapshot for snapshot in desk.snapshots()}
    assert {name: snapshot.last for name, snapshot in gauges.items()} == {"hot": 1.0, "long": 0.0, "cold": 0.0}
    hot = gauges["hot"]
    assert (hot.name, hot.unit, hot.kind, hot.count, hot.sum) == ("alerts.active", "", "gauge", 1, 1.0)
    assert hot.labels == {"rule": "hot", "severity": "warning"}


def test_a_listener_may_ask_the_desk_anything() -> None:
    desk, clock = hot_desk()
    asked: list[Any] = []
    desk.listen(lambda event: asked.append((desk.is_silenced(event.labels), desk.rules_state(), desk.get_stats())))
    desk.evaluate(lambda _query: Reading(1.0, clock.monotonic()))
    assert len(asked) == 2
    assert desk.listener_errors == 0


def test_a_listener_that_changes_the_rules_lets_others_hear_things_in_order() -> None:
    desk, _clock = hot_desk()
    heard: list[str] = []
    desk.listen(lambda event: desk.remove(event.name))
    desk.listen(lambda event: heard.append(f"{event.name} {event.state}"))
    desk.add(AlertRule("new", "t", 1.0, ">"))
    desk.evaluate(lambda _query: Reading(11.0, 5.0))
    assert heard == ["new fired", "new resolved"]


def test_two_threads_are_heard_in_the_order_of_what_happened() -> None:
    desk, _clock = hot_desk()
    heard: list[str] = []
    is_hearing, may_go_on = threading.Event(), threading.Event()

    def listen(event: AlertEvent) -> None:
        is_hearing.set()
        assert may_go_on.wait(10)
        heard.append(f"{event.name} {event.state}")

    desk.listen(listen)
    desk.add(AlertRule("new", "t", 1.0, ">"))
    first = threading.Thread(target=desk.evaluate, args=(lambda _query: Reading(11.0, 5.0),))
    first.start()
    assert is_hearing.wait(10)
    assert desk.remove("new") is True  # it is not the remover who tells, so it does not wait
    assert heard == []
    may_go_on.set()
    first.join()
    assert heard == ["new fired", "new resolved"]


def test_a_listener_that_is_interrupted_does_not_silence_the_desk() -> None:
    desk, _clock = hot_desk()
    heard: list[str] = []

    def listen(event: AlertEvent) -> None:
        heard.append(f"{event.name} {event.state}")
        if len(heard) == 1:
            raise KeyboardInterrupt

    desk.listen(listen)
    with pytest.raises(KeyboardInterrupt):
        desk.reset("off")
    desk.evaluate(lambda _query: Reading(11.0, 5.0))
    assert heard == ["hot resolved", "hot fired"]


def test_silences_from_many_threads_are_all_kept() -> None:
    desk = AlertDesk(FakeClock())

    def work() -> None:
        for _ in range(25):
            kept = desk.silence({"a": "b"}, 60.0)
            assert desk.is_silenced({"a": "b"}) is not None
            desk.unsilence(desk.silence({"a": "c"}, 60.0).id)
            made.append(kept.id)

    made: list[str] = []
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(silence.id for silence in desk.silences()) == sorted(made)
    assert len(made) == 100
