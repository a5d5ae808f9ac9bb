from __future__ import annotations

import asyncio
import json
import logging
import random
import ssl
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from ondol import __version__
from ondol.errors import MonitorError
from ondol.monitor.notice import Notice, alert_of, fingerprint_of
from ondol.monitor.notice_ports import NoticeRejectedError
from ondol.monitor.notices import Notices
from ondol.monitor.targets import Grouping, WebhookTarget
from ondol.monitor.webhook import WebhookNotifier, masked
from ondol.monitor.webhook_body import encode_notice, sign, verify_signature
from ondol.testing import FakeClock, VirtualClock, run_virtual
from tests.service.notices_fakes import Alerts, make_event
from tests.service.webhook_double import DROP, HANG, TLS_KEY_AND_CERTIFICATE, Reply, WebhookDouble, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EPOCH_S = 1_750_000_000.0


@pytest.fixture
def double() -> Iterator[WebhookDouble]:
    with WebhookDouble() as server:
        yield server


def make_notice(*names: str) -> Notice:
    fired = [make_event(name, "fired", EPOCH_S + 0.25, message="다시 시작하세요") for name in names or ("느림",)]
    resolved = make_event("disk", "resolved", EPOCH_S + 90, starts_at=EPOCH_S)
    alerts = tuple(alert_of(event, fingerprint_of(event.labels)) for event in (*fired, resolved))
    return Notice('{}:{severity="warning"}', {"severity": "warning"}, "firing", alerts)


def send(double: WebhookDouble, notice: Notice | None = None, **fields: Any) -> None:
    target = WebhookTarget(**{"url": double.url(), **fields})
    asyncio.run(WebhookNotifier(target, FakeClock()).send(notice or make_notice()))


def test_the_body_is_alertmanagers_version_4(double: WebhookDouble) -> None:
    send(double, name="ops")
    body = json.loads(double.received[0].body)
    labels = {"alertname": "느림", "severity": "warning", "metric": "api.latency"}
    assert {key: value for key, value in body.items() if key != "alerts"} == {
        "version": "4",
        "groupKey": '{}:{severity="warning"}',
        "truncatedAlerts": 0,
        "status": "firing",
        "receiver": "ops",
        "groupLabels": {"severity": "warning"},
        "commonLabels": {"severity": "warning", "metric": "api.latency"},
        "commonAnnotations": {"condition": "api.latency > 2 for 60 s"},
        "externalURL": "",
    }
    firing, resolved = body["alerts"]
    assert firing == {
        "status": "firing",
        "labels": labels,
        "annotations": {
            "summary": "api.latency is 3",
            "description": "다시 시작하세요",
            "condition": "api.latency > 2 for 60 s",
        },
        "startsAt": "2025-06-15T15:06:40.250Z",
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "",
        "fingerprint": fingerprint_of(labels),
    }
    assert (resolved["status"], resolved["startsAt"], resolved["endsAt"]) == (
        "resolved",
        "2025-06-15T15:06:40.000Z",
        "2025-06-15T15:08:10.000Z",
    )
    assert "description" not in resolved["annotations"]


def test_a_text_that_has_no_utf8_form_is_sent_all_the_same() -> None:
    body = json.loads(encode_notice(make_notice("half \ud83d", "whole 😀"), "ops"))
    assert [alert["labels"]["alertname"] for alert in body["alerts"]] == ["half ?", "whole 😀", "disk"]


def test_the_request_is_signed_and_says_who_sends_it(double: WebhookDouble) -> None:
    send(double, url=double.url("/a%20b/훅?k=v%20w&x=값", user="us%40er:p%3Aw@"), secret="비밀")
    path, headers, body = double.received[0]
    assert path == "/a%20b/%ED%9B%85?k=v%20w&x=%EA%B0%92"
    assert headers["User-Agent"] == f"ondol/{__version__}"
    assert headers["Content-Type"] == "application/json"
    assert headers["Authorization"] == "Basic dXNAZXI6cDp3"
    signature = headers["X-Ondol-Signature"]
    assert verify_signature("비밀", body, signature, now=EPOCH_S)
    assert not verify_signature("other", body, signature, now=EPOCH_S)


def test_without_a_secret_nothing_is_signed(double: WebhookDouble) -> None:
    send(double)
    assert not {"X-Ondol-Signature", "Authorization"} & set(double.received[0].headers)


