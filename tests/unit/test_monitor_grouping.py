from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ondol.monitor.grouping import NoticeBook
from ondol.monitor.notice import fingerprint_of, group_key_of, group_labels_of
from ondol.monitor.notice_ports import backoff_s
from ondol.monitor.targets import Grouping
from ondol.testing import FakeClock
from tests.service.notices_fakes import Alerts, summary

if TYPE_CHECKING:
    from ondol.monitor.notice import Notice

GROUPING = Grouping(by=("team",), wait_s=10.0, interval_s=300.0)


class Desk:
    """A book, alerts, and a receiver that takes everything the moment it is due."""

    def __init__(self, grouping: Grouping = GROUPING, *, sends_resolved: bool = True, max_due: int = 100) -> None:
        self.clock = FakeClock()
        self.alerts = Alerts(self.clock)
        self.book = NoticeBook(grouping, sends_resolved=sends_resolved, max_due=max_due)
        self.told: list[tuple[float, str]] = []

    def fire(self, name: str, *, is_silenced: bool = False, team: str = "x") -> None:
        event = self.alerts.fire(name, team=team)
        self.book.take(event, is_silenced=is_silenced, now_s=self.clock.monotonic())

    def resolve(self, name: str, *, is_silenced: bool = False) -> None:
        self.book.take(self.alerts.resolve(name), is_silenced=is_silenced, now_s=self.clock.monotonic())

    def silence(self, *, is_silenced: bool) -> None:
        self.book.settle({fingerprint: is_silenced for fingerprint, _ in self.book.firing()}, self.clock.monotonic())

    def until(self, at_s: float) -> None:
        """Let time pass, from one thing that is due to the next."""
        while (due_at_s := self.book.next_due_at_s()) is not None and due_at_s <= at_s:
            now_s = max(due_at_s, self.clock.monotonic())
            self.clock.advance(now_s - self.clock.monotonic())
            for key in self.book.due(now_s):
                notice = self.book.compose(key, now_s)
                if notice is not None:
                    self.book.delivered(notice, now_s)
                    self.told.append((now_s, summary(notice)))
        self.clock.advance(at_s - self.clock.monotonic())


def test_the_first_notice_waits_for_others_and_later_ones_for_the_interval() -> None:
    desk = Desk()
    desk.fire("a")
    desk.until(4)
    desk.fire("b")
    desk.until(20)
    desk.fire("c")
    desk.until(100)
    desk.resolve("a")
    desk.until(1000)
    assert desk.told == [(10, "firing: a+ b+"), (310, "firing: a- c+")]


def test_a_group_that_has_been_quiet_for_long_waits_only_for_others() -> None:
    desk = Desk()
    desk.fire("a")
    desk.until(1000)
    desk.fire("b")
    desk.until(2000)
    desk.resolve("a")
    desk.resolve("b")
    desk.until(3000)
    assert desk.told == [(10, "firing: a+"), (1010, "firing: b+"), (2010, "resolved: a- b-")]


def test_a_group_that_is_over_and_told_begins_anew() -> None:
    desk = Desk()
    desk.fire("a")
    desk.until(400)
    desk.resolve("a")
    desk.until(420)
    desk.fire("a")
    desk.until(1000)
    assert desk.told == [(10, "firing: a+"), (410, "resolved: a-"), (430, "firing: a+")]


def test_groups_do_not_wait_for_each_other() -> None:
    desk = Desk()
    desk.fire("a", team="x")
    desk.until(7)
    desk.fire("b", team="y")
    desk.until(100)
    assert desk.told == [(10, "firing: a+"), (17, "firing: b+")]


@pytest.mark.parametrize(("lasts_s", "told"), [(9.5, []), (10.0, [(10, "firing: a+"), (310, "resolved: a-")])])
def test_what_is_over_within_the_wait_is_not_told(lasts_s: float, told: list[tuple[float, str]]) -> None:
    desk = Desk()
    desk.fire("a")
    desk.until(lasts_s)
    desk.resolve("a")
    desk.until(1000)
    assert desk.told == told
    assert desk.book.next_due_at_s() is None


def test_without_a_wait_nothing_is_too_brief_to_be_told() -> None:
    desk = Desk(GROUPING._replace(wait_s=0.0))
    desk.fire("a")
    desk.resolve("a")
    desk.until(1000)
    assert desk.told == [(0, "resolved: a-")]


