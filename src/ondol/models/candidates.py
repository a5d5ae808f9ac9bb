"""service: who might leave, in the order in which they go: as the pool's advisor says, else by their worth."""

from __future__ import annotations

import logging
from contextlib import closing
from typing import TYPE_CHECKING, Final

from ondol.models.ledger import Candidate, Phase, by_worth
from ondol.models.worth import worth

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Iterable, Mapping

    from ondol.models.entry import Resident
    from ondol.models.ports import Advisor
    from ondol.models.registry import Registry

__all__ = ["Candidates"]

logger = logging.getLogger("ondol.models")

_FAILED: Final = "the advisor on what to keep in memory failed; what it has not named goes by how often it is used"


class Candidates:
    """The models in memory as those who might leave. Use it in the loop's thread only."""

    def __init__(self, registry: Registry, ready: Mapping[str, Resident], drains: Collection[str]) -> None:
        """Look at ``ready`` models, and at ``drains``: the accounts of copies whose unload was begun."""
        self._registry = registry
        self._ready = ready
        self._drains = drains

    def ranked(self, loading: Iterable[str], needed: Collection[str] = ()) -> Generator[Candidate]:
        """Yield who might leave, the first to go first, and the old copies that would leave along with them.

        Without an advisor the order is that of their worth. With one its word counts, and each is worth its place in
        the order. What it is asked is asked only when it is needed: close the generator when it is not read to its end.

        Args:
            loading: models that load now; what they depend on stays, and so does a copy that serves meanwhile.
            needed: models that must stay for another reason.
        """
        held = {*needed, *loading}
        advisor = self._registry.advisor
        if advisor is None:
            yield from by_worth([*self._by_worth(held), *self._old_copies()])
            return
        with closing(self._as_advised(advisor, held)) as advised:
            for place, candidate in enumerate(advised):
                yield candidate._replace(worth=float(place))

    def _as_advised(self, advisor: Advisor, held: Collection[str]) -> Generator[Candidate]:
        """Yield the old copies, which leave anyway, then what the advisor names, then the rest by its worth."""
        yield from self._old_copies()
        named: set[str] = set()
        with closing(self._named(advisor, named)) as names:
            for name in names:
                yield self._candidate(name, held, 0.0)
        yield from by_worth(self._by_worth(held, named))

    def _named(self, advisor: Advisor, named: set[str]) -> Generator[str]:
        """Yield the ready models in the advisor's order, each once and put into ``named``, as far as it has one."""
        names: object = None
        try:
            names = coldest = advisor.coldest_first(self._registry.clock.monotonic())
            for name in coldest:
                if name in self._ready and name not in named:
                    named.add(name)
                    yield name
        except Exception:
            logger.exception(_FAILED)
            self._registry.totals.advisor_failures += 1
        finally:
            self._close(names)

    def _close(self, names: object) -> None:
        close = getattr(names, "close", None)
        try:
            if close is not None:
                close()
        except Exception:
            logger.exception(_FAILED)
            self._registry.totals.advisor_failures += 1

    def _by_worth(self, held: Collection[str], without: Collection[str] = ()) -> list[Candidate]:
        now_s = self._registry.clock.monotonic()
        return [self._candidate(name, held, self._worth(name, now_s)) for name in self._ready if name not in without]

    def _worth(self, name: str, now_s: float) -> float:
        entry = self._registry.entries[name]
        size_bytes = self._registry.ledger.size(self._ready[name].account)
        return worth(entry.use.weight_at(now_s), entry.expected_seconds, size_bytes)

    def _candidate(self, name: str, held: Collection[str], worth: float) -> Candidate:
        entry, resident = self._registry.entries[name], self._ready[name]
        used_at_s = entry.use.noted_at_s
        needs, is_loading = self._to_go_first(resident)
        return Candidate(
            name,
            self._registry.ledger.size(resident.account),
            worth,
            entry.ready_at_s or 0.0 if used_at_s is None else used_at_s,
            resident.spec.priority,
            is_held=bool(resident.leases) or entry.is_pinned or name in held or is_loading,
            dependents=needs,
            is_promised=entry.is_promised(self._registry.clock.monotonic()),
        )

    def may_leave(self, name: str) -> bool:
        """Tell whether a model could leave at once, by itself, for a background load that may displace it."""
        resident = self._ready.get(name)
        if resident is None or resident.leases:
            return False
        entry = self._registry.entries[name]
        if entry.is_pinned or entry.job is not None or entry.is_promised(self._registry.clock.monotonic()):
            return False
        return self._to_go_first(resident) == (frozenset(), False)

    def _old_copies(self) -> list[Candidate]:
        return [self._old_copy(self._registry.alive[account]) for account in self._drains]

    def _old_copy(self, resident: Resident) -> Candidate:
        """Return what is to leave anyway, as one that leaves for nothing once those have left that were built on it."""
        ledger = self._registry.ledger
        needs, is_loading = self._to_go_first(resident)
        is_held = ledger.phase(resident.account) is not Phase.RESIDENT or resident.leases > 0 or is_loading
        name, size_bytes = _old_name(resident.account), ledger.size(resident.account)
        return Candidate(name, size_bytes, 0.0, priority=0, is_held=is_held, dependents=needs)

    def _to_go_first(self, resident: Resident) -> tuple[frozenset[str], bool]:
        """Return who has to leave before it as it was built on it, and whether a load is built on it, which stays."""
        names = set()
        for user in resident.supports:
            if self._ready.get(user.spec.name) is user:
                names.add(user.spec.name)
            elif user.account not in self._drains:
                return frozenset(), True
            elif self._registry.ledger.phase(user.account) is Phase.RESIDENT:  # else it leaves already
                names.add(_old_name(user.account))
        return frozenset(names), False


def _old_name(account: str) -> str:
    return f"the old copy {account}"
