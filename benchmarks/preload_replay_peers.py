"""The peers of the preload replay: policies that others have published, and that know nothing of the future."""

from __future__ import annotations

import heapq
import math
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np
from preload_replay_pool import OnDemand, least_room

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from preload_replay_pool import ModelFigures, Policy

__all__ = ["PEERS", "Lru", "Ranked"]


class Ranked(OnDemand):
    """Lets go of the residents with the least worth, which is what subclasses set.

    A heap holds each resident with its worth of some time. Where that has grown since, the entry is too low, and put
    right when it comes to the top: requests need not touch the heap. A worth that falls is told by ``rank``.
    """

    def begin(self, models: Sequence[ModelFigures], budget_bytes: int, residents: Collection[int]) -> None:
        """Start with no worth."""
        super().begin(models, budget_bytes, residents)
        self.worths = [0.0] * len(models)
        self._heap: list[tuple[float, int]] = []
        self._entries = [math.inf] * len(models)  # each model's least worth in the heap; others there are stale

    def loaded(self, model: int, now_s: float) -> None:  # noqa: ARG002 - the protocol's
        """Rank the new resident."""
        self.rank(model)

    def rank(self, model: int) -> None:
        """See to it that no entry of the model's is too high."""
        if self.worths[model] < self._entries[model]:
            self._entries[model] = self.worths[model]
            heapq.heappush(self._heap, (self.worths[model], model))

    def least(self) -> int | None:
        """Return the resident with the least worth."""
        while self._heap:
            worth, model = self._heap[0]
            if worth == self._entries[model] == self.worths[model] and model in self.residents:
                return model
            heapq.heappop(self._heap)
            if worth == self._entries[model]:
                self._entries[model] = math.inf
                if model in self.residents:
                    self.rank(model)
        return None

    def _take_least(self) -> int:
        _, model = heapq.heappop(self._heap)
        self._entries[model] = math.inf
        return model

    def victims(self, needed_bytes: int, now_s: float) -> list[int]:  # noqa: ARG002 - the protocol's
        """Return the least in worth."""
        return self.worth_less(needed_bytes, math.inf)

    def worth_less(self, needed_bytes: int, bound: float) -> list[int]:
        """Return the least in worth that make the room, if they are all worth less than ``bound``; or none."""
        taken, freed_bytes = list[int](), 0
        while freed_bytes < needed_bytes:
            model = self.least()
            if model is None or self.worths[model] >= bound:
                break
            taken.append(self._take_least())
            freed_bytes += self.sizes[model]
        victims = least_room(taken, self.sizes, needed_bytes)
        for model in taken:
            if model not in victims:
                self.rank(model)
        return victims


class Lru(Ranked):
    """Least recently used leaves first; what everybody has."""

    source = "least recently used"

    def requested(self, model: int, now_s: float, *, is_resident: bool) -> None:  # noqa: ARG002 - the protocol's
        """Note the time."""
        self.worths[model] = now_s


class KeepAlive(Lru):
    """Unloads a model that has not been used for a fixed time; least recently used first when room is short.

    Source: the fixed keep-alive of AWS Lambda and OpenWhisk, as described in Shahrad et al., *Serverless in the Wild*,
    USENIX ATC 2020; Ollama's default is 5 min.
    """

    source = "fixed keep-alive of AWS Lambda and OpenWhisk, as in Shahrad et al., ATC 2020"

    def __init__(self, keep_alive_s: float) -> None:
        """Take the time without use after which a model leaves."""
        self.keep_alive_s = keep_alive_s

    def wake_at_s(self) -> float:
        """Return when the first may have had its time; it may turn out to have been used since."""
        return self._heap[0][0] + self.keep_alive_s if self._heap else math.inf

    def expired(self, now_s: float) -> list[int]:
        """Return who has had its time."""
        ended = []
        while (model := self.least()) is not None and self.worths[model] + self.keep_alive_s <= now_s:
            ended.append(self._take_least())
        return ended


