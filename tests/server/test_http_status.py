"""The status page over HTTP: its files, their headers, the stream of snapshots, the key, the end."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

import ondol.server.status as status_module
from ondol.server.status import EventsEndpoint, close_streams, status_routes
from ondol.testing import run_virtual

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from ondol.testing import VirtualClock

STATIC = Path(status_module.__file__).with_name("static")
KEY = "a-key-for-this-test"


class FakeService:
    """Answers with few figures and counts how often it is asked."""

    def __init__(self, api_key: str | None = None, admin_key: str | None = None) -> None:
        self.settings = SimpleNamespace(api_key=api_key, admin_key=admin_key)
        self.asked = 0

    def get_stats(self) -> dict[str, Any]:
        self.asked += 1
        return {"environment": "testing", "uptime_seconds": float(self.asked)}

    def readiness(self) -> dict[str, Any]:
        return {"ready": True, "models": []}


def client(service: FakeService | None = None, **options: Any) -> TestClient:
    return TestClient(Starlette(routes=status_routes(service or FakeService(), **options)))


class Stream:
    """A request to ``/events``, spoken as ASGI, because the test client waits for the end of an answer."""

    def __init__(self, routes: list[BaseRoute], headers: dict[str, str] | None = None, method: str = "GET") -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self._gone = asyncio.Event()
        scope = {
            "type": "http",
            "method": method,
            "path": "/events",
            "root_path": "",
            "query_string": b"",
            "headers": [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()],
        }
        self.task = asyncio.create_task(Starlette(routes=routes)(scope, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            self.body += message["body"]

    async def leave(self) -> None:
        self._gone.set()
        await self.task

    def snapshots(self) -> list[dict[str, Any]]:
        return [json.loads(data) for data in re.findall(rb"^event: snapshot\ndata: (.+)\n\n", self.body, re.MULTILINE)]


def test_the_page_is_html_that_loads_only_its_own_files() -> None:
    response = client().get("/")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    links = re.findall(r"""(?:src|href)="([^"#]+)""", response.text)
    assert {"/docs", "/metrics", "/static/status.css", "/static/status.js"} <= set(links)
    for link in links:
        assert link.startswith("/")
        if link.startswith("/static/"):
            assert client().get(link).status_code == 200


