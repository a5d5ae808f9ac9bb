"""Every setting, error, metric, route and command has its heading in the reference."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from ondol import errors
from ondol.cli.group import COMMANDS
from ondol.server.openapi import openapi_bytes
from ondol.settings import SETTINGS
from tests.docs.markdown import headings

ROOT = Path(__file__).resolve().parents[2]
RECORDERS = {"record", "_record", "recorder", "_recorder", "add_metric"}


def metric_names() -> set[str]:
    """Return the names of all metrics that the code records, found in the code itself."""
    names = set()
    for path in (ROOT / "src" / "ondol").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                function = node.func
                name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
                if name in RECORDERS and isinstance(node.args[0].value, str):
                    names.add(node.args[0].value)
    return names


def routes() -> set[str]:
    paths = json.loads(openapi_bytes(is_key_needed=False))["paths"]
    return {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}


@pytest.mark.parametrize("reference", ["docs/api_reference.md", "docs/api_reference.ko.md"])
@pytest.mark.parametrize("kind", ["settings", "errors", "metrics", "routes", "commands"])
def test_each_has_a_heading(reference: str, kind: str) -> None:
    wanted = {
        "settings": {setting.variable for setting in SETTINGS},
        "errors": set(errors.__all__),
        "metrics": metric_names(),
        "routes": routes(),
        "commands": {f"ondol {name}" for name in COMMANDS},
    }[kind]
    assert len(wanted) >= 5
    have = " ".join(text for _level, text in headings(ROOT / reference))
    missing = {name for name in wanted if f"`{name}`" not in have}
    assert not missing