class GreedyDual(Ranked):
    """Keeps what saves most load time per byte: clock + uses × load seconds ÷ size; the clock is who left last.

    Source: Fuerst and Sharma, *FaasCache: Keeping Serverless Computing Alive with Greedy-Dual Caching*, ASPLOS 2021:
    frequency counts from a model's load and is forgotten when it leaves. With ``are_uses_kept`` it is not forgotten.
    """

    source = "FaasCache: Fuerst and Sharma, ASPLOS 2021"

    def __init__(self, *, are_uses_kept: bool) -> None:
        """Take whether a model's uses outlast its stay."""
        self.are_uses_kept = are_uses_kept

    def begin(self, models: Sequence[ModelFigures], budget_bytes: int, residents: Collection[int]) -> None:
        """Start without uses."""
        super().begin(models, budget_bytes, residents)
        self.uses = [0] * len(models)
        self.clock = 0.0

    def _weigh(self, model: int) -> None:
        self.worths[model] = self.clock + self.uses[model] * self.loads_s[model] / self.sizes[model]

    def requested(self, model: int, now_s: float, *, is_resident: bool) -> None:  # noqa: ARG002 - the protocol's
        """Count a use."""
        self.uses[model] += 1
        self._weigh(model)

    def loaded(self, model: int, now_s: float) -> None:
        """Weigh with the clock of now."""
        self._weigh(model)
        super().loaded(model, now_s)

    def left(self, model: int, now_s: float) -> None:  # noqa: ARG002 - the protocol's
        """Move the clock on, and forget."""
        self.clock = max(self.clock, self.worths[model])
        if not self.are_uses_kept:
            self.uses[model] = 0


class IdleTimes:
    """The histogram of one model's idle times: minutes, up to four hours; and what follows from it."""

    BIN_S: Final = 60.0
    BINS: Final = 240
    HEAD, TAIL, MARGIN, LEAST_CV, MOST_OUTSIDE = 0.05, 0.99, 0.1, 2.0, 0.5

    def __init__(self) -> None:
        """Start empty."""
        self._counts = np.zeros(self.BINS, dtype=np.int64)
        self._total = self._squares = self._outside = 0

    def add(self, idle_s: float) -> None:
        """Count an idle time."""
        place = int(idle_s / self.BIN_S)
        if place >= self.BINS:
            self._outside += 1
            return
        self._counts[place] += 1
        self._total += 1
        self._squares += 2 * int(self._counts[place]) - 1

    def is_telling(self) -> bool:
        """Say whether most idle times are in bounds, and whether their bins differ enough to foretell anything."""
        is_inside = self._total and self._outside <= self.MOST_OUTSIDE * (self._total + self._outside)
        return bool(is_inside) and self.BINS * self._squares / self._total**2 - 1 >= self.LEAST_CV**2

    def windows_s(self) -> tuple[float, float]:
        """Return, both from the last use on, when to fetch ahead (0: the model is to stay) and when to let go."""
        if not self.is_telling():
            return 0.0, self.BINS * self.BIN_S
        head, tail = self._counts.cumsum().searchsorted((self.HEAD * self._total, self.TAIL * self._total)).tolist()
        return head * self.BIN_S * (1 - self.MARGIN), (tail + 1) * self.BIN_S * (1 + self.MARGIN)


