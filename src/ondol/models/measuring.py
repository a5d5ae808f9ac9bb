"""service: loads of models whose size nobody knows: what is reserved for them, and which of them run alone."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from ondol.models.entry import Entry
    from ondol.models.loads import Loads
    from ondol.models.registry import Registry
    from ondol.models.residents import Residents

__all__ = ["PATIENCE_S", "Measuring"]

PATIENCE_S: Final = 30.0
"""How long a load keeps others waiting so that its size can be told; a quarter of the default wait of a lease."""
_UNKNOWN_SHARE: Final = 1 / 16
"""Share of the limit that is reserved for a model of unknown size when no model has been measured yet."""
_PLENTY_SHARE: Final = 0.5
"""Up to this share of the limit models of unknown size load side by side; what each takes is only guessed then."""


class Measuring:
    """Sees to it that a limit holds for models without ``size_bytes``, too.

    What the process grows by is one load's own only when no other ran. Where room is plenty loads run side by side all
    the same, and share the growth among them; where it is not, a load of unknown size runs alone.
    """

    def __init__(
        self, registry: Registry, residents: Residents, loads: Loads, on_patience_over: Callable[[], object]
    ) -> None:
        """Call ``on_patience_over`` when a load that keeps others waiting has had its time."""
        self._registry = registry
        self._residents = residents
        self._loads = loads
        self._on_patience_over = on_patience_over
        self._timer: asyncio.TimerHandle | None = None

    def need_bytes(self, entry: Entry) -> int:
        """Return what to reserve for a load: what is expected, else what models take here on average."""
        limit_bytes = self._registry.ledger.limit_bytes
        if limit_bytes is None or not self._is_unknown(entry):
            return entry.expected_bytes
        measured = [other.measured_bytes for other in self._registry.snapshot() if other.measured_bytes]
        typical_bytes = sum(measured) // len(measured) if measured else int(limit_bytes * _UNKNOWN_SHARE)
        return max(0, min(typical_bytes, limit_bytes - self._residents.bytes_beside(entry.spec.name)))

    def is_to_be_alone(self, entry: Entry, need_bytes: int) -> bool:
        """Tell whether a load has to run alone, so that it can be measured."""
        ledger = self._registry.ledger
        if ledger.limit_bytes is None or not self._is_unknown(entry):
            return False
        return ledger.used_bytes + need_bytes > ledger.limit_bytes * _PLENTY_SHARE

    def keeps_waiting(self, *, is_to_be_alone: bool) -> bool:
        """Tell whether a load has to wait because it, or one under way, is to run alone.

        What takes long is not waited for: it may hang.
        """
        jobs = self._loads.jobs
        if not jobs or not (is_to_be_alone or any(job.is_to_be_alone for job in jobs.values())):
            return False
        now_s = self._registry.clock.monotonic()
        started_s = (self._registry.entries[name].load_started_s for name in jobs)
        age_s = min(now_s - (at_s if at_s is not None else now_s) for at_s in started_s)
        if age_s >= PATIENCE_S:
            return False
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(PATIENCE_S - age_s, self._patience_over)
        return True

    def _patience_over(self) -> None:
        self._timer = None
        self._on_patience_over()

    def close(self) -> None:
        """Wait for nothing more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _is_unknown(self, entry: Entry) -> bool:
        return self._loads.is_measuring and not entry.expected_bytes and not entry.is_size_known
