"""The adapters' public names, and what importing them costs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ondol.models import adapters

THIRD_PARTY = {
    "joblib",
    "ml_dtypes",
    "numpy",
    "onnx",
    "onnxruntime",
    "psutil",
    "safetensors",
    "sentence_transformers",
    "sklearn",
    "torch",
    "transformers",
}


def modules_after(statement: str) -> set[str]:
    code = f"import sys, json\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(result.stdout))


def test_importing_the_package_imports_no_adapter_and_no_third_party() -> None:
    loaded = modules_after("import ondol.models.adapters")
    assert not loaded & THIRD_PARTY
    assert {name for name in loaded if name.startswith("ondol.models.adapters")} == {"ondol.models.adapters"}


def test_not_even_all_its_names_import_a_third_party() -> None:
    loaded = modules_after("from ondol.models.adapters import *")
    assert not loaded & THIRD_PARTY
    assert "ondol.models.adapters.onnx" in loaded


@pytest.mark.parametrize("name", adapters.__all__)
def test_every_public_name_is_there(name: str) -> None:
    value = getattr(adapters, name)
    assert value.__name__ == name
    assert value.__doc__
    assert getattr(sys.modules[value.__module__], name) is value
    assert name in dir(adapters)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        adapters.nonsense  # noqa: B018  # the access is what is tested


def test_type_checkers_see_the_same_names_as_programs() -> None:
    text = Path(adapters.__file__).read_text(encoding="utf-8")
    block = text.split("if TYPE_CHECKING:")[1].split("_HOMES")[0]
    typed = set(re.findall(r"\b(\w+)\b", re.sub(r"from [\w.]+ import", "", block)))
    assert typed == set(adapters._HOMES) == set(adapters.__all__)
