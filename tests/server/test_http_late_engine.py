"""The engine behind the API is made late, started once, and stopped with everything else."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest

from ondol.server.late_engine import START_DELAY_S, LateEngine
from ondol.testing import run_virtual
from tests.server.http_fakes import FakeEngine, FakeService

if TYPE_CHECKING:
    from ondol.testing import VirtualClock


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[FakeEngine]:
    """The engines made during the test, fakes in place of the real ones."""
    engines: list[FakeEngine] = []

    def make(_pool: object, _cache: object, _settings: object, *, recorder: object, spans: object) -> FakeEngine:
        engines.append(FakeEngine(service))
        return engines[-1]

    service = FakeService()
    monkeypatch.setattr("ondol.similarity.engine.SimilarityEngine", make)
    return engines


def make_late() -> LateEngine:
    service: Any = FakeService()
    service.cache = object()
    return LateEngine(service, service.settings)


def test_it_is_made_and_started_a_moment_after_the_start(made: list[FakeEngine]) -> None:
    async def scenario(clock: VirtualClock) -> None:
        late = make_late()
        await late.start()
        assert clock.monotonic() == 0
        assert made == []
        await asyncio.sleep(START_DELAY_S + 0.01)
        (engine,) = made
        assert engine._service.calls == ["engine.start"]
        await late.embed(["a"])
        await late.stop()
        assert engine._service.calls == ["engine.start", "engine.stop"]
        assert len(made) == 1

    run_virtual(scenario)


def test_a_request_that_needs_it_does_not_wait(made: list[FakeEngine]) -> None:
    async def scenario(clock: VirtualClock) -> None:
        late = make_late()
        await late.start()
        assert (await late.compare("a", ["b"]))[0].semantic_score == 0.5
        assert clock.monotonic() == 0
        await late.stop()
        assert made[0]._service.calls == ["engine.stop"]

    run_virtual(scenario)


def test_a_stop_right_after_the_start_makes_none(made: list[FakeEngine]) -> None:
    async def scenario(_clock: VirtualClock) -> None:
        late = make_late()
        await late.start()
        await late.stop()
        await asyncio.sleep(10)
        assert made == []

    run_virtual(scenario)


def test_it_serves_again_in_another_loop(made: list[FakeEngine]) -> None:
    late = make_late()

    async def scenario(_clock: VirtualClock) -> None:
        await late.start()
        await asyncio.sleep(1)
        await late.stop()

    run_virtual(scenario)
    run_virtual(scenario)
    assert made[0]._service.calls == ["engine.start", "engine.stop"] * 2


def test_an_engine_that_cannot_start_is_logged_and_the_server_lives_on(
    made: list[FakeEngine], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(_self: FakeEngine) -> None:
        raise OSError("disk is gone")

    monkeypatch.setattr(FakeEngine, "start", fail)

    async def scenario(_clock: VirtualClock) -> None:
        late = make_late()
        await late.start()
        await asyncio.sleep(1)
        assert (await late.count_documents()) == 0
        await late.stop()

    run_virtual(scenario)
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info is not None
