"""Hybrid loading alone: the service with the real embedders, without the server around it."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import psutil

from ondol import OptimizationService, load_settings
from ondol.errors import ModelCrashedError, ModelError, ModelQuarantinedError
from ondol.models import ModelPool, ModelSpec, ModelState, RetryPolicy
from ondol.models.allocator import give_back, prepare_allocator
from ondol.similarity.embedders import embedder_specs
from ondol.strategy import loading_strategy
from tests.acceptance.hybrid_models import WEIGHTS_BYTES, load
from tests.acceptance.report import Report, run

__all__ = ["main", "measure"]

CALLERS = 200


def measure() -> Report:
    """Load, share, evict and unload the real models under the profile of ENVIRONMENT; then let things go wrong."""
    settings = load_settings().values
    report = Report(f"hybrid loading, profile {settings.environment}")
    asyncio.run(_residency(report, settings.environment))
    asyncio.run(_budget(report))
    _strategies(report)
    for scenario in (_control, _setbacks, _crash, _memory):
        asyncio.run(scenario(report))
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


def _strategies(report: Report) -> None:
    """Each of the eight combinations of the loading variables means something; contradictory ones warn."""
    flags = ((a, b, c) for a in (True, False) for b in (True, False) for c in (True, False))
    found = [
        loading_strategy(
            load_settings(
                arguments=dict(zip(("fast_startup", "lazy_loading_enabled", "preload_models"), row, strict=True))
            ).values
        )
        for row in flags
    ]
    report.add(
        "combinations of the loading variables with a meaning", len([s for s in found if s.meaning]), "", 8, "equal"
    )
    report.add("of them contradictory, with a warning", len([s for s in found if s.warnings]), "", 2, "equal")


async def _control(report: Report) -> None:
    """Load, pin, reload and unload by hand; a reload keeps nobody waiting."""
    pool = ModelPool(memory_limit_bytes=4 * WEIGHTS_BYTES)
    pool.register(ModelSpec("m", _slow, size_bytes=WEIGHTS_BYTES))
    for index in range(4):
        pool.register(ModelSpec(f"other{index}", lambda: "other", size_bytes=WEIGHTS_BYTES))
    async with pool:
        await pool.load("m")
        reload = asyncio.create_task(pool.reload("m"))
        longest_s, count = 0.0, 0
        while not reload.done():
            begun_s = time.perf_counter()
            async with pool.lease("m"):
                count += 1
            longest_s = max(longest_s, time.perf_counter() - begun_s)
            await asyncio.sleep(0.005)
        await reload
        report.add("reload: longest wait of a request meanwhile", longest_s * 1e3, "ms", 100.0)
        report.add("reload: requests answered meanwhile", count, "", 5, "higher")
        report.add("reload: loads", pool.status("m").load_count, "", 2, "equal")
        pool.pin("m")
        for index in range(4):
            async with pool.lease(f"other{index}"):
                pass
        report.add(
            "pinned by hand: evicted for four others",
            float(pool.status("m").state is not ModelState.READY),
            "",
            0,
            "equal",
        )
        await pool.unload("m")
        report.add(
            "unloaded by hand, pinned or not", float(pool.status("m").state is ModelState.UNLOADED), "", 1, "equal"
        )


async def _slow() -> str:
    await asyncio.sleep(0.3)
    return "slow"


async def _setbacks(report: Report) -> None:
    """A failure that passes is not noticed; one that stays is quarantined and can be released."""
    failures = {"passes": 1, "stays": 1000}
    calls = dict.fromkeys(failures, 0)

    def loader(name: str) -> Any:
        async def load_or_fail() -> str:
            calls[name] += 1
            if calls[name] <= failures[name]:
                raise OSError("the disk is away")
            return name

        return load_or_fail

    pool = ModelPool(retry=RetryPolicy(attempts=3, first_s=0.01))
    for name in failures:
        pool.register(ModelSpec(name, loader(name)))
    async with pool:
        logging.getLogger("ondol.models").setLevel(logging.CRITICAL)  # what is logged here is meant to happen
        async with pool.lease("passes") as model:
            report.add("a load that fails once: its caller is served", float(model == "passes"), "", 1, "equal")
        errors = [await _error_of(pool, "stays") for _ in range(3)]
        report.add("a load that always fails: attempts", calls["stays"], "", 3, "equal")
        kinds = [isinstance(error, ModelQuarantinedError) for error in errors]
        report.add("then refused at once as quarantined", sum(kinds), "", 2, "equal")
        failures["stays"] = 0
        logging.getLogger("ondol.models").setLevel(logging.NOTSET)
        pool.release("stays")
        report.add("released: served", float(await _error_of(pool, "stays") is None), "", 1, "equal")


async def _error_of(pool: ModelPool, name: str) -> ModelError | None:
    try:
        async with pool.lease(name):
            return None
    except ModelError as exc:
        return exc


async def _crash(report: Report) -> None:
    """A model in a process of its own crashes: its caller is told, this process lives, the next one is served."""
    pool = ModelPool(retry=RetryPolicy(first_s=0.0))
    pool.register(ModelSpec("isolated", "tests.acceptance.hybrid_models:load", isolation="process"))
    async with pool:
        logging.getLogger("ondol.models").setLevel(logging.CRITICAL)
        is_told = False
        async with pool.lease("isolated") as model:
            assert await model.total() == WEIGHTS_BYTES // 4
            try:
                await model.die()
            except ModelCrashedError:
                is_told = True
        report.add("crash of an isolated model: its caller gets a typed error", float(is_told), "", 1, "equal")
        begun_s = time.perf_counter()
        async with pool.lease("isolated") as model:
            assert await model.total() == WEIGHTS_BYTES // 4
        logging.getLogger("ondol.models").setLevel(logging.NOTSET)
        report.add("crash of an isolated model: served again after", time.perf_counter() - begun_s, "s", 5.0)
    left = [
        child
        for child in psutil.Process().children(recursive=True)
        if "ondol.models.isolation" in " ".join(child.cmdline())
    ]
    report.add("processes left after the stop", len(left), "", 0, "equal")


async def _memory(report: Report) -> None:
    """What a model took goes back to the system when it is unloaded, by hand or because nobody uses it."""
    prepare_allocator()
    process = psutil.Process()
    pool = ModelPool(release_memory=give_back, idle_ttl_s=0.2)
    pool.register(ModelSpec("weights", load))
    is_gone = asyncio.Event()
    pool.add_listener(lambda event, _name: is_gone.set() if event == "unloaded" else None)
    async with pool:
        before = process.memory_info().rss
        async with pool.lease("weights"):
            taken = process.memory_info().rss - before
        await is_gone.wait()
        given_back = taken - (process.memory_info().rss - before)
        report.add("idle model: memory given back", given_back / taken * 100, "%", 90, "higher")


def main() -> int:
    """Print the report; return the exit status."""
    return run(measure)
