from __future__ import annotations

import asyncio
import logging
import random
import threading
from typing import TYPE_CHECKING, Any

import pytest

from ondol.errors import MonitorError
from ondol.monitor.notice_ports import NoticeRejectedError
from ondol.monitor.notices import Notices
from ondol.monitor.targets import Grouping
from ondol.testing import FakeClock, VirtualClock, run_virtual
from tests.service.notices_fakes import Alerts, FakeNotifier

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ondol.monitor.notice import Notice

GROUPING = Grouping(by=("team",), wait_s=10.0, interval_s=300.0)
REFUSED = ConnectionRefusedError("refused")


def make_notices(clock: VirtualClock, *notifiers: FakeNotifier, **options: Any) -> Notices:
    grouping = options.pop("grouping", GROUPING)
    return Notices(notifiers, grouping, clock=clock, random=random.Random(7), **options)


def test_alerts_are_grouped_and_told_once() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fake, alerts = FakeNotifier(clock), Alerts(clock)
        notices = make_notices(clock, fake)
        await notices.start()
        notices.take(alerts.fire("a"))
        await asyncio.sleep(5)
        notices.take(alerts.fire("b"))
        await asyncio.sleep(1000)
        notices.take(alerts.resolve("a"))
        await asyncio.sleep(1000)
        assert fake.told == [(10, "firing: a+ b+"), (1015, "firing: a-")]
        await notices.stop()

    run_virtual(scenario)


def test_what_came_before_the_start_is_told_after_it() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fake = FakeNotifier(clock)
        notices = make_notices(clock, fake)
        notices.take(Alerts(clock).fire("a"))
        await asyncio.sleep(100)
        await notices.start()
        await notices.start()
        await asyncio.sleep(1)
        assert fake.told == [(100, "firing: a+")]
        await notices.stop()

    run_virtual(scenario)


def test_a_notifier_that_hangs_delays_no_other() -> None:
    async def scenario(clock: VirtualClock) -> None:
        slow, good, alerts = FakeNotifier(clock, "slow", timeout_s=20.0), FakeNotifier(clock, "good"), Alerts(clock)
        slow.plan.extend(["hang"] * 3)
        notices = make_notices(clock, slow, good)
        await notices.start()
        notices.take(alerts.fire("a"))
        await asyncio.sleep(25)
        assert good.told == [(10, "firing: a+")]
        assert notices.get_stats()["slow"]["queued"] == 1
        await asyncio.sleep(10)
        assert notices.get_stats()["slow"]["last_error"] == "no answer within 20 s"
        await asyncio.sleep(90)
        assert len(slow.attempts) == 4
        assert [text for _, text in slow.told] == ["firing: a+"]
        stats = notices.get_stats()["slow"]
        assert (stats["retries"], stats["queued"], stats["last_error"]) == (3, 0, None)
        assert stats["last_success_at"] == clock.wall() - clock.monotonic() + slow.taken[0][0]
        await notices.stop()

    run_virtual(scenario)


