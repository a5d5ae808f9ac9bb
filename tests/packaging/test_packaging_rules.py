"""The rules that the checks hold are rules: each is broken on purpose here, and the check must say so."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "static"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path / "pyproject.toml")
    return tmp_path


def lint_imports(checkout: Path) -> subprocess.CompletedProcess[str]:
    # the copy must be what is analysed, not the installed package
    return subprocess.run(
        [BIN / "lint-imports", "--no-cache"],
        cwd=checkout,
        env={"PYTHONPATH": str(checkout / "src"), "PATH": "/usr/bin:/bin", "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_code_keeps_the_import_rules(checkout: Path) -> None:
    result = lint_imports(checkout)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("module", "statement"),
    [
        ("models/spec.py", "import ondol.cache.keys"),
        ("cache/keys.py", "import ondol.monitor.sketch"),
        ("monitor/sketch.py", "import ondol.models.spec"),
        ("models/spec.py", "import ondol.preload.plan"),
        ("tuning/guard.py", "import ondol.service"),
        ("service.py", "import ondol.similarity.text"),
        ("similarity/text.py", "import ondol.server.problems"),
        ("errors.py", "import ondol.settings"),
    ],
)
def test_an_import_against_the_direction_is_refused(checkout: Path, module: str, statement: str) -> None:
    path = checkout / "src" / "ondol" / module
    path.write_text(path.read_text(encoding="utf-8") + f"\n{statement}\n", encoding="utf-8")
    result = lint_imports(checkout)
    assert result.returncode != 0, result.stdout
    assert "BROKEN" in result.stdout


def check_shape(checkout: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "check_shape.py"), str(checkout / "src" / "ondol")]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_code_keeps_its_shape(checkout: Path) -> None:
    assert check_shape(checkout).returncode == 0


@pytest.mark.parametrize(
    ("addition", "complaint"),
    [
        ("import asyncio\n", "a decision imports asyncio"),
        ("import ondol.service\n", "a decision imports ondol.service, which is no decision"),
        ("x = 1\n" * 401, "at most 400"),
        ("def long() -> None:\n" + "    x = 1\n" * 51, "at most 50"),
    ],
)
def test_a_fault_of_shape_is_found(checkout: Path, addition: str, complaint: str) -> None:
    path = checkout / "src" / "ondol" / "units.py"
    path.write_text(path.read_text(encoding="utf-8") + "\n" + addition, encoding="utf-8")
    result = check_shape(checkout)
    assert result.returncode == 1
    assert complaint in result.stderr


def test_a_module_without_its_kind_is_found(checkout: Path) -> None:
    (checkout / "src" / "ondol" / "stray.py").write_text('"""Something."""\n', encoding="utf-8")
    result = check_shape(checkout)
    assert result.returncode == 1
    assert "stray.py" in result.stderr