def test_what_was_over_before_its_notice_is_told_once_as_resolved() -> None:
    desk = Desk()
    desk.fire("a")
    desk.until(20)
    desk.fire("b")
    desk.until(100)
    desk.resolve("b")
    desk.until(150)
    desk.fire("brief")
    desk.until(155)
    desk.resolve("brief")
    desk.until(2000)
    assert desk.told == [(10, "firing: a+"), (310, "firing: b-")]


@pytest.mark.parametrize(("flips", "told"), [(7, [(310, "resolved: a-")]), (8, [])])
def test_flapping_within_an_interval_is_told_in_its_last_state(flips: int, told: list[tuple[float, str]]) -> None:
    desk = Desk()
    desk.fire("a")
    for flip in range(flips):
        desk.until(20 + flip * 20)
        desk.resolve("a") if flip % 2 == 0 else desk.fire("a")
    desk.until(2000)
    assert desk.told == [(10, "firing: a+"), *told]


def test_repetitions_come_only_if_wanted_and_while_something_fires() -> None:
    desk = Desk(GROUPING._replace(repeat_s=3600.0))
    desk.fire("a")
    desk.until(100)
    desk.fire("b")
    desk.until(5000)
    desk.resolve("a")
    desk.resolve("b")
    desk.until(20_000)
    assert desk.told == [
        (10, "firing: a+"),
        (310, "firing: b+"),
        (3610, "firing: a+ b+"),
        (5010, "resolved: a- b-"),
    ]


def test_a_silence_holds_back_what_fires_and_its_end_tells_it_at_once() -> None:
    desk = Desk()
    desk.fire("a", is_silenced=True)
    desk.until(500)
    assert desk.told == []
    assert desk.book.has_held()
    desk.silence(is_silenced=False)
    desk.until(501)
    assert desk.told == [(500, "firing: a+")]
    assert not desk.book.has_held()


def test_what_came_and_went_under_a_silence_is_never_told() -> None:
    desk = Desk()
    desk.fire("a", is_silenced=True)
    desk.until(500)
    desk.resolve("a", is_silenced=True)
    desk.until(5000)
    assert desk.told == []


def test_what_was_told_before_a_silence_is_told_as_resolved_under_it() -> None:
    desk = Desk(GROUPING._replace(repeat_s=400.0))
    desk.fire("a")
    desk.until(20)
    desk.silence(is_silenced=True)
    desk.until(5000)
    desk.resolve("a", is_silenced=True)
    desk.until(6000)
    assert desk.told == [(10, "firing: a+"), (5010, "resolved: a-")]


def test_who_wants_no_resolutions_hears_of_the_next_problem_all_the_same() -> None:
    desk = Desk(sends_resolved=False)
    desk.fire("a")
    desk.until(400)
    desk.resolve("a")
    desk.until(1000)
    desk.fire("a")
    desk.until(2000)
    assert desk.told == [(10, "firing: a+"), (1010, "firing: a+")]


def begin(desk: Desk) -> Notice:
    """Have the only group's notice under way, now."""
    desk.book.hurry(desk.clock.monotonic())
    [key] = desk.book.due(desk.clock.monotonic())
    notice = desk.book.compose(key, desk.clock.monotonic())
    desk.book.relax(desk.clock.monotonic())
    assert notice is not None
    return notice


@pytest.mark.parametrize(("is_doubtful", "told"), [(True, [(1, "resolved: a-")]), (False, [])])
def test_a_brief_alert_that_may_have_been_told_is_told_as_resolved(
    is_doubtful: bool, told: list[tuple[float, str]]
) -> None:
    desk = Desk()
    desk.fire("a")
    notice = begin(desk)
    desk.book.missed(notice, 0, is_doubtful=is_doubtful)
    desk.clock.advance(1)
    desk.resolve("a")
    desk.until(1000)
    assert desk.told == told


@pytest.mark.parametrize(("is_doubtful", "told"), [(True, [(490, "firing: a+")]), (False, [])])
def test_an_alert_that_may_have_been_told_as_resolved_is_told_again_when_it_is_back(
    is_doubtful: bool, told: list[tuple[float, str]]
) -> None:
    desk = Desk()
    desk.fire("a")
    desk.until(490)
    desk.resolve("a")
    desk.book.missed(begin(desk), 490, is_doubtful=is_doubtful)
    desk.fire("a")
    desk.until(1000)
    assert desk.told == [(10, "firing: a+"), *told]


def test_a_brief_alert_that_ends_while_its_notice_is_under_way_is_told_as_resolved() -> None:
    desk = Desk()
    desk.fire("a")
    notice = begin(desk)
    desk.clock.advance(1)
    desk.resolve("a")
    desk.clock.advance(1)
    desk.book.delivered(notice, 2)
    desk.until(1000)
    assert desk.told == [(302, "resolved: a-")]