class HybridHistogram(Lru):
    """Unloads a model after its use, and fetches it ahead before most of its idle times end, by their histogram.

    From the last use, the model is fetched after the 5th percentile of its idle times, rounded down to a minute and
    less 10 %, and let go after the 99th, rounded up and 10 % more. Where the first is less than a minute it stays from
    the use on. Where the histogram does not tell (coefficient of variation of the bins below 2, or most idle times
    beyond four hours) it stays for four hours. Source: Shahrad et al., *Serverless in the Wild*, USENIX ATC 2020,
    section 4. Left out: the ARIMA forecasts of idle times beyond four hours. Added, as memory has no bound there: the
    least recently used leave when room is short, for fetching ahead too; a model fetched ahead ranks as if used then
    (else it is the first to leave again, and the waiting on the Azure day is over a third longer).
    """

    source = "hybrid histogram of idle times, without ARIMA: Shahrad et al., ATC 2020"

    def begin(self, models: Sequence[ModelFigures], budget_bytes: int, residents: Collection[int]) -> None:
        """Start without idle times."""
        super().begin(models, budget_bytes, residents)
        count = len(models)
        self._idle_times = [IdleTimes() for _ in models]
        self._used_s = [math.nan] * count
        self._leave_s, self._fetch_s, self._end_s = ([math.inf] * count for _ in range(3))
        self._events: list[tuple[float, int]] = []
        self._event_s = [math.inf] * count  # of each model's first event; later ones in the heap are stale
        self._awaited: set[int] = set()
        self._pending: dict[int, None] = {}

    def requested(self, model: int, now_s: float, *, is_resident: bool) -> None:
        """Count the idle time that ends; who waits uses the model when it is loaded."""
        super().requested(model, now_s, is_resident=is_resident)
        if model not in self._awaited and not math.isnan(self._used_s[model]):
            self._idle_times[model].add(now_s - self._used_s[model])
        if is_resident:
            self._use(model, now_s)
        else:
            self._awaited.add(model)
            self._pending.pop(model, None)
            self._leave_s[model] = self._fetch_s[model] = self._end_s[model] = math.inf

    def _use(self, model: int, now_s: float) -> None:
        self._used_s[model] = now_s
        fetch_s, end_s = self._idle_times[model].windows_s()
        self._leave_s[model] = now_s if fetch_s else math.inf
        self._fetch_s[model] = now_s + fetch_s if fetch_s else math.inf
        self._end_s[model] = now_s + end_s
        self._schedule(model)

    def _schedule(self, model: int) -> None:
        due_s = min(self._leave_s[model], self._fetch_s[model], self._end_s[model])
        if due_s < self._event_s[model]:
            self._event_s[model] = due_s
            heapq.heappush(self._events, (due_s, model))

    def loading(self, model: int, now_s: float, *, is_prefetch: bool) -> None:  # noqa: ARG002 - the protocol's
        """Fetch it no more."""
        self._pending.pop(model, None)

    def loaded(self, model: int, now_s: float) -> None:
        """Note the use by those who waited; without any, the time it was to stay may have ended meanwhile."""
        if model in self._awaited:
            self._awaited.remove(model)
            self._use(model, now_s)
        else:
            self.worths[model] = now_s
            self._end_s[model] = now_s if self._end_s[model] == math.inf else self._end_s[model]
            self._schedule(model)
        super().loaded(model, now_s)

    def wake_at_s(self) -> float:
        """Return the time of the first event, which may turn out to be put off."""
        return self._events[0][0] if self._events else math.inf

    def expired(self, now_s: float) -> list[int]:
        """Return who is to leave; note who is to be fetched."""
        leaving: dict[int, None] = {}
        while self._events and self._events[0][0] <= now_s:
            event_s, model = heapq.heappop(self._events)
            if event_s == self._event_s[model]:
                self._event_s[model] = math.inf
                if self._is_to_leave(model, now_s) and model in self.residents:
                    leaving[model] = None
                self._schedule(model)
        return list(leaving)

    def _is_to_leave(self, model: int, now_s: float) -> bool:
        """Take the model's next step, if it is due."""
        if self._leave_s[model] <= now_s:
            self._leave_s[model] = math.inf
            return True
        if self._fetch_s[model] <= now_s:
            self._fetch_s[model] = math.inf
            if model not in self.residents:
                self._pending[model] = None
        elif self._end_s[model] <= now_s:
            self._end_s[model] = math.inf
            self._pending.pop(model, None)
            return True
        return False

    def prefetch(self, now_s: float, free_bytes: int, loads_under_way: int) -> tuple[int, list[int]] | None:  # noqa: ARG002
        """Fetch whose time came first, of those that room can be made for."""
        for model in self._pending:
            needed_bytes = self.sizes[model] - free_bytes
            victims = self.victims(needed_bytes, now_s)
            if victims or needed_bytes <= 0:
                return model, victims
        return None


