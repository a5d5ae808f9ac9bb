"""The public client of the Open Inference Protocol, unchanged, against a real server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tritonclient.http import InferenceServerClient
from tritonclient.utils import InferenceServerException

from ondol._version import __version__
from tests.server.http_fakes import DEFAULT
from tests.server.live import LiveServer

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    running = LiveServer(tmp_path_factory.mktemp("triton"))
    try:
        assert running.url, running.errors()
        yield running
    finally:
        running.close()


@pytest.fixture
def client(server: LiveServer) -> Iterator[Any]:
    with InferenceServerClient(server.url.removeprefix("http://")) as connected:
        yield connected


def test_it_sees_a_server_that_lives_and_is_ready(client: Any) -> None:
    assert client.is_server_live() is True
    assert client.is_server_ready() is True
    metadata = client.get_server_metadata()
    assert (metadata["name"], metadata["version"]) == ("ondol", __version__)
    assert "model_repository" in metadata["extensions"]


def test_it_lists_loads_checks_and_unloads_models(client: Any, server: LiveServer) -> None:
    index = {entry["name"]: entry for entry in client.get_model_repository_index()}
    assert index[DEFAULT]["state"] == "UNAVAILABLE"
    assert index[DEFAULT]["version"] == "1"
    assert client.is_model_ready(DEFAULT) is False
    client.load_model(DEFAULT, headers=server.admin())
    assert client.is_model_ready(DEFAULT) is True
    assert client.is_model_ready(DEFAULT, "1") is True
    assert client.get_model_metadata(DEFAULT)["name"] == DEFAULT
    assert client.get_model_metadata(DEFAULT, "1")["versions"] == ["1"]
    index = {entry["name"]: entry for entry in client.get_model_repository_index()}
    assert index[DEFAULT]["state"] == "READY"
    client.load_model(DEFAULT, headers=server.admin())
    client.unload_model(DEFAULT, headers=server.admin())
    assert client.is_model_ready(DEFAULT) is False


def test_it_is_told_what_is_wrong(client: Any, server: LiveServer) -> None:
    with pytest.raises(InferenceServerException, match=r"\[401\].*admin-token"):
        client.load_model(DEFAULT)
    with pytest.raises(InferenceServerException, match=r"\[404\] unknown model 'nothing'"):
        client.load_model("nothing", headers=server.admin())
    with pytest.raises(InferenceServerException, match=r"\[404\] unknown model"):
        client.get_model_metadata("nothing")
    with pytest.raises(InferenceServerException, match="'config' is not supported"):
        client.load_model(DEFAULT, headers=server.admin(), config="{}")
    assert client.is_model_ready("nothing") is False


def test_with_a_key_it_sends_the_key(tmp_path_factory: pytest.TempPathFactory) -> None:
    locked = LiveServer(tmp_path_factory.mktemp("locked"), ONDOL_API_KEY="sesame")
    try:
        assert not locked.token_path.exists()
        with InferenceServerClient(locked.url.removeprefix("http://")) as client:
            headers = {"Authorization": "Bearer sesame"}
            assert client.is_server_live() is True
            assert client.is_server_ready() is True
            with pytest.raises(InferenceServerException, match="ONDOL_API_KEY"):
                client.get_model_repository_index()
            assert client.get_model_repository_index(headers=headers)
            client.load_model(DEFAULT, headers=headers)
            assert client.is_model_ready(DEFAULT, headers=headers) is True
    finally:
        locked.close()
