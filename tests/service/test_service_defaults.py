"""The process-wide runtime: made on first use, configured only before, one and the same everywhere."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import ondol
from ondol.errors import InvalidSettingError

if TYPE_CHECKING:
    from pathlib import Path


def run_program(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_decorating_builds_nothing() -> None:
    code = """
import sys
from ondol import cache_result, monitor_performance
@cache_result("x", ttl_hours=1)
def f(): return 1
@monitor_performance("y", "seconds")
async def g(): return 1
from ondol import defaults
print(defaults._default._service)
"""
    assert run_program(code) == "None"


def test_configuring_after_first_use_names_the_place() -> None:
    code = """
import ondol
from ondol.settings import resolve
cache = ondol.intelligent_cache  # line 4
try:
    ondol.configure(resolve().values)
except ondol.OndolError as error:
    print(type(error).__name__, error)
"""
    printed = run_program(code)
    assert printed.startswith("AlreadyConfiguredError")
    assert "<string>:4" in printed


def test_configuring_before_first_use_counts() -> None:
    code = """
import ondol
from ondol.settings import resolve
ondol.configure(resolve(arguments={"cache_memory_limit_mb": 3}).values)
print(ondol.intelligent_cache.max_bytes)
"""
    assert run_program(code) == str(3 * 1024 * 1024)


def test_an_unknown_environment_changes_nothing() -> None:
    runtime = ondol.runtime()
    before = runtime.settings
    with pytest.raises(InvalidSettingError, match="development, production, testing"):
        asyncio.run(ondol.initialize_optimization("staging"))
    assert runtime.settings is before
    assert not runtime.is_started


def test_shutting_down_what_never_started_is_fine() -> None:
    asyncio.run(ondol.shutdown_optimization())


def test_the_guides_log_files_are_written_between_initialize_and_shutdown(tmp_path: Path) -> None:
    code = f"""
import asyncio, logging, os
os.environ["ONDOL_LOG_DIR"] = {str(tmp_path)!r}
import ondol

async def main():
    await ondol.initialize_optimization("testing")
    logging.getLogger("ondol.cache").info("a line of the cache")
    await ondol.shutdown_optimization()
    logging.getLogger("ondol.cache").warning("after the end")

asyncio.run(main())
asyncio.run(main())
print(logging.getLogger("ondol").handlers)
"""
    assert run_program(code) == "[]"
    lines = (tmp_path / "application.log").read_text(encoding="utf-8").splitlines()
    assert sum("a line of the cache" in line for line in lines) == 2
    assert not any("after the end" in line for line in lines)
    assert "measurements" in (tmp_path / "performance.log").read_text(encoding="utf-8")


def test_a_hint_is_noted_before_the_start_and_kept_by_the_started_runtime(tmp_path: Path) -> None:
    code = f"""
import asyncio, os
os.environ["ONDOL_DATA_DIR"] = {str(tmp_path)!r}
os.environ["ONDOL_LOG_DIR"] = {str(tmp_path / "logs")!r}
import ondol
from modules.core.services.background_preloader import preload_hint
assert preload_hint is ondol.preload_hint
hint = preload_hint("report_model", at="08:55", repeat="weekdays", zone="Asia/Seoul", hold_seconds=60)
assert hint.hold_s == 60
assert os.listdir({str(tmp_path)!r}) == []
async def main():
    await ondol.initialize_optimization("testing")
    assert [each.id for each in ondol.background_preloader.hints.list()] == [hint.id]
    await ondol.shutdown_optimization()
asyncio.run(main())
print(hint.description, "preload-hints.json" in os.listdir({str(tmp_path)!r}))
"""
    assert run_program(code) == "every weekday at 08:55 (Asia/Seoul) True"


def test_calendars_are_loaded_with_the_first_hint_and_not_before(tmp_path: Path) -> None:
    code = f"""
import asyncio, os, sys
os.environ["ONDOL_DATA_DIR"] = {str(tmp_path)!r}
os.environ["ONDOL_LOG_DIR"] = {str(tmp_path / "logs")!r}
import ondol
async def main():
    await ondol.initialize_optimization("testing")
    loaded = {{"zoneinfo", "ondol.preload.recurrence", "ondol.preload.local_zone"}} & set(sys.modules)
    await ondol.shutdown_optimization()
    return loaded
before = asyncio.run(main())
ondol.preload_hint("m", repeat="1h")
print(before, "ondol.preload.recurrence" in sys.modules)
"""
    assert run_program(code) == "set() True"
