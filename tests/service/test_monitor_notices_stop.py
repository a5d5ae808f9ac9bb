from __future__ import annotations

import asyncio
import random

import pytest

from ondol.monitor.notice_ports import NoticeRejectedError
from ondol.monitor.notices import Notices
from ondol.monitor.targets import Grouping
from ondol.testing import FakeClock, VirtualClock, run_virtual
from tests.service.notices_fakes import Alerts, FakeNotifier

GROUPING = Grouping(by=("team",), wait_s=10.0, interval_s=300.0)


def make_notices(clock: VirtualClock, *notifiers: FakeNotifier) -> Notices:
    return Notices(notifiers, GROUPING, clock=clock, random=random.Random(7))


def test_a_stop_tells_what_still_waits_for_its_group() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fake, alerts = FakeNotifier(clock), Alerts(clock)
        notices = make_notices(clock, fake)
        await notices.start()
        notices.take(alerts.fire("a"))
        await asyncio.sleep(20)
        notices.take(alerts.resolve("a"))
        notices.take(alerts.fire("b"))
        await notices.stop()
        assert fake.told == [(10, "firing: a+"), (20, "firing: a- b+")]
        assert int(clock.monotonic()) == 20

    run_virtual(scenario)


def test_a_stop_under_load_ends_in_its_grace_and_names_what_is_left(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(clock: VirtualClock) -> None:
        hanging, failing, good = (FakeNotifier(clock, name) for name in ("hanging", "failing", "good"))
        alerts = Alerts(clock)
        hanging.plan.extend(["hang"] * 100)
        failing.plan.extend([ConnectionRefusedError()] * 100)
        notices = make_notices(clock, hanging, failing, good)
        await notices.start()
        for number in range(12):
            notices.take(alerts.fire(f"a{number}", team=str(number)))
        await asyncio.sleep(11)
        await notices.stop(grace_s=5)
        assert clock.monotonic() == pytest.approx(16, abs=0.1)
        assert len(good.told) == 12
        assert (hanging.told, failing.told) == ([], [])

    run_virtual(scenario)
    left = [record.getMessage() for record in caplog.records if "of the stop" in record.getMessage()]
    assert [text[: text.index(":")] for text in left] == [
        "notifier 'hanging'",
        "notifier 'failing'",
    ]
    assert all("12 notices not delivered within the 5 s of the stop: {}:{team=" in text for text in left)


def test_a_stop_ends_the_wait_for_a_retry() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fake = FakeNotifier(clock)
        fake.plan.append(NoticeRejectedError("429", is_permanent=False, retry_after_s=200.0))
        notices = make_notices(clock, fake)
        await notices.start()
        notices.take(Alerts(clock).fire("a"))
        await asyncio.sleep(30)
        await notices.stop()
        assert fake.told == [(30, "firing: a+")]

    run_virtual(scenario)


def test_what_a_stop_cut_off_may_have_arrived_and_is_told_to_its_end() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fake, alerts = FakeNotifier(clock), Alerts(clock)
        fake.plan.append("hang")
        notices = make_notices(clock, fake)
        await notices.start()
        notices.take(alerts.fire("a"))
        await notices.stop(grace_s=1)
        notices.take(alerts.resolve("a"))  # too brief to be told, had it not been begun
        await notices.start()
        await asyncio.sleep(60)
        assert [text for _, text in fake.told] == ["resolved: a-"]
        await notices.stop()

    run_virtual(scenario)


def test_a_cancelled_stop_leaves_no_task() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fake = FakeNotifier(clock, timeout_s=1000.0)
        fake.plan.append("hang")
        notices = make_notices(clock, fake)
        await notices.start()
        notices.take(Alerts(clock).fire("a"))
        await asyncio.sleep(20)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(notices.stop(grace_s=500), timeout=1)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run_virtual(scenario)


def test_a_notifier_that_ignores_its_cancellation_does_not_hold_the_stop() -> None:
    class Stubborn(FakeNotifier):
        async def send(self, notice: object) -> None:
            while not released.is_set():
                try:
                    await released.wait()
                except asyncio.CancelledError:
                    continue

    released = asyncio.Event()

    async def scenario(clock: VirtualClock) -> None:
        notices = make_notices(clock, Stubborn(clock, timeout_s=1000.0))
        await notices.start()
        notices.take(Alerts(clock).fire("a"))
        await asyncio.sleep(20)
        await notices.stop(grace_s=2)
        assert clock.monotonic() == pytest.approx(23, abs=0.1)
        released.set()
        await asyncio.sleep(0.1)

    run_virtual(scenario)


def test_it_goes_on_in_another_loop_with_what_was_not_told() -> None:
    clock = FakeClock()
    fake, alerts = FakeNotifier(clock), Alerts(clock)
    notices = Notices([fake], GROUPING._replace(wait_s=0.0), clock=clock, random=random.Random(7))

    async def run(*names: str) -> None:
        await notices.start()
        for name in names:
            notices.take(alerts.fire(name, team=name))
        await notices.stop(grace_s=0.0)

    fake.plan.append("hang")
    asyncio.run(run("a"))
    assert fake.told == []
    fake.plan.clear()

    async def run_again() -> None:
        await notices.start()
        await notices.stop()

    notices.take(alerts.fire("b", team="b"))  # while it is stopped
    asyncio.run(run_again())
    assert sorted(text for _, text in fake.told) == ["firing: a+", "firing: b+"]


def test_a_loop_that_ended_without_a_stop_is_no_obstacle() -> None:
    clock = FakeClock()
    fake, alerts = FakeNotifier(clock), Alerts(clock)
    notices = Notices([fake], GROUPING._replace(wait_s=0.0), clock=clock, random=random.Random(7))
    asyncio.run(notices.start())
    notices.take(alerts.fire("a"))
    assert notices.errors == 0

    async def main() -> None:
        await notices.stop()  # of a loop that is gone: nothing to do
        await notices.start()
        await notices.stop()

    asyncio.run(main())
    assert [text for _, text in fake.told] == ["firing: a+"]
