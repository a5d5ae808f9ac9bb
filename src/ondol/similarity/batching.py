"""service: texts of concurrent requests for one model are embedded together, one batch at a time.

A worker task per model lives as long as there is work for it: nothing is bound to an event loop between two bursts.
The model is leased for each batch anew, so that it can be unloaded or replaced between batches.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ondol.clock import SystemClock
from ondol.errors import AlreadyClosedError, ModelError
from ondol.recorder import discard
from ondol.similarity.records import EmbeddedText
from ondol.tracing import NO_SPAN, SpanRelay

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    import numpy.typing as npt

    from ondol.clock import Clock
    from ondol.recorder import Recorder
    from ondol.similarity.embedders.info import EmbedderInfo
    from ondol.similarity.ports import Embedder, ModelLeases
    from ondol.similarity.records import Kind
    from ondol.tracing import Span, Value

__all__ = ["MAX_BATCH_CHARS", "ComputedText", "TextBatcher"]

MAX_BATCH_CHARS: Final = 65_536
"""Texts of one batch together are not longer (a longer text is a batch alone): it bounds how long others wait."""


class ComputedText(NamedTuple):
    """A text's embedding and its share of the time that its batch took, by tokens."""

    embedded: EmbeddedText
    cost_seconds: float


class _Item:
    """One text that waits to be embedded; several requests may wait for the same one."""

    __slots__ = ("batch", "context", "is_kept", "is_urgent", "kind", "outcome", "text", "waiters")

    def __init__(self, text: str, kind: Kind, outcome: asyncio.Future[ComputedText], *, is_urgent: bool) -> None:
        self.text = text
        self.kind = kind
        self.outcome = outcome
        self.is_urgent = is_urgent
        self.is_kept = False
        self.waiters = 0
        self.context = copy_context()
        """Of the request that asked first: its id and its trace, for what is told of the batch."""
        self.batch: Span = NO_SPAN


class _Lane:
    """The work for one model on one event loop."""

    __slots__ = ("background", "info", "urgent", "waiting", "worker")

    def __init__(self, info: EmbedderInfo) -> None:
        self.info = info
        self.urgent: deque[_Item] = deque()
        self.background: deque[_Item] = deque()
        self.waiting: dict[tuple[Kind, str], _Item] = {}
        self.worker: asyncio.Task[None] | None = None


