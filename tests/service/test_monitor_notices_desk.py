"""From values of a metric to what a receiver hears: the desk of the alerts and the notices together."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

from ondol.monitor.alerting import AlertDesk
from ondol.monitor.alerts import AlertRule
from ondol.monitor.notices import Notices
from ondol.monitor.query import Reading
from ondol.monitor.targets import Grouping
from ondol.testing import VirtualClock, run_virtual
from tests.service.notices_fakes import FakeNotifier

if TYPE_CHECKING:
    from ondol.monitor.query import Query

RULE = AlertRule("느림", "api.latency", 2.0, ">", duration_seconds=30.0, severity="critical", message="늘리세요")


class World:
    """A metric, watched each 5 s."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self.value = 1.0
        self.desk = AlertDesk(clock)
        self.fake = FakeNotifier(clock)
        self.notices = Notices(
            [self.fake], Grouping(), clock=clock, random=random.Random(7), is_silenced=self.desk.is_silenced
        )
        self.desk.add(RULE)
        self.desk.listen(self.notices.take)

    async def watch(self, seconds: int) -> None:
        for _ in range(seconds // 5):
            self.desk.evaluate(self._read)
            await asyncio.sleep(5)

    def _read(self, _query: Query) -> Reading:
        return Reading(self.value, self._clock.monotonic())


def test_an_episode_is_told_once_and_resolved_once() -> None:
    async def scenario(clock: VirtualClock) -> None:
        world = World(clock)
        await world.notices.start()
        world.value = 5.0
        await world.watch(1000)
        world.value = 1.0
        await world.watch(1000)
        assert world.fake.told == [(40, "firing: 느림+"), (1010, "resolved: 느림-")]
        [firing], [resolved] = (notice.alerts for _, notice in world.fake.taken)
        assert firing.fingerprint == resolved.fingerprint
        assert firing.starts_at == resolved.starts_at
        assert resolved.ends_at is not None
        assert round(resolved.ends_at - resolved.starts_at) == 970
        assert firing.annotations["description"] == "늘리세요"
        assert firing.labels["severity"] == "critical"
        await world.notices.stop()

    run_virtual(scenario)


def test_a_silence_that_runs_out_and_one_that_is_ended() -> None:
    async def scenario(clock: VirtualClock) -> None:
        world = World(clock)
        await world.notices.start()
        world.desk.silence({"alertname": "느*"}, 200.0)
        world.value = 5.0
        await world.watch(500)
        [(at_s, notice)] = world.fake.taken
        assert 200 <= at_s <= 211
        assert notice.status == "firing"
        world.value = 1.0
        await world.watch(500)
        assert [text for _, text in world.fake.told] == ["firing: 느림+", "resolved: 느림-"]
        long = world.desk.silence({"severity": "critical"}, 100_000.0)
        world.value = 5.0
        await world.watch(500)
        assert len(world.fake.taken) == 2
        world.desk.unsilence(long.id)
        world.notices.silences_changed()
        await world.watch(5)
        assert [text for _, text in world.fake.told[2:]] == ["firing: 느림+"]
        await world.notices.stop()

    run_virtual(scenario)


def test_a_monitor_that_ends_leaves_nobody_with_an_open_page() -> None:
    async def scenario(clock: VirtualClock) -> None:
        world = World(clock)
        await world.notices.start()
        world.value = 5.0
        await world.watch(100)
        world.desk.reset("the monitor stopped")
        await world.notices.stop()
        assert [text for _, text in world.fake.told] == ["firing: 느림+", "resolved: 느림-"]

    run_virtual(scenario)
