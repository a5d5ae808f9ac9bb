"""decision: figures by name, bounded in number however many names are used."""

from __future__ import annotations

from typing import Any, Final

from ondol.units import Percent

__all__ = ["MAX_NAMES", "OTHER_NAMES", "Ledgers", "NameLedger"]

MAX_NAMES: Final = 256
"""Names that have figures of their own; the others share one account."""

OTHER_NAMES: Final = "(other names)"


class NameLedger:
    """What is known of the entries of one name."""

    __slots__ = ("entries", "has_warned", "hits", "misses", "saved_s", "used_bytes")

    def __init__(self) -> None:
        self.hits = 0
        self.misses = 0
        self.entries = 0
        self.used_bytes = 0
        self.saved_s = 0.0
        self.has_warned = False

    def figures(self) -> dict[str, Any]:
        """Return them as plain values."""
        return {
            "hits": self.hits,
            "misses": self.misses,
            "hit_rate": Percent.of(self.hits, self.hits + self.misses),
            "entries": self.entries,
            "used_bytes": self.used_bytes,
        }


class Ledgers:
    """One ledger a name, up to ``MAX_NAMES`` of them; names beyond that share the last one."""

    __slots__ = ("_by_name", "_other")

    def __init__(self) -> None:
        self._by_name: dict[str, NameLedger] = {}
        self._other = NameLedger()

    def of(self, name: str) -> NameLedger:
        """Return the ledger that ``name`` is counted in."""
        ledger = self._by_name.get(name)
        if ledger is not None:
            return ledger
        if len(self._by_name) >= MAX_NAMES:
            return self._other
        ledger = self._by_name[name] = NameLedger()
        return ledger

    def totals(self) -> dict[str, Any]:
        """Return hits, misses, hit rate and seconds saved over all names."""
        ledgers = [*self._by_name.values(), self._other]
        hits = sum(ledger.hits for ledger in ledgers)
        misses = sum(ledger.misses for ledger in ledgers)
        return {
            "hits": hits,
            "misses": misses,
            "hit_rate": Percent.of(hits, hits + misses),
            "saved_seconds": sum(ledger.saved_s for ledger in ledgers),
        }

    def by_name(self) -> dict[str, dict[str, Any]]:
        """Return the figures of each name, and of the others together where there are any."""
        figures = {name: ledger.figures() for name, ledger in self._by_name.items()}
        if self._other.hits or self._other.misses or self._other.entries:
            figures[OTHER_NAMES] = self._other.figures()
        return figures
