"""Hybrid loading alone: the service with the real embedders, without the server around it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from ondol import OptimizationService, load_settings
from ondol.models import ModelState
from ondol.similarity.embedders import embedder_specs
from tests.acceptance.report import Report, run

__all__ = ["main", "measure"]

CALLERS = 200


def measure() -> Report:
    """Load, share, evict and unload the real models under the profile of ENVIRONMENT."""
    settings = load_settings().values
    report = Report(f"hybrid loading, profile {settings.environment}")
    asyncio.run(_residency(report, settings.environment))
    asyncio.run(_budget(report))
    return report


def _service(**arguments: Any) -> OptimizationService:
    settings = load_settings(arguments=arguments).values
    service = OptimizationService(settings)
    for spec in embedder_specs(settings):
        service.models.register(spec)
    return service


async def _residency(report: Report, environment: str) -> None:
    """Start by the profile; the first use of each model, shared by many callers, loads it once."""
    service = _service(environment=environment)
    begun_s = time.perf_counter()
    await service.start()
    report.add("start() returns after", time.perf_counter() - begun_s, "s", 1.0)
    try:
        if service.strategy.is_ready_after_preload:
            await service.preloader.wait_idle()
            report.add("all models warm after", time.perf_counter() - begun_s, "s", 20.0)
            report.add("ready then", float(service.readiness()["ready"]), "", 1, "equal")
        else:
            report.add("models loaded before the first use", service.models.get_stats()["loads"], "", 0, "equal")
        for name in service.models.names():
            await _first_use(service, report, name)
    finally:
        await service.stop()
    left = [status for status in service.models.statuses() if status.state is ModelState.READY]
    report.add("models still loaded after stop", len(left), "", 0, "equal")


async def _first_use(service: OptimizationService, report: Report, name: str) -> None:
    async def ask() -> None:
        async with service.models.lease(name) as model:
            assert model.dimension > 0

    begun_s = time.perf_counter()
    await asyncio.gather(*(ask() for _ in range(CALLERS)))
    report.add(f"{name}: {CALLERS} first callers served after", time.perf_counter() - begun_s, "s", 10.0)
    async with service.models.lease(name) as model:
        assert model.embed(["온돌"], "query").shape == (1, model.dimension)
    report.add(f"{name}: loads for them", service.models.status(name).load_count, "", 1, "equal")
    rounds = 2000
    begun_s = time.process_time()
    for _ in range(rounds):
        async with service.models.lease(name):
            pass
    report.add(f"{name}: lease and return when warm", (time.process_time() - begun_s) / rounds * 1e6, "µs", 100.0)


async def _budget(report: Report) -> None:
    """Give the models less memory than all of them need: the bound holds, and every one of them still answers."""
    service = _service(environment="testing", model_memory_limit_mb=200)
    await service.start()
    try:
        largest = 0
        for name in service.models.names() * 2:
            async with service.models.lease(name) as model:
                assert model.embed(["under a budget"], "query").shape[0] == 1
                largest = max(largest, service.models.get_stats()["used_bytes"])
        report.add("budget of 200 MB: most ever used", largest / 1024 / 1024, "MB", 200)
        report.add("budget of 200 MB: load failures", service.models.get_stats()["load_failures"], "", 0, "equal")
    finally:
        await service.stop()


def main() -> int:
    """Print the report; return the exit status."""
    return run(measure)
