"""Policies of the preload replay that know the future: how far below the others the waiting could be."""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from typing import TYPE_CHECKING, Final

import numpy as np
from preload_replay_pool import OnDemand, least_room

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    import numpy.typing as npt
    from preload_replay_pool import ModelFigures, Policy, Requests

__all__ = ["CLAIRVOYANTS"]


class Clairvoyant(OnDemand):
    """Lets go of whom nobody uses for longest, weighed with what that frees: (seconds to the next use) × size ÷ load.

    Fetches nothing ahead. Source: Belady's rule (IBM Systems Journal, 1966), with a weight for unequal sizes and costs,
    for which no rule is known that is best and quick to compute.
    """

    source = "Belady, IBM Systems Journal 1966, weighed with size ÷ load seconds: knows the future"

    def __init__(self, requests: Requests) -> None:
        """Take the future."""
        self._requests = requests

    def begin(self, models: Sequence[ModelFigures], budget_bytes: int, residents: Collection[int]) -> None:
        """Sort the future by model."""
        super().begin(models, budget_bytes, residents)
        uses_s: defaultdict[int, list[float]] = defaultdict(list)
        for time_s, model in zip(reversed(self._requests.times_s), reversed(self._requests.models), strict=True):
            uses_s[model].append(time_s)
        self._uses_s = uses_s
        self.next_s: npt.NDArray[np.float64] = np.array([uses_s[model][-1] for model in range(len(models))])
        self.is_here = np.zeros(len(models), dtype=bool)
        self.bytes_per_load_s = np.array(self.sizes) / np.array(self.loads_s)

    def requested(self, model: int, now_s: float, *, is_resident: bool) -> None:  # noqa: ARG002 - the protocol's
        """Look for the use after this one."""
        uses_s = self._uses_s[model]
        uses_s.pop()
        self.next_s[model] = uses_s[-1] if uses_s else math.inf

    def loaded(self, model: int, now_s: float) -> None:  # noqa: ARG002 - the protocol's
        """Note that it is there."""
        self.is_here[model] = True

    def left(self, model: int, now_s: float) -> None:  # noqa: ARG002 - the protocol's
        """Note that it is not."""
        self.is_here[model] = False

    def victims(self, needed_bytes: int, now_s: float) -> list[int]:
        """Return those whose room is needed least."""
        return self.room_of(np.flatnonzero(self.is_here), needed_bytes, now_s)

    def room_of(self, candidates: npt.NDArray[np.intp], needed_bytes: int, now_s: float) -> list[int]:
        """Return whom of the candidates to let go."""
        worthless = (self.next_s[candidates] - now_s) * self.bytes_per_load_s[candidates]
        return least_room(candidates[np.argsort(-worthless, kind="stable")].tolist(), self.sizes, needed_bytes)


class ClairvoyantPrefetch(Clairvoyant):
    """Fetches ahead, too: whoever is used next, as soon as room can be made from those whose next use is later.

    Source: the rules of Cao, Felten, Karlin and Li, *A Study of Integrated Prefetching and Caching Strategies*,
    SIGMETRICS 1995, of which it is the aggressive one; victims are those of ``Clairvoyant``. The first request for a
    model is foreseen as all others are, but nothing happens before the trace begins. What is left of the waiting, on
    the Azure day, are storms: 1.4 times as many bytes as the memory holds are asked for within a minute when the trace
    begins (four fifths of the waiting), and on some full hours (15 % of what ``Clairvoyant`` waits after the start).
    """

    source = "Cao et al., SIGMETRICS 1995 (aggressive), victims as clairvoyant: knows the future"

    def begin(self, models: Sequence[ModelFigures], budget_bytes: int, residents: Collection[int]) -> None:
        """Line all models up by their first use."""
        super().begin(models, budget_bytes, residents)
        self._is_away = [True] * len(models)
        self._awaited = [(first_s, model) for model, first_s in enumerate(self.next_s.tolist())]
        heapq.heapify(self._awaited)
        self._wake_s = math.inf

    def requested(self, model: int, now_s: float, *, is_resident: bool) -> None:
        """Ask to be woken: the room of a model in memory may be needed less from now on."""
        super().requested(model, now_s, is_resident=is_resident)
        if is_resident:
            self._wake_s = now_s

    def wake_at_s(self) -> float:
        """Return the time of the last use, until it has been seen to."""
        return self._wake_s

    def expired(self, now_s: float) -> list[int]:
        """Let nobody go that nobody needs the room of."""
        self._wake_s = math.inf
        return super().expired(now_s)

    def loading(self, model: int, now_s: float, *, is_prefetch: bool) -> None:  # noqa: ARG002 - the protocol's
        """Note that it is fetched."""
        self._is_away[model] = False

    def left(self, model: int, now_s: float) -> None:
        """Line it up by its next use."""
        super().left(model, now_s)
        self._is_away[model] = True
        heapq.heappush(self._awaited, (float(self.next_s[model]), model))

    def prefetch(self, now_s: float, free_bytes: int, loads_under_way: int) -> tuple[int, list[int]] | None:  # noqa: ARG002
        """Return who is used next, if there is room."""
        model = self._next()
        if model is None:
            return None
        needed_bytes = self.sizes[model] - free_bytes
        later = np.flatnonzero(self.is_here & (self.next_s > self.next_s[model]))
        victims = self.room_of(later, needed_bytes, now_s)
        return (model, victims) if victims or needed_bytes <= 0 else None

    def _next(self) -> int | None:
        """Return who is used next of those away; entries from before a model's last stay are stale."""
        while self._awaited and self._awaited[0][0] < math.inf:
            next_s, model = self._awaited[0]
            if self._is_away[model] and next_s == self.next_s[model]:
                return model
            heapq.heappop(self._awaited)
        return None


CLAIRVOYANTS: Final[dict[str, Callable[[Requests], Policy]]] = {
    "clairvoyant": Clairvoyant,
    "clairvoyant_prefetch": ClairvoyantPrefetch,
}
