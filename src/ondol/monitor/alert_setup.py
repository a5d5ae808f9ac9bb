"""service: puts the rules of ``ondol-alerts.toml`` and of the environment into a monitor, and where its notices go."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ondol.errors import InvalidSettingError, MonitorError
from ondol.monitor.alert_file import AlertFile, load_alert_file
from ondol.monitor.apprise_notifier import AppriseNotifier
from ondol.monitor.default_rules import default_rules
from ondol.monitor.notices import Notices
from ondol.monitor.targets import WebhookTarget
from ondol.monitor.webhook import WebhookNotifier

if TYPE_CHECKING:
    from ondol.clock import Clock
    from ondol.monitor.monitor import PerformanceMonitor
    from ondol.monitor.notice_ports import Notifier

__all__ = ["AlertSources", "load_alerts", "set_up_alerts"]


class AlertSources(NamedTuple):
    """Where rules and targets come from."""

    environment: str = "development"
    file: str | None = None
    webhook_url: str | None = None
    webhook_secret: str | None = None


def load_alerts(sources: AlertSources, clock: Clock) -> AlertFile:
    """Return what the file says, with the webhook of the environment.

    Raises:
        InvalidSettingError: the file is not there, or holds mistakes; all of them are told.
    """
    content = AlertFile() if sources.file is None else load_alert_file(sources.file, clock=clock)
    if sources.webhook_url is None:
        return content
    names = {*(target.name for target in content.webhooks), *(target.name for target in content.apprise)}
    name = next(name for name in ("environment", "environment-2", "environment-3") if name not in names)
    target = WebhookTarget(sources.webhook_url, sources.webhook_secret, name=name)
    return content._replace(webhooks=(*content.webhooks, target))


def set_up_alerts(monitor: PerformanceMonitor, sources: AlertSources, clock: Clock) -> None:
    """Let ``monitor`` watch the default rules and those of the file, and tell the targets of it.

    Rules that the program added or took away itself stay so, unless the file has one of their name. When something is
    not valid, nothing has changed.

    Raises:
        InvalidSettingError: the file or an address is not valid.
        MissingExtraError: Apprise is asked for and not installed.
    """
    content = load_alerts(sources, clock)
    notices = _notices(monitor, content, clock)
    monitor.use_default_rules(default_rules(sources.environment))
    for name in content.disabled:
        monitor.remove_alert_rule(name)
    for rule in content.rules:
        monitor.add_alert_rule(rule)
    known = {(silence.ends_at, *sorted(silence.matchers.items())) for silence in monitor.silences()}
    for planned in content.silences:
        if (planned.ends_at, *sorted(planned.matchers.items())) not in known:
            monitor.plan_silence(planned)
    monitor.send_notices_to(notices)


def _notices(monitor: PerformanceMonitor, content: AlertFile, clock: Clock) -> Notices | None:
    try:
        notifiers: list[Notifier] = [WebhookNotifier(target, clock) for target in content.webhooks]
        notifiers += [AppriseNotifier(target) for target in content.apprise]
        if not notifiers:
            return None
        return Notices(
            notifiers, content.grouping, clock=clock, is_silenced=monitor.silence_of, recorder=monitor.add_metric
        )
    except MonitorError as exc:
        raise InvalidSettingError([f"notices of alerts: {exc}"]) from exc
