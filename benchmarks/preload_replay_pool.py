"""A pool of models in simulated time: a bounded memory, two loads at once, and the requests that wait for them.

A request to a model in memory waits for nothing; one to a model under load waits until the load ends; any other joins
the queue. A load starts when one of the two slots is free and room has been made; the policy says from which models,
which waiting model is next, and what is fetched ahead while none waits. A model under load cannot leave.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

__all__ = ["ModelFigures", "OnDemand", "Outcome", "Policy", "PolicyError", "Pool", "Requests", "least_room"]

LOADS_AT_ONCE: Final = 2
NEVER_S: Final = math.inf


class PolicyError(RuntimeError):
    """A policy asked for what cannot be done, or left requests to wait for ever."""


@dataclass(frozen=True, slots=True)
class Requests:
    """The requests of a trace in the order of their time, one item for each in both lists."""

    times_s: list[float]
    models: list[int]
    """Places in the list of the models."""


@dataclass(frozen=True, slots=True)
class ModelFigures:
    """What a policy may know of a model beforehand; elsewhere models are places in the list of these."""

    name: str
    size_bytes: int
    load_s: float


class Policy(Protocol):
    """Decides who stays in memory, who is fetched ahead and who of those that wait is next."""

    source: str
    """Where it is from, in a line."""

    def begin(self, models: Sequence[ModelFigures], budget_bytes: int, residents: Collection[int]) -> None:
        """Take what is known before the first request; ``residents`` is live, in the order of the loads' ends."""

    def requested(self, model: int, now_s: float, *, is_resident: bool) -> None:
        """Notice a request, before anything is done about it."""

    def loading(self, model: int, now_s: float, *, is_prefetch: bool) -> None:
        """Notice that a load begins."""

    def loaded(self, model: int, now_s: float) -> None:
        """Notice that a load has ended: the model is a resident, and those who waited for it use it now."""

    def left(self, model: int, now_s: float) -> None:
        """Notice that a resident has left memory."""

    def victims(self, needed_bytes: int, now_s: float) -> list[int]:
        """Return residents of at least ``needed_bytes`` together, which leave now; none where there are too few.

        Where none are named, the request goes on waiting until one of the loads under way ends.
        """

    def pick(self, queue: Mapping[int, Sequence[float]], now_s: float) -> int:
        """Return who loads next: of the waiting models, in the order of their first request, with all its times."""

    def prefetch(self, now_s: float, free_bytes: int, loads_under_way: int) -> tuple[int, list[int]] | None:
        """Return a model to fetch ahead and the residents that make room for it.

        Asked while a slot is free and no request waits for one: after a load's end, a wait's begin and a wake.
        """

    def wake_at_s(self) -> float:
        """Return when to wake (``inf``: not at all); a time that is past means now, after the requests of this time.

        Asked after every event, so it is to be cheap. After a wake it lies in the future.
        """

    def expired(self, now_s: float) -> list[int]:
        """Return, on a wake, the residents that leave without anybody needing their room."""


class OnDemand:
    """What a policy answers that only loads what is asked for, first come, first served; all but ``victims``."""

    source = ""

    def begin(self, models: Sequence[ModelFigures], budget_bytes: int, residents: Collection[int]) -> None:
        """Keep the models' figures."""
        self.models = models
        self.sizes = [model.size_bytes for model in models]
        self.loads_s = [model.load_s for model in models]
        self.budget_bytes = budget_bytes
        self.residents = residents

    def requested(self, model: int, now_s: float, *, is_resident: bool) -> None:
        """Take no notice."""

    def loading(self, model: int, now_s: float, *, is_prefetch: bool) -> None:
        """Take no notice."""

    def loaded(self, model: int, now_s: float) -> None:
        """Take no notice."""

    def left(self, model: int, now_s: float) -> None:
        """Take no notice."""

    def pick(self, queue: Mapping[int, Sequence[float]], now_s: float) -> int:  # noqa: ARG002 - the protocol's
        """Return who has waited longest."""
        return next(iter(queue))

    def prefetch(self, now_s: float, free_bytes: int, loads_under_way: int) -> tuple[int, list[int]] | None:
        """Fetch nothing ahead."""

    def wake_at_s(self) -> float:
        """Never wake."""
        return NEVER_S

    def expired(self, now_s: float) -> list[int]:  # noqa: ARG002 - the protocol's
        """Let nobody go."""
        return []


def least_room(least_wanted_first: Iterable[int], sizes: Sequence[int], needed_bytes: int) -> list[int]:
    """Return the first that have ``needed_bytes`` together, without those that are not needed; or none.

    >>> least_room([0, 1, 2, 3], [10, 20, 35, 5], 50)  # the first three have 65: the 10 can stay
    [1, 2]
    """
    taken, freed_bytes = [], 0
    for model in least_wanted_first:
        taken.append(model)
        freed_bytes += sizes[model]
        if freed_bytes >= needed_bytes:
            break  # before the next is asked for: that is work, and may change what is known
    return _spared(taken, sizes, freed_bytes - needed_bytes)


