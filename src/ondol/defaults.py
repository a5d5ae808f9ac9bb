"""service: the only process-wide state: one runtime, made on first use, never replaced.

The guide's names are its parts: ``intelligent_cache`` is ``runtime().cache``, and so on, the same object everywhere.
"""

from __future__ import annotations

import threading
import traceback
from typing import TYPE_CHECKING, Any

from ondol.cache import make_cache_result
from ondol.errors import AlreadyConfiguredError
from ondol.monitor import make_monitor_performance
from ondol.monitor.logs import LogPipeline
from ondol.service import OptimizationService
from ondol.settings_reader import load_settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from datetime import datetime, tzinfo

    from ondol.cache import Cache
    from ondol.monitor import PerformanceMonitor
    from ondol.preload import Preloader
    from ondol.preload.hint import HintStatus
    from ondol.settings import Settings

__all__ = [
    "background_preloader",
    "cache_result",
    "configure",
    "get_optimization_stats",
    "initialize_optimization",
    "intelligent_cache",
    "monitor_performance",
    "optimization_service",
    "performance_monitor",
    "preload_hint",
    "record_model_usage",
    "register_preload_task",
    "runtime",
    "shutdown_optimization",
]


class _Default:
    """Holds the process's one runtime and where it was first used."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._service: OptimizationService | None = None
        self._settings: Settings | None = None
        self._first_use = ""
        self.logs = LogPipeline()

    def get(self) -> OptimizationService:
        """Return the runtime; made at the first call."""
        if self._service is None:
            with self._lock:
                if self._service is None:
                    self._first_use = _caller()
                    self._service = OptimizationService(self._settings, is_memory_kept=True)
        return self._service

    def configure(self, settings: Settings) -> None:
        """Give the settings that the runtime is to be made with."""
        with self._lock:
            if self._service is not None:
                message = (
                    f"the default runtime was already used at {self._first_use}; "
                    "call ondol.configure() before that, or pass settings to your own OptimizationService"
                )
                raise AlreadyConfiguredError(message)
            self._settings = settings


def _caller() -> str:
    for frame in reversed(traceback.extract_stack()):
        if (
            not frame.filename.endswith(("ondol/defaults.py", "ondol/__init__.py"))
            and "importlib" not in frame.filename
        ):
            return f"{frame.filename}:{frame.lineno}"
    return "an unknown place"


_default = _Default()

if TYPE_CHECKING:
    intelligent_cache: Cache
    performance_monitor: PerformanceMonitor
    background_preloader: Preloader
    optimization_service: OptimizationService


def __getattr__(name: str) -> Any:
    """Make the runtime when one of its parts is first asked for (PEP 562)."""
    if name == "intelligent_cache":
        return runtime().cache
    if name == "performance_monitor":
        return runtime().monitor
    if name == "background_preloader":
        return runtime().preloader
    if name == "optimization_service":
        return runtime()
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)


def runtime() -> OptimizationService:
    """Return the process's default runtime."""
    return _default.get()


def configure(settings: Settings) -> None:
    """Choose the settings of the default runtime, before its first use.

    Raises:
        AlreadyConfiguredError: it has been used already; the message names the place.
    """
    _default.configure(settings)


cache_result = make_cache_result(lambda: runtime().cache)
monitor_performance = make_monitor_performance(lambda: runtime().monitor)


def register_preload_task(
    name: str,
    priority: int = 5,
    load_function: Callable[[], Any | Awaitable[Any]] | None = None,
    dependencies: Sequence[str] = (),
    estimated_load_time: float | None = None,
) -> None:
    """Register a model to be loaded in the background, by the default runtime.

    Args:
        name: what ``record_model_usage`` and ``lease`` call it.
        priority: 1 to 10, higher first.
        load_function: returns the model; sync (run in a thread) or async.
        dependencies: names of models to be loaded before; they may be registered later.
        estimated_load_time: in seconds, until the real one is known.

    Raises:
        ConfigurationError: a name already taken, or a priority out of range.
        DependencyCycleError: models would wait for each other; the message gives the path.
    """
    runtime().preloader.register(name, priority, load_function, dependencies, estimated_load_time)


def preload_hint(
    model: str,
    at: datetime | float | str | None = None,
    repeat: str | float | None = None,
    zone: str | tzinfo | None = None,
    hold_seconds: float = 300.0,
) -> HintStatus:
    """Tell the default runtime when a model will be wanted: it is loaded shortly before, and kept for a while.

    Before the runtime is started this only notes the hint. The same hint given again is that hint; the started
    runtime keeps its hints in ``ONDOL_DATA_DIR``, so they outlive the process.

    Args:
        model: its name; it may be registered later.
        at: ``"08:55"``, a datetime, ISO 8601 text or seconds since 1970.
        repeat: ``"daily"``, ``"weekdays"``, ``"weekends"``, ``"weekly"``, an interval such as ``"1h30m"`` or seconds,
            or a cron expression such as ``"55 8 * * 1-5"``; once when not given.
        zone: an IANA name such as ``"Asia/Seoul"``; the machine's own when not given.
        hold_seconds: how long it is kept after each of the times.

    Raises:
        ConfigurationError: one of these is not allowed, the time is over, or there are 1,000 hints already.
    """
    return runtime().preloader.hints.add(model, at=at, repeat=repeat, zone=zone, hold_s=hold_seconds)


def record_model_usage(name: str) -> None:
    """Tell the default runtime that a model was used; leases are recorded by themselves."""
    runtime().preloader.record_usage(name)


async def initialize_optimization(environment: str | None = None) -> OptimizationService:
    """Start the default runtime with the profile of ``environment`` (default: the ``ENVIRONMENT`` variable).

    Environment variables win over the profile, as always. From here to the shutdown, what ondol logs also goes to
    ``application.log`` and ``performance.log`` in ``ONDOL_LOG_DIR``; handlers of your own, and uvicorn's, stay.

    Raises:
        InvalidSettingError: an unknown environment, or settings that are not allowed.
    """
    arguments = None if environment is None else {"environment": environment}
    settings = load_settings(arguments=arguments).values
    service = runtime()
    if not service.is_started:
        _default.logs.start(settings.log_dir, settings.log_level, console=False)
    try:
        await service.start(settings)
    except BaseException:
        _default.logs.stop()
        raise
    return service


def get_optimization_stats() -> dict[str, Any]:
    """Return the default runtime's statistics."""
    return runtime().get_stats()


async def shutdown_optimization() -> None:
    """Stop the default runtime; it can be initialised again."""
    try:
        await runtime().stop()
    finally:
        _default.logs.stop()