class TextBatcher:
    """Embeds texts in batches, in the order in which they were asked for; urgent ones before background ones.

    Cancellation: a caller that leaves cancels nothing for others; texts nobody waits for any more are not computed.

    Thread-safety: none; used on one event loop at a time.
    """

    def __init__(
        self,
        pool: ModelLeases,
        *,
        keep: Callable[[EmbedderInfo, Kind, str, ComputedText], None],
        clock: Clock | None = None,
        recorder: Recorder = discard,
        spans: SpanRelay | None = None,
    ) -> None:
        """Take models from ``pool``; hand what is to be kept to ``keep``, also when nobody waits. Starts nothing."""
        self._pool = pool
        self._keep = keep
        self._clock = clock if clock is not None else SystemClock()
        self._record = recorder
        self._spans = spans if spans is not None else SpanRelay()
        self._lanes: dict[tuple[asyncio.AbstractEventLoop, str], _Lane] = {}
        self._counters: dict[str, Any] = {"batches": 0, "texts": 0, "failed_batches": 0, "embed_seconds": 0.0}

    def get_stats(self) -> dict[str, Any]:
        """Return how much was embedded in how many batches."""
        batches, texts = self._counters["batches"], self._counters["texts"]
        return {**self._counters, "texts_per_batch": texts / batches if batches else 0.0}

    async def embed(
        self,
        info: EmbedderInfo,
        texts: Sequence[str],
        kind: Kind,
        *,
        is_urgent: bool = True,
        is_kept: bool = True,
        span: Span = NO_SPAN,
    ) -> list[ComputedText]:
        """Return the embeddings of ``texts`` in their order.

        Args:
            info: the model.
            texts: any number of texts; equal ones are computed once, also across callers.
            kind: what the texts are used for.
            is_urgent: whether they go before texts that are not.
            is_kept: whether the results are worth keeping for later requests.
            span: of the call; linked to batches that were begun for other requests.

        Raises:
            ModelError: the model cannot be loaded, or gave something else than one finite vector a text.
            AlreadyClosedError: ``close`` was called meanwhile.
        """
        if not texts:
            return []
        lane = self._lane(info)
        items = [_enqueue(lane, text, kind, is_urgent=is_urgent, is_kept=is_kept) for text in texts]
        if lane.worker is None or lane.worker.done():
            lane.worker = asyncio.create_task(self._work(lane), name=f"ondol-embed-{info.name}")
        try:
            # Waiting for a set of futures cancels none of them when the waiter is cancelled.
            await asyncio.wait({item.outcome for item in items}, return_when=asyncio.FIRST_EXCEPTION)
            for item in items:
                if item.outcome.done():
                    item.outcome.result()  # raises what went wrong
            return [item.outcome.result() for item in items]
        finally:
            _link(span, items)
            for item in items:
                item.waiters -= 1

    async def close(self) -> None:
        """End every worker; who still waits gets :class:`AlreadyClosedError`. Usable again afterwards."""
        loop = asyncio.get_running_loop()
        workers = [
            lane.worker for (home, _name), lane in self._lanes.items() if home is loop and lane.worker is not None
        ]
        for worker in workers:
            worker.cancel()
        if workers:
            await asyncio.wait(workers)
        self._lanes.clear()

    def _lane(self, info: EmbedderInfo) -> _Lane:
        loop = asyncio.get_running_loop()
        for key in [key for key in self._lanes if key[0].is_closed()]:
            del self._lanes[key]
        return self._lanes.setdefault((loop, info.name), _Lane(info))

    async def _work(self, lane: _Lane) -> None:
        try:
            while batch := _take_batch(lane):
                # The worker itself would tell everything as a part of the request that happened to begin it.
                await asyncio.create_task(self._compute_traced(lane.info, batch), context=batch[0].context)
                for item in batch:
                    del lane.waiting[item.kind, item.text]
        finally:
            # Reached with items only when the worker was cancelled: nobody will compute them any more.
            for item in lane.waiting.values():
                _fail(item, AlreadyClosedError("the similarity engine stopped before the text was embedded"))
            lane.waiting.clear()
            lane.urgent.clear()
            lane.background.clear()

    async def _compute_traced(self, info: EmbedderInfo, batch: list[_Item]) -> None:
        """Compute a batch in the trace of the request that asked first; the others are linked to it."""
        if not self._spans.is_on:
            await self._compute(info, batch, NO_SPAN)
            return
        attributes: dict[str, Value] = {"model.name": info.name, "similarity.texts": len(batch)}
        with self._spans.span("similarity.batch", attributes) as span:
            for item in batch:
                item.batch = span
            await self._compute(info, batch, span)

    async def _compute(self, info: EmbedderInfo, batch: list[_Item], span: Span) -> None:
        try:
            computed = await self._embed_batch(info.name, [item.text for item in batch], batch[0].kind)
        except Exception as exc:  # noqa: BLE001  # whatever it is, it belongs to those who wait for this batch
            self._counters["failed_batches"] += 1
            span.fail(type(exc).__name__, str(exc))
            for item in batch:
                _fail(item, exc)
            return
        for item, result in zip(batch, computed, strict=True):
            if item.is_kept:
                self._keep(info, item.kind, item.text, result)
            if not item.outcome.done():
                item.outcome.set_result(result)

    async def _embed_batch(self, model: str, texts: list[str], kind: Kind) -> list[ComputedText]:
        async with self._pool.lease(model) as embedder:
            started_s = self._clock.monotonic()
            embedded = await _in_thread(lambda: _embed(embedder, texts, kind))
            seconds = self._clock.monotonic() - started_s
        self._counters["batches"] += 1
        self._counters["texts"] += len(texts)
        self._counters["embed_seconds"] += seconds
        self._record("similarity.embed_time", seconds, "seconds", model=model)
        self._record("similarity.batch_texts", float(len(texts)), "texts", model=model)
        share_s = seconds / max(1, sum(each.token_count for each in embedded))
        return [ComputedText(each, share_s * each.token_count) for each in embedded]


