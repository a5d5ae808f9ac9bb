"""decision: ondol's public names, loaded when they are first used, so that ``import ondol`` costs next to nothing."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ondol._version import __version__

if TYPE_CHECKING:
    from ondol.cache import Cache
    from ondol.defaults import (
        background_preloader,
        cache_result,
        configure,
        get_optimization_stats,
        initialize_optimization,
        intelligent_cache,
        monitor_performance,
        optimization_service,
        performance_monitor,
        preload_hint,
        record_model_usage,
        register_preload_task,
        runtime,
        shutdown_optimization,
    )
    from ondol.errors import OndolError
    from ondol.models import ModelPool, ModelSpec, ModelState, ModelStatus
    from ondol.monitor import AlertRule, PerformanceMonitor
    from ondol.preload import Preloader
    from ondol.service import OptimizationService
    from ondol.settings import Settings
    from ondol.settings_reader import load_settings
    from ondol.units import Percent

_HOMES = {
    "AlertRule": "ondol.monitor",
    "Cache": "ondol.cache",
    "ModelPool": "ondol.models",
    "ModelSpec": "ondol.models",
    "ModelState": "ondol.models",
    "ModelStatus": "ondol.models",
    "OndolError": "ondol.errors",
    "OptimizationService": "ondol.service",
    "Percent": "ondol.units",
    "PerformanceMonitor": "ondol.monitor",
    "Preloader": "ondol.preload",
    "Settings": "ondol.settings",
    "background_preloader": "ondol.defaults",
    "cache_result": "ondol.defaults",
    "configure": "ondol.defaults",
    "get_optimization_stats": "ondol.defaults",
    "initialize_optimization": "ondol.defaults",
    "intelligent_cache": "ondol.defaults",
    "load_settings": "ondol.settings_reader",
    "monitor_performance": "ondol.defaults",
    "optimization_service": "ondol.defaults",
    "performance_monitor": "ondol.defaults",
    "preload_hint": "ondol.defaults",
    "record_model_usage": "ondol.defaults",
    "register_preload_task": "ondol.defaults",
    "runtime": "ondol.defaults",
    "shutdown_optimization": "ondol.defaults",
}

__all__ = [
    "AlertRule",
    "Cache",
    "ModelPool",
    "ModelSpec",
    "ModelState",
    "ModelStatus",
    "OndolError",
    "OptimizationService",
    "Percent",
    "PerformanceMonitor",
    "Preloader",
    "Settings",
    "__version__",
    "background_preloader",
    "cache_result",
    "configure",
    "get_optimization_stats",
    "initialize_optimization",
    "intelligent_cache",
    "load_settings",
    "monitor_performance",
    "optimization_service",
    "performance_monitor",
    "preload_hint",
    "record_model_usage",
    "register_preload_task",
    "runtime",
    "shutdown_optimization",
]


def __getattr__(name: str) -> Any:
    """Import the module that holds ``name`` and return it (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        message = f"module 'ondol' has no attribute {name!r}"
        raise AttributeError(message)
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *__all__})