def test_the_end_that_is_told_is_that_of_the_last_episode_told() -> None:
    desk = Desk()
    desk.fire("z")
    desk.until(20)
    desk.fire("a")
    desk.until(50)
    desk.resolve("a")  # not told: the group waits for its interval
    desk.until(100)
    desk.fire("a")
    notice = begin(desk)
    desk.clock.advance(1)
    desk.resolve("a")
    desk.book.delivered(notice, 101)
    now_s = 101 + 300
    last = desk.book.compose(notice.group_key, now_s)
    assert last is not None
    [alert] = last.alerts
    assert (alert.starts_at, alert.ends_at) == (desk.clock.wall() - 1, desk.clock.wall())


def test_events_in_the_wrong_order_leave_nothing_firing() -> None:
    desk = Desk()
    fired = desk.alerts.fire("a", team="x")
    resolved = desk.alerts.resolve("a")
    desk.book.take(resolved, is_silenced=False, now_s=0)
    desk.book.take(fired, is_silenced=False, now_s=0)
    desk.until(100)
    assert desk.told == []
    assert desk.book.firing() == []


def test_an_event_taken_twice_is_told_once() -> None:
    desk = Desk()
    fired = desk.alerts.fire("a", team="x")
    for _ in range(2):
        desk.book.take(fired, is_silenced=False, now_s=0)
    desk.until(100)
    desk.book.take(fired, is_silenced=False, now_s=100)
    desk.until(1000)
    assert desk.told == [(10, "firing: a+")]


def test_too_many_groups_are_put_off_the_oldest_first() -> None:
    desk = Desk(max_due=2)
    for number in range(4):
        desk.fire(f"a{number}", team=str(number))
        desk.clock.advance(1)
    desk.clock.advance(20)
    assert desk.book.drop_overflow(24) == ['{}:{team="0"}', '{}:{team="1"}']
    desk.until(400)
    assert desk.told == [(24, "firing: a2+"), (24, "firing: a3+"), (324, "firing: a0+"), (324, "firing: a1+")]


def test_a_hurry_makes_news_due_and_leaves_repetitions() -> None:
    desk = Desk(GROUPING._replace(repeat_s=1000.0))
    desk.fire("a")
    desk.until(20)
    desk.fire("b", team="y")
    desk.book.hurry(20)
    desk.until(500)
    assert desk.told == [(10, "firing: a+"), (20, "firing: b+")]
    desk.until(5000)
    assert len(desk.told) == 2
    desk.book.relax(5000)
    desk.until(5001)
    assert desk.told[2:] == [(5000, "firing: a+"), (5000, "firing: b+")]


def test_what_is_refused_for_good_waits_for_a_change() -> None:
    desk = Desk()
    desk.fire("a")
    notice = desk.book.compose('{}:{team="x"}', 10)
    assert notice is not None
    desk.book.missed(notice, 10, is_doubtful=False)
    desk.book.put_off(notice.group_key, 10, again_in_s=None)
    assert (desk.book.next_due_at_s(), desk.book.untold()) == (None, [])
    desk.until(50)
    desk.fire("b")
    desk.until(100)
    assert desk.told == [(60, "firing: a+ b+")]


def test_labels_name_groups_and_alerts() -> None:
    labels = {"alertname": "느림", "severity": "critical", "team": 'a"b'}
    assert group_labels_of(labels, ("severity", "nowhere")) == {"severity": "critical"}
    assert group_labels_of(labels, ("...",)) == labels
    assert group_key_of(group_labels_of(labels, ("team", "alertname"))) == '{}:{alertname="느림", team="a\\"b"}'
    assert group_key_of({}) == "{}:{}"
    # The value that Prometheus' model.LabelSet.Fingerprint gives for no labels: FNV-1a's offset.
    assert fingerprint_of({}) == "cbf29ce484222325"
    assert fingerprint_of(labels) == fingerprint_of(dict(reversed(labels.items())))
    assert fingerprint_of({"a": "bc"}) != fingerprint_of({"ab": "c"})


def test_backoff_grows_to_a_minute_and_respects_the_receiver() -> None:
    assert [backoff_s(attempt, 1.0) for attempt in (0, 1, 5, 6, 10_000)] == [1, 2, 32, 60, 60]
    assert backoff_s(3, 0.25) == 2
    assert backoff_s(0, 1.0, retry_after_s=7) == 7