class RatePrefetch(Ranked):
    """Keeps what saves most load time per byte at its rate of use, and fetches ahead before regular uses.

    Worth is (decayed rate of requests) × load seconds ÷ size. As all rates decay alike, the logarithm of the worth at
    time 0 ranks them as well, and only changes with a use. A model with five uses whose gaps deviate from their mean by
    no more than 30 % of it is fetched when 90 % of the mean gap, less its load time, have passed since the last use, if
    room can be made from models worth less than 16 times as much; from then until its use it is worth 32 times as much.

    Source: expiring frequencies as in LFU-aging and GDSF (Cherkasova, HP Labs 1998), gaps as in the pre-warming of
    serverless platforms. Tried on the two traces (a quarter of all bytes, medians of five seeds, seconds of waiting on
    Azure / Alibaba): nothing fetched 223,465 / 1,663 with a half-life of 30 min (15: 226,990 / 1,746; 60: 220,905 /
    1,672); fetched by worth, whoever is worth 1.5 times the victims, 223,985 / 1,692; all at 100 % of the mean gap, if
    worth 1.5 times the victims, 221,545 / 1,659; the regular, if worth half, 219,468 / 1,663, and at 90 % 217,071 /
    1,663; that with 45 min 214,456 / 1,646, beside another load too 212,877 / 1,646; with the worth raised until the
    use 162,975 / 1,646, and from victims worth up to 16 times as much, which is this one, 154,719 / 1,646.
    """

    source = "decayed rate × load seconds ÷ size, regular uses fetched ahead; tuned for these traces"
    HALF_LIFE_S: Final = 2700.0
    RECENT: Final = 0.1
    MOST_DEVIATION: Final = 0.3
    MARGIN: Final = 0.1
    LEAD, RAISE = 4.0, 5.0  # worth is a logarithm to base 2

    def begin(self, models: Sequence[ModelFigures], budget_bytes: int, residents: Collection[int]) -> None:
        """Start without uses."""
        super().begin(models, budget_bytes, residents)
        count = len(models)
        self._uses = [0] * count
        self._used_s, self._rates, self._gaps_s, self._deviations_s = ([0.0] * count for _ in range(4))
        self._due: list[tuple[float, int]] = []
        self._pending: set[int] = set()

    def requested(self, model: int, now_s: float, *, is_resident: bool) -> None:
        """Count a use and the gap before it."""
        if self._uses[model]:
            self._learn_gap(model, now_s - self._used_s[model])
        halves = (self._used_s[model] - now_s) / self.HALF_LIFE_S
        self._rates[model] = self._rates[model] * 2**halves + 1
        self._uses[model] += 1
        self._used_s[model] = now_s
        density = self.loads_s[model] / self.sizes[model]
        self.worths[model] = math.log2(self._rates[model] * density) + now_s / self.HALF_LIFE_S
        if is_resident:
            self.rank(model)  # it is worth less if it was fetched ahead

    def _learn_gap(self, model: int, gap_s: float) -> None:
        weight = max(1 / self._uses[model], self.RECENT)
        self._deviations_s[model] += weight * (abs(gap_s - self._gaps_s[model]) - self._deviations_s[model])
        self._gaps_s[model] += weight * (gap_s - self._gaps_s[model])

    def loading(self, model: int, now_s: float, *, is_prefetch: bool) -> None:  # noqa: ARG002 - the protocol's
        """Fetch it no more; what was fetched ahead is to last until its use."""
        self._pending.discard(model)
        self.worths[model] += self.RAISE if is_prefetch else 0.0

    def left(self, model: int, now_s: float) -> None:
        """Note when to fetch it again, if its uses are regular and the time is to come."""
        is_regular = self._deviations_s[model] <= self.MOST_DEVIATION * self._gaps_s[model]
        due_s = self._due_s(model)
        if is_regular and due_s > now_s:
            heapq.heappush(self._due, (due_s, model))

    def _due_s(self, model: int) -> float:
        return self._used_s[model] + (1 - self.MARGIN) * self._gaps_s[model] - self.loads_s[model]

    def wake_at_s(self) -> float:
        """Return when the first is due; it may have been used since."""
        return self._due[0][0] if self._due else math.inf

    def expired(self, now_s: float) -> list[int]:
        """Note who is due, and let nobody go."""
        while self._due and self._due[0][0] <= now_s:
            due_s, model = heapq.heappop(self._due)
            if due_s == self._due_s(model) and model not in self.residents:
                self._pending.add(model)
        return []

    def prefetch(self, now_s: float, free_bytes: int, loads_under_way: int) -> tuple[int, list[int]] | None:  # noqa: ARG002
        """Fetch who is worth most of those due, if there is room; whoever finds none is not tried again."""
        while self._pending:
            model = max(self._pending, key=self.worths.__getitem__)
            self._pending.remove(model)
            if now_s <= self._used_s[model] + (1 + self.MARGIN) * self._gaps_s[model]:
                needed_bytes = self.sizes[model] - free_bytes
                victims = self.worth_less(needed_bytes, self.worths[model] + self.LEAD)
                if victims or needed_bytes <= 0:
                    return model, victims
        return None


PEERS: Final[dict[str, Callable[[], Policy]]] = {
    "lru": Lru,
    "keep_alive_5min": partial(KeepAlive, 300.0),
    "keep_alive_10min": partial(KeepAlive, 600.0),
    "greedy_dual": partial(GreedyDual, are_uses_kept=False),
    "greedy_dual_kept": partial(GreedyDual, are_uses_kept=True),
    "hybrid_histogram": HybridHistogram,
    "rate_prefetch": RatePrefetch,
}
