"""Other notifiers and another grouping, while the notices run and while they do not: what was told stays known."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest

from ondol.errors import MonitorError
from ondol.monitor.notices import Notices
from ondol.monitor.targets import Grouping
from ondol.testing import FakeClock, VirtualClock, run_virtual
from tests.service.notices_fakes import Alerts, FakeNotifier

if TYPE_CHECKING:
    from ondol.clock import Clock

GROUPING = Grouping(by=("team",), wait_s=10.0, interval_s=300.0)


def make_notices(clock: Clock, *notifiers: FakeNotifier) -> Notices:
    return Notices(notifiers, GROUPING, clock=clock, random=random.Random(7))


def task_names() -> set[str]:
    return {task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("ondol-notices-")}


def test_a_notifier_that_stays_goes_on_a_new_one_begins_and_one_that_is_gone_ends() -> None:
    async def scenario(clock: VirtualClock) -> None:
        stays, goes, comes = (FakeNotifier(clock, name) for name in ("stays", "goes", "comes"))
        alerts = Alerts(clock)
        notices = make_notices(clock, stays, goes)
        await notices.start()
        notices.take(alerts.fire("a"))
        await asyncio.sleep(20)
        notices.replace([stays, comes], GROUPING)
        await notices.start()
        assert task_names() == {"ondol-notices-stays", "ondol-notices-comes"}
        assert set(notices.get_stats()) == {"stays", "comes"}
        notices.take(alerts.resolve("a"))
        notices.take(alerts.fire("b"))
        await notices.stop()
        assert [text for _, text in stays.told] == ["firing: a+", "firing: a- b+"]
        assert [text for _, text in goes.told] == ["firing: a+"]
        assert [text for _, text in comes.told] == ["firing: b+"]
        assert task_names() == set()

    run_virtual(scenario)


def test_one_that_is_replaced_tells_what_it_has_and_its_successor_of_that_name_begins_anew() -> None:
    async def scenario(clock: VirtualClock) -> None:
        old, new = FakeNotifier(clock, "a"), FakeNotifier(clock, "a")
        notices = make_notices(clock, old)
        await notices.start()
        notices.take(Alerts(clock).fire("waits"))
        notices.replace([new], GROUPING)
        await notices.start()
        await notices.stop()
        assert old.told == [(0, "firing: waits+")]
        assert new.told == []

    run_virtual(scenario)


def test_a_stop_ends_what_was_replaced_while_it_ran() -> None:
    async def scenario(clock: VirtualClock) -> None:
        notices = make_notices(clock, FakeNotifier(clock, "a"))
        await notices.start()
        notices.replace([], GROUPING)
        await notices.stop()
        assert task_names() == set()

    run_virtual(scenario)


def test_two_of_one_name_are_refused_and_nothing_has_changed() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fake = FakeNotifier(clock, "a")
        notices = make_notices(clock, fake)
        with pytest.raises(MonitorError, match="two notifiers"):
            notices.replace([FakeNotifier(clock, "b"), FakeNotifier(clock, "b")], Grouping())
        await notices.start()
        notices.take(Alerts(clock).fire("x", team="주문"))
        await asyncio.sleep(11)
        [(_, notice)] = fake.taken
        assert dict(notice.group_labels) == {"team": "주문"}
        await notices.stop()

    run_virtual(scenario)


def test_what_was_told_in_one_group_is_resolved_in_another() -> None:
    async def scenario(clock: VirtualClock) -> None:
        fake, alerts = FakeNotifier(clock), Alerts(clock)
        notices = make_notices(clock, fake)
        await notices.start()
        notices.take(alerts.fire("a", team="x", severity="info"))
        notices.take(alerts.fire("b", team="x", severity="critical"))
        await asyncio.sleep(20)
        notices.replace([fake], GROUPING._replace(by=("severity",)))
        notices.take(alerts.resolve("a"))
        notices.take(alerts.resolve("b"))
        await asyncio.sleep(400)
        assert fake.told[0] == (10, "firing: a+ b+")
        assert sorted(fake.told[1:]) == [(310, "resolved: a-"), (310, "resolved: b-")]
        await notices.stop()

    run_virtual(scenario)


@pytest.mark.parametrize(("plan", "told"), [([], ["firing: a+"]), ([OSError()], ["firing: a+"])])
def test_a_notice_that_is_under_way_when_the_groups_change_counts(plan: list[Exception], told: list[str]) -> None:
    class Slow(FakeNotifier):
        async def send(self, notice: object) -> None:
            await asyncio.sleep(1.5)
            await super().send(notice)  # type: ignore[arg-type]

    async def scenario(clock: VirtualClock) -> None:
        fake, alerts = Slow(clock), Alerts(clock)
        fake.plan.extend(plan)
        notices = make_notices(clock, fake)
        await notices.start()
        notices.take(alerts.fire("a", team="x"))
        await asyncio.sleep(11)
        notices.replace([fake], GROUPING._replace(by=("severity",)))
        await asyncio.sleep(1000)
        assert [text for _, text in fake.told] == told
        assert notices.get_stats()["fake"]["faults"] == 0
        notices.take(alerts.resolve("a"))
        await notices.stop()
        assert [text for _, text in fake.told] == [*told, "resolved: a-"]

    run_virtual(scenario)


def test_a_stop_in_another_loop_ends_what_tells_in_the_first() -> None:
    async def scenario() -> None:
        clock = FakeClock()
        notices = make_notices(clock, FakeNotifier(clock, "a"))
        await notices.start()
        telling = [task for task in asyncio.all_tasks() if task.get_name() == "ondol-notices-a"]
        await asyncio.to_thread(asyncio.run, notices.stop())
        await asyncio.wait(telling, timeout=10)
        assert task_names() == set()

    asyncio.run(scenario())