def test_the_policy_allows_nothing_inline_and_nothing_from_outside() -> None:
    response = client().get("/")
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert not re.search(r"<style|<script(?![^>]*\bsrc=)|\sstyle=|\son\w+=", response.text)
    for script in STATIC.glob("*.js"):
        text = script.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|\beval\(|new Function|setAttribute\(.style", text), script.name


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("status.css", "text/css; charset=utf-8"),
        ("status.js", "text/javascript; charset=utf-8"),
        ("stream.js", "text/javascript; charset=utf-8"),
        ("icon.svg", "image/svg+xml"),
    ],
)
def test_static_files_have_their_type_a_tag_and_are_not_sniffed(name: str, content_type: str) -> None:
    http = client()
    response = http.get(f"/static/{name}")
    assert response.content == (STATIC / name).read_bytes()
    assert response.headers["content-type"] == content_type
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["cache-control"] == "no-cache"
    again = http.get(f"/static/{name}", headers={"If-None-Match": response.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == response.headers["etag"]
    assert http.get(f"/static/{name}", headers={"If-None-Match": '"another"'}).status_code == 200


def test_files_are_sent_compressed_to_those_who_can_read_it() -> None:
    http = client()
    packed = http.get("/static/status.css", headers={"Accept-Encoding": "gzip"})
    plain = http.get("/static/status.css", headers={"Accept-Encoding": "identity"})
    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert int(packed.headers["content-length"]) < int(plain.headers["content-length"]) / 2
    assert packed.content == plain.content
    assert packed.headers["vary"] == "Accept-Encoding"


@pytest.mark.parametrize("name", ["nothing.js", "../status.py", "..%2Fstatus.py", "%2e%2e/app.py", "", "static/"])
def test_nothing_but_the_folders_files_can_be_named(name: str) -> None:
    response = client().get(f"/static/{name}")
    assert response.status_code == 404
    assert "import" not in response.text


def test_the_files_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    http = client()
    before = http.get("/static/status.js").content
    monkeypatch.setattr(Path, "read_bytes", lambda _path: b"changed")
    assert http.get("/static/status.js").content == before


def test_the_whole_page_weighs_less_than_40_kb_compressed() -> None:
    files = [path for path in STATIC.iterdir() if path.is_file()]
    assert sum(len(gzip.compress(path.read_bytes())) for path in files) < 40_000


def test_both_languages_have_the_same_texts() -> None:
    source = (STATIC / "texts.js").read_text(encoding="utf-8")
    english, korean = source.split("\n  ko: {")
    names = [
        set(re.findall(r"(?:^|[{,])\s*(\w+): [\"`(a-z]", part.split("en: {")[-1], re.MULTILINE))
        for part in (english, korean)
    ]
    assert len(names[0]) > 80
    assert names[0] == names[1]
    used = set(re.findall(r'data-(?:text|label)="(\w+)"', (STATIC / "index.html").read_text(encoding="utf-8")))
    assert used <= names[0]


def test_events_are_snapshots_one_a_tick() -> None:
    async def scenario(_clock: VirtualClock) -> None:
        stream = Stream(status_routes(FakeService()))
        await asyncio.sleep(2.5)
        assert stream.status == 200
        assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert stream.headers["cache-control"] == "no-store"
        assert [snapshot["uptime_s"] for snapshot in stream.snapshots()] == [1.0, 2.0, 3.0]
        assert stream.snapshots()[0]["environment"] == "testing"
        await stream.leave()

    run_virtual(scenario)


def test_two_viewers_share_one_encoding() -> None:
    async def scenario(_clock: VirtualClock) -> None:
        service = FakeService()
        routes = status_routes(service)
        first, second = Stream(routes), Stream(routes)
        await asyncio.sleep(4.5)
        assert first.body == second.body
        assert len(first.snapshots()) == service.asked == 5
        await first.leave()
        await second.leave()

    run_virtual(scenario)


def test_closing_ends_open_streams_also_under_a_mount() -> None:
    async def scenario(clock: VirtualClock) -> None:
        routes = status_routes(FakeService())
        stream = Stream(routes)
        await asyncio.sleep(0.5)
        close_streams([Mount("/ondol", routes=routes)])
        await stream.task
        assert clock.monotonic() < 0.6
        refused = Stream(routes)
        await refused.task
        assert refused.status == 503

    run_virtual(scenario)


def test_one_viewer_too_many_gets_a_problem_document() -> None:
    async def scenario(_clock: VirtualClock) -> None:
        routes = status_routes(FakeService(), max_viewers=1)
        first = Stream(routes)
        await asyncio.sleep(0.1)
        second = Stream(routes)
        await second.task
        assert second.status == 503
        assert second.headers["content-type"] == "application/problem+json"
        assert second.headers["retry-after"] == "5"
        assert json.loads(second.body)["status"] == 503
        await first.leave()

    run_virtual(scenario)


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {KEY}"}])
def test_with_a_key_set_the_figures_need_it_and_the_page_does_not(headers: dict[str, str]) -> None:
    http = client(FakeService(KEY))
    assert http.get("/").status_code == 200
    assert http.get("/static/status.js").status_code == 200
    refused = http.get("/events", headers=headers)
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"].startswith("Bearer")
    assert refused.headers["content-type"] == "application/problem+json"
    assert KEY not in refused.text


@pytest.mark.parametrize("key", [KEY, "the admin's"])
def test_with_the_right_key_the_stream_opens(key: str) -> None:
    async def scenario(_clock: VirtualClock) -> None:
        stream = Stream(status_routes(FakeService(KEY, "the admin's")), {"Authorization": f"Bearer {key}"})
        await asyncio.sleep(0.5)
        assert (stream.status, len(stream.snapshots())) == (200, 1)
        await stream.leave()

    run_virtual(scenario)


def test_a_head_request_does_not_open_a_stream() -> None:
    service = FakeService()
    response = client(service).head("/events")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert service.asked == 0


def test_the_routes_start_nothing_by_themselves() -> None:
    service = FakeService()
    routes = status_routes(service)
    endpoints = [getattr(route, "endpoint", None) for route in routes]
    (events,) = [endpoint for endpoint in endpoints if isinstance(endpoint, EventsEndpoint)]
    assert service.asked == 0
    assert events.stream.get_stats() == {"viewers": 0, "encodings": 0, "failures": 0}
