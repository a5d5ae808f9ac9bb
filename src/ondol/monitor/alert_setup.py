"""service: reads what file and environment say of alerts, and makes what tells those whom they name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ondol.errors import InvalidSettingError, MonitorError
from ondol.monitor.alert_file import AlertFile, load_alert_file
from ondol.monitor.apprise_notifier import AppriseNotifier
from ondol.monitor.notices import Notices
from ondol.monitor.targets import AppriseTarget, WebhookTarget
from ondol.monitor.webhook import WebhookNotifier

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ondol.clock import Clock
    from ondol.monitor.applied_alerts import AlertSources
    from ondol.monitor.monitor import PerformanceMonitor
    from ondol.monitor.notice_ports import Notifier
    from ondol.monitor.targets import Grouping

__all__ = ["load_alerts", "make_notices", "make_notifiers"]


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


def make_notifiers(
    content: AlertFile, clock: Clock, known: Mapping[WebhookTarget | AppriseTarget, Notifier]
) -> dict[WebhookTarget | AppriseTarget, Notifier]:
    """Return what tells each target: the ``known`` notifier of an equal target, else a new one.

    Raises:
        InvalidSettingError: an address is not valid.
        MissingExtraError: Apprise is asked for and not installed.
    """
    targets: list[WebhookTarget | AppriseTarget] = [*content.webhooks, *content.apprise]
    try:
        return {target: known.get(target) or _make_notifier(target, clock) for target in targets}
    except MonitorError as exc:
        raise InvalidSettingError([f"notices of alerts: {exc}"]) from exc


def _make_notifier(target: WebhookTarget | AppriseTarget, clock: Clock) -> Notifier:
    return WebhookNotifier(target, clock) if isinstance(target, WebhookTarget) else AppriseNotifier(target)


def make_notices(
    monitor: PerformanceMonitor, notifiers: Iterable[Notifier], grouping: Grouping, clock: Clock
) -> Notices:
    """Return what tells ``notifiers`` of the alerts that no silence of ``monitor`` holds back."""
    return Notices(notifiers, grouping, clock=clock, is_silenced=monitor.silence_of, recorder=monitor.add_metric)
