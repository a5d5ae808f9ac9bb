"""Who hits the server of benchmarks/models_load.py: clients that choose by a skewed distribution which drifts."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from typing import NamedTuple

from models_load_weights import STRETCH, WEIGHTS, expected, name_of

__all__ = ["Demand", "Hit", "run_clients"]

SKEW = 1.3
DRIFT_EVERY_S = 5.0
PAUSE_S = 0.05
"""What a client waits between two hits, on average."""
ANSWER_LIMIT_S = 60.0


class Hit(NamedTuple):
    """One request: when it began, how long it took, and what came of it; ``fault`` is empty when all was well."""

    begun_at_s: float
    taken_s: float
    model: int
    was_ready: bool
    is_right: bool
    fault: str = ""


class Demand:
    """Which models are wanted how much: the n-th of a ranking as 1 / n ** 1.3; the ranking drifts.

    Every five seconds a model of the lower half comes to the front or near it, and all behind that place move back.
    """

    def __init__(self, models: int, seconds: float, seed: int) -> None:
        """Draw the rankings of the whole run."""
        draw = random.Random(seed)
        ranking = draw.sample(range(models), models)
        self.rankings = [list(ranking)]
        for _ in range(int(seconds / DRIFT_EVERY_S) + 1):
            rising = ranking.pop(draw.randrange(models // 2, models))
            ranking.insert(draw.randrange(3), rising)
            self.rankings.append(list(ranking))
        self._weights = [1 / (place + 1) ** SKEW for place in range(models)]

    def choose(self, draw: random.Random, at_s: float) -> int:
        """Return a model to hit ``at_s`` seconds after the beginning."""
        ranking = self.rankings[min(int(at_s / DRIFT_EVERY_S), len(self.rankings) - 1)]
        return draw.choices(ranking, self._weights)[0]


class _Client(threading.Thread):
    def __init__(self, port: int, demand: Demand, begun_at_s: float, seconds: float, seed: int) -> None:
        super().__init__(daemon=True)
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_LIMIT_S)
        self._demand = demand
        self._begun_at_s = begun_at_s
        self._seconds = seconds
        self._draw = random.Random(seed)
        self.hits: list[Hit] = []

    def run(self) -> None:
        """Hit until the time is over."""
        while (at_s := time.monotonic() - self._begun_at_s) < self._seconds:
            self.hits.append(self._hit(self._demand.choose(self._draw, at_s)))
            time.sleep(self._draw.expovariate(1 / PAUSE_S))
        self._connection.close()

    def _hit(self, model: int) -> Hit:
        begin = self._draw.randrange(WEIGHTS - STRETCH)
        right = expected(model, begin)
        begun_s = time.monotonic()
        try:
            self._connection.request("GET", f"/hits/{name_of(model)}?begin={begin}")
            response = self._connection.getresponse()
            raw = response.read()
        except (OSError, http.client.HTTPException) as exc:
            self._connection.close()
            return Hit(begun_s, time.monotonic() - begun_s, model, was_ready=False, is_right=False, fault=repr(exc))
        taken_s = time.monotonic() - begun_s
        if response.status != 200:
            fault = f"{response.status}: {raw[:300]!r}"
            return Hit(begun_s, taken_s, model, was_ready=False, is_right=False, fault=fault)
        answer = json.loads(raw)
        return Hit(begun_s, taken_s, model, was_ready=answer["was_ready"], is_right=answer["total"] == right)


def run_clients(port: int, demand: Demand, *, clients: int, seconds: float, seed: int) -> list[Hit]:
    """Let so many clients hit the server for so long; return all of their hits in the order of their beginning."""
    begun_at_s = time.monotonic()
    threads = [_Client(port, demand, begun_at_s, seconds, seed * 1000 + number) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(hit for thread in threads for hit in thread.hits)