def _spared(taken: list[int], sizes: Sequence[int], surplus_bytes: int) -> list[int]:
    """Return ``taken`` without what the surplus has room for, the most wanted first."""
    if surplus_bytes < 0:
        return []
    victims = []
    for model in reversed(taken):
        if sizes[model] <= surplus_bytes:
            surplus_bytes -= sizes[model]
        else:
            victims.append(model)
    return victims[::-1]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the requests, and what that took; of the counted part of a trace."""

    cold_ratio: float
    wait_s: float
    p99_wait_s: float
    p999_wait_s: float
    gb_s: float
    """Integral of the gigabytes in memory or under load."""
    loads: int
    prefetches: int
    wasted_prefetches: int
    """Fetched ahead, and not used before they left or the trace ended."""


@dataclass(slots=True)
class _Tally:
    """Counts what happens from a time on."""

    from_s: float
    hits: int = 0
    waits_s: list[float] = field(default_factory=list)
    byte_s: float = 0.0
    loads: int = 0
    prefetches: int = 0
    wasted_prefetches: int = 0

    def waited(self, arrivals_s: list[float], now_s: float) -> None:
        """Count the waits that end now."""
        self.waits_s += [now_s - arrival_s for arrival_s in arrivals_s if arrival_s >= self.from_s]

    def held(self, used_bytes: int, since_s: float, now_s: float) -> None:
        """Count memory that was in use between two times."""
        if now_s > self.from_s:
            self.byte_s += used_bytes * (now_s - max(since_s, self.from_s))

    def outcome(self) -> Outcome:
        """Return the figures."""
        waits_s = sorted(self.waits_s)
        requests = self.hits + len(waits_s)

        def wait_s(rank: float) -> float:
            place = int(rank * (requests - 1)) - self.hits  # whoever waited, waited longer than the hits did
            return round(waits_s[place], 6) if place >= 0 else 0.0

        return Outcome(
            cold_ratio=round(len(waits_s) / requests, 6),
            wait_s=round(sum(waits_s), 3),
            p99_wait_s=wait_s(0.99),
            p999_wait_s=wait_s(0.999),
            gb_s=round(self.byte_s / 1e9, 3),
            loads=self.loads,
            prefetches=self.prefetches,
            wasted_prefetches=self.wasted_prefetches,
        )


@dataclass(frozen=True, slots=True)
class _Load:
    """A load under way."""

    arrivals_s: list[float]
    """Of the requests that wait for it."""
    is_prefetch: bool
    is_counted: bool


class Pool:
    """Replays requests once. Of what happens at one time, loads end first, then requests arrive, then the policy wakes.

    Requests are counted that arrive at ``counted_from_s`` or later; so are loads that begin, and memory in use, then.
    After the last request nothing is fetched ahead, and the policy is not woken: nobody would be there to use it.
    """

    def __init__(
        self, models: Sequence[ModelFigures], budget_bytes: int, policy: Policy, counted_from_s: float = 0.0
    ) -> None:
        """Start with an empty memory."""
        if budget_bytes < max(model.size_bytes for model in models):
            raise ValueError(f"the largest model does not fit into {budget_bytes} bytes; raise the budget")
        self._models = models
        self._budget_bytes = budget_bytes
        self._policy = policy
        self._tally = _Tally(counted_from_s)
        self._residents: dict[int, None] = {}  # a set with an order
        self._queue: dict[int, list[float]] = {}
        self._loads: dict[int, _Load] = {}
        self._ends: list[tuple[float, int]] = []
        self._unused: set[int] = set()  # residents that were fetched ahead, and counted, and not used yet
        self._used_bytes = 0
        self._used_since_s = 0.0
        self._now_s = 0.0
        self._is_over = False
        policy.begin(models, budget_bytes, self._residents.keys())

    def replay(self, requests: Requests) -> Outcome:
        """Serve all requests; return what became of them.

        Raises:
            PolicyError: the policy asked for what cannot be done.
        """
        self._now_s = requests.times_s[0]  # there is nothing before the first request
        for at_s, model in zip(requests.times_s, requests.models, strict=True):
            self._advance(at_s)
            self._request(model, at_s)
        self._is_over = True
        while self._ends:
            self._end_load()
        self._use_bytes(0, self._now_s)
        self._tally.wasted_prefetches += len(self._unused)
        return self._tally.outcome()

    def put(self, models: Iterable[int], now_s: float) -> None:
        """Have models in memory from the beginning, as far as they fit, before ``replay``."""
        for model in models:
            if self._used_bytes + self._models[model].size_bytes <= self._budget_bytes:
                self._residents[model] = None
                self._used_bytes += self._models[model].size_bytes
                self._policy.loaded(model, now_s)

    def _advance(self, until_s: float) -> None:
        """Do what happens before the requests of a time."""
        while True:
            end_s = self._ends[0][0] if self._ends else NEVER_S
            wake_s = max(self._policy.wake_at_s(), self._now_s)
            if end_s <= until_s and end_s <= wake_s:
                self._end_load()
            elif wake_s < until_s:
                self._wake(wake_s)
            else:
                return

    def _request(self, model: int, now_s: float) -> None:
        self._now_s = now_s
        if model in self._residents:
            self._unused.discard(model)
            if now_s >= self._tally.from_s:
                self._tally.hits += 1
            self._policy.requested(model, now_s, is_resident=True)
            return
        self._policy.requested(model, now_s, is_resident=False)
        if load := self._loads.get(model):
            load.arrivals_s.append(now_s)
        else:
            self._queue.setdefault(model, []).append(now_s)
        self._pump(now_s)

    def _wake(self, wake_s: float) -> None:
        self._now_s = wake_s
        self._evict(self._policy.expired(wake_s), wake_s)
        self._pump(wake_s)
        if self._policy.wake_at_s() <= wake_s:
            raise PolicyError(
                f"woken at {wake_s} s, the policy wants to be woken at {self._policy.wake_at_s()} s again"
            )

    def _end_load(self) -> None:
        now_s, model = heapq.heappop(self._ends)
        self._now_s = now_s
        load = self._loads.pop(model)
        self._residents[model] = None
        if load.is_prefetch and load.is_counted and not load.arrivals_s:
            self._unused.add(model)
        self._tally.waited(load.arrivals_s, now_s)
        self._policy.loaded(model, now_s)
        self._pump(now_s)

    def _pump(self, now_s: float) -> None:
        """Start loads as long as there are slots, room and a reason."""
        while len(self._loads) < LOADS_AT_ONCE:
            has_started = self._load_wanted(now_s) if self._queue else self._load_ahead(now_s)
            if not has_started:
                return

    def _load_wanted(self, now_s: float) -> bool:
        """Load for who waits; say whether there was room."""
        model = self._policy.pick(self._queue, now_s)
        if (short_bytes := self._short_bytes(model)) > 0:
            self._evict(self._policy.victims(short_bytes, now_s), now_s)
            if self._short_bytes(model) > 0:
                if not self._loads:
                    raise PolicyError(f"no load is under way, and the policy makes no room for {self._name(model)}")
                return False
        self._start(model, now_s, _Load(self._queue.pop(model), is_prefetch=False, is_counted=self._counts(now_s)))
        return True

    def _load_ahead(self, now_s: float) -> bool:
        """Fetch ahead what the policy wishes; say whether there was such a thing."""
        if self._is_over:
            return False
        choice = self._policy.prefetch(now_s, self._budget_bytes - self._used_bytes, len(self._loads))
        if choice is None:
            return False
        model, victims = choice
        self._evict(victims, now_s)
        if model in self._residents or model in self._loads or self._short_bytes(model) > 0:
            raise PolicyError(f"{self._name(model)} is fetched ahead though it is there, or has no room")
        self._start(model, now_s, _Load([], is_prefetch=True, is_counted=self._counts(now_s)))
        return True

    def _start(self, model: int, now_s: float, load: _Load) -> None:
        figures = self._models[model]
        self._use_bytes(self._used_bytes + figures.size_bytes, now_s)
        self._loads[model] = load
        heapq.heappush(self._ends, (now_s + figures.load_s, model))
        self._tally.loads += load.is_counted
        self._tally.prefetches += load.is_counted and load.is_prefetch
        self._policy.loading(model, now_s, is_prefetch=load.is_prefetch)

    def _evict(self, victims: Iterable[int], now_s: float) -> None:
        for model in victims:
            if model not in self._residents:
                raise PolicyError(f"{self._name(model)} is to leave and is not there")
            del self._residents[model]
            self._use_bytes(self._used_bytes - self._models[model].size_bytes, now_s)
            if model in self._unused:
                self._unused.remove(model)
                self._tally.wasted_prefetches += 1
            self._policy.left(model, now_s)

    def _use_bytes(self, used_bytes: int, now_s: float) -> None:
        self._tally.held(self._used_bytes, self._used_since_s, now_s)
        self._used_bytes, self._used_since_s = used_bytes, now_s

    def _short_bytes(self, model: int) -> int:
        return self._used_bytes + self._models[model].size_bytes - self._budget_bytes

    def _counts(self, now_s: float) -> bool:
        return now_s >= self._tally.from_s

    def _name(self, model: int) -> str:
        return self._models[model].name
