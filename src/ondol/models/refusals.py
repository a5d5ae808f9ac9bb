"""service: why a model cannot be had, in the words that its caller gets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ondol.errors import LeaseTimeoutError, ModelError, ModelLoadError, ModelNotLoadedError
from ondol.models.graph import dependencies, missing
from ondol.models.setbacks import quarantine_error
from ondol.models.spec import ModelState
from ondol.units import format_seconds

if TYPE_CHECKING:
    from ondol.models.entry import Entry
    from ondol.models.registry import Registry

__all__ = ["check_expected", "impossible", "timed_out"]


def impossible(registry: Registry, name: str) -> ModelError | None:
    """Return why a model cannot be had, whoever asks for it; ``None`` when it may be."""
    if name not in registry.entries:
        return None
    if absent := missing(registry.graph, name):
        return ModelLoadError(
            f"model {name!r} cannot be loaded: it waits for {', '.join(absent)}, which nobody has registered"
        )
    for member in (*dependencies(registry.graph, name), name):
        entry = registry.entries[member]
        if entry.state is ModelState.QUARANTINED:
            return quarantine_error(entry, name)
    return None


def check_expected(registry: Registry, entry: Entry) -> None:
    """Check that somebody is going to load a model ahead of use: with lazy loading off nothing else loads it.

    Raises:
        ModelNotLoadedError: nobody is.
    """
    name = entry.spec.name
    if name not in registry.expected:
        raise ModelNotLoadedError(
            f"model {name!r} is not loaded ({entry.state}: {entry.reason}) and loading on first use is switched "
            f"off (LAZY_LOADING_ENABLED); load it with pool.load({name!r})"
        )


def timed_out(registry: Registry, name: str, timeout_s: float) -> LeaseTimeoutError:
    """Count a lease that was waited for in vain, and return what its caller gets."""
    registry.totals.lease_timeouts += 1
    entry = registry.entry(name)
    return LeaseTimeoutError(
        f"model {name!r} did not become available within {format_seconds(timeout_s)}: "
        f"it is {entry.state} ({entry.reason})"
    )
