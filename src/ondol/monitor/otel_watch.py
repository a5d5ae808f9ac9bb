"""service: what becomes of the exports to an OpenTelemetry collector: counted, and told once per outage."""

from __future__ import annotations

import logging
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

__all__ = ["ExportWatch", "WatchedSpanExporter"]

logger = logging.getLogger("ondol.monitor")

_TALKATIVE: Final = (
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.exporter.otlp.proto.http.metric_exporter",
)


class ExportWatch:
    """Counts the exports of one kind and logs when they begin to fail, and when they work again.

    The exporters themselves log each attempt that fails, several in ten seconds while a collector is down. Of those
    made under this watch, between ``open`` and ``close``, only the first words are kept, for the one line that is
    logged.

    Thread-safety: may be used from any thread.
    """

    def __init__(self, what: str) -> None:
        """Watch the exports of ``what``, in words."""
        self.exports = 0
        self.failed_exports = 0
        self.items = 0
        self._what = what
        self._is_failing = False
        self._lock = threading.Lock()
        self._filter = _FirstWords()

    def open(self) -> None:
        """Keep the exporters' own lines back from now on."""
        for name in _TALKATIVE:
            logging.getLogger(name).addFilter(self._filter)

    def close(self) -> None:
        """End that."""
        for name in _TALKATIVE:
            logging.getLogger(name).removeFilter(self._filter)

    @contextmanager
    def attempt(self, item_count: int) -> Iterator[list[bool]]:
        """Watch one export; the block appends whether it succeeded. An exception is a failure and is not passed on."""
        outcome: list[bool] = []
        self._filter.begin()
        try:
            yield outcome
        except Exception as exc:  # noqa: BLE001  # an exporter may raise anything; told and counted there
            self._note_failure(exc)
        else:
            if outcome == [True]:
                self._note_success(item_count)
            else:
                self._note_failure(None)
        finally:
            self._filter.end()

    def get_stats(self) -> dict[str, Any]:
        """Return the figures as plain values."""
        with self._lock:
            return {"exports": self.exports, "failed_exports": self.failed_exports, "exported": self.items}

    def _note_success(self, item_count: int) -> None:
        with self._lock:
            self.exports += 1
            self.items += item_count
            was_failing, self._is_failing = self._is_failing, False
        if was_failing:
            logger.info("the OpenTelemetry collector takes %s again", self._what)

    def _note_failure(self, error: Exception | None) -> None:
        with self._lock:
            self.failed_exports += 1
            was_failing, self._is_failing = self._is_failing, True
        if not was_failing:
            logger.warning(
                "%s cannot be exported by OpenTelemetry: %s; further failures are only counted until it works again",
                *(self._what, self._filter.words() or error or "the exporter does not say why"),
                exc_info=error,
            )


class _FirstWords(logging.Filter):
    """Keeps back what is logged in the threads that are within an attempt, and remembers the first of it."""

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.local()

    def begin(self) -> None:
        self._thread.words = ""

    def end(self) -> None:
        del self._thread.words

    def words(self) -> str:
        return str(getattr(self._thread, "words", ""))

    def filter(self, record: logging.LogRecord) -> bool:
        if not hasattr(self._thread, "words"):
            return True
        # The first attempt says what is wrong, the last one only that there were several.
        self._thread.words = self._thread.words or record.getMessage()
        return False


class WatchedSpanExporter:
    """A span exporter whose exports are counted, and which may be shut down more than once."""

    def __init__(self, exporter: SpanExporter, watch: ExportWatch) -> None:
        """Export through ``exporter``."""
        self._exporter = exporter
        self._watch = watch
        self._once = threading.Lock()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult | None:
        """Export a batch; return what became of it, ``None`` when the exporter raised."""
        result = None
        with self._watch.attempt(len(spans)) as outcome:
            result = self._exporter.export(spans)
            outcome.append(result.name == "SUCCESS")
        return result

    def shutdown(self) -> None:
        """End the attempts under way."""
        if self._once.acquire(blocking=False):
            self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Return whether everything was exported that is here."""
        return self._exporter.force_flush(timeout_millis)
