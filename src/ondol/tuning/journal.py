"""decision: the journal of tuning decisions: bounded, newest last, each a sentence with its figures."""

from __future__ import annotations

from collections import deque
from typing import Any, Final, NamedTuple

__all__ = ["MAX_ENTRIES", "Journal", "JournalEntry"]

MAX_ENTRIES: Final = 200


class JournalEntry(NamedTuple):
    """One decision."""

    at: float
    """Wall-clock seconds since the Unix epoch."""
    action: str
    sentence: str

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {"at": self.at, "action": self.action, "sentence": self.sentence}


class Journal:
    """Keeps the last decisions and counts all of them."""

    def __init__(self, max_entries: int = MAX_ENTRIES) -> None:
        """Begin empty; older entries than the last ``max_entries`` are forgotten."""
        self._entries: deque[JournalEntry] = deque(maxlen=max_entries)
        self.count = 0

    def add(self, at: float, action: str, sentence: str) -> JournalEntry:
        """Write a decision down and return the entry."""
        entry = JournalEntry(at, action, sentence)
        self._entries.append(entry)
        self.count += 1
        return entry

    def entries(self) -> list[JournalEntry]:
        """Return the entries, newest last."""
        return list(self._entries)

    def sentences(self) -> list[str]:
        """Return the sentences, newest last."""
        return [entry.sentence for entry in self._entries]
