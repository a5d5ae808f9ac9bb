"""The alerts on the status page in a real browser: what fires, what may, what changed, and who was told."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.test_status_page import CONTRAST, LIVE, text

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Page

    from tests.browser.status_server import StatusServer

    OpenPage = Callable[..., Page]

pytestmark = pytest.mark.browser

BEGAN_AT = 1_700_000_000.0  # 22:13:20 in UTC, long before the browser's today
MEMORY: dict[str, Any] = {
    "name": "memory_high",
    "severity": "critical",
    "reason": "system.memory_percent is 92.1 (rule: system.memory_percent >= 90 for 30 s, clear at 85)",
    "message": "lower CACHE_MEMORY_LIMIT_MB, or give the container more memory",
    "value": 92.125,
    "starts_at": BEGAN_AT,
    "silenced_by": None,
}
DISK: dict[str, Any] = {
    "name": "disk_full",
    "severity": "warning",
    "reason": "system.disk_percent is 97",
    "message": "make room on the disk",
    "value": 97.0,
    "starts_at": BEGAN_AT + 60,
    "silenced_by": "8d4f0051",
}
LAG: dict[str, Any] = {
    "name": "loop_lag_high",
    "severity": "warning",
    "condition": "process.loop_lag_seconds > 0.25 for 30 s",
    "message": "something blocks the event loop",
    "value": 0.31,
    "since_seconds": 12.0,
    "state": "pending",
}
EVENTS = [
    {"name": "open_files_high", "state": "fired", "severity": "critical", "at": BEGAN_AT, "reason": "it is 90"},
    {"name": "open_files_high", "state": "resolved", "severity": "critical", "at": BEGAN_AT + 1, "reason": "it is 70"},
    {"name": "memory_high", "state": "fired", "severity": "warning", "at": BEGAN_AT + 2, "reason": "it is 92"},
]
AROUND: dict[str, Any] = {
    "pending": [LAG],
    "recent": EVENTS,
    "silences": [{"id": "8d4f0051", "ends_at": BEGAN_AT + 7200}],
    "notices": {"webhook": {"sent": 12, "failed": 1, "queued": 0, "last_error": "HTTP 500 from alerts.example"}},
}
FIRING, PENDING = "#alerts li", "#pending-alerts li"


@pytest.fixture
def troubled(server: StatusServer) -> StatusServer:
    server.service.alerts += [DISK, MEMORY]
    server.service.around_alerts |= AROUND
    return server


@pytest.mark.parametrize(
    ("locale", "facts", "silenced", "soon"),
    [
        ("en-US", ["since", "10:13:20 PM", "value 92.125"], "silenced until", "may fire soon · value 0.31"),
        ("ko-KR", ["10:13:20부터", "값 92.125"], "무음", "곧 발생할 수 있음 · 값 0.31"),
    ],
)
def test_what_fires_says_since_when_what_it_is_and_what_to_do(
    troubled: StatusServer, open_page: OpenPage, locale: str, facts: list[str], silenced: str, soon: str
) -> None:
    page = open_page(troubled.url, locale=locale, timezone_id="UTC")
    page.wait_for_selector(FIRING)
    first, second = f"{FIRING}:nth-child(1)", f"{FIRING}:nth-child(2)"
    assert text(page, f"{first} b") == "memory_high", "the most severe comes first"
    shown = re.sub(r"\s", " ", text(page, f"{first} .facts"))
    for each in facts:
        assert each in shown
    assert silenced not in shown
    assert page.get_attribute(f"{first} time", "datetime") == "2023-11-14T22:13:20.000Z"
    assert text(page, f"{first} .said:last-child") == MEMORY["message"]
    assert MEMORY["reason"] in text(page, first)
    assert silenced in text(page, f"{second} .facts")
    assert page.locator(f"{FIRING}[data-silenced]").count() == 1
    assert page.get_attribute(f"{second} time:nth-of-type(2)", "datetime") == "2023-11-15T00:13:20.000Z"
    assert text(page, f"{PENDING} .facts") == soon
    assert LAG["condition"] in text(page, PENDING)
    assert text(page, "#alert-count") == "2", "what may fire soon is not counted"


def test_a_moment_of_today_has_no_date(server: StatusServer, open_page: OpenPage) -> None:
    page = open_page(server.url, timezone_id="UTC")
    now = page.evaluate("Date.now() / 1000")
    server.service.alerts.append({**MEMORY, "starts_at": now})
    page.wait_for_selector(FIRING)
    year = page.evaluate("String(new Date().getFullYear())")
    assert year in (page.get_attribute(f"{FIRING} time", "title") or "")
    is_same_day = page.evaluate("at => new Date(at * 1000).toDateString() === new Date().toDateString()", now)
    assert (year in text(page, f"{FIRING} time")) is not is_same_day


def test_a_silence_without_a_known_end_is_shown_too(server: StatusServer, open_page: OpenPage) -> None:
    server.service.alerts.append(DISK)
    page = open_page(server.url)
    page.wait_for_selector(f"{FIRING}[data-silenced]")
    assert text(page, f"{FIRING} .facts").endswith("· silenced")


def test_the_last_transitions_are_shown_newest_first(troubled: StatusServer, open_page: OpenPage) -> None:
    page = open_page(troubled.url, timezone_id="UTC")
    page.wait_for_selector("#alert-events li")
    rows = [" ".join(row.inner_text().split()) for row in page.query_selector_all("#alert-events li")]
    assert [row.split(" PM ")[1] for row in rows] == [
        "memory_high fired",
        "open_files_high resolved",
        "open_files_high fired",
    ]
    tones = [pill.get_attribute("data-tone") for pill in page.query_selector_all("#alert-events .pill")]
    assert tones == ["warn", "good", "bad"]
    assert page.get_attribute("#alert-events li", "title") == "it is 92"
    page.click("button[data-language=ko]")
    assert [text(page, f"#alert-events li:nth-child({n}) .pill") for n in (1, 2)] == ["발생", "해제"]


def test_how_notices_fare_is_shown(troubled: StatusServer, open_page: OpenPage) -> None:
    page = open_page(troubled.url)
    page.wait_for_selector("#notices div")
    assert text(page, "#notices dt") == "webhook"
    assert text(page, "#notices dd").split("\n") == ["12 sent, 1 failed, 0 waiting", "HTTP 500 from alerts.example"]


def test_nothing_is_shown_of_what_there_is_not(server: StatusServer, open_page: OpenPage) -> None:
    page = open_page(server.url)
    page.wait_for_selector(LIVE)
    for part in ("#alerts", "#pending-alerts", "#alert-events-part", "#notices-part"):
        assert not page.is_visible(part)
    server.service.around_alerts["pending"] = [LAG]
    page.wait_for_selector(PENDING)
    assert page.is_visible("#alerts-empty"), "nothing fires yet"
    assert text(page, "#alert-count") == ""
    server.service.around_alerts["pending"] = []
    page.wait_for_function("() => !document.querySelector('#pending-alerts li')")


@pytest.mark.parametrize(
    ("locale", "off", "calm"),
    [("en-US", "Monitoring is off", "All quiet"), ("ko-KR", "모니터링이 꺼져 있습니다", "평온합니다")],
)
def test_a_monitor_that_is_off_is_no_all_clear(
    server: StatusServer, open_page: OpenPage, locale: str, off: str, calm: str
) -> None:
    server.service.is_monitored = False
    page = open_page(server.url, locale=locale)
    page.wait_for_selector(LIVE)
    assert text(page, "#alerts-empty").startswith(off)
    assert page.locator("#alerts-empty.calm").count() == 0
    server.service.is_monitored = True
    page.wait_for_selector("#alerts-empty.calm")
    assert text(page, "#alerts-empty").startswith(calm)


def test_text_of_alerts_is_never_taken_as_markup(server: StatusServer, open_page: OpenPage) -> None:
    markup = "<img src=x onerror=alert(1)>"
    server.service.alerts.append({**DISK, "name": markup, "severity": markup, "reason": markup})
    server.service.around_alerts |= {
        "pending": [{**LAG, "name": markup, "condition": markup}],
        "recent": [{**EVENTS[0], "name": markup, "state": markup, "reason": markup}],
        "notices": {markup: {"sent": 1, "last_error": markup}},
    }
    page = open_page(server.url)
    page.wait_for_selector("#notices div")
    for part in (f"{FIRING} b", f"{FIRING} .pill", f"{PENDING} b", "#alert-events b", "#notices dt", "#notices .last"):
        assert page.text_content(part) == markup
    assert page.locator("main img").count() == 0


@pytest.mark.parametrize("locale", ["en-US", "ko-KR"])
@pytest.mark.parametrize("width", [360, 1200])
def test_alerts_are_no_wider_than_the_window(
    troubled: StatusServer, open_page: OpenPage, width: int, locale: str
) -> None:
    long = "a.rule.with.a.rather.long.name_" * 4
    troubled.service.alerts.append({**DISK, "name": long, "reason": long * 3})
    troubled.service.around_alerts["recent"] = [*EVENTS, {**EVENTS[0], "name": long}]
    page = open_page(troubled.url, viewport={"width": width, "height": 740}, locale=locale)
    page.wait_for_selector(f"{FIRING}:nth-child(3)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_of_the_alerts_has_enough_contrast(troubled: StatusServer, open_page: OpenPage, scheme: str) -> None:
    troubled.service.alerts.append({**MEMORY, "severity": "info"})
    page = open_page(troubled.url, color_scheme=scheme)
    page.wait_for_selector(FIRING)
    found = page.evaluate(CONTRAST)
    assert {"webhook", "loop_lag_high", "resolved"} <= {item[1] for item in found}
    assert [item for item in found if item[0] < 4.5] == []
