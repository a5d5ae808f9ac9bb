"""The documents' Python is run, and the README's calls give the output that stands below them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.acceptance.server_process import ServerProcess, running_server
from tests.docs.markdown import Block, blocks

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
WITH_PYTHON = [
    "README.md",
    "README.ko.md",
    "HYBRID_LOADING_GUIDE.md",
    "docs/performance_monitoring.md",
    "docs/caching_strategy.md",
    "docs/api_reference.md",
    "docs/en/preloading.md",
]
RUNNER = """
import ast, asyncio, inspect, json, sys
space = {"__name__": "__document__"}
async def run():
    for number, code in enumerate(json.load(sys.stdin)):
        compiled = compile(code, f"block {number}", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = eval(compiled, space)
        if inspect.iscoroutine(result):
            await result
asyncio.run(run())
"""


def runnable(path: Path) -> list[Block]:
    """Return the Python blocks but those marked `<!-- not run: reason -->`."""
    return [block for block in blocks(path) if block.language == "python" and "not run:" not in block.note]


@pytest.mark.parametrize("name", WITH_PYTHON)
def test_python_blocks_run(name: str, tmp_path: Path) -> None:
    found = runnable(ROOT / name)
    assert found, "a document listed here has Python to run"
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "ENVIRONMENT": "testing", "ONDOL_LOG_DIR": str(tmp_path / "logs")}
    result = subprocess.run(
        [sys.executable, "-W", "error::SyntaxWarning", "-c", RUNNER],
        input=json.dumps([block.code for block in found]),
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, f"blocks at lines {[block.line for block in found]}:\n{result.stderr}"


def test_only_blocks_with_a_reason_are_left_out() -> None:
    for name in WITH_PYTHON:
        for block in blocks(ROOT / name):
            if "not run" in block.note:
                assert re.search(r"not run: \w+", block.note), f"{name}:{block.line}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with running_server(tmp_path_factory.mktemp("readme"), ENVIRONMENT="development") as running:
        running.wait_for("/livez")
        yield running


def calls(name: str) -> list[tuple[str, str]]:
    """Return command and expected output of each `$ …` in the console blocks."""
    found = []
    for block in blocks(ROOT / name):
        if block.language == "console" and "not run:" not in block.note:
            for part in re.split(r"^\$ ", block.code, flags=re.MULTILINE)[1:]:
                match = re.match(r"((?:[^\n]*\\\n)*[^\n]*)\n(.*)", part + "\n", re.DOTALL)
                assert match
                found.append((match[1], match[2].strip()))
    return found


def numbers_rounded(value: Any) -> Any:
    """Round numbers so that two machines' last digits do not matter; the text of timings and ids is not compared."""
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, dict):
        return {key: numbers_rounded(item) for key, item in value.items()}
    return [numbers_rounded(item) for item in value] if isinstance(value, list) else value


@pytest.mark.server
@pytest.mark.parametrize("name", ["README.md", "README.ko.md"])
def test_the_readmes_calls_give_their_output(name: str, server: ServerProcess, tmp_path: Path) -> None:
    commands = calls(name)
    assert len(commands) >= 3
    environ = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "ONDOL_PORT": str(server.port),
        "ONDOL_DATA_DIR": str(server.data_dir),
        "ONDOL_LOG_DIR": str(tmp_path),
        "NO_COLOR": "1",
        "COLUMNS": "100",
    }
    for command, expected in commands:
        local = command.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}").replace(".venv/bin/", "")
        result = subprocess.run(
            ["bash", "-c", local], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, f"{command}\n{result.stderr}"
        assert_matches(command, expected, result.stdout.strip())


def assert_matches(command: str, expected: str, actual: str) -> None:
    """Compare as JSON where it is JSON; `…` stands for anything."""
    if "…" in expected:
        pattern = ".*".join(re.escape(piece) for piece in re.split(r"\s*…\s*", expected))
        assert re.fullmatch(pattern, actual, re.DOTALL), f"{command}\n{actual}"
    elif expected.startswith(("{", "[")):
        assert numbers_rounded(json.loads(actual)) == numbers_rounded(json.loads(expected)), command
    else:
        assert [line.split() for line in actual.splitlines()] == [line.split() for line in expected.splitlines()], (
            command
        )