@pytest.mark.parametrize(
    ("header", "is_valid"),
    [
        (sign("s", b"{}", EPOCH_S), True),
        (sign("s", b"{}", EPOCH_S - 300), True),
        (sign("s", b"{}", EPOCH_S + 300), True),
        (sign("s", b"{}", EPOCH_S - 301), False),
        (sign("s", b"{}", EPOCH_S + 301), False),
        (sign("s", b"{} ", EPOCH_S), False),
        (sign("old", b"{}", EPOCH_S) + "," + sign("s", b"{}", EPOCH_S).split(",")[1], True),
        (sign("s", b"{}", EPOCH_S) + ",v1=é", True),
        (sign("s", b"{}", EPOCH_S) + f",t={EPOCH_S:.0f}", False),
        (sign("s", b"{}", EPOCH_S).split(",")[0], False),
        (sign("s", b"{}", EPOCH_S).split(",")[1], False),
        ("t=١٧٥٠٠٠٠٠٠٠,v1=00", False),
        ("t=" + "9" * 5000 + ",v1=00", False),
        ("", False),
        (",=,t,v1", False),
    ],
)
def test_only_a_fresh_signature_of_these_bytes_holds(header: str, is_valid: bool) -> None:
    assert verify_signature("s", b"{}", header, now=EPOCH_S) is is_valid


@pytest.mark.parametrize(
    ("reply", "is_permanent", "retry_after_s"),
    [
        (Reply(400, body=b"no such\r\nfield"), True, None),
        (Reply(404), True, None),
        (Reply(302, (("Location", "http://127.0.0.1:1/"),)), True, None),
        (Reply(308, (("Location", "/hook"),)), True, None),
        (Reply(408), False, None),
        (Reply(425), False, None),
        (Reply(429, (("Retry-After", "17"),)), False, 17.0),
        (Reply(500, (("Retry-After", "17"),)), False, None),
        (Reply(503, (("Retry-After", "Sun, 15 Jun 2025 15:07:10 GMT"),)), False, 30.0),
        (Reply(503, (("Retry-After", "Sun, 15 Jun 2025 15:06:00 GMT"),)), False, 0.0),
        (Reply(503, (("Retry-After", "soon"),)), False, None),
    ],
)
def test_answers_are_told_apart(
    double: WebhookDouble, reply: Reply, is_permanent: bool, retry_after_s: float | None
) -> None:
    double.replies.append(reply)
    with pytest.raises(NoticeRejectedError, match=f"answered {reply.status}") as caught:
        send(double)
    assert (caught.value.is_permanent, caught.value.retry_after_s) == (is_permanent, retry_after_s)
    assert len(double.received) == 1
    assert ("no such field" in str(caught.value)) == (reply.status == 400)


@pytest.mark.parametrize("size_bytes", [100_000, 5_000_000])
def test_an_endless_answer_is_not_read_to_its_end(double: WebhookDouble, size_bytes: int) -> None:
    double.replies.append(Reply(500, body=b"x" * size_bytes, is_unfinished=True))
    with pytest.raises(NoticeRejectedError) as caught:
        send(double)
    assert len(str(caught.value)) < 400


def test_what_is_said_with_a_success_is_not_waited_for(double: WebhookDouble) -> None:
    double.replies.append(Reply(is_unfinished=True))
    send(double)


@pytest.mark.parametrize("is_dropped", [True, False])
def test_no_connection_and_no_answer_are_os_errors(double: WebhookDouble, is_dropped: bool) -> None:
    double.replies.append(DROP)
    url = double.url() if is_dropped else f"http://127.0.0.1:{free_port()}/hook"
    with pytest.raises(OSError, match="closed connection" if is_dropped else "refused"):
        send(double, url=url)


def test_a_certificate_is_verified(tmp_path: Path) -> None:
    pem = tmp_path / "double.pem"
    pem.write_text(TLS_KEY_AND_CERTIFICATE, encoding="ascii")
    of_server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    of_server.load_cert_chain(pem)
    with WebhookDouble(of_server) as double:
        url = double.url(scheme="https")
        with pytest.raises(ssl.SSLCertVerificationError):
            send(double, url=url)
        assert double.received == []
        trusting = ssl.create_default_context(cafile=str(pem))
        notifier = WebhookNotifier(WebhookTarget(url), FakeClock(), tls=trusting)
        asyncio.run(notifier.send(make_notice()))
        assert len(double.received) == 1