def _enqueue(lane: _Lane, text: str, kind: Kind, *, is_urgent: bool, is_kept: bool) -> _Item:
    item = lane.waiting.get((kind, text))
    if item is None:
        item = _Item(text, kind, asyncio.get_running_loop().create_future(), is_urgent=is_urgent)
        lane.waiting[kind, text] = item
        (lane.urgent if is_urgent else lane.background).append(item)
    elif is_urgent and not item.is_urgent:
        # Somebody now waits for what was only to be done some time: it is taken from whichever queue comes first.
        item.is_urgent = True
        lane.urgent.append(item)
    item.waiters += 1
    item.is_kept = item.is_kept or is_kept
    return item


def _link(span: Span, items: list[_Item]) -> None:
    if span.is_recording:
        for batch in dict.fromkeys(item.batch for item in items):
            if batch.trace_id != span.trace_id:
                span.link(batch)


def _take_batch(lane: _Lane) -> list[_Item]:
    """Take the next texts of one kind, oldest first, urgent ones before the others."""
    batch: dict[_Item, None] = {}
    chars = 0
    for queue in (lane.urgent, lane.background):
        while queue and len(batch) < lane.info.max_batch:
            item = queue[0]
            kind = next(iter(batch)).kind if batch else item.kind
            if item.kind != kind or (batch and chars + len(item.text) > MAX_BATCH_CHARS):
                return list(batch)
            queue.popleft()
            if item in batch or lane.waiting.get((item.kind, item.text)) is not item:
                continue  # taken already, from the other queue
            if item.waiters:
                batch[item] = None
                chars += len(item.text)
            else:
                del lane.waiting[item.kind, item.text]
                item.outcome.cancel()
    return list(batch)


def _fail(item: _Item, error: BaseException) -> None:
    if not item.outcome.done():
        item.outcome.set_exception(error)
        # Marks it as seen: when every waiter has left, there is nobody to be told.
        item.outcome.exception()


async def _in_thread(work: Callable[[], Any]) -> Any:
    """Run ``work`` in a thread; when cancelled, wait until the thread has left the model, then go."""
    running = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        if not running.cancelled():
            running.exception()
        raise


def _embed(embedder: Embedder, texts: list[str], kind: Kind) -> list[EmbeddedText]:
    from ondol.similarity.scoring import unit_rows  # noqa: PLC0415  # imports numpy: the model has by now

    try:
        vectors = unit_rows(embedder.embed(texts, kind))
    except ValueError as exc:
        raise ModelError(f"the model {embedder.name!r} gave no usable vectors: {exc}") from exc
    if vectors.shape != (len(texts), embedder.dimension):
        raise ModelError(
            f"the model {embedder.name!r} gave vectors of shape {vectors.shape} for {len(texts)} texts; "
            f"({len(texts)}, {embedder.dimension}) was expected"
        )
    counts = embedder.count_tokens(texts)
    return [_embedded(vector, count) for vector, count in zip(vectors, counts, strict=True)]


def _embedded(vector: npt.NDArray[np.float32], token_count: int) -> EmbeddedText:
    """Return a read-only copy: a view of the batch would keep the whole batch in memory."""
    import numpy as np  # noqa: PLC0415  # the model has imported it by now

    row = np.empty(len(vector) + 1, dtype=np.float32)
    row[:-1] = vector
    row[-1] = token_count
    row.flags.writeable = False
    return EmbeddedText(row)
