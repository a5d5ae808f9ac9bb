"""Hints on virtual time: when a load begins, who leaves for it, what is made up for, and what outlives the process."""

from __future__ import annotations

import asyncio
import doctest
import json
import logging
import stat
import threading
from typing import TYPE_CHECKING, Any, Self

import pytest

from ondol.errors import ConfigurationError, UnknownModelError
from ondol.models import ModelPool, ModelState
from ondol.preload import Preloader
from ondol.preload import hint as hint_module
from ondol.preload.hints_file import HintsFile
from ondol.preload.local_zone import local_zone
from ondol.testing import FakeClock, VirtualClock, run_virtual
from tests.service.models_fakes import Fleet, use

if TYPE_CHECKING:
    from pathlib import Path

START_S = 1_750_000_000.0
"""The wall clock when a scenario begins: a Sunday, 15:06:40 UTC."""


class JumpingClock:
    """The virtual time, with a wall clock that can be set."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self.offset_s = 0.0

    def monotonic(self) -> float:
        return self._clock.monotonic()

    def wall(self) -> float:
        return self._clock.wall() + self.offset_s


class Setup:
    """A started pool and preloader over one fleet; models are registered in the pool alone, so nobody wants them."""

    def __init__(self, clock: Any, **options: Any) -> None:
        self.clock = clock
        self.fleet = Fleet()
        self.pool = ModelPool(clock=clock, memory_limit_bytes=options.pop("memory_limit_bytes", None))
        self.preloader = Preloader(self.pool, clock=clock, **options)
        self.hints = self.preloader.hints
        self.loaded_at_s: dict[str, list[float]] = {}
        self.pool.add_listener(self._noticed)

    def _noticed(self, event: str, name: str) -> None:
        if event == "loading":
            self.loaded_at_s.setdefault(name, []).append(self.clock.monotonic())

    def register(self, name: str, depends_on: tuple[str, ...] = (), **fields: Any) -> None:
        fields.setdefault("load_seconds", 1.0)
        self.pool.register(self.fleet.spec(name, depends_on, **fields))

    def state(self, name: str) -> ModelState:
        return self.pool.status(name).state

    async def __aenter__(self) -> Self:
        await self.pool.start()
        await self.preloader.start()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.preloader.stop()
        await self.pool.stop()
        assert self.pool.get_stats()["used_bytes"] == 0


def at(seconds: float) -> float:
    return START_S + seconds


def test_the_load_begins_so_long_before_that_it_is_there_in_time() -> None:
    async def scenario(clock: VirtualClock) -> None:
        setup = Setup(clock)
        setup.register("m", load_seconds=4.0)
        setup.register("base", load_seconds=2.0)
        setup.register("app", ("base",), load_seconds=8.0)
        async with setup:
            assert setup.hints.add("m", at=at(1000)).lead_s == pytest.approx(11.0)
            assert setup.hints.add("app", at=at(2000)).load_at_s == pytest.approx(at(1980))
            await asyncio.sleep(1500)
            assert setup.loaded_at_s == {"m": [pytest.approx(989.0, abs=0.01)]}
            await asyncio.sleep(600)
            assert setup.loaded_at_s["base"] == [pytest.approx(1980.0, abs=0.01)]
            assert setup.state("app") is ModelState.READY
            stats = setup.preloader.get_stats()
            assert (stats["attempts"], stats["succeeded"], stats["failed"]) == (2, 2, 0)

    run_virtual(scenario)


def test_a_load_time_that_is_learnt_later_counts() -> None:
    async def scenario(clock: VirtualClock) -> None:
        setup = Setup(clock)
        setup.fleet.load_seconds = 20.0
        setup.register("m", load_seconds=1.0)
        async with setup:
            setup.hints.add("m", at=at(500))
            await use(setup.pool, "m")
            await setup.pool.unload("m")
            await asyncio.sleep(500)
            assert setup.loaded_at_s["m"][1] < 480.0
            assert setup.state("m") is ModelState.READY

    run_virtual(scenario)


def test_it_is_kept_for_its_time_and_no_longer() -> None:
    async def scenario(clock: VirtualClock) -> None:
        setup = Setup(clock, memory_limit_bytes=200)
        for name in ("hinted", "warm", "new"):
            setup.register(name, size_bytes=100)
        async with setup:
            setup.hints.add("hinted", at=at(100), hold_s=300)
            await asyncio.sleep(110)
            for _ in range(50):  # far hotter than what is hinted at
                await use(setup.pool, "warm", 0.1)
            await use(setup.pool, "new")
            assert setup.state("hinted") is ModelState.READY
            assert setup.state("warm") is ModelState.UNLOADED
            assert setup.preloader.why("hinted")["is_promised"]
            (hint,) = setup.hints.list()
            assert hint.is_active
            assert hint.next_at_s is None
            await asyncio.sleep(300)
            assert setup.hints.list() == []
            assert not setup.preloader.why("hinted")["is_promised"]
            for _ in range(50):
                await use(setup.pool, "new", 0.1)
            await use(setup.pool, "warm")
            assert setup.state("hinted") is ModelState.UNLOADED

    run_virtual(scenario)


def test_idle_models_of_any_priority_leave_for_it_but_none_that_is_pinned_leased_or_hinted_at() -> None:
    async def scenario(clock: VirtualClock) -> None:
        setup = Setup(clock, memory_limit_bytes=400)
        for name in ("leased", "pinned", "promised", "idle"):
            setup.register(name, size_bytes=100, priority=10)
        setup.register("hinted", size_bytes=100, priority=1)
        async with setup:
            setup.hints.add("promised", at=at(10), hold_s=600)
            setup.pool.pin("pinned")
            await use(setup.pool, "pinned")
            await use(setup.pool, "idle")
            holding = asyncio.create_task(use(setup.pool, "leased", 100))
            await asyncio.sleep(20)
            setup.hints.add("hinted", at=at(60))
            await asyncio.sleep(60)
            states = {name: setup.state(name) for name in ("leased", "pinned", "promised", "idle", "hinted")}
            assert states.pop("idle") is ModelState.UNLOADED
            assert set(states.values()) == {ModelState.READY}
            await holding

    run_virtual(scenario)


def test_what_finds_no_room_is_counted_and_tried_once_more_at_the_time(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(clock: VirtualClock) -> None:
        setup = Setup(clock, memory_limit_bytes=100)
        setup.register("leased", size_bytes=100)
        setup.register("hinted", size_bytes=100)
        async with setup:
            holding = asyncio.create_task(use(setup.pool, "leased", 58))
            setup.hints.add("hinted", at=at(60))
            await asyncio.sleep(57)
            (hint,) = setup.hints.list()
            assert (hint.loads, hint.failures) == (1, 1)
            assert hint.last_error is not None
            assert "ModelBudgetError" in hint.last_error
            await holding
            await asyncio.sleep(5)
            (hint,) = setup.hints.list()
            assert (hint.loads, hint.failures, hint.last_error) == (2, 1, None)
            assert setup.state("hinted") is ModelState.READY
            assert setup.preloader.get_stats()["hints"]["failures"] == 1

    run_virtual(scenario)
    assert "preloading model hinted failed" in caplog.text


def test_a_load_that_fails_is_logged_counted_and_not_repeated_before_the_next_time() -> None:
    async def scenario(clock: VirtualClock) -> None:
        setup = Setup(clock)
        setup.pool.configure(retry=None)
        setup.fleet.failing.add("broken")
        setup.register("broken")
        async with setup:
            setup.hints.add("broken", at=at(3600), repeat="1h")
            await asyncio.sleep(3650)
            assert setup.fleet.loads() == ["broken"]
            (hint,) = setup.hints.list()
            assert (hint.loads, hint.failures) == (1, 1)
            assert "broken is broken" in (hint.last_error or "")
            assert setup.preloader.get_stats()["failed"] == 1
            setup.fleet.failing.clear()
            await asyncio.sleep(3600)
            assert setup.state("broken") is ModelState.READY
            assert setup.hints.list()[0].last_error is None

    run_virtual(scenario)


def test_what_is_in_memory_is_only_kept() -> None:
    async def scenario(clock: VirtualClock) -> None:
        setup = Setup(clock)
        setup.register("m")
        async with setup:
            await use(setup.pool, "m")
            setup.hints.add("m", at=at(60))
            await asyncio.sleep(70)
            assert setup.fleet.loads() == ["m"]
            assert setup.preloader.why("m")["is_promised"]
            assert setup.preloader.get_stats()["attempts"] == 0
            await setup.pool.unload("m")  # somebody asked for it: it is not loaded again for this time
            await asyncio.sleep(70)
            assert setup.fleet.loads() == ["m"]

    run_virtual(scenario)


def test_it_repeats() -> None:
    async def scenario(clock: VirtualClock) -> None:
        setup = Setup(clock)
        setup.register("m")
        async with setup:
            status = setup.hints.add("m", at="16:00", repeat="daily", zone="UTC", hold_s=60)
            assert status.description == "every day at 16:00 (UTC)"
            first_s = 3200.0  # 16:00 is so long after 15:06:40
            for day in range(3):
                await asyncio.sleep(day * 86400 + first_s + 1 - clock.monotonic())
                assert setup.state("m") is ModelState.READY
                assert len(setup.fleet.loads()) == day + 1
                await asyncio.sleep(120)
                await setup.pool.unload("m")
            assert setup.loaded_at_s["m"][2] == pytest.approx(2 * 86400 + first_s - 6.5, abs=0.01)

    run_virtual(scenario)


def test_times_closer_than_the_hold_are_each_acted_upon() -> None:
    async def scenario(clock: VirtualClock) -> None:
        setup = Setup(clock)
        setup.register("m")
        async with setup:
            setup.hints.add("m", repeat=120, hold_s=300)  # from now on, now included
            for _ in range(4):
                await asyncio.sleep(119)
                assert setup.state("m") is ModelState.READY
                await setup.pool.unload("m")
                await asyncio.sleep(1)
            assert len(setup.fleet.loads()) == 4

    run_virtual(scenario)


def test_while_paused_or_off_nothing_loads_and_it_is_made_up_for_as_long_as_the_hold_lasts() -> None:
    async def scenario(clock: VirtualClock) -> None:
        setup = Setup(clock)
        setup.register("late")
        setup.register("gone")
        setup.register("off")
        async with setup:
            setup.preloader.pause("memory at 91.0 %")
            setup.hints.add("late", at=at(60), hold_s=300)
            setup.hints.add("gone", at=at(60), hold_s=100)
            await asyncio.sleep(300)
            assert setup.fleet.loads() == []
            assert setup.preloader.get_stats()["hints"]["count"] == 1  # the other one is over
            setup.preloader.resume()
            await asyncio.sleep(5)
            assert setup.fleet.loads() == ["late"]
            setup.preloader.configure(is_enabled=False)
            setup.hints.add("off", at=at(400), repeat=3600, hold_s=30)
            await asyncio.sleep(500)
            assert setup.fleet.loads() == ["late"]
            (hint,) = [hint for hint in setup.hints.list() if hint.model == "off"]
            assert hint.missed == 1
            setup.preloader.configure(is_enabled=True)
            await asyncio.sleep(3600)
            assert setup.fleet.loads() == ["late", "off"]

    run_virtual(scenario)


def test_a_model_that_is_registered_during_its_time_is_loaded_then() -> None:
    async def scenario(clock: VirtualClock) -> None:
        setup = Setup(clock)
        async with setup:
            assert not setup.hints.add("m", at=at(60)).is_registered
            await asyncio.sleep(100)
            assert "There is no such model yet" in setup.preloader.get_plan()["words"][1]
            setup.register("m")
            await asyncio.sleep(5)
            assert setup.state("m") is ModelState.READY
            assert setup.hints.list()[0].is_registered

    run_virtual(scenario)


def test_hints_win_over_wishes_for_the_slots_and_over_forbid() -> None:
    async def scenario(clock: VirtualClock) -> None:
        setup = Setup(clock)
        for index in range(20):
            setup.register(f"w{index}")
        setup.register("hinted")
        async with setup:
            setup.preloader.forbid("hinted")
            setup.preloader.want(*(f"w{index}" for index in range(20)))
            setup.hints.add("hinted", at=at(10))
            await asyncio.sleep(9)
            assert "hinted" in setup.fleet.loads()[:6]
            assert setup.fleet.most_loading == 1
            await setup.preloader.wait_idle()

    run_virtual(scenario)


@pytest.mark.parametrize(("jump_s", "waited_s"), [(5000.0, 35.0), (-5000.0, 10_970.0)])
def test_a_clock_that_is_set_is_noticed_within_a_minute(jump_s: float, waited_s: float) -> None:
    async def scenario(virtual: VirtualClock) -> None:
        clock = JumpingClock(virtual)
        setup = Setup(clock)
        setup.register("m")
        async with setup:
            setup.hints.add("m", at=at(6000 if jump_s < 0 else 5040), hold_s=300)
            await asyncio.sleep(30)
            clock.offset_s = jump_s
            await asyncio.sleep(waited_s - 10)
            assert setup.fleet.loads() == []
            await asyncio.sleep(10)
            assert setup.fleet.loads() == ["m"]

    run_virtual(scenario)


def test_a_time_that_passed_while_the_machine_slept_is_made_up_for_within_the_hold_only() -> None:
    async def scenario(virtual: VirtualClock) -> None:
        clock = JumpingClock(virtual)
        setup = Setup(clock)
        setup.register("lately")
        setup.register("long ago")
        async with setup:
            setup.hints.add("lately", at=at(4900), hold_s=300)
            setup.hints.add("long ago", at=at(3000), repeat="1h", hold_s=300)
            await asyncio.sleep(30)
            clock.offset_s = 5000.0
            await asyncio.sleep(100)
            assert setup.fleet.loads() == ["lately"]
            assert {hint.model: hint.next_at_s for hint in setup.hints.list()}["long ago"] == at(6600)

    run_virtual(scenario)


def test_a_small_correction_of_the_clock_repeats_nothing() -> None:
    async def scenario(virtual: VirtualClock) -> None:
        clock = JumpingClock(virtual)
        setup = Setup(clock)
        setup.register("m")
        async with setup:
            setup.hints.add("m", at=at(100), repeat="1h")
            await asyncio.sleep(98)
            assert setup.state("m") is ModelState.READY
            await setup.pool.unload("m")
            clock.offset_s = -5.0
            await asyncio.sleep(120)
            assert setup.fleet.loads() == ["m"]
            assert setup.hints.list()[0].next_at_s == at(3700)

    run_virtual(scenario)


def test_one_timer_for_all_and_none_without_hints() -> None:
    async def scenario(clock: VirtualClock) -> None:
        setup = Setup(clock)
        async with setup:
            loop: Any = asyncio.get_running_loop()
            await asyncio.sleep(1)
            before = len(loop._scheduled)
            ids = [setup.hints.add(f"m{index}", at=at(1000 + index)).id for index in range(200)]
            await asyncio.sleep(1)
            assert len([handle for handle in loop._scheduled if not handle.cancelled()]) <= before + 1
            assert all(setup.hints.remove(each) for each in ids)
            await asyncio.sleep(100)
            assert setup.hints._timer is None

    run_virtual(scenario)


def test_the_same_hint_is_one_and_another_is_another() -> None:
    pool = ModelPool(clock=FakeClock())
    hints = Preloader(pool, clock=FakeClock()).hints
    first = hints.add("m", at="08:55", repeat="daily", zone="Asia/Seoul")
    again = hints.add("m", at=" 08:55", repeat="DAILY", zone="Asia/Seoul", hold_s=10)
    assert (first.id, first.next_at_s) == (again.id, again.next_at_s)
    assert [hint.hold_s for hint in hints.list()] == [10.0]
    others = [
        hints.add("n", at="08:55", repeat="daily", zone="Asia/Seoul"),
        hints.add("m", at="08:56", repeat="daily", zone="Asia/Seoul"),
        hints.add("m", at="08:55", zone="Asia/Seoul"),
        hints.add("m", at="08:55", repeat="daily", zone="UTC"),
    ]
    assert len({first.id, *(hint.id for hint in others)}) == 5
    assert hints.remove(first.id)
    assert not hints.remove(first.id)


def test_an_interval_that_is_given_again_goes_on_as_it_began() -> None:
    clock = FakeClock()
    hints = Preloader(ModelPool(clock=clock), clock=clock).hints
    first = hints.add("m", repeat="1h")
    assert first.next_at_s == clock.wall()
    clock.advance(600)
    assert hints.add("m", repeat="1h").next_at_s == first.next_at_s + 3600
    assert len(hints.list()) == 1


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"model": ""}, "printable"),
        ({"model": "x" * 201}, "200"),
        ({"hold_s": -1}, "0 to 86400"),
        ({"hold_s": float("nan")}, "0 to 86400"),
        ({"hold_s": True}, "0 to 86400"),
        ({"at": None}, "needs a time"),
        ({"at": "25:00"}, "at="),
        ({"at": START_S - 1000}, "over already"),
        ({"zone": "Mars/Olympus"}, "zone="),
        ({"repeat": "10"}, "repeat="),
    ],
)
def test_what_is_not_allowed_is_refused_with_what_is(given: dict[str, Any], words: str) -> None:
    hints = Preloader(ModelPool(clock=FakeClock()), clock=FakeClock()).hints
    with pytest.raises(ConfigurationError, match=words):
        hints.add(**{"model": "m", "at": "08:55", "zone": "UTC", **given})
    assert hints.list() == []


def test_there_are_at_most_a_thousand() -> None:
    hints = Preloader(ModelPool(clock=FakeClock()), clock=FakeClock()).hints
    for index in range(1000):
        hints.add(f"m{index}", at=START_S + 100)
    with pytest.raises(ConfigurationError, match="1000 hints already"):
        hints.add("one more", at=START_S + 100)
    hints.add("m5", at=START_S + 100)  # one of them


def test_hints_may_be_given_in_any_thread() -> None:
    async def scenario(clock: VirtualClock) -> None:
        setup = Setup(clock)
        setup.register("m")
        async with setup:
            thread = threading.Thread(target=lambda: setup.hints.add("m", at=at(60)))
            thread.start()
            thread.join()
            await asyncio.sleep(70)
            assert setup.state("m") is ModelState.READY

    run_virtual(scenario)


def test_nothing_happens_before_the_start_and_all_of_it_again_in_another_loop() -> None:
    clocks: list[Any] = []
    fleet = Fleet()

    class Through:
        """The clock of the loop that runs."""

        def monotonic(self) -> float:
            return float(clocks[-1].monotonic()) if clocks else 0.0

        def wall(self) -> float:
            return START_S + self.monotonic()

    pool = ModelPool(clock=Through())
    pool.register(fleet.spec("m", load_seconds=1.0))
    preloader = Preloader(pool, clock=Through())
    preloader.hints.add("m", at=at(60))

    async def scenario(clock: VirtualClock) -> None:
        clocks.append(clock)
        async with pool:
            await preloader.start()
            await asyncio.sleep(61)
            assert pool.status("m").state is ModelState.READY
            await preloader.stop()

    run_virtual(scenario)
    run_virtual(scenario)
    assert fleet.loads() == ["m", "m"]


def test_a_stop_while_a_hinted_load_runs_leaves_nothing_behind(tmp_path: Path) -> None:
    async def scenario(clock: VirtualClock) -> None:
        setup = Setup(clock, hints=HintsFile(tmp_path / "hints.json"))
        setup.fleet.load_seconds = 100.0
        setup.register("m")
        async with setup:
            setup.hints.add("m", at=at(60), repeat="1h")
            await asyncio.sleep(56)
            assert setup.state("m") is ModelState.LOADING
        assert setup.hints._timer is None
        assert setup.preloader.get_stats()["loading"] == 0
        async with setup:  # and it is tried anew
            await asyncio.sleep(5)
            assert setup.state("m") is ModelState.LOADING

    run_virtual(scenario)


# What outlives the process


def kept(path: Path) -> list[Any]:
    rows: list[Any] = json.loads(path.read_text())["hints"]
    return rows


def test_hints_outlive_the_process_but_for_those_that_are_over(tmp_path: Path) -> None:
    path = tmp_path / "data" / "preload-hints.json"

    async def first(clock: VirtualClock) -> list[str]:
        setup = Setup(clock, hints=HintsFile(path))
        setup.hints.add("m", at="16:00", repeat="daily", zone="Asia/Seoul")
        async with setup:
            await asyncio.sleep(1)
            assert len(kept(path)) == 1  # soon, not only at the end
            setup.hints.add("m", at="2025-06-16T09:00", zone="Asia/Seoul", hold_s=60)
            setup.hints.add("m", at=at(10**8), hold_s=7)
        every = {hint.hold_s: hint.id for hint in setup.hints.list()}
        return [every[300.0], every[60.0], every[7.0]]

    async def second(clock: VirtualClock) -> set[str]:
        setup = Setup(JumpingClock(clock), hints=HintsFile(path))
        setup.clock.offset_s = 86400.0 * 2
        assert setup.hints.list() == []
        async with setup:
            return {hint.id for hint in setup.hints.list()}

    ids = run_virtual(first)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(kept(path)) == len(ids) == 3
    assert run_virtual(second) == {ids[0], ids[2]}
    assert len(kept(path)) == 2
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"version": 2, "hints": []}',
        b'{"version": 1, "hints": {}}',
        b'{"version": 1, "hints": [5]}',
        b'{"version": 1, "hints": [{"asked": ["m", null, null, null], "hold_s": 5, "recurrence": {}}]}',
        b'{"version": 1, "hints": [{"asked": [5, null, null, null], "hold_s": 5, "recurrence": {}}]}',
        b"[" * 100_000,
    ],
)
def test_a_damaged_file_is_set_aside_logged_and_counted(
    content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "hints.json"
    path.write_bytes(content)

    async def scenario(clock: VirtualClock) -> None:
        setup = Setup(clock, hints=HintsFile(path))
        async with setup:
            assert setup.hints.list() == []
            assert setup.preloader.get_stats()["hints"]["file_damaged"] == 1
            setup.hints.add("m", at=at(100))

    run_virtual(scenario)
    assert "damaged" in caplog.text
    assert (tmp_path / "hints.json.damaged").read_bytes() == content
    assert len(kept(path)) == 1


def test_of_a_file_that_is_damaged_in_part_the_sound_hints_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "hints.json"

    async def scenario(clock: VirtualClock) -> None:
        setup = Setup(clock, hints=HintsFile(path))
        async with setup:
            setup.hints.add("m", at=at(10_000))
            await asyncio.sleep(1)

    run_virtual(scenario)
    rows = kept(path)
    path.write_text(json.dumps({"version": 1, "hints": [*rows, {"asked": []}]}))

    async def again(clock: VirtualClock) -> None:
        setup = Setup(clock, hints=HintsFile(path))
        async with setup:
            assert [hint.model for hint in setup.hints.list()] == ["m"]
            await asyncio.sleep(1)
            assert kept(path) == rows

    run_virtual(again)


def test_a_disk_that_fails_hinders_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a file").write_text("")

    async def scenario(clock: VirtualClock) -> None:
        setup = Setup(clock, hints=HintsFile(tmp_path / "a file" / "hints.json"))
        setup.register("m")
        async with setup:
            setup.hints.add("m", at=at(60))
            await asyncio.sleep(70)
            assert setup.state("m") is ModelState.READY
            assert setup.preloader.get_stats()["hints"]["file_failures"] >= 1

    with caplog.at_level(logging.ERROR):
        run_virtual(scenario)
    assert "cannot be" in caplog.text


def test_an_interval_goes_on_as_it_began_in_the_process_before(tmp_path: Path) -> None:
    path = tmp_path / "hints.json"

    async def scenario(clock: VirtualClock, offset_s: float) -> float | None:
        jumping = JumpingClock(clock)
        jumping.offset_s = offset_s
        setup = Setup(jumping, hints=HintsFile(path))
        setup.hints.add("m", repeat="1h")
        async with setup:
            await asyncio.sleep(10)
            (hint,) = setup.hints.list()
            return hint.next_at_s

    assert run_virtual(lambda clock: scenario(clock, 0.0)) == at(3600)
    assert run_virtual(lambda clock: scenario(clock, 4000.0)) == at(7200)


# The machine's zone


def test_the_machines_zone_is_found_by_tz_and_by_the_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert str(local_zone({"TZ": "Asia/Seoul"})) == "Asia/Seoul"
    assert str(local_zone({"TZ": ":Europe/Berlin"})) == "Europe/Berlin"
    link = tmp_path / "localtime"
    (tmp_path / "zoneinfo" / "Asia").mkdir(parents=True)
    (tmp_path / "zoneinfo" / "Asia" / "Seoul").write_bytes(b"")
    link.symlink_to(tmp_path / "zoneinfo" / "Asia" / "Seoul")
    assert str(local_zone({}, link)) == "Asia/Seoul"
    assert caplog.text == ""
    assert local_zone({"TZ": "XYZ-3"}) is not None
    assert local_zone({}, tmp_path / "nothing") is not None
    assert caplog.text.count("time zone cannot be found") == 2


# What is told


def test_why_forecast_and_plan_say_what_there_is_in_words_with_figures() -> None:
    async def scenario(clock: VirtualClock) -> None:
        setup = Setup(clock, memory_limit_bytes=1000)
        setup.register("m", size_bytes=100)
        setup.register("big", size_bytes=2000)
        setup.register("needs", ("missing",))
        async with setup:
            for _ in range(10):
                await use(setup.pool, "m")
                await asyncio.sleep(600)
            setup.preloader.want("big", "needs")
            hint = setup.hints.add("m", at=clock.wall() + 900)
            why = setup.preloader.why("m")
            assert why["uses"] == 10
            assert why["hints"][0]["id"] == hint.id
            assert "It was used 10 times" in why["words"]
            assert f"Hint {hint.id}: wanted once at" in why["words"]
            assert next(row["name"] for row in setup.preloader.forecast()) == "m"
            plan = setup.preloader.get_plan()
            assert [row["name"] for row in plan["left_out"]] == ["big"]
            assert plan["blocked"] == [
                {"name": "needs", "waits_on": ["missing"], "reason": "missing is not registered"}
            ]
            assert plan["hints"][0]["load_at_s"] == hint.load_at_s
            words = "\n".join(plan["words"])
            assert "Preloading is on." in words
            assert "big is left out: it " in words
            assert "needs is blocked: missing is not registered." in words
            setup.hints.add("nobody", at=clock.wall() + 900)
            assert "There is no such model yet" in setup.preloader.why("nobody")["words"]
            with pytest.raises(UnknownModelError):
                setup.preloader.why("nothing")

    run_virtual(scenario)


def test_the_plan_says_what_would_be_fetched_next_and_when_unless_that_is_forbidden() -> None:
    async def scenario(clock: VirtualClock) -> None:
        setup = Setup(clock, memory_limit_bytes=1000)
        setup.register("m", size_bytes=100)
        async with setup:
            for _ in range(20):
                await use(setup.pool, "m")
                await setup.pool.unload("m")
                await asyncio.sleep(600)
            await use(setup.pool, "m")
            setup.preloader.pause("for the test")
            await setup.pool.unload("m")
            (row,) = setup.preloader.get_plan()["foreseen"]
            assert row["name"] == "m"
            assert 0.0 <= row["in_s"] < 610.0
            assert "is used with a probability of" in row["words"]
            setup.preloader.forbid("m")
            assert setup.preloader.get_plan()["foreseen"] == []
            assert "that was forbidden" in setup.preloader.why("m")["words"]
            setup.preloader.allow("m")
            assert len(setup.preloader.get_plan()["foreseen"]) == 1

    run_virtual(scenario)


@pytest.mark.parametrize("is_forbidden", [False, True])
def test_what_is_forbidden_is_never_fetched_ahead_and_what_is_fetched_is_measured(is_forbidden: bool) -> None:
    async def scenario(clock: VirtualClock) -> None:
        recorded: dict[str, float] = {}

        def record(name: str, value: float, *_args: Any, **_labels: Any) -> None:
            recorded[name] = recorded.get(name, 0.0) + value

        setup = Setup(clock, memory_limit_bytes=1000, recorder=record)
        setup.register("m", size_bytes=100)
        if is_forbidden:
            setup.preloader.forbid("m")
        async with setup:
            for _ in range(60):
                await use(setup.pool, "m")
                await setup.pool.unload("m")
                await asyncio.sleep(600)
            fetched = setup.preloader.get_stats()["foresight"]
            if is_forbidden:
                assert fetched["fetched"] == 0
                assert "preload.fetched" not in recorded
            else:
                assert recorded["preload.fetched"] == fetched["fetched"] > 0
                assert recorded["preload.fetched_used"] == fetched["used"] > 0
                assert recorded["preload.saved_time"] == pytest.approx(fetched["waiting_saved_s"])

    run_virtual(scenario)


def test_the_examples_hold() -> None:
    found = doctest.testmod(hint_module)
    assert (found.failed, found.attempted) == (0, 1)
