"""decision: two opinions of who is worth keeping, and which of them has been right of late."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from zlib import crc32

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ondol.preload.track import Track

__all__ = ["Experts", "Ghost"]

SAMPLED_MODELS: Final = 128
_WHOLE: Final = 2**32
_COMPARE_EVERY: Final = 256
_LEAST_MISSES: Final = 50
_MOST_MISSES: Final = 2000
_CLEARLY_BETTER: Final = 0.97


class Ghost:
    """A memory that exists on paper only: who would be in it if one expert decided, and the loading that would cost.

    Attributes:
        loss_s: seconds of loading that its misses would have taken; old ones count less.
    """

    __slots__ = ("_index", "budget_bytes", "held", "loss_s", "misses", "used_bytes")

    def __init__(self, index: Callable[[Track, float], float]) -> None:
        """Begin empty; ``index`` says what keeping a model is worth."""
        self._index = index
        self.budget_bytes = 0.0
        self.used_bytes = 0
        self.held: dict[str, Track] = {}
        self.loss_s = 0.0
        self.misses = 0

    def request(self, track: Track, now_s: float) -> None:
        """Use a model. Cost: constant when it is held; else linear in the number of those that are, at most 128."""
        if track.name in self.held:
            return
        self.misses += 1
        self.loss_s += track.load_s
        if track.size_bytes <= self.budget_bytes:
            self._make_room(self.used_bytes + track.size_bytes - self.budget_bytes, now_s)
            self.held[track.name] = track
            self.used_bytes += track.size_bytes

    def _make_room(self, over_bytes: float, now_s: float) -> None:
        if over_bytes <= 0:
            return
        index = self._index
        gone = []
        for _, name in sorted([(index(track, now_s), name) for name, track in self.held.items()]):
            track = self.drop(name)
            gone.append(track)
            over_bytes -= track.size_bytes
            if over_bytes <= 0:
                break
        for track in reversed(gone):  # what is not needed stays, the worthiest first
            if track.size_bytes <= -over_bytes:
                self.held[track.name] = track
                self.used_bytes += track.size_bytes
                over_bytes += track.size_bytes

    def drop(self, name: str) -> Track:
        """Take a model out."""
        track = self.held.pop(name)
        self.used_bytes -= track.size_bytes
        return track

    def halve(self) -> None:
        """Let what was count half."""
        self.loss_s /= 2.0
        self.misses //= 2


class Experts:
    """The hazard of the next use, and frequency with recency; the one with the smaller loss in its ghost decides.

    No index wins everywhere: timers are foreseen by their gaps, bursts of people hardly, there use and age in events
    are the better guide. Each expert runs a ghost over the same sample of at most 128 models (by a hash of their
    names, with a share of the budget that fits), so its cost does not grow with their number.

    Source: choosing among policies by the cost of simulated ones is as in Adaptive Caching by Refetching (Gramacy et
    al., NIPS 2002); the sample by hash as in SHARDS (Waldspurger et al., FAST 2015).
    """

    def __init__(self, indices: dict[str, Callable[[Track, float], float]]) -> None:
        """Begin with the first of ``indices``, which name what each expert thinks keeping a model is worth."""
        self.ghosts = {name: Ghost(index) for name, index in indices.items()}
        self.chosen = next(iter(indices))
        self.changes = 0
        self._threshold = _WHOLE
        self._sampled = 0
        self._requests = 0

    def admit(self, track: Track, tracks: Iterable[Track]) -> None:
        """Take a model that is new into the sample, if its name falls into it."""
        track.is_sampled = crc32(track.name.encode()) < self._threshold
        self._sampled += track.is_sampled
        while self._sampled > SAMPLED_MODELS:
            self._threshold //= 2
            self._sampled = 0
            for other in tracks:
                was_sampled = other.is_sampled
                other.is_sampled = crc32(other.name.encode()) < self._threshold
                self._sampled += other.is_sampled
                if was_sampled and not other.is_sampled:
                    self.release(other)

    def dismiss(self, track: Track) -> None:
        """Forget a model."""
        self.release(track)
        self._sampled -= track.is_sampled

    def release(self, track: Track) -> None:
        """Take a model out of the ghosts: it is in the sample no more, or its size has changed."""
        for ghost in self.ghosts.values():
            if track.name in ghost.held:
                ghost.drop(track.name)

    def share(self, budget_bytes: int | None, tracks: Iterable[Track]) -> None:
        """Give the ghosts their part of the budget: what the sample is of all bytes."""
        all_bytes = sampled_bytes = 0
        for track in tracks:
            all_bytes += track.size_bytes
            sampled_bytes += track.size_bytes * track.is_sampled
        part = 0.0 if budget_bytes is None or not all_bytes else budget_bytes * sampled_bytes / all_bytes
        for ghost in self.ghosts.values():
            ghost.budget_bytes = part

    def request(self, track: Track, now_s: float) -> bool:
        """Let the ghosts see the use of a sampled model; return whether another expert decides from now on."""
        for ghost in self.ghosts.values():
            ghost.request(track, now_s)
        self._requests += 1
        return self._requests % _COMPARE_EVERY == 0 and self._compare()

    def _compare(self) -> bool:
        ghosts = self.ghosts
        if min([ghost.misses for ghost in ghosts.values()]) < _LEAST_MISSES:
            return False
        best = min(ghosts, key=lambda name: ghosts[name].loss_s)
        is_change = ghosts[best].loss_s < _CLEARLY_BETTER * ghosts[self.chosen].loss_s
        if is_change:
            self.chosen = best
            self.changes += 1
        if max([ghost.misses for ghost in ghosts.values()]) > _MOST_MISSES:
            for ghost in ghosts.values():
                ghost.halve()
        return is_change
