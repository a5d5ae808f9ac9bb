"""decision: which alerts share a notice, when it is due, and what a receiver has been told.

The terms are Alertmanager's. A group is told ``wait_s`` after the first thing to tell, then never within
``interval_s`` of the notice before; once nothing of it fires and all is told, the group is forgotten and the next
alert begins a new one. Unlike Alertmanager's, a notice holds only what is news for its receiver: each alert is told
firing once and resolved once, repetitions (``repeat_s``) apart.

- An alert that was resolved before it was told is told as resolved only, in one notice for both; it is not told at
  all if it had fired for less than ``wait_s``.
- An alert that goes and comes back between two notices is told in its last state, and not at all if that is the
  state told before.
- A silenced alert that fires is held back until the silence ends; that it was resolved is told in spite of a silence
  if it had been told that it fires.
- A receiver that may have got a notice (the attempt timed out) is told the state again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from ondol.monitor.notice import Notice, alert_of, fingerprint_of, group_key_of, group_labels_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ondol.monitor.alerts import AlertEvent
    from ondol.monitor.notice import NoticeAlert
    from ondol.monitor.targets import Grouping

__all__ = ["NoticeBook"]

MAX_ENDED: Final = 1000


class _Alert:
    """What is known of one alert, and what its receiver knows."""

    __slots__ = (
        "ended",
        "event",
        "fingerprint",
        "is_doubtful",
        "is_in_flight",
        "is_silenced",
        "is_told",
        "is_unseen",
        "labels",
        "since_s",
        "told_at_s",
    )

    def __init__(self, event: AlertEvent, fingerprint: str) -> None:
        self.fingerprint = fingerprint
        self.labels = event.labels
        self.event = event
        self.ended: AlertEvent | None = None
        """How it was resolved; ``None`` while it fires."""
        self.since_s = 0.0
        """Since when it fires and could have been told."""
        self.is_silenced = False
        self.is_told = False
        """The receiver was told that it fires, and not that it was resolved."""
        self.told_at_s = 0.0
        self.is_unseen = False
        """It was resolved before it was told, and had fired for long enough to be worth telling."""
        self.is_doubtful = False
        """An attempt may have reached the receiver or not."""
        self.is_in_flight = False

    @property
    def is_firing(self) -> bool:
        return self.event.state == "fired"

    @property
    def news(self) -> Literal["firing", "resolved"] | None:
        if self.is_firing:
            is_known = self.is_told and not self.is_doubtful
            return None if is_known or self.is_silenced else "firing"
        return "resolved" if self.is_told or self.is_doubtful or self.is_unseen else None

    @property
    def is_held(self) -> bool:
        return self.is_firing and self.is_silenced

    @property
    def is_repeatable(self) -> bool:
        return self.is_firing and self.is_told and not self.is_silenced


class _Group:
    __slots__ = ("alerts", "due_at_s", "key", "labels", "last_at_s")

    def __init__(self, key: str, labels: Mapping[str, str]) -> None:
        self.key = key
        self.labels = labels
        self.alerts: dict[str, _Alert] = {}
        self.due_at_s: float | None = None
        self.last_at_s: float | None = None
        """When its last notice was delivered."""

    @property
    def has_news(self) -> bool:
        return any(alert.news is not None for alert in self.alerts.values())


class NoticeBook:
    """The groups of alerts as one receiver is to be told of them. Not thread-safe: its owner locks.

    Cost: linear in the number of groups or of a group's alerts; both are bounded by the number of rules.
    """

    def __init__(self, grouping: Grouping, *, sends_resolved: bool = True, max_due: int = 100) -> None:
        """Begin with nothing told; at most ``max_due`` groups wait for their delivery."""
        self._grouping = grouping
        self._sends_resolved = sends_resolved
        self._max_due = max_due
        self._groups: dict[str, _Group] = {}
        self._ended: dict[str, float] = {}
        self._is_hurried = False

    def take(self, event: AlertEvent, *, is_silenced: bool, now_s: float) -> None:
        """Learn that an alert fired or was resolved. What is known already changes nothing."""
        fingerprint = fingerprint_of(event.labels)
        labels = group_labels_of(event.labels, self._grouping.by)
        key = group_key_of(labels)
        group = self._groups.get(key)
        alert = group.alerts.get(fingerprint) if group is not None else None
        if event.state == "resolved":
            if group is not None and alert is not None and alert.is_firing:
                self._resolve(alert, event, is_silenced=is_silenced, now_s=now_s)
                self._plan(group, now_s)
            else:
                self._note_ended(fingerprint, event)
        elif self._ended.pop(fingerprint, None) != event.starts_at:
            if group is None:
                group = self._groups[key] = _Group(key, labels)
            self._fire(group, fingerprint, event, is_silenced=is_silenced, now_s=now_s)

    def _note_ended(self, fingerprint: str, event: AlertEvent) -> None:
        # Events of two threads may come in the wrong order: the firing that follows must not stay for ever.
        self._ended[fingerprint] = event.starts_at
        if len(self._ended) > MAX_ENDED:
            del self._ended[next(iter(self._ended))]

    def _fire(self, group: _Group, fingerprint: str, event: AlertEvent, *, is_silenced: bool, now_s: float) -> None:
        alert = group.alerts.get(fingerprint)
        if alert is None:
            alert = group.alerts[fingerprint] = _Alert(event, fingerprint)
            alert.since_s = now_s
        elif not alert.is_firing:
            alert.since_s = now_s
        alert.event = event
        alert.is_silenced = is_silenced
        self._plan(group, now_s)

    def _resolve(self, alert: _Alert, event: AlertEvent, *, is_silenced: bool, now_s: float) -> None:
        is_worth = not is_silenced and now_s - alert.since_s >= self._grouping.wait_s
        alert.event = event
        if is_worth or not alert.is_unseen or alert.is_told or alert.is_doubtful or alert.is_in_flight:
            alert.ended = event
        alert.is_unseen = alert.is_unseen or (is_worth and not alert.is_told)

    def firing(self) -> list[tuple[str, Mapping[str, str]]]:
        """Return the alerts that fire, for which silences matter: fingerprint and labels."""
        return [(alert.fingerprint, alert.labels) for alert in self._alerts() if alert.is_firing]

    def settle(self, silenced: Mapping[str, bool], now_s: float) -> None:
        """Learn which alerts are silenced now, by fingerprint; what a silence held back is due without waiting."""
        for group in list(self._groups.values()):
            changed = [a for a in group.alerts.values() if a.is_silenced != silenced.get(a.fingerprint, a.is_silenced)]
            for alert in changed:
                alert.is_silenced = silenced[alert.fingerprint]
                alert.since_s = now_s
            if changed:
                self._plan(group, now_s, wait_s=0.0)

    def _alerts(self) -> Iterable[_Alert]:
        return (alert for group in self._groups.values() for alert in group.alerts.values())

    def _plan(self, group: _Group, now_s: float, *, wait_s: float | None = None) -> None:
        """Set when the group is due, and forget what is over and told."""
        for alert in list(group.alerts.values()):
            if not alert.is_firing and alert.news is None and not alert.is_in_flight:
                del group.alerts[alert.fingerprint]
        if not group.alerts:
            self._groups.pop(group.key, None)
        earliest_s = now_s if group.last_at_s is None else max(now_s, group.last_at_s + self._grouping.interval_s)
        if not group.has_news:
            repeat_at_s = self._repeat_at_s(group)
            group.due_at_s = None if repeat_at_s is None else max(repeat_at_s, earliest_s)
        elif self._is_hurried:
            group.due_at_s = now_s
        else:
            wait_s = self._grouping.wait_s if wait_s is None else wait_s
            news_at_s = max(now_s + wait_s, earliest_s)
            group.due_at_s = news_at_s if group.due_at_s is None else min(group.due_at_s, news_at_s)

    def _repeat_at_s(self, group: _Group) -> float | None:
        told_at_s = [alert.told_at_s for alert in group.alerts.values() if alert.is_repeatable]
        if not told_at_s or self._grouping.repeat_s <= 0 or self._is_hurried:
            return None
        return min(told_at_s) + self._grouping.repeat_s

    def next_due_at_s(self) -> float | None:
        """Return when the next group is due; may have passed already."""
        return min((group.due_at_s for group in self._groups.values() if group.due_at_s is not None), default=None)

    def has_held(self) -> bool:
        """Return whether a silence holds back an alert that fires."""
        return any(alert.is_held for alert in self._alerts())

    def due(self, now_s: float) -> list[str]:
        """Return the keys of the groups that are due, longest first."""
        due = [(group.due_at_s, group.key) for group in self._groups.values() if self.is_due(group.key, now_s)]
        return [key for _, key in sorted(due)]

    def is_due(self, key: str, now_s: float) -> bool:
        """Return whether there is something to tell of this group now."""
        group = self._groups.get(key)
        return group is not None and group.due_at_s is not None and group.due_at_s <= now_s

    def drop_overflow(self, now_s: float) -> list[str]:
        """Put off the groups that are due longest beyond ``max_due``; return their keys."""
        dropped = self.due(now_s)[: -self._max_due]
        for key in dropped:
            self.put_off(key, now_s, again_in_s=self._grouping.interval_s)
        return dropped

    def compose(self, key: str, now_s: float) -> Notice | None:
        """Return what is to be told of the group now, in its newest state; ``None``: nothing any more.

        The outcome of the attempt must follow: :meth:`delivered` or :meth:`missed`.
        """
        group = self._groups.get(key)
        if group is None:
            return None
        if not self._sends_resolved:
            self._pass_over_resolved(group)
        told = self._to_tell(group, now_s)
        if not told:
            group.due_at_s = None
            self._plan(group, now_s)
            return None
        for alert in told:
            alert.is_in_flight = True
        events = {a.fingerprint: a.event if a.is_firing else a.ended or a.event for a in told}
        alerts = tuple(alert_of(event, fingerprint) for fingerprint, event in events.items())
        is_firing = any(a.is_firing and (a.is_told or a.fingerprint in events) for a in group.alerts.values())
        return Notice(key, group.labels, "firing" if is_firing else "resolved", alerts)

    def _to_tell(self, group: _Group, now_s: float) -> list[_Alert]:
        repeat_at_s = self._repeat_at_s(group)
        repeats = repeat_at_s is not None and repeat_at_s <= now_s
        return [a for a in group.alerts.values() if a.news is not None or (repeats and a.is_repeatable)]

    @staticmethod
    def _pass_over_resolved(group: _Group) -> None:
        for alert in group.alerts.values():
            if not alert.is_firing:
                alert.is_told = alert.is_doubtful = alert.is_unseen = False

    def regroup(self, grouping: Grouping, now_s: float) -> None:
        """Group by other terms from now on; what the receiver was told, and what is under way to it, stays known."""
        if grouping == self._grouping:
            return
        before, self._groups, self._grouping = self._groups, {}, grouping
        for old in before.values():
            for alert in old.alerts.values():
                labels = group_labels_of(alert.labels, grouping.by)
                key = group_key_of(labels)
                group = self._groups.setdefault(key, _Group(key, labels))
                group.alerts[alert.fingerprint] = alert
                if old.last_at_s is not None:
                    group.last_at_s = max(old.last_at_s, group.last_at_s or old.last_at_s)
        for group in list(self._groups.values()):
            self._plan(group, now_s)

    def _in(self, notice: Notice) -> tuple[list[_Group], list[tuple[NoticeAlert, _Alert]]]:
        """Return the groups and the alerts that ``notice`` is about; they were regrouped since, perhaps."""
        places = {alert.fingerprint: group for group in self._groups.values() for alert in group.alerts.values()}
        groups = {group.key: group for group in (places[told.fingerprint] for told in notice.alerts)}
        alerts = [(told, places[told.fingerprint].alerts[told.fingerprint]) for told in notice.alerts]
        return list(groups.values()), alerts

    def delivered(self, notice: Notice, now_s: float) -> None:
        """Learn that the receiver took ``notice``."""
        groups, alerts = self._in(notice)
        for told, alert in alerts:
            alert.is_in_flight = alert.is_doubtful = False
            alert.is_told = told.status == "firing"
            alert.told_at_s = now_s
            if alert.is_told or alert.ended is None or alert.ended.starts_at == told.starts_at:
                alert.is_unseen = False
        for group in groups:
            group.last_at_s = now_s
            group.due_at_s = None
            self._plan(group, now_s)

    def missed(self, notice: Notice, now_s: float, *, is_doubtful: bool) -> None:
        """Learn that an attempt failed; ``is_doubtful``: the receiver may have got it nevertheless."""
        groups, alerts = self._in(notice)
        for _, alert in alerts:
            alert.is_in_flight = False
            alert.is_doubtful = alert.is_doubtful or is_doubtful
        for group in groups:
            self._plan(group, now_s)

    def put_off(self, key: str, now_s: float, *, again_in_s: float | None) -> None:
        """Let the group be due again after ``again_in_s``; ``None``: when something else happens in it."""
        group = self._groups.get(key)
        if group is not None:
            group.due_at_s = None if again_in_s is None else now_s + again_in_s

    def hurry(self, now_s: float) -> None:
        """Let all news be due at once, and all that come, until :meth:`relax`."""
        self._is_hurried = True
        for group in list(self._groups.values()):
            if group.due_at_s is not None:
                self._plan(group, now_s)

    def relax(self, now_s: float) -> None:
        """End the hurry; what is due stays due."""
        self._is_hurried = False
        for group in list(self._groups.values()):
            if not group.has_news:
                self._plan(group, now_s)

    def untold(self) -> list[str]:
        """Return the keys of the groups of which something is still to be told."""
        return [group.key for group in self._groups.values() if group.has_news and group.due_at_s is not None]
