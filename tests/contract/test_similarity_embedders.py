"""The one suite that every embedder passes: the fake that tests use, and those that ship in packages."""

from __future__ import annotations

import subprocess
import sys
import threading
from functools import cache
from typing import TYPE_CHECKING, cast

import numpy as np
import pytest

from ondol.settings import resolve
from ondol.similarity import EMBEDDERS, embedder_specs
from ondol.testing.embedder import FakeEmbedder
from tests.service.models_fakes import loader_of

if TYPE_CHECKING:
    from ondol.similarity import Embedder
    from ondol.similarity.records import Kind

SENTENCES = [
    "A man is repairing a car.",
    "한 남자가 자동차를 고치고 있다.",
    "Quantum computers factor large numbers.",
    "x",
    "🙂 ½ 漢字 Ünïcödé",
    "word " * 700,
]
# (query, what means the same, what does not): in the languages that the model knows.
ENGLISH = [
    ("a physician", "a doctor", "a bridge"),
    ("an automobile on the road", "a car on the street", "a recipe for soup"),
    ("looking for a job", "seeking employment and work", "the moon at night"),
]
KOREAN = [
    ("자동차 정비", "차량 수리", "바다 수영"),
    ("일자리를 구하는 사람", "직업을 찾는 사람", "비가 오는 날씨"),
]
NAMES = ["fake", *EMBEDDERS]


@cache
def load(name: str) -> Embedder:
    if name == "fake":
        return FakeEmbedder()
    if not EMBEDDERS[name].is_installed():
        pytest.skip(f"{EMBEDDERS[name].package} is not installed here")
    specs = {spec.name: spec for spec in embedder_specs(resolve(arguments={"model_threads": 2}).values)}
    model = cast("Embedder", loader_of(specs[name])())
    warm_up = specs[name].warm_up
    assert warm_up is not None
    warm_up(model)
    return model


@pytest.fixture(params=NAMES)
def embedder(request: pytest.FixtureRequest) -> Embedder:
    name: str = request.param
    return load(name)


@pytest.mark.parametrize("kind", ["query", "passage"])
def test_vectors_have_the_promised_shape_type_and_length(embedder: Embedder, kind: Kind) -> None:
    vectors = embedder.embed(SENTENCES, kind)
    assert vectors.shape == (len(SENTENCES), embedder.dimension)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-3)


def test_the_dimension_is_the_registered_one(embedder: Embedder) -> None:
    assert EMBEDDERS[embedder.name].dimension == embedder.dimension


def test_the_same_texts_give_the_same_vectors(embedder: Embedder) -> None:
    np.testing.assert_array_equal(embedder.embed(SENTENCES, "query"), embedder.embed(SENTENCES, "query"))


def test_a_batch_gives_what_its_texts_give_alone(embedder: Embedder) -> None:
    batch = embedder.embed(SENTENCES, "passage")
    alone = np.concatenate([embedder.embed([sentence], "passage") for sentence in SENTENCES])
    np.testing.assert_allclose(batch, alone, atol=1e-4)


def test_order_is_kept_in_the_largest_batch_and_beyond(embedder: Embedder) -> None:
    texts = [f"sentence number {number} " + "and so on " * (number % 7) for number in range(70)]
    vectors = embedder.embed(texts, "passage")
    for number in (0, 31, 32, 64, 69):
        np.testing.assert_allclose(vectors[number], embedder.embed([texts[number]], "passage")[0], atol=1e-4)


def test_no_text_gives_no_vector(embedder: Embedder) -> None:
    assert embedder.embed([], "passage").shape == (0, embedder.dimension)
    assert embedder.count_tokens([]) == []


def test_every_text_has_tokens_and_more_text_has_more(embedder: Embedder) -> None:
    counts = embedder.count_tokens(SENTENCES)
    assert len(counts) == len(SENTENCES)
    assert {type(count) for count in counts} == {int}
    assert min(counts) > 0
    assert counts[5] > counts[0] > counts[3]
    assert embedder.count_tokens([SENTENCES[0]]) == [counts[0]]


def test_synonyms_rank_above_what_is_unrelated(embedder: Embedder) -> None:
    cases = ENGLISH if embedder.name == "wordllama" else ENGLISH + KOREAN
    for query, same, other in cases:
        a, b, c = embedder.embed([query, same, other], "query").astype(np.float64)
        assert a @ b > a @ c, (embedder.name, query)


def test_calls_from_several_threads_do_not_disturb_each_other(embedder: Embedder) -> None:
    expected = embedder.embed(SENTENCES, "passage")
    results: dict[int, bool] = {}

    def work(number: int) -> None:
        results[number] = bool(np.allclose(embedder.embed(SENTENCES, "passage"), expected, atol=1e-4))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {0: True, 1: True, 2: True}


@pytest.mark.parametrize(
    "hostile", ["\u200b", "a\u0301" * 50, "\n" * 100 + "x", "<s></s>", "\uffff", "\u202e", "#" * 500]
)
def test_odd_texts_give_finite_vectors(embedder: Embedder, hostile: str) -> None:
    assert np.isfinite(embedder.embed([hostile, "fine"], "passage")).all()


_LOAD_AND_TELL = """
import logging, sys
from ondol.settings import resolve
from ondol.similarity import embedder_specs
root = logging.getLogger()
before = (root.level, list(root.handlers))
{spec.name: spec for spec in embedder_specs(resolve().values)}[sys.argv[1]].load()
print((root.level, list(root.handlers)) == before)
"""


@pytest.mark.parametrize("name", list(EMBEDDERS))
def test_loading_leaves_the_applications_logging_alone(name: str) -> None:
    load(name)  # skips what is not installed
    # In a process of its own: pytest's handlers on the root logger would hide what a package does to it.
    told = subprocess.run([sys.executable, "-c", _LOAD_AND_TELL, name], capture_output=True, text=True, check=False)
    assert (told.stdout, told.returncode) == ("True\n", 0), told.stderr
