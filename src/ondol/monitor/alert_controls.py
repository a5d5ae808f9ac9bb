"""service: the alerts of a monitor, as those who run it see and steer them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ondol.monitor.default_rules import is_default_rule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ondol.monitor.alerting import AlertDesk
    from ondol.monitor.alerts import AlertEvent, AlertRule
    from ondol.monitor.notices import Notices
    from ondol.monitor.silences import PlannedSilence, Silence

__all__ = ["AlertControls"]


class AlertControls:
    """Rules, alerts, their history, and silences. Thread-safe."""

    _alerts: AlertDesk
    _notices: Notices | None
    _is_enabled: bool
    """Whether the rules are watched."""

    def add_alert_rule(self, rule: AlertRule) -> None:
        """Watch ``rule`` from now on; it takes the place of another rule of that name.

        Raises:
            MonitorError: it is no :class:`AlertRule`.
        """
        self._alerts.add(rule)

    def use_default_rules(self, rules: Iterable[AlertRule]) -> None:
        """Take these default rules instead of those it has; what the program changed in these stays so."""
        watched = {rule.name for rule in self._alerts.rules() if is_default_rule(rule)}
        for rule in rules:
            if rule.name in watched:
                self._alerts.add(rule)

    def remove_alert_rule(self, name: str) -> bool:
        """Forget a rule, resolving its alert; return whether there was one of that name."""
        return self._alerts.remove(name)

    def alert_rules(self) -> list[AlertRule]:
        """Return the rules in the order they were added."""
        return self._alerts.rules()

    def alert_states(self) -> list[dict[str, Any]]:
        """Return each rule and how it stands: ``inactive``, ``pending`` or ``firing``, since when, and the value."""
        return self._alerts.rules_state()

    def alert_stats(self) -> dict[str, Any]:
        """Return what fires and what may soon, the last transitions, silences, counts, and how the notices fare.

        Where ``is_enabled`` is false nobody watches the rules: that nothing fires means nothing.
        """
        notices = {} if self._notices is None else self._notices.get_stats()
        return {"is_enabled": self._is_enabled, **self._alerts.get_stats(), "notices": notices}

    def active_alerts(self) -> list[AlertEvent]:
        """Return the firing event of each active alert."""
        return self._alerts.active()

    def alert_history(self) -> list[AlertEvent]:
        """Return the last 1000 transitions, newest last."""
        return self._alerts.history()

    def add_alert_listener(self, callback: Callable[[AlertEvent], object]) -> None:
        """Call ``callback`` once for each alert that fires or is resolved; one that raises is logged and counted."""
        self._alerts.listen(callback)

    def silence_alerts(
        self, matchers: Mapping[str, str], duration_s: float, *, comment: str = "", created_by: str = ""
    ) -> Silence:
        """Hold back the notices of alerts whose labels match, for so long; the alerts themselves go on.

        Args:
            matchers: by label (``alertname``, ``severity``, ``metric``, and the rule's own), a value or a glob.
            duration_s: more than 0; at most a year.
            comment: why.
            created_by: who.

        Raises:
            MonitorError: a matcher or the duration is not valid, or there are too many silences.
        """
        silence = self._alerts.silence(matchers, duration_s, comment, created_by)
        self._silences_changed()
        return silence

    def plan_silence(self, planned: PlannedSilence) -> Silence | None:
        """Silence as a file says; return ``None`` when that is over already."""
        silence = self._alerts.plan(planned)
        self._silences_changed()
        return silence

    def end_silence(self, silence_id: str) -> bool:
        """End a silence before its time; return whether there was one of that id."""
        is_ended = self._alerts.unsilence(silence_id)
        self._silences_changed()
        return is_ended

    def _silences_changed(self) -> None:
        if self._notices is not None:
            self._notices.silences_changed()

    def silence_of(self, labels: Mapping[str, str]) -> Silence | None:
        """Return a silence that holds back an alert with these labels, if there is one."""
        return self._alerts.is_silenced(labels)

    @property
    def notices(self) -> Notices | None:
        """What tells of alerts, if anything does."""
        return self._notices

    def send_notices_to(self, notices: Notices | None) -> None:
        """Let ``notices`` tell of alerts from the next start on; it is started and stopped with the monitor.

        What told of them before ends at the next start or stop. Starting a running monitor is enough.
        """
        before, self._notices = self._notices, notices
        if before is not None:
            self._alerts.unlisten(before.take)
        if notices is not None:
            self._alerts.listen(notices.take)

    def silences(self) -> list[Silence]:
        """Return the silences that are active or still to come."""
        return self._alerts.silences()
