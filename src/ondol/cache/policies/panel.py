"""decision: which expert serves best, by what their shadow caches did with the same accesses."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from ondol.cache.policies.experts import EXPERTS, OFFERED, THRIFT
from ondol.cache.policies.gdsf import GdsfPolicy
from ondol.cache.policies.shadow import Shadow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ondol.cache.policies.gdsf import GdsfParams
    from ondol.cache.policies.shadow import Access

__all__ = ["Panel"]

_HALF_LIVES: Final = (600.0, 10_000.0)
"""Accesses after which a result counts half: one sees a new phase soon, the other small differences."""
_MARGINS: Final = (0.02, 0.002)
"""By how much of the hit ratio another expert must be better, for each of them."""
_RESTLESSNESS: Final = 2.0
"""How much each recent switch adds to the margins, in parts of them."""
_CAUTION: Final = 3.0
"""Leads must exceed the noise of independent accesses by this factor; real accesses come in groups."""
_REST: Final = 500
"""Accesses after a switch before there is another one."""
_COST_WEIGHT: Final = 0.5
_FLOOR_MARGIN: Final = 0.004
_STEER_MARGIN: Final = 0.002
_FLOOR_WEIGHT: Final = 2.0
_COST_VARIATION: Final = 0.05
"""Squared coefficient of variation from which costs are told apart."""
_NOISE_S: Final = 100e-6
_MIN_ACCESSES: Final = 400


class _Score:
    """Hits, and seconds saved, of one expert; both decay."""

    __slots__ = ("hits", "saved_s")

    def __init__(self) -> None:
        self.hits = 0.0
        self.saved_s = 0.0

    def add(self, hits: int, saved_s: float, decay: float) -> None:
        self.hits = self.hits * decay + hits
        self.saved_s = self.saved_s * decay + saved_s


class Panel:
    """Shadow caches of all experts, their scores over two spans of time, and the choice that follows.

    The best one has the most hits. Where costs vary, the seconds saved count as well, but an expert that has
    fewer hits than the best policy a user could have had instead pays dearly for each one missing; one expert's
    regard for costs is steered so that it stays just above that.
    """

    __slots__ = ("_accesses", "_cost_sums", "_heat", "_rest", "_scores", "_seen", "_shadows", "thrift")

    def __init__(self) -> None:
        """Begin with empty shadows and no opinion."""
        self._shadows = {expert.name: Shadow(expert.make_shadow()) for expert in EXPERTS}
        self.thrift: GdsfParams = THRIFT
        self._cost_sums = (0.0, 0.0, 0.0)
        self._heat = 0.0
        self._rest = 0
        self.forget()

    def __len__(self) -> int:
        """Return the number of keys in the fullest shadow."""
        return max(map(len, self._shadows.values()))

    def forget(self) -> None:
        """Forget the scores, not what the shadows hold."""
        self._seen = 0
        self._accesses = [0.0 for _ in _HALF_LIVES]
        self._scores = {name: tuple(_Score() for _ in _HALF_LIVES) for name in self._shadows}

    def resize(self, max_bytes: int) -> None:
        """Set the bound of each shadow."""
        for shadow in self._shadows.values():
            shadow.resize(max_bytes)

    def thin(self, bound: int) -> None:
        """Drop the keys whose hash is not below ``bound`` from all shadows."""
        for shadow in self._shadows.values():
            shadow.thin(bound)

    @property
    def costs_vary(self) -> bool:
        """Whether costs are known and differ by more than noise."""
        count, total_s, squares = self._cost_sums
        if count < 1.0:
            return False
        mean_s = total_s / count
        return squares / count - mean_s**2 > _COST_VARIATION * (mean_s + _NOISE_S) ** 2

    def learn(self, accesses: Sequence[Access]) -> None:
        """Replay accesses through all shadows and count what they make of them."""
        count = len(accesses)
        decays = [0.5 ** (count / half_life) for half_life in _HALF_LIVES]
        self._heat *= decays[-1]
        self._rest -= count
        self._seen += count
        self._accesses = [n * decay + count for n, decay in zip(self._accesses, decays, strict=True)]
        self._learn_costs(accesses, decays[-1])
        costs_vary = self.costs_vary
        for expert in EXPERTS:
            if expert.needs_costs and not costs_vary:
                continue
            hits, saved_s = self._shadows[expert.name].replay(accesses)
            for score, decay in zip(self._scores[expert.name], decays, strict=True):
                score.add(hits, saved_s, decay)
        if costs_vary:
            self._steer()

    def choose(self, in_charge: str) -> str:
        """Return the expert to be in charge: ``in_charge`` unless another one is better beyond doubt."""
        if self._seen < max(_MIN_ACCESSES, len(self)) or self._rest > 0:
            return in_charge
        lately, overall = (self._merits(span) for span in (0, -1))
        best = max(overall, key=overall.__getitem__)
        if not self._is_clear(best, in_charge, overall, -1) or lately[best] < lately.get(in_charge, 0.0):
            best = max(lately, key=lately.__getitem__)
            if not self._is_clear(best, in_charge, lately, 0):
                return in_charge
        self._heat += 1.0
        self._rest = _REST
        return best

    def _is_clear(self, best: str, in_charge: str, merits: dict[str, float], span: int) -> bool:
        lead = merits[best] - merits.get(in_charge, 0.0)
        noise: float = (max(lead, 0.0) / self._accesses[span]) ** 0.5
        margin: float = _MARGINS[span] * (1.0 + _RESTLESSNESS * self._heat)
        return lead > margin + _CAUTION * noise

    def get_stats(self) -> dict[str, object]:
        """Return each expert's estimated hit ratio, lately, and whether costs are looked at."""
        count = max(self._accesses[-1], 1.0)
        ratios = {name: round(spans[-1].hits / count, 4) for name, spans in self._scores.items()}
        if not self.costs_vary:
            ratios = {expert.name: ratios[expert.name] for expert in EXPERTS if not expert.needs_costs}
        return {"estimated_hit_ratios": ratios, "costs_vary": self.costs_vary, "shadow_keys": len(self)}

    def _learn_costs(self, accesses: Sequence[Access], decay: float) -> None:
        known_s = [cost_s for _, _, cost_s in accesses if cost_s > 0.0]
        count, total_s, squares = self._cost_sums
        self._cost_sums = (
            count * decay + len(known_s),
            total_s * decay + sum(known_s),
            squares * decay + sum(cost_s * cost_s for cost_s in known_s),
        )

    def _floor(self, span: int) -> float:
        return max(self._scores[name][span].hits for name in OFFERED)

    def _merits(self, span: int) -> dict[str, float]:
        count = self._accesses[span]
        spans = {name: scores[span] for name, scores in self._scores.items()}
        if not self.costs_vary:
            return {expert.name: spans[expert.name].hits / count for expert in EXPERTS if not expert.needs_costs}
        mean_s = self._cost_sums[1] / self._accesses[-1]
        if span == 0:
            return {name: score.hits / count for name, score in spans.items()}
        floor = self._floor(span) - _FLOOR_MARGIN * count
        return {
            name: (
                (score.hits + _COST_WEIGHT * score.saved_s / mean_s) / (1.0 + _COST_WEIGHT)
                - _FLOOR_WEIGHT * max(0.0, floor - score.hits)
            )
            / count
            for name, score in spans.items()
        }

    def _steer(self) -> None:
        exponent = self.thrift.cost_exponent
        if self._scores[THRIFT.name][-1].hits < self._floor(-1) + _STEER_MARGIN * self._accesses[-1]:
            exponent *= 0.98
        else:
            exponent = min(1.0, exponent * 1.01 + 0.001)
        self.thrift = replace(self.thrift, cost_exponent=exponent)
        policy = self._shadows[THRIFT.name].policy
        assert isinstance(policy, GdsfPolicy)
        policy.become(self.thrift)
