"""service: the one place that wires settings, models, cache and engine for commands that work in this process.

Such a command is short: no monitoring, no tuning, nothing loaded ahead of use, no log files. It works on the same
document store as the server, which may run at the same time.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

from ondol.cli.messages import print_warning

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from ondol.settings import Settings
    from ondol.similarity.engine import SimilarityEngine

__all__ = ["checked_model", "for_short_commands", "open_engine", "run_with_engine"]

T = TypeVar("T")


def checked_model(settings: Settings, model: str | None) -> str:
    """Return the name of the model to use: ``model``, or the default one.

    Raises:
        UnknownModelError: there is none of that name; the message lists those there are.
        MissingExtraError: its package is not installed.
    """
    from ondol.similarity.embedders import find_embedder

    return find_embedder(model or settings.default_model).name


def for_short_commands(settings: Settings) -> Settings:
    """Return ``settings`` with everything off that only a long-running process has use for."""
    return settings._replace(
        fast_startup=True,
        lazy_loading_enabled=True,
        preload_models=False,
        preloading_enabled=False,
        monitoring_enabled=False,
        auto_tuning_enabled=False,
    )


@asynccontextmanager
async def open_engine(settings: Settings) -> AsyncIterator[SimilarityEngine]:
    """Start a runtime and yield its engine; everything is closed at the end.

    Interrupted indexing is not resumed in the background; a search reads first what its model has not read yet.
    """
    from ondol.service import OptimizationService
    from ondol.similarity.assembly import build_engine

    service = OptimizationService(for_short_commands(settings))
    # The engine is not started: resuming would load a model that the command may not need.
    engine = build_engine(service)
    async with service:
        try:
            yield engine
        finally:
            await engine.stop()


def run_with_engine(settings: Settings, work: Callable[[SimilarityEngine], Awaitable[T]]) -> T:
    """Run ``work`` on an engine of its own event loop and return its result."""

    async def run() -> T:
        async with open_engine(settings) as engine:
            return await work(engine)

    logger = logging.getLogger("ondol")
    handler = _WarningLines(logging.WARNING)
    was_propagating, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        return asyncio.run(run())
    finally:
        logger.removeHandler(handler)
        logger.propagate = was_propagating


class _WarningLines(logging.Handler):
    """Prints warnings as one line on stderr; what is raised is not printed twice."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print ``record``, without the traceback: the error that ends the command says what went wrong."""
        if record.exc_info is None:
            print_warning(record.getMessage())