@pytest.mark.parametrize(
    "url", ["ftp://h/x", "http://", "http:///x", "no url", "http://h:99999/", "http://h/\n", "http://a..b/", "http://["]
)
def test_an_address_that_cannot_work_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(MonitorError, match="'ops' is not valid: it must have http") as caught:
        WebhookNotifier(WebhookTarget(url, name="ops"), FakeClock())
    assert url not in str(caught.value).removesuffix("http:// or https://, a host, and no control characters")


def test_secrets_are_in_no_log_and_no_statistics(double: WebhookDouble, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    url = double.url("/services/geheim1?token=geheim2", user="geheim3:geheim4@")
    double.replies += [Reply(500), DROP, Reply(403)]

    async def scenario(clock: VirtualClock) -> str:
        notifier = WebhookNotifier(WebhookTarget(url, secret="geheim5"), clock)
        notices = Notices([notifier], Grouping(wait_s=1.0), clock=clock, random=random.Random(1))
        await notices.start()
        notices.take(Alerts(clock).fire("a"))
        await asyncio.sleep(200)
        await notices.stop()
        return f"{notices.get_stats()} {masked(url)}"

    seen = run_virtual(scenario) + caplog.text
    assert masked("http://[geheim") == "…"
    assert "answered 403: check the secret" in seen
    assert f"http://127.0.0.1:{double.port}/…" in seen
    assert "geheim" not in seen


def test_it_is_tried_again_when_the_receiver_asks_for_it_and_not_before(double: WebhookDouble) -> None:
    double.replies += [Reply(500), Reply(429, (("Retry-After", "120"),))]

    async def scenario(clock: VirtualClock) -> list[int]:
        target = WebhookTarget(double.url())
        notices = Notices([WebhookNotifier(target, clock)], Grouping(wait_s=1.0), clock=clock, random=random.Random(1))
        await notices.start()
        notices.take(Alerts(clock).fire("a"))
        seen = []
        for seconds in (10, 110, 20):
            await asyncio.sleep(seconds)
            seen.append(len(double.received))
        await notices.stop()
        assert notices.get_stats()["webhook"]["retries"] == 2
        return seen

    assert run_virtual(scenario) == [2, 2, 3]


def wait_for_all(notifier: WebhookNotifier) -> None:
    """Return when no thread of the notifier is under way."""
    places = notifier._threads._places
    for _ in range(notifier._threads._limit):
        places.acquire()
    places.release(notifier._threads._limit)


def test_a_hanging_receiver_is_left_and_its_thread_comes_back(double: WebhookDouble) -> None:
    double.replies.append(HANG)

    async def scenario() -> None:
        notifier = WebhookNotifier(WebhookTarget(double.url(), timeout_s=60.0), FakeClock())
        attempt = asyncio.create_task(notifier.send(make_notice()))
        await asyncio.to_thread(double.arrived.acquire)
        attempt.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attempt
        await asyncio.to_thread(wait_for_all, notifier)
        await notifier.send(make_notice())

    asyncio.run(scenario())
    assert len(double.received) == 2


HANGING_PROGRAM = """
import asyncio, threading
from ondol.clock import SystemClock
from ondol.monitor import webhook
from ondol.monitor.notices import Notices
from ondol.monitor.targets import Grouping, WebhookTarget
from tests.service.notices_fakes import make_event

began = threading.Event()
# The worst that can happen: not even a closed socket brings the thread back.
webhook._Request.perform = lambda self: (began.set(), threading.Event().wait())

async def main():
    notifier = webhook.WebhookNotifier(WebhookTarget("http://127.0.0.1:1/", timeout_s=600.0), SystemClock())
    notices = Notices([notifier], Grouping(wait_s=0.0))
    await notices.start()
    notices.take(make_event("a", "fired", 1.0))
    while not began.is_set():
        await asyncio.sleep(0.001)
    await notices.stop(grace_s=0.0)
    print("stopped", flush=True)

asyncio.run(main())
"""


def test_a_thread_that_never_comes_back_does_not_keep_the_process() -> None:
    result = subprocess.run(
        [sys.executable, "-c", HANGING_PROGRAM], capture_output=True, text=True, timeout=60, check=False
    )
    assert (result.returncode, result.stdout) == (0, "stopped\n"), result.stderr
