from __future__ import annotations

import asyncio
import json
import logging
import sys
from typing import TYPE_CHECKING, Literal

import pytest

from ondol.errors import MissingExtraError, MonitorError
from ondol.monitor.apprise_notifier import AppriseNotifier, body_of, title_of
from ondol.monitor.notice import Notice, alert_of, fingerprint_of
from ondol.monitor.targets import AppriseTarget
from tests.service.notices_fakes import make_event
from tests.service.webhook_double import Reply, WebhookDouble

if TYPE_CHECKING:
    from collections.abc import Iterator

# One of Apprise's own plugins imports a module that Python is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

State = Literal["fired", "resolved"]


@pytest.fixture
def double() -> Iterator[WebhookDouble]:
    with WebhookDouble() as server:
        yield server


def make_notice(*alerts: tuple[str, State, str]) -> Notice:
    events = [
        make_event(name, state, 1_750_000_090.0, starts_at=1_750_000_000.0, message="늘리세요", severity=severity)
        for name, state, severity in alerts
    ]
    parts = tuple(alert_of(event, fingerprint_of(event.labels)) for event in events)
    return Notice("{}:{}", {}, "firing", parts)


FIRING = make_notice(("메모리 부족", "fired", "critical"), ("disk", "resolved", "warning"))


def test_title_and_text_are_readable() -> None:
    assert title_of(FIRING) == "[FIRING:1] 메모리 부족"
    assert body_of(FIRING) == (
        "firing: 메모리 부족 (critical)\napi.latency is 3\n늘리세요\n\n"
        "resolved: disk (warning)\napi.latency is 1\nit lasted 90 s"
    )
    many = make_notice(*((f"a{number}", "resolved", "info") for number in range(25)))
    assert title_of(many) == "[RESOLVED:25] a0, a1, a2 and 22 more"
    assert body_of(many).endswith("\n\n… and 5 more")


@pytest.mark.parametrize(
    ("notice", "kind"),
    [
        (FIRING, "failure"),
        (make_notice(("a", "fired", "info"), ("b", "resolved", "critical")), "info"),
        (make_notice(("a", "fired", "info"), ("b", "fired", "warning")), "warning"),
        (make_notice(("a", "resolved", "critical")), "success"),
    ],
)
def test_a_notice_arrives_whole_with_its_type(double: WebhookDouble, notice: Notice, kind: str) -> None:
    notifier = AppriseNotifier(AppriseTarget((double.url("/geheim", scheme="json"),)))
    asyncio.run(notifier.send(notice))
    body = json.loads(double.received[0].body)
    assert (body["title"], body["message"], body["type"]) == (title_of(notice), body_of(notice), kind)


def test_only_addresses_that_failed_are_told_again(double: WebhookDouble, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    urls = tuple(double.url(f"/{number}-geheim", scheme="json", user="bot:geheim@") for number in (1, 2, 3))
    double.replies += [Reply(), Reply(500), Reply()]

    async def main() -> None:
        notifier = AppriseNotifier(AppriseTarget(urls))
        with pytest.raises(OSError, match="could not deliver to address 2 of 3") as caught:
            await notifier.send(FIRING)
        assert "geheim" not in str(caught.value)
        await notifier.send(FIRING)
        await notifier.send(FIRING)

    asyncio.run(main())
    paths = [received.path[1] for received in double.received]
    assert paths == ["1", "2", "3", "2", "1", "2", "3"]
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("ondol")]
    assert "geheim" not in " ".join(ours)


def test_an_unknown_address_is_refused_without_showing_it() -> None:
    with pytest.raises(MonitorError, match="address 2 of the notifier 'ops' is none that Apprise knows") as caught:
        AppriseNotifier(AppriseTarget(("json://127.0.0.1/", "geheim"), name="ops"))
    assert "geheim" not in str(caught.value)


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(MissingExtraError, match=r"'apprise'.*ondol\[notify\]"):
        AppriseNotifier(AppriseTarget(("json://127.0.0.1/",)))
