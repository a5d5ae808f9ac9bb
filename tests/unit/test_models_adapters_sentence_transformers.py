"""The sentence-transformers adapter, against a stand-in for the package."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from ondol.errors import AlreadyClosedError, ConfigurationError, MissingExtraError, ModelError, ModelLoadError
from ondol.models.adapters.sentence_transformers import sentence_transformer


class Tensor:
    """As torch's: a number of elements of some bytes each."""

    def __init__(self, count: int, element_bytes: int) -> None:
        self.numel = lambda: count
        self.element_size = lambda: element_bytes


class StandIn:
    """Has the surface of ``sentence_transformers.SentenceTransformer`` (version 6) that the adapter uses."""

    dimension: int | None = 3

    def __init__(self, name: str, **options: Any) -> None:
        if name == "absent":
            raise OSError("not on this machine")
        self.prompts = {"query": "", "document": ""}
        self.options = options
        self.calls: list[dict[str, Any]] = []
        self.busy = threading.Lock()
        self.itself = self  # as the package's model cards do

    def get_embedding_dimension(self) -> int | None:
        return self.dimension

    def parameters(self) -> list[Tensor]:
        return [Tensor(10, 4), Tensor(5, 2)]

    def buffers(self) -> list[Tensor]:
        return [Tensor(1, 8)]

    def encode(self, texts: list[str], **options: Any) -> Any:
        assert self.busy.acquire(blocking=False), "used twice at the same time"
        self.calls.append(options)
        self.busy.release()
        if texts == ["bad"]:
            raise RuntimeError("out of memory")
        return np.ones((len(texts), 3), np.float64) if texts else np.array([])

    def tokenizer(self, texts: list[str], *, truncation: bool) -> dict[str, list[list[int]]]:
        assert truncation
        assert texts, "the package's tokenizers fail on none"
        return {"input_ids": [[1] * len(text.split()) for text in texts]}


class OlderStandIn(StandIn):
    """As before version 5: the dimension under another name, and no prompts but those of the model itself."""

    get_embedding_dimension = None  # type: ignore[assignment]  # as if it were not there

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(name, **options)
        self.prompts = {"query": "query: ", "passage": "passage: "}

    def get_sentence_embedding_dimension(self) -> int:
        return 3


class StaticStandIn(StandIn):
    """A static model: it does not tell its dimension, and its tokenizer is one of the package tokenizers."""

    dimension = None

    class Tokenizer:
        def encode_batch(self, texts: list[str]) -> list[Any]:
            encodings = [ModuleType("encoding") for _ in texts]
            for encoding, text in zip(encodings, texts, strict=True):
                encoding.__dict__["ids"] = text.split()
            return encodings

    tokenizer: Any = Tokenizer()


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("sentence_transformers")
    module.__dict__["SentenceTransformer"] = StandIn
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    return module


@pytest.mark.usefixtures("package")
def test_it_embeds_and_counts() -> None:
    model = sentence_transformer("some/model", max_batch=8)
    vectors = model.embed(["a b", "c"], "query")
    assert (vectors.shape, vectors.dtype, model.dimension) == ((2, 3), np.dtype(np.float32), 3)
    model.embed(["a"], "passage")
    model.embed(["a"], "of no such kind")
    stand_in = model._model
    assert [call["prompt_name"] for call in stand_in.calls] == ["query", "document", None]
    assert stand_in.calls[0]["batch_size"] == 8
    assert stand_in.calls[0]["normalize_embeddings"]
    assert model.count_tokens(["a b", "c"]) == [2, 1]
    assert model.size_bytes == 10 * 4 + 5 * 2 + 8
    model.close()


@pytest.mark.usefixtures("package")
def test_no_texts_are_no_vectors() -> None:
    model = sentence_transformer("some/model")
    assert model.embed([]).shape == (0, 3)
    assert model.count_tokens([]) == []


def test_older_versions_of_the_package(package: ModuleType) -> None:
    package.__dict__["SentenceTransformer"] = OlderStandIn
    model = sentence_transformer("some/model")
    assert model.dimension == 3
    model.embed(["a"])
    assert model._model.calls[0]["prompt_name"] == "passage"


def test_static_models(package: ModuleType) -> None:
    package.__dict__["SentenceTransformer"] = StaticStandIn
    model = sentence_transformer("some/model")
    assert model.dimension == 3
    assert model.count_tokens(["a b", "c"]) == [2, 1]


def test_a_model_that_cannot_count_its_parameters(package: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(StandIn, "parameters")
    assert sentence_transformer("some/model").size_bytes is None


@pytest.mark.usefixtures("package")
def test_it_neither_downloads_nor_runs_foreign_code_unasked() -> None:
    options = sentence_transformer("some/model")._model.options
    assert options == {"device": "cpu", "local_files_only": True, "trust_remote_code": False}
    assert sentence_transformer("m", is_download_allowed=True)._model.options["local_files_only"] is False


@pytest.mark.usefixtures("package")
def test_calls_wait_for_each_other_and_closing_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    model = sentence_transformer("some/model")
    begun, go = threading.Event(), threading.Event()
    encode = StandIn.encode

    def held(stand_in: StandIn, texts: list[str], **options: Any) -> Any:
        begun.set()
        assert go.wait(20)
        return encode(stand_in, texts, **options)

    monkeypatch.setattr(StandIn, "encode", held)
    with ThreadPoolExecutor() as threads:
        first = threads.submit(model.embed, ["a"])
        assert begun.wait(20)
        begun.clear()
        second, closing = threads.submit(model.embed, ["b"]), threads.submit(model.close)
        assert not begun.is_set()
        assert not second.done()
        assert not closing.done()
        go.set()
        assert first.result(20).shape == (1, 3)
        closing.result(20)


@pytest.mark.usefixtures("package")
def test_closing_lets_go_of_a_model_that_refers_to_itself() -> None:
    model = sentence_transformer("some/model")
    seen = weakref.ref(model._model)
    gc.disable()  # nobody else collects it
    try:
        model.close()
        assert seen() is None
    finally:
        gc.enable()
    model.close()
    with pytest.raises(AlreadyClosedError, match="'some/model' is closed"):
        model.embed(["a"])
    with pytest.raises(AlreadyClosedError):
        model.count_tokens(["a"])


@pytest.mark.usefixtures("package")
def test_faults_of_the_package_are_translated() -> None:
    with pytest.raises(ModelLoadError, match="not on this machine"):
        sentence_transformer("absent")
    with pytest.raises(ModelError, match="'some/model' could not compute: out of memory") as caught:
        sentence_transformer("some/model").embed(["bad"])
    assert isinstance(caught.value.__cause__, RuntimeError)


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize("max_batch", [0, True, "8"])
def test_a_batch_that_cannot_be_is_refused(max_batch: Any) -> None:
    with pytest.raises(ConfigurationError, match="max_batch must be a number from 1 on"):
        sentence_transformer("some/model", max_batch=max_batch)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingExtraError, match=r"ondol\[sentence-transformers\]"):
        sentence_transformer("some/model")
