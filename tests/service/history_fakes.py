"""Stand-ins for what a history works with: knowledge that counts, an exchange in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ondol.errors import StoreUnavailableError
from ondol.preload.ports import Foreign, Taken

if TYPE_CHECKING:
    from collections.abc import Mapping


class CountingKnowledge:
    """Knows of each model how often it was used, and when last."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.last_s: dict[str, float] = {}
        self.replayed: list[tuple[str, float]] = []
        self.failure: Exception | None = None

    def use(self, name: str, at_s: float) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1
        self.last_s[name] = at_s

    def ages(self, now_s: float) -> dict[str, float]:
        return {name: round(now_s - at_s, 3) for name, at_s in self.last_s.items()}

    def to_plain(self, now_s: float) -> dict[str, Any]:
        if self.failure is not None:
            raise self.failure
        models = {name: [count, now_s - self.last_s[name]] for name, count in self.counts.items()}
        return {"format": 1, "models": models}

    def take_in(self, plain: Mapping[str, Any], now_s: float) -> int:
        if plain.get("format") != 1:
            raise ValueError("not of format 1")
        more = {name: row for name, row in plain["models"].items() if row[0] > self.counts.get(name, 0)}
        for name, (count, age_s) in more.items():
            self.counts[name] = count
            self.last_s[name] = now_s - age_s
        return len(more)

    def replay(self, name: str, at_s: float) -> None:
        self.replayed.append((name, at_s))
        self.use(name, at_s)


class FakeExchange:
    """What nodes left, in a dictionary that several of these share."""

    address = "fake"

    def __init__(self, node: str, left: dict[str, Foreign]) -> None:
        self.node = node
        self.left = left
        self.is_down = False
        self.writes = 0
        self.reads = 0

    def leave(self, plain: Mapping[str, Any]) -> None:
        self._reach()
        self.writes += 1
        self.left[self.node] = Foreign(self.node, float(self.writes), dict(plain))

    def take(self, seen: Mapping[str, float]) -> Taken:
        self._reach()
        self.reads += 1
        others = [row for row in self.left.values() if row.node != self.node and seen.get(row.node) != row.written_at_s]
        return Taken(tuple(others))

    def _reach(self) -> None:
        if self.is_down:
            raise StoreUnavailableError("the fake is down")
