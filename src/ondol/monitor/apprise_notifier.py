"""adapter: notices to chat, mail and push services through the package ``apprise``."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from ondol.errors import MissingExtraError, MonitorError
from ondol.monitor.daemon_threads import DaemonThreads
from ondol.monitor.notice_ports import DeliveryTerms

if TYPE_CHECKING:
    from ondol.monitor.notice import Notice, NoticeAlert
    from ondol.monitor.targets import AppriseTarget

__all__ = ["AppriseNotifier", "body_of", "title_of"]

MAX_SHOWN: Final = 20
"""So many alerts are written out; the others are counted."""


class AppriseNotifier:
    """Sends each notice, as a title and a text, to every address of an ``AppriseTarget``.

    The addresses are asked one after the other. When some of them fail, the notice is tried again with these only.

    Raises:
        MissingExtraError: ``apprise`` is not installed.
        MonitorError: Apprise does not know an address; the message gives its place in the list, as it is a secret.
    """

    def __init__(self, target: AppriseTarget) -> None:
        """Import ``apprise`` and check the addresses; nothing is sent."""
        try:
            import apprise  # noqa: PLC0415  # 0.2 s that only its users need
        except ImportError as exc:
            raise MissingExtraError("apprise", "notify", f"the notifier {target.name!r}") from exc
        self.name = target.name
        self.terms = DeliveryTerms(target.timeout_s, target.retry_for_s, target.sends_resolved)
        # Its own threads would be waited for at the end of the process.
        asset = apprise.AppriseAsset(async_mode=False, secure_logging=True)
        self._services: list[Any] = []
        for number, url in enumerate(target.urls, 1):
            service = apprise.Apprise(asset=asset)
            if not service.add(url):
                raise MonitorError(
                    f"address {number} of the notifier {target.name!r} is none that Apprise knows:"
                    " check it against Apprise's list of services"
                )
            self._services.append(service)
        # One call at a time: a second beside one that hangs would tell those again that the first has told.
        self._threads = DaemonThreads(f"ondol-apprise-{target.name}", limit=1)
        self._taken_notice: Notice | None = None
        self._taken_by: set[int] = set()

    async def send(self, notice: Notice) -> None:
        """Tell every address that has not taken this very notice yet.

        Raises:
            OSError: at least one address failed; Apprise's own log says why.
        """
        if notice != self._taken_notice:
            self._taken_notice, self._taken_by = notice, set()
        call = asyncio.get_running_loop().run_in_executor(self._threads, self._tell, notice, self._taken_by)
        failed = await call
        if failed:
            numbers = ", ".join(str(number) for number in failed)
            raise OSError(f"Apprise could not deliver to address {numbers} of {len(self._services)}; see its own log")
        self._taken_notice = None

    def _tell(self, notice: Notice, taken_by: set[int]) -> list[int]:
        title, body, kind = title_of(notice), body_of(notice), _kind(notice)
        for number, service in enumerate(self._services, 1):
            if number not in taken_by and service.notify(body=body, title=title, notify_type=kind):
                taken_by.add(number)
        return [number for number in range(1, len(self._services) + 1) if number not in taken_by]


def title_of(notice: Notice) -> str:
    """Return the notice in one line."""
    firing = [alert for alert in notice.alerts if alert.status == "firing"]
    shown = firing or list(notice.alerts)
    state = f"FIRING:{len(firing)}" if firing else f"RESOLVED:{len(shown)}"
    names = list(dict.fromkeys(_name(alert) for alert in shown))
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"[{state}] {', '.join(names[:3])}{more}"


def body_of(notice: Notice) -> str:
    """Return the notice as text, a paragraph an alert."""
    paragraphs = [_paragraph(alert) for alert in notice.alerts[:MAX_SHOWN]]
    if len(notice.alerts) > MAX_SHOWN:
        paragraphs.append(f"… and {len(notice.alerts) - MAX_SHOWN} more")
    return "\n\n".join(paragraphs)


def _paragraph(alert: NoticeAlert) -> str:
    severity = alert.labels.get("severity", "")
    head = f"{alert.status}: {_name(alert)}" + (f" ({severity})" if severity else "")
    lines = [head, alert.annotations.get("summary", "")]
    if alert.status == "firing":
        lines.append(alert.annotations.get("description", ""))
    elif alert.ends_at is not None:
        lines.append(f"it lasted {max(0.0, alert.ends_at - alert.starts_at):.0f} s")
    return "\n".join(line for line in lines if line)


def _name(alert: NoticeAlert) -> str:
    return alert.labels.get("alertname", "alert")


def _kind(notice: Notice) -> str:
    """Return Apprise's type: the worst of what fires, ``success`` if nothing in the notice does."""
    firing = {alert.labels.get("severity") for alert in notice.alerts if alert.status == "firing"}
    if not firing:
        return "success"
    if "critical" in firing:
        return "failure"
    return "info" if firing == {"info"} else "warning"
