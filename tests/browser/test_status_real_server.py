"""The status page of the server that users start: it shows what the server is really doing, and lets it end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.acceptance.server_process import running_server

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from playwright.sync_api import Page

    OpenPage = Callable[..., Page]

pytestmark = [pytest.mark.browser, pytest.mark.server]

LIVE = "#connection[data-state=live]"


def test_the_page_follows_a_real_server_from_the_first_model_to_the_end(tmp_path: Path, open_page: OpenPage) -> None:
    with running_server(tmp_path, ENVIRONMENT="development") as server:
        page = open_page(f"http://127.0.0.1:{server.port}/", expected="ERR_CONNECTION_REFUSED")
        page.wait_for_selector(LIVE)
        assert page.inner_text("#environment") == "development"
        assert page.inner_text("#headline") == "Ready, models load on first use"
        body = {"text_a": "The room is warm.", "text_b": "방이 따뜻하다."}
        for _ in range(4):
            assert server.request("POST", "/v1/similarity", body)[0] == 200
        page.wait_for_selector("#model-rows .pill[data-tone=good]", timeout=60_000)
        page.wait_for_function("() => !document.querySelector('#hit-rate').textContent.startsWith('–')")
        page.wait_for_function("() => /median .*, 99 % within/.test(document.querySelector('#rate-note').textContent)")
        assert page.inner_text("#memory").endswith("%")
        # The page holds its stream open; the server must not wait for it.
        assert server.stop() < 3
        page.wait_for_selector("#connection[data-state=lost]")
        assert server.process.returncode == 0


def test_the_page_of_a_protected_server_asks_for_its_key(tmp_path: Path, open_page: OpenPage) -> None:
    key = "a-key-for-this-test"
    with running_server(tmp_path, ENVIRONMENT="development", ONDOL_API_KEY=key) as server:
        page = open_page(f"http://127.0.0.1:{server.port}/", expected="401")
        page.wait_for_selector("#key-form:not([hidden])")
        page.fill("#key", key)
        page.click("#key-form button")
        page.wait_for_selector(LIVE)
        assert page.is_visible("#figures")
        page.close()
