"""service: what file and settings have put into a monitor, so that other ones can take it back first."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ondol.errors import InvalidSettingError, MonitorError
from ondol.monitor.default_rules import default_rules, is_default_rule
from ondol.monitor.targets import Grouping

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ondol.clock import Clock
    from ondol.monitor.alert_file import AlertFile
    from ondol.monitor.alert_rule import AlertRule
    from ondol.monitor.monitor import PerformanceMonitor
    from ondol.monitor.notice_ports import Notifier
    from ondol.monitor.notices import Notices
    from ondol.monitor.silences import PlannedSilence
    from ondol.monitor.targets import AppriseTarget, WebhookTarget

__all__ = ["AlertSources", "AppliedAlerts"]


class AlertSources(NamedTuple):
    """Where rules and targets come from."""

    environment: str = "development"
    file: str | None = None
    webhook_url: str | None = None
    webhook_secret: str | None = None


class _Change(NamedTuple):
    """What the file made of the rules of one name."""

    made: AlertRule | None
    """``None``: it took the rule out."""
    before: AlertRule | None


class AppliedAlerts:
    """Puts rules, silences and targets into one monitor, each time instead of those of the time before.

    What the program has changed itself since, stays: a rule that is not the file's any more, a silence that was ended,
    other notices. Not thread-safe, but its monitor is.
    """

    def __init__(self, monitor: PerformanceMonitor, clock: Clock) -> None:
        """Change nothing yet."""
        self._monitor = monitor
        self._clock = clock
        self._changes: dict[str, _Change] = {}
        self._silences: list[tuple[PlannedSilence, str | None]] = []
        """With their ids; ``None``: it was over when it was to be made."""
        self._notifiers: dict[WebhookTarget | AppriseTarget, Notifier] = {}
        self._notices: Notices | None = None

    def check(self, sources: AlertSources) -> None:
        """Look whether all is valid; nothing changes.

        Raises:
            InvalidSettingError: the file or an address is not valid.
            MissingExtraError: Apprise is asked for and not installed.
        """
        self._load(sources)

    def apply(self, sources: AlertSources) -> None:
        """Let the monitor watch the default rules and those of the file, and tell the targets of it.

        Rules that the program added or took away itself stay so, unless the file has one of their name. When something
        is not valid, nothing has changed. Where the monitor is running, start it again: it tells others from then on.

        Raises:
            InvalidSettingError: the file or an address is not valid, or there are too many silences.
            MissingExtraError: Apprise is asked for and not installed.
        """
        content, notifiers = self._load(sources)
        self._change_silences(() if content is None else content.silences)  # first: this may fail still
        self._change_rules({} if content is None else _asked_rules(content), default_rules(sources.environment))
        self._change_notices(notifiers, Grouping() if content is None else content.grouping)

    def _load(self, sources: AlertSources) -> tuple[AlertFile | None, dict[WebhookTarget | AppriseTarget, Notifier]]:
        if sources.file is None and sources.webhook_url is None:
            return None, {}
        # HTTP, TLS and TOML are imported only where somebody is to be told.
        from ondol.monitor.alert_setup import load_alerts, make_notifiers  # noqa: PLC0415

        content = load_alerts(sources, self._clock)
        return content, make_notifiers(content, self._clock, self._notifiers)

    def _change_rules(self, asked: Mapping[str, AlertRule | None], defaults: Sequence[AlertRule]) -> None:
        """Compare what is with what should be, and touch only what differs: a rule that stays keeps its alert."""
        current = {rule.name: rule for rule in self._monitor.alert_rules()}
        wanted = dict(current)
        for name, change in self._changes.items():
            if wanted.get(name) == change.made:
                _put(wanted, name, change.before)
        for rule in defaults:
            if rule.name in wanted and is_default_rule(wanted[rule.name]):
                wanted[rule.name] = rule
        self._changes = {name: _Change(made, wanted.get(name)) for name, made in asked.items()}
        for name, made in asked.items():
            _put(wanted, name, made)
        for name in current.keys() - wanted.keys():
            self._monitor.remove_alert_rule(name)
        for name, rule in wanted.items():
            if current.get(name) != rule:
                self._monitor.add_alert_rule(rule)

    def _change_silences(self, planned: Sequence[PlannedSilence]) -> None:
        """Make those that are new and end those that the file has no more."""
        known = [silence for silence, _ in self._silences]
        made: list[tuple[PlannedSilence, str | None]] = []
        try:
            for silence in planned:
                if silence not in known:
                    known.append(silence)
                    kept = self._monitor.plan_silence(silence)
                    made.append((silence, None if kept is None else kept.id))
        except MonitorError as exc:
            self._end_silences(made)
            raise InvalidSettingError([f"silences of the alert file: {exc}"]) from exc
        self._end_silences([pair for pair in self._silences if pair[0] not in planned])
        self._silences = [pair for pair in self._silences if pair[0] in planned] + made

    def _end_silences(self, silences: Sequence[tuple[PlannedSilence, str | None]]) -> None:
        for _, silence_id in silences:
            if silence_id is not None:
                self._monitor.end_silence(silence_id)

    def _change_notices(self, notifiers: Mapping[WebhookTarget | AppriseTarget, Notifier], grouping: Grouping) -> None:
        """Tell these; those that were told before go on with what they know."""
        self._notifiers = dict(notifiers)
        if self._notices is not None:
            self._notices.replace(notifiers.values(), grouping)
        elif notifiers:
            from ondol.monitor.alert_setup import make_notices  # noqa: PLC0415  # imported by now

            self._notices = make_notices(self._monitor, notifiers.values(), grouping, self._clock)
            if self._monitor.notices is None:
                self._monitor.send_notices_to(self._notices)


def _asked_rules(content: AlertFile) -> dict[str, AlertRule | None]:
    """Return what the file says of the rules of some names; ``None``: there is to be none."""
    return {**dict.fromkeys(content.disabled), **{rule.name: rule for rule in content.rules}}


def _put(rules: dict[str, AlertRule], name: str, rule: AlertRule | None) -> None:
    if rule is None:
        rules.pop(name, None)
    else:
        rules[name] = rule