def test_retries_back_off_and_end_and_begin_again_after_the_interval(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(clock: VirtualClock) -> None:
        recorded: list[tuple[str, float, str, Mapping[str, str]]] = []
        fake = FakeNotifier(clock, retry_for_s=100.0)
        fake.plan.extend([REFUSED] * 20)
        notices = make_notices(
            clock, fake, recorder=lambda name, value, unit="", **labels: recorded.append((name, value, unit, labels))
        )
        await notices.start()
        notices.take(Alerts(clock).fire("a"))
        await asyncio.sleep(200)
        attempts = len(fake.attempts)
        assert 3 <= attempts < 20
        assert max(fake.attempts) < 110
        fake.plan.clear()
        await asyncio.sleep(400)
        assert len(fake.attempts) == attempts + 1
        assert [text for _, text in fake.told] == ["firing: a+"]
        assert fake.told[0][0] >= 310
        outcomes = [{"notifier": "fake", "outcome": outcome} for outcome in ("failed", "sent")]
        assert recorded == [("alerts.notices", 1, "count", labels) for labels in outcomes]
        stats = notices.get_stats()["fake"]
        assert (stats["sent"], stats["failed"], stats["retries"]) == (1, 1, attempts - 1)
        await notices.stop()

    run_virtual(scenario)
    assert "not delivered: ConnectionRefusedError: refused; next try in 300 s" in caplog.text


def test_a_rejected_notice_is_not_tried_again_but_told_with_the_next(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(clock: VirtualClock) -> None:
        fake, alerts = FakeNotifier(clock), Alerts(clock)
        fake.plan.append(NoticeRejectedError("answered 400: check the body", is_permanent=True))
        notices = make_notices(clock, fake)
        await notices.start()
        notices.take(alerts.fire("a"))
        await asyncio.sleep(5000)
        assert len(fake.attempts) == 1
        notices.take(alerts.fire("b"))
        await asyncio.sleep(100)
        assert fake.told == [(5010, "firing: a+ b+")]
        await notices.stop()

    run_virtual(scenario)
    assert "answered 400: check the body; next try when the group changes" in caplog.text


def test_the_newest_state_replaces_what_could_not_be_delivered() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fake, alerts = FakeNotifier(clock), Alerts(clock)
        fake.plan.append(NoticeRejectedError("503", is_permanent=False, retry_after_s=60.0))
        notices = make_notices(clock, fake)
        await notices.start()
        for name in ("a", "b"):
            notices.take(alerts.fire(name))
        await asyncio.sleep(30)
        notices.take(alerts.resolve("a"))
        notices.take(alerts.fire("c"))
        await asyncio.sleep(300)
        assert fake.told == [(70, "firing: a- b+ c+")]
        await notices.stop()

    run_virtual(scenario)


def test_an_unforeseen_error_is_logged_counted_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(clock: VirtualClock) -> None:
        fake = FakeNotifier(clock)
        fake.plan.extend([KeyError("a bug"), TimeoutError()])
        notices = make_notices(clock, fake)
        await notices.start()
        notices.take(Alerts(clock).fire("a"))
        await asyncio.sleep(60)
        assert [text for _, text in fake.told] == ["firing: a+"]
        assert notices.get_stats()["fake"]["faults"] == 1
        assert notices.get_stats()["fake"]["last_error"] is None, "the log keeps what is over"
        await notices.stop()

    run_virtual(scenario)
    assert "Traceback" in caplog.text


def test_an_attempt_that_cancels_itself_is_a_failure_and_no_end() -> None:
    class Odd(FakeNotifier):
        async def send(self, notice: Notice) -> None:
            if not self.attempts:
                self.attempts.append(0.0)
                raise asyncio.CancelledError
            await super().send(notice)

    async def scenario(clock: VirtualClock) -> None:
        odd = Odd(clock)
        notices = make_notices(clock, odd)
        await notices.start()
        notices.take(Alerts(clock).fire("a"))
        await asyncio.sleep(60)
        assert [text for _, text in odd.told] == ["firing: a+"]
        await notices.stop()

    run_virtual(scenario)


def test_a_queue_is_bounded_and_what_it_drops_is_told_later(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(clock: VirtualClock) -> None:
        fake, alerts = FakeNotifier(clock), Alerts(clock)
        notices = make_notices(clock, fake)
        await notices.start()
        for number in range(130):
            notices.take(alerts.fire(f"a{number}", team=str(number)))
        await asyncio.sleep(100)
        stats = notices.get_stats()["fake"]
        assert (stats["sent"], stats["dropped"]) == (100, 30)
        await asyncio.sleep(400)
        told = {alert.labels["alertname"] for _, notice in fake.taken for alert in notice.alerts}
        assert (len(told), len(fake.taken)) == (130, 130)
        await notices.stop()

    run_virtual(scenario)
    assert "30 notices dropped" in caplog.text


def test_silences_are_asked_again_when_they_change_and_when_they_may_have_ended() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fake, alerts = FakeNotifier(clock), Alerts(clock)
        silenced = {"a", "b"}
        notices = make_notices(
            clock, fake, is_silenced=lambda labels: "yes" if labels["alertname"] in silenced else None
        )
        await notices.start()
        for name in ("a", "b", "c"):
            notices.take(alerts.fire(name, team=name))
        await asyncio.sleep(101.5)
        silenced.remove("a")
        notices.silences_changed()
        await asyncio.sleep(50)
        silenced.remove("b")  # as one that runs out: nobody says so
        await asyncio.sleep(50)
        assert [text for _, text in fake.told] == ["firing: c+", "firing: a+", "firing: b+"]
        assert fake.told[1][0] == 101
        assert 151 <= fake.told[2][0] <= 162
        await notices.stop()

    run_virtual(scenario)


def test_troubles_around_it_are_logged_and_disturb_nobody(caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_args: object, **_labels: object) -> None:
        raise RuntimeError("broken")

    async def scenario(clock: VirtualClock) -> None:
        fake = FakeNotifier(clock)
        notices = make_notices(clock, fake, is_silenced=fail, recorder=fail)
        await notices.start()
        notices.take(Alerts(clock).fire("a"))
        notices.take(None)  # type: ignore[arg-type]  # a caller's mistake
        await asyncio.sleep(60)
        assert fake.told == [(10, "firing: a+")]
        assert notices.errors >= 3
        await notices.stop()

    run_virtual(scenario)
    assert "Traceback" in caplog.text


def test_two_notifiers_of_one_name_are_refused() -> None:
    clock = FakeClock()
    with pytest.raises(MonitorError, match="two notifiers have the name 'fake'"):
        Notices([FakeNotifier(clock), FakeNotifier(clock)])


def test_events_of_many_threads_are_all_told() -> None:
    async def main() -> None:
        clock = FakeClock()
        fake = FakeNotifier(clock)
        done = asyncio.Event()
        loop = asyncio.get_running_loop()
        notices = Notices([fake], Grouping(("alertname",), wait_s=0.0), clock=clock)
        events = [Alerts(clock).fire(f"a{number}") for number in range(90)]

        async def take_note(notice: Notice) -> None:
            fake.taken.append((0.0, notice))
            if len(fake.taken) == len(events):
                done.set()

        fake.send = take_note  # type: ignore[method-assign]  # to know when all have come
        await notices.start()
        threads = [threading.Thread(target=lambda n=n: [*map(notices.take, events[n::3])]) for n in range(3)]
        for thread in threads:
            thread.start()
        await done.wait()
        for thread in threads:
            await loop.run_in_executor(None, thread.join)
        await notices.stop()

    asyncio.run(main())


def test_nothing_is_logged_at_a_quiet_stop(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "ondol")

    async def scenario(clock: VirtualClock) -> None:
        notices = make_notices(clock, FakeNotifier(clock))
        await notices.start()
        await notices.stop()
        await notices.stop()

    run_virtual(scenario)
    assert caplog.records == []
