"""service: tells every notifier of alerts that fire and are resolved: grouped, once, and never in anybody's way."""

from __future__ import annotations

import asyncio
import logging
import random as random_module
from typing import TYPE_CHECKING, Any

from ondol.clock import SystemClock
from ondol.errors import MonitorError
from ondol.monitor.delivery import Delivery, Surroundings
from ondol.monitor.targets import Grouping
from ondol.recorder import discard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ondol.clock import Clock
    from ondol.monitor.alerts import AlertEvent
    from ondol.monitor.notice_ports import Notifier
    from ondol.recorder import Recorder

__all__ = ["Notices"]

logger = logging.getLogger("ondol.monitor")


def _never(_labels: Mapping[str, str]) -> object | None:
    return None


class Notices:
    """Brings alerts to notifiers. What is due, in which notice, and once: see :mod:`ondol.monitor.grouping`.

    Each notifier has a queue and a task of its own: one that hangs or fails delays nobody else. A failed attempt is
    made again with exponential backoff for the notifier's ``retry_for_s``, always with the newest state of the group;
    after that, the group is tried again at its next interval as long as there is something to tell. What a receiver
    refuses for good is tried again only when the group changes.

    Thread-safety: :meth:`take`, :meth:`silences_changed` and :meth:`get_stats` may be called in any thread, before
    the start and after the stop too; :meth:`start` and :meth:`stop` belong to an event loop, which may be another one
    at each start.

    Raises:
        MonitorError: two notifiers have the same name.
    """

    def __init__(
        self,
        notifiers: Iterable[Notifier],
        grouping: Grouping | None = None,
        *,
        clock: Clock | None = None,
        random: random_module.Random | None = None,
        is_silenced: Callable[[Mapping[str, str]], object | None] = _never,
        recorder: Recorder = discard,
    ) -> None:
        """Begin with nothing told.

        Args:
            notifiers: who is told; their names differ.
            grouping: which alerts share a notice, and when it is sent.
            clock: reads the time.
            random: spreads the retries.
            is_silenced: gives the silence that holds an alert with these labels back, if any.
            recorder: takes the metric ``alerts.notices``.
        """
        self._ask_silence = is_silenced
        self._recorder = recorder
        self.errors = 0
        """How often asking for silences, recording or taking an event failed; each is logged."""
        surroundings = Surroundings(
            grouping=grouping or Grouping(),
            clock=clock or SystemClock(),
            random=random or random_module.Random(),  # noqa: S311  # spreads retries, hides nothing
            is_silenced=self._is_silenced,
            record=self._record,
        )
        self._deliveries: dict[str, Delivery] = {}
        for notifier in notifiers:
            if notifier.name in self._deliveries:
                raise MonitorError(f"two notifiers have the name {notifier.name!r}: give each a name of its own")
            self._deliveries[notifier.name] = Delivery(notifier, surroundings)

    def take(self, event: AlertEvent) -> None:
        """Learn that an alert fired or was resolved. Returns at once and never raises."""
        try:
            is_silenced = self._is_silenced(event.labels)
            for delivery in self._deliveries.values():
                delivery.take(event, is_silenced=is_silenced)
        except Exception:
            self.errors += 1
            logger.exception("an alert's event cannot be told: %r", event)

    def silences_changed(self) -> None:
        """Ask again which alerts are silenced. The end of a silence that runs out is found without it, in 10 s."""
        for delivery in self._deliveries.values():
            delivery.wake()

    async def start(self) -> None:
        """Begin to tell, in the running loop."""
        for delivery in self._deliveries.values():
            delivery.start()

    async def stop(self, grace_s: float = 5.0) -> None:
        """End telling. All news are due now, without waiting for their group, and have ``grace_s`` to be delivered.

        What was not delivered is logged, and told after the next :meth:`start`.

        Cancellation: all ends at once.
        """
        stops = [asyncio.ensure_future(delivery.stop(grace_s)) for delivery in self._deliveries.values()]
        try:
            untold = await asyncio.gather(*stops)
        except asyncio.CancelledError:
            await asyncio.wait(stops) if stops else None
            raise
        for name, keys in zip(self._deliveries, untold, strict=True):
            if keys:
                logger.warning(
                    "notifier %r: %d notices not delivered within the %g s of the stop: %s",
                    name,
                    len(keys),
                    grace_s,
                    ", ".join(keys[:10]),
                )

    def get_stats(self) -> dict[str, dict[str, Any]]:
        """Return by notifier: sent, failed, retries, dropped, faults, queued, last_error, last_success_at."""
        return {name: delivery.get_stats() for name, delivery in self._deliveries.items()}

    def _is_silenced(self, labels: Mapping[str, str]) -> bool:
        try:
            return self._ask_silence(labels) is not None
        except Exception:
            self.errors += 1
            logger.exception("asking whether an alert is silenced failed: it is told")
            return False

    def _record(self, notifier: str, outcome: str) -> None:
        try:
            self._recorder("alerts.notices", 1, "count", notifier=notifier, outcome=outcome)
        except Exception:
            self.errors += 1
            logger.exception("recording alerts.notices failed")
