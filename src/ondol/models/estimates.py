"""decision: what was learnt of each model's size and load time, and its form on disk."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Estimate", "EstimateBook", "learnt_seconds"]

FORMAT: Final = 1
_NEW_SHARE: Final = 0.3
_MOST_MODELS: Final = 10_000


class Estimate(NamedTuple):
    """What is known of one version of a model."""

    version: str = ""
    size_bytes: int | None = None
    load_seconds: float | None = None


def learnt_seconds(known_s: float | None, measured_s: float) -> float:
    """Return the load time to expect after one more was measured: an exponentially weighted mean.

    >>> learnt_seconds(None, 2.0), learnt_seconds(2.0, 3.0)
    (2.0, 2.3)
    """
    return measured_s if known_s is None else known_s + _NEW_SHARE * (measured_s - known_s)


class EstimateBook:
    """Estimates by model name, the latest learnt last; bounded, the one that was learnt longest ago goes first."""

    __slots__ = ("_by_name",)

    def __init__(self) -> None:
        """Begin with no knowledge."""
        self._by_name: dict[str, Estimate] = {}

    def find(self, name: str, version: str) -> Estimate:
        """Return what is known of this version; nothing of another one."""
        known = self._by_name.get(name)
        return known if known is not None and known.version == version else Estimate(version)

    def learn(self, name: str, estimate: Estimate) -> None:
        """Keep what was measured of a model."""
        self._by_name.pop(name, None)
        if len(self._by_name) >= _MOST_MODELS:
            del self._by_name[next(iter(self._by_name))]
        self._by_name[name] = estimate

    def to_plain(self) -> dict[str, Any]:
        """Return all of it as plain data."""
        return {"format": FORMAT, "models": {name: known._asdict() for name, known in self._by_name.items()}}

    def take_in(self, plain: Mapping[str, Any]) -> None:
        """Add what ``plain`` says of models nothing is known of yet.

        Raises:
            ValueError: it is of another form; nothing was taken in.
        """
        if plain.get("format") != FORMAT or not isinstance(plain.get("models"), dict):
            message = f"it is not of format {FORMAT}"
            raise ValueError(message)
        found = {str(name): _checked(name, row) for name, row in plain["models"].items()}
        for name, estimate in list(found.items())[-_MOST_MODELS:]:
            if name not in self._by_name:
                self.learn(name, estimate)


def _checked(name: object, row: Any) -> Estimate:
    message = f"the estimates of model {name!r} are damaged"
    if not isinstance(row, dict):
        raise ValueError(message)  # noqa: TRY004  # a damaged file, whatever is damaged in it
    version, size, seconds = row.get("version"), row.get("size_bytes"), row.get("load_seconds")
    is_size = size is None or (isinstance(size, int) and not isinstance(size, bool) and 0 <= size < 2**63)
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    is_time = seconds is None or (is_number and 0 <= seconds < math.inf)
    if not isinstance(version, str) or not is_size or not is_time:
        raise ValueError(message)
    return Estimate(version, size, None if seconds is None else float(seconds))
