"""The rooms' own lines stand in the log: who greps for "cache" or "preload" finds them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ondol import ModelSpec, OptimizationService
from ondol.monitor.logs import LogPipeline
from ondol.settings import resolve
from ondol.testing import VirtualClock, run_virtual

if TYPE_CHECKING:
    from pathlib import Path


def test_the_cache_and_preloading_have_lines_of_their_own(tmp_path: Path) -> None:
    async def scenario(clock: VirtualClock) -> None:
        settings = resolve(arguments={"environment": "production", "cache_memory_limit_mb": 7}).values
        service = OptimizationService(settings, clock=clock)
        service.models.register(ModelSpec(name="m", load=lambda: "model"))
        async with service:
            await service.preloader.wait_idle()
            await service.cache.set("a", 1)
            await service.cache.get("a")

    logs = LogPipeline()
    logs.start(tmp_path, console=False)
    try:
        run_virtual(scenario)
    finally:
        logs.stop()
    lines = (tmp_path / "application.log").read_text(encoding="utf-8").splitlines()
    cache = [line for line in lines if '"logger": "ondol.cache"' in line]
    preload = [line for line in lines if '"logger": "ondol.preload"' in line]
    assert "room for 7.0 MiB" in cache[0]
    assert "1 hits and 0 misses" in cache[-1]
    assert "1 models to load ahead of use, 3 at once" in preload[0]
