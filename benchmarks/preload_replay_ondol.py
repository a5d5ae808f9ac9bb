"""The keep-warm policy of ondol itself, in the simulated pool: the decision code that the live preloader runs."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from preload_replay_pool import ModelFigures, OnDemand, least_room

from ondol.models.wants import AGEING_S
from ondol.preload.policy import KeepWarmPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

__all__ = ["Ondol", "OndolInTurn", "ondol_policies"]


class Ondol(OnDemand):
    """What ondol does: its own policy, and waiting loads in the order of the pool."""

    source = "this project: src/ondol/preload/policy.py"
    is_first_come_first_served = False

    def begin(self, models: Sequence[ModelFigures], budget_bytes: int, residents: Collection[int]) -> None:
        """Let the policy know all models."""
        super().begin(models, budget_bytes, residents)
        self.names = [model.name for model in models]
        self.places = {name: place for place, name in enumerate(self.names)}
        self.policy = KeepWarmPolicy(budget_bytes)
        for model in models:
            self.policy.know(model.name, size_bytes=model.size_bytes, load_s=model.load_s)

    def requested(self, model: int, now_s: float, *, is_resident: bool) -> None:  # noqa: ARG002 - the protocol's
        """Count the use."""
        self.policy.used(self.names[model], now_s)

    def loading(self, model: int, now_s: float, *, is_prefetch: bool) -> None:
        """Tell the policy."""
        self.policy.loading(self.names[model], now_s, is_ahead=is_prefetch)

    def loaded(self, model: int, now_s: float) -> None:
        """Tell the policy."""
        self.policy.loaded(self.names[model], now_s)

    def left(self, model: int, now_s: float) -> None:
        """Tell the policy."""
        self.policy.left(self.names[model], now_s)

    def victims(self, needed_bytes: int, now_s: float) -> list[int]:
        """Return the coldest that make enough room."""
        with closing(self.policy.coldest_first(now_s)) as names:
            return least_room((self.places[name] for name in names), self.sizes, needed_bytes)

    def pick(self, queue: Mapping[int, Sequence[float]], now_s: float) -> int:
        """Return the next in the order of the pool: minutes of waiting, then requests for a second of loading."""
        if self.is_first_come_first_served:
            return super().pick(queue, now_s)
        return max(queue, key=lambda m: (int((now_s - queue[m][0]) / AGEING_S), len(queue[m]) / self.loads_s[m]))

    def prefetch(self, now_s: float, free_bytes: int, loads_under_way: int) -> tuple[int, list[int]] | None:
        """Return what the policy proposes, while nothing else loads."""
        if loads_under_way:
            return None
        proposal = self.policy.propose(now_s, free_bytes)
        if proposal is None:
            return None
        self.policy.begin_ahead(proposal, now_s)
        self._name_until(set(proposal.victims), now_s)
        return self.places[proposal.name], [self.places[name] for name in proposal.victims]

    def _name_until(self, victims: set[str], now_s: float) -> None:
        """Have the coldest named until all victims were, as the pool does to find out whether they may leave."""
        with closing(self.policy.coldest_first(now_s)) as names:
            while victims:
                victims.discard(next(names))

    def wake_at_s(self) -> float:
        """Return when the policy wants to look at something."""
        return self.policy.wake_at_s()

    def expired(self, now_s: float) -> list[int]:
        """Let the policy look; nobody leaves without need."""
        self.policy.look_at_due(now_s)
        return []


class OndolInTurn(Ondol):
    """The same, but waiting loads start first come, first served, as those of the peers do."""

    source = "the same policy, loads first come, first served"
    is_first_come_first_served = True


def ondol_policies() -> dict[str, Callable[[], Ondol]]:
    """Return ondol's policy, and how much of it is not the order of the queue."""
    return {"ondol": Ondol, "ondol_fifo": OndolInTurn}
