"""The wheel works alone: built, installed into an empty environment with src/ out of sight, and used."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import asyncio, ondol
assert "site-packages" in ondol.__file__, ondol.__file__

@ondol.cache_result("twice", ttl_hours=1)
async def twice(x):
    return 2 * x

async def main():
    await ondol.initialize_optimization("testing")
    assert await twice(21) == 42 == await twice(21)
    stats = ondol.get_optimization_stats()
    assert str(stats["cache"]["hit_rate"]) == "50.0%", stats["cache"]
    await ondol.shutdown_optimization()

asyncio.run(main())
try:
    import modules
except ImportError:
    print("alone")
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return next(out.glob("*.whl"))


def test_the_wheel_holds_ondol_alone_with_its_data(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"ondol", wheel.name.rsplit("-", 3)[0] + ".dist-info"}
    assert "ondol/py.typed" in names
    assert "ondol/similarity/sample_corpus.jsonl" in names
    assert any(name.startswith("ondol/server/static/") for name in names)
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_runtime_works_from_the_wheel_with_nothing_else_installed(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    purelib = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(purelib)
    result = subprocess.run([python, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "alone"
