"""decision: which expert serves best, by what their shadow caches did with the same accesses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ondol.cache.policies.experts import EXPERTS, OFFERED, SAFE, STEERED
from ondol.cache.policies.gdsf import GdsfPolicy
from ondol.cache.policies.scores import Span
from ondol.cache.policies.shadow import Shadow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ondol.cache.policies.experts import AnyShadow
    from ondol.cache.policies.gdsf import GdsfParams
    from ondol.cache.policies.shadow import Access

__all__ = ["Panel"]

_HALF_LIVES: Final = (1_500.0, 12_000.0)
"""Accesses after which a result counts half: one sees a new phase soon, the other small differences."""
_BLOCK: Final = 96
"""Accesses that are looked at together, as neighbours are not independent of each other."""
_MARGINS: Final = (0.02, 0.002)
"""By how much of the hit ratio another expert must be better, for each of them."""
_DOUBTS: Final = (3.5, 2.0)
"""By how many standard errors more than that."""
_DOUBTS_OF_SAFE: Final = (2.5, 1.5)
"""The same for the way back to the safe one, without a margin."""
_VETO: Final = 1.0
"""An expert that is worse lately by so many standard errors does not take charge, whatever it did before."""
_RESTLESSNESS: Final = 1.0
"""How much each recent switch adds to the margins, in parts of them."""
_REST: Final = 500
"""Accesses after a switch before there is another one."""
_COST_WEIGHT: Final = 1.0
_FLOOR_MARGIN: Final = 0.004
_STEER_MARGIN: Final = 0.0
_CERTAINTY: Final = 2.0
_FLOOR_WEIGHT: Final = 3.0
_EXPONENTS: Final = (0.05, 1.0)
"""The bounds of what is steered."""
_VARIATION: Final = 0.05
"""Squared coefficient of variation from which costs, or sizes, are told apart."""
_NOISE_S: Final = 100e-6
_MIN_ACCESSES: Final = 400
_MIN_SETTLED: Final = 4_000


class _Spread:
    """Mean and variation of a figure of late."""

    __slots__ = ("_noise", "_squares", "_total", "count")

    def __init__(self, noise: float) -> None:
        self._noise = noise
        self.count = self._total = self._squares = 0.0

    def add(self, figures: Sequence[float], decay: float) -> None:
        self.count = self.count * decay + len(figures)
        self._total = self._total * decay + sum(figures)
        self._squares = self._squares * decay + sum(figure * figure for figure in figures)

    @property
    def mean(self) -> float:
        return self._total / self.count if self.count else 0.0

    @property
    def is_wide(self) -> bool:
        """Whether the figures differ by more than noise."""
        if self.count < 1.0:
            return False
        return self._squares / self.count - self.mean**2 > _VARIATION * (self.mean + self._noise) ** 2


class Panel:
    """Shadow caches of the experts, their scores over two spans of time, and the choice that follows.

    The best one has the most hits. Where costs vary, the seconds saved count as well, but an expert that has
    fewer hits than the best policy a user could have had instead pays dearly for each one missing; the regard for
    costs of some is steered so that they stay close to that.
    """

    __slots__ = (
        "_block",
        "_costs",
        "_count",
        "_heat",
        "_is_filling",
        "_max_bytes",
        "_rest",
        "_saved_s",
        "_seen",
        "_shadows",
        "_sizes",
        "_spans",
        "costs_vary",
        "params",
        "sizes_vary",
    )

    def __init__(self) -> None:
        """Begin with empty shadows and no opinion."""
        self.params: dict[str, GdsfParams] = dict(STEERED)
        """How those rank whose regard for costs is steered."""
        self.costs_vary = self.sizes_vary = False
        self._costs, self._sizes = _Spread(_NOISE_S), _Spread(1.0)
        self._heat = 0.0
        self._is_filling = True
        self._rest = 0
        self._max_bytes = 0
        self._shadows: dict[str, AnyShadow] = {}
        self._open()

    def __len__(self) -> int:
        """Return the number of keys in the fullest shadow."""
        return max(map(len, self._shadows.values()))

    @property
    def is_full(self) -> bool:
        """Whether the shadows have had to evict."""
        return self._shadows[SAFE].is_full

    @property
    def seen(self) -> int:
        """Accesses since the scores were forgotten."""
        return self._seen

    def forget(self) -> None:
        """Forget the scores, not what the shadows hold."""
        self._seen = self._count = 0
        self._spans = [Span(tuple(self._shadows), half_life) for half_life in _HALF_LIVES]
        self._block = dict.fromkeys(self._shadows, 0)
        self._saved_s = dict.fromkeys(self._shadows, 0.0)

    def resize(self, max_bytes: int) -> None:
        """Set the bound of each shadow."""
        self._max_bytes = max_bytes
        for shadow in self._shadows.values():
            shadow.resize(max_bytes)

    def thin(self, bound: int) -> None:
        """Drop the keys whose mark is not below ``bound`` from all shadows."""
        for shadow in self._shadows.values():
            shadow.thin(bound)

    def learn(self, accesses: Sequence[Access]) -> None:
        """Replay accesses through all shadows and count what they make of them."""
        if self._is_filling and self.is_full:
            self._is_filling = False
            self.forget()  # before, all of them did the same
        count = len(accesses)
        self._note_figures(accesses, 0.5 ** (count / _HALF_LIVES[-1]))
        self._rest -= count
        self._seen += count
        self._count += count
        for name, shadow in self._shadows.items():
            hits, saved_s = shadow.replay(accesses)
            self._block[name] += hits
            self._saved_s[name] += saved_s
        if self._count >= _BLOCK:
            self._close_block()

    @property
    def is_settled(self) -> bool:
        """Whether it is clear that no other one can be far better than the safe one."""
        if self._seen < _MIN_SETTLED + 2 * len(self):
            return False
        span = self._spans[-1]
        leads = [span.lead(name, SAFE) for name in self._shadows if name != SAFE]
        return all(lead + 2.0 * error < _MARGINS[-1] for lead, error in leads)

    def choose(self, in_charge: str) -> str:
        """Return the expert to be in charge: ``in_charge`` unless another one is better beyond doubt."""
        if self._seen < max(_MIN_ACCESSES, len(self)) or self._rest > 0 or in_charge not in self._shadows:
            return in_charge
        best, best_lead = in_charge, 0.0
        for name in self._shadows:
            if name != in_charge and (lead := self._clear_lead(name, in_charge)) > best_lead:
                best, best_lead = name, lead
        if best != in_charge:
            self._heat += 1.0
            self._rest = _REST
        return best

    def get_stats(self) -> dict[str, object]:
        """Return each expert's estimated hit ratio, lately, and whether costs are looked at."""
        span = self._spans[-1]
        ratios = {name: round(hits / max(span.accesses, 1.0), 4) for name, hits in span.hits.items()}
        return {"estimated_hit_ratios": ratios, "costs_vary": self.costs_vary, "shadow_keys": len(self)}

    def _clear_lead(self, name: str, other: str) -> float:
        """Return by how much ``name`` is better than ``other`` if that is beyond doubt, else 0."""
        doubts = _DOUBTS_OF_SAFE if name == SAFE else _DOUBTS
        (late, late_error), (lead, error) = (span.lead(name, other) for span in self._spans)
        if self.costs_vary:
            lead += self._fine(other, _CERTAINTY * error) - self._fine(name, 0.0)
        patience = 0.0 if name == SAFE else 1.0 + _RESTLESSNESS * self._heat
        late_margin, margin = (part * patience for part in _MARGINS)
        if lead > margin + doubts[1] * error and late > -_VETO * late_error:
            return lead
        return late if late > late_margin + doubts[0] * late_error else 0.0

    def _fine(self, name: str, doubt: float) -> float:
        span = self._spans[-1]
        return _FLOOR_WEIGHT * max(0.0, self._floor() - span.hits[name] / span.accesses - doubt)

    def _floor(self) -> float:
        span = self._spans[-1]
        return max(span.hits[name] for name in OFFERED) / span.accesses - _FLOOR_MARGIN

    def _open(self) -> None:
        """Have a shadow for each expert that can make a difference, and forget the scores."""
        for expert in EXPERTS:
            is_needed = (self.costs_vary or not expert.needs_costs) and (
                self.costs_vary or self.sizes_vary or not expert.needs_sizes
            )
            if is_needed and expert.name not in self._shadows:
                self._shadows[expert.name] = shadow = expert.make_shadow()
                shadow.resize(self._max_bytes)
        self.forget()

    def _note_figures(self, accesses: Sequence[Access], decay: float) -> None:
        self._costs.add([cost_s for _, _, cost_s in accesses if cost_s > 0.0], decay)
        self._sizes.add([float(size_bytes) for _, size_bytes, _ in accesses], decay)
        costs_vary, sizes_vary = self.costs_vary or self._costs.is_wide, self.sizes_vary or self._sizes.is_wide
        if (costs_vary, sizes_vary) != (self.costs_vary, self.sizes_vary):
            self.costs_vary, self.sizes_vary = costs_vary, sizes_vary
            self._open()

    def _close_block(self) -> None:
        count, hits, saved_s = self._count, self._block, self._saved_s
        self._heat *= 0.5 ** (count / _HALF_LIVES[-1])
        plain = {name: float(one) for name, one in hits.items()}
        if self.costs_vary and self._costs.mean > 0.0:
            scale = _COST_WEIGHT / self._costs.mean
            worth = {name: (plain[name] + scale * saved_s[name]) / (1.0 + _COST_WEIGHT) for name in hits}
        else:
            worth = plain
        late, span = self._spans
        late.add(count, hits, saved_s, plain)
        span.add(count, hits, saved_s, worth)
        self._count = 0
        self._block = dict.fromkeys(hits, 0)
        self._saved_s = dict.fromkeys(hits, 0.0)
        if self.costs_vary:
            self._steer()

    def _steer(self) -> None:
        span = self._spans[0]  # the longer one would answer too late
        goal = max(span.hits[name] for name in OFFERED) - _STEER_MARGIN * span.accesses
        for name, params in self.params.items():
            shadow = self._shadows[name]
            assert isinstance(shadow, Shadow)
            policy = shadow.policy
            assert isinstance(policy, GdsfPolicy)
            exponent = params.cost_exponent
            exponent = exponent * 1.02 if span.hits[name] >= goal else exponent * 0.98
            exponent = min(max(exponent, _EXPONENTS[0]), _EXPONENTS[1])
            self.params[name] = steered = params._replace(cost_exponent=exponent)
            policy.become(steered)
