"""service: tells every notifier of alerts that fire and are resolved: grouped, once, and never in anybody's way."""

from __future__ import annotations

import asyncio
import logging
import random as random_module
from typing import TYPE_CHECKING, Any, Final

from ondol.clock import SystemClock
from ondol.errors import MonitorError
from ondol.monitor.delivery import Delivery, Surroundings
from ondol.monitor.targets import Grouping
from ondol.recorder import discard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from ondol.clock import Clock
    from ondol.monitor.alerts import AlertEvent
    from ondol.monitor.notice_ports import Notifier
    from ondol.recorder import Recorder

__all__ = ["Notices"]

logger = logging.getLogger("ondol.monitor")

GRACE_S: Final = 2.0
"""How long a stop waits for what has not been told."""


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
        self._around = Surroundings(
            grouping=grouping or Grouping(),
            clock=clock or SystemClock(),
            random=random or random_module.Random(),  # noqa: S311  # spreads retries, hides nothing
            is_silenced=self._is_silenced,
            record=self._record,
        )
        self._leaving: list[Delivery] = []
        """Those that were replaced while they ran, perhaps; the next start or stop ends them."""
        self._deliveries: dict[str, Delivery] = _deliveries(notifiers, self._around, {})

    def replace(self, notifiers: Iterable[Notifier], grouping: Grouping) -> None:
        """Tell these from now on, grouped so. Where this is running, :meth:`start` it again: that begins and ends them.

        A notifier that was among them before, the same object, goes on with what it has told.

        Raises:
            MonitorError: two notifiers have the same name; nothing has changed.
        """
        before = self._deliveries
        around = self._around._replace(grouping=grouping)
        after = _deliveries(notifiers, around, before)
        for delivery in after.values():
            delivery.regroup(grouping)
        self._around, self._deliveries = around, after
        self._leaving += [delivery for name, delivery in before.items() if after.get(name) is not delivery]

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
        """Begin to tell, in the running loop; where that is so already, follow what :meth:`replace` has changed.

        Cancellation: those that were replaced end at once.
        """
        for delivery in self._deliveries.values():
            delivery.start()
        await self._end(self._taken_leave(), GRACE_S)

    def _taken_leave(self) -> list[Delivery]:
        leaving, self._leaving = self._leaving, []
        return leaving

    async def stop(self, grace_s: float = GRACE_S) -> None:
        """End telling. All news are due now, without waiting for their group, and have ``grace_s`` to be delivered.

        What was not delivered is logged, and told after the next :meth:`start`.

        Cancellation: all ends at once.
        """
        await self._end([*self._deliveries.values(), *self._taken_leave()], grace_s)

    @staticmethod
    async def _end(deliveries: Sequence[Delivery], grace_s: float) -> None:
        stops = [asyncio.ensure_future(delivery.stop(grace_s)) for delivery in deliveries]
        try:
            untold = await asyncio.gather(*stops)
        except asyncio.CancelledError:
            await asyncio.wait(stops) if stops else None
            raise
        for delivery, keys in zip(deliveries, untold, strict=True):
            if keys:
                logger.warning(
                    "notifier %r: %d notices not delivered within the %g s of the stop: %s",
                    delivery.name,
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


def _deliveries(
    notifiers: Iterable[Notifier], around: Surroundings, known: Mapping[str, Delivery]
) -> dict[str, Delivery]:
    """Return a delivery for each, by name: the known one of a notifier that was there before, else a new one.

    Raises:
        MonitorError: two notifiers have the same name.
    """
    deliveries: dict[str, Delivery] = {}
    for notifier in notifiers:
        if notifier.name in deliveries:
            raise MonitorError(f"two notifiers have the name {notifier.name!r}: give each a name of its own")
        old = known.get(notifier.name)
        is_known = old is not None and old.notifier is notifier
        deliveries[notifier.name] = old if old is not None and is_known else Delivery(notifier, around)
    return deliveries
