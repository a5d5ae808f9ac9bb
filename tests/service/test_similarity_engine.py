from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ondol.cache import Cache
from ondol.errors import (
    InvalidTextError,
    ModelLoadError,
    StoreUnavailableError,
    UnknownDocumentError,
    UnknownModelError,
)
from ondol.similarity import EMBEDDERS, STORE_FILE, NewDocument, SimilarityEngine, sqlite_file
from ondol.similarity.store import DocumentStore
from ondol.testing import run_virtual
from tests.service.similarity_fakes import DEFAULT, E5, FakePool, make_engine

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from ondol.testing import VirtualClock

DOCUMENTS = [
    NewDocument(id="mechanic", title="정비사", text="자동차 정비를 십 년 했습니다.", metadata={"language": "ko"}),
    NewDocument(id="nurse", title="Nurse", text="I cared for patients in an emergency room."),
    NewDocument(id="cook", text="Cooking for two hundred guests every evening."),
]


def on_engine(
    folder: Path, scenario: Callable[[SimilarityEngine, FakePool], Awaitable[None]], pool: FakePool | None = None
) -> None:
    used = pool if pool is not None else FakePool()

    async def run(clock: VirtualClock) -> None:
        engine = make_engine(folder, used, clock=clock)
        try:
            await scenario(engine, used)
        finally:
            await engine.stop()
        assert used.open_leases == 0

    run_virtual(run)
    if (folder / STORE_FILE).exists():
        assert_sound(folder / STORE_FILE)


def assert_sound(path: Path) -> None:
    """Check what holds at the end of every transaction."""
    connection = sqlite3.connect(path)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        both_or_none = (
            "SELECT count(*) FROM models m JOIN chunks c WHERE"
            " (SELECT count(*) FROM vectors v WHERE v.model_id = m.model_id AND v.chunk_id = c.chunk_id) +"
            " (SELECT count(*) FROM pending p WHERE p.model_id = m.model_id AND p.chunk_id = c.chunk_id) != 1"
        )
        assert connection.execute(both_or_none).fetchone() == (0,)
        wordless = "SELECT (SELECT group_concat(chunk_id) FROM chunks) IS (SELECT group_concat(rowid) FROM chunk_words)"
        assert connection.execute(wordless).fetchone() == (1,)
        without_chunks = "SELECT count(*) FROM documents WHERE document_key NOT IN (SELECT document_key FROM chunks)"
        assert connection.execute(without_chunks).fetchone() == (0,)
    finally:
        connection.close()


def test_embedding_gives_vectors_and_token_counts_in_order(tmp_path: Path) -> None:
    async def scenario(engine: SimilarityEngine, pool: FakePool) -> None:
        batch = await engine.embed(["one two", "three", "one two"])
        assert batch.model == DEFAULT
        assert batch.vectors.shape == (3, 512)
        assert batch.vectors.dtype == np.float32
        np.testing.assert_array_equal(batch.vectors[0], batch.vectors[2])
        assert batch.token_counts == [3, 2, 3]
        assert (await engine.embed([], model=E5)).vectors.shape == (0, 384)
        assert len(pool.models[DEFAULT].calls) == 1

    on_engine(tmp_path, scenario)
    assert not (tmp_path / STORE_FILE).exists()


def test_the_vectors_given_out_are_the_callers_own(tmp_path: Path) -> None:
    async def scenario(engine: SimilarityEngine, _pool: FakePool) -> None:
        first = await engine.embed(["text"])
        first.vectors[:] = 0.0
        assert np.linalg.norm((await engine.embed(["text"])).vectors) == pytest.approx(1.0)

    on_engine(tmp_path, scenario)


def test_comparing_scores_meaning_and_wording_apart(tmp_path: Path) -> None:
    async def scenario(engine: SimilarityEngine, _pool: FakePool) -> None:
        same, synonym, other = await engine.compare("a car", ["a car", "a 자동차", "quiet sea"])
        assert same.semantic_score == pytest.approx(1.0)
        assert same.lexical_score == 1.0
        assert synonym.semantic_score > 0.6 > other.semantic_score
        assert synonym.lexical_score == pytest.approx(2 / 6)
        assert other.lexical_score == 0.0
        assert await engine.compare("a car", []) == []

    on_engine(tmp_path, scenario)


def test_comparing_uses_queries_on_both_sides(tmp_path: Path) -> None:
    async def scenario(engine: SimilarityEngine, _pool: FakePool) -> None:
        (score,) = await engine.compare("text", ["text"], model=E5)
        assert score.semantic_score == pytest.approx(1.0)

    on_engine(tmp_path, scenario)


@pytest.mark.parametrize("bad", ["", "  ", "\u200b", "a\0b", "\ud800", None])
def test_texts_no_model_could_bear_are_refused_by_place(tmp_path: Path, bad: str) -> None:
    async def scenario(engine: SimilarityEngine, pool: FakePool) -> None:
        with pytest.raises(InvalidTextError, match=r"texts\[1\]"):
            await engine.embed(["fine", bad])
        with pytest.raises(InvalidTextError, match=r"documents\[0\]\.text"):
            await engine.add_documents([NewDocument(text=bad)])
        with pytest.raises(InvalidTextError, match="query"):
            await engine.search(bad)
        assert not pool.models[DEFAULT].calls

    on_engine(tmp_path, scenario)
    assert not (tmp_path / STORE_FILE).exists()


def test_an_unknown_model_is_told_before_anything_happens(tmp_path: Path) -> None:
    async def scenario(engine: SimilarityEngine, _pool: FakePool) -> None:
        with pytest.raises(UnknownModelError):
            await engine.add_documents(DOCUMENTS, model="gpt")
        with pytest.raises(UnknownModelError):
            await engine.search("query", model="gpt")
        names = [info.name for info in engine.models()]
        assert names[0] == DEFAULT
        assert set(names) == set(EMBEDDERS)

    on_engine(tmp_path, scenario)
    assert not (tmp_path / STORE_FILE).exists()


def test_documents_come_back_as_they_were_given(tmp_path: Path) -> None:
    async def scenario(engine: SimilarityEngine, _pool: FakePool) -> None:
        assert await engine.count_documents() == 0
        ids = await engine.add_documents([*DOCUMENTS, NewDocument(text="without an id")])
        assert ids[:3] == ["mechanic", "nurse", "cook"]
        assert len(ids[3]) == 32
        document = await engine.get_document("mechanic")
        assert (document.title, document.text) == ("정비사", "자동차 정비를 십 년 했습니다.")
        assert document.metadata == {"language": "ko"}
        assert document.chunk_count == 1
        assert document.added_at_s == pytest.approx(1_750_000_000.0)
        assert await engine.count_documents() == 4
        await engine.delete_document("mechanic")
        for call in (engine.get_document, engine.delete_document):
            with pytest.raises(UnknownDocumentError, match="'mechanic'"):
                await call("mechanic")
        assert await engine.count_documents() == 3
        assert await engine.add_documents([]) == []

    on_engine(tmp_path, scenario)


@pytest.mark.parametrize(
    ("document", "place"),
    [
        (NewDocument(text="t", id="a b"), r"documents\[1\]\.id"),
        (NewDocument(text="t", title="\ud800"), r"documents\[1\]\.title"),
        (NewDocument(text="t", metadata={"k": "\0"}), r"documents\[1\]\.metadata\.k"),
    ],
)
def test_one_bad_document_stores_none(tmp_path: Path, document: NewDocument, place: str) -> None:
    async def scenario(engine: SimilarityEngine, _pool: FakePool) -> None:
        with pytest.raises(InvalidTextError, match=place):
            await engine.add_documents([DOCUMENTS[0], document])
        assert await engine.count_documents() == 0

    on_engine(tmp_path, scenario)


def test_adding_an_id_again_replaces_the_document(tmp_path: Path) -> None:
    async def scenario(engine: SimilarityEngine, _pool: FakePool) -> None:
        await engine.add_documents(DOCUMENTS)
        assert (await engine.search("emergency patients"))[0].id == "nurse"
        await engine.add_documents([NewDocument(id="nurse", text="Painting walls and ceilings.")])
        assert await engine.count_documents() == 3
        found = await engine.search("emergency patients")
        assert all("emergency" not in hit.passage for hit in found)
        assert (await engine.search("painting ceilings"))[0].id == "nurse"
        await engine.add_documents([NewDocument(id="x", text="first"), NewDocument(id="x", text="second")])
        assert (await engine.get_document("x")).text == "second"

    on_engine(tmp_path, scenario)


def test_searching_ranks_by_meaning_and_wording(tmp_path: Path) -> None:
    async def scenario(engine: SimilarityEngine, _pool: FakePool) -> None:
        assert await engine.search("anything") == []
        await engine.add_documents(DOCUMENTS)
        hits = await engine.search("차량 정비", limit=2)
        assert len(hits) == 2
        best = hits[0]
        assert best.id == "mechanic"
        assert best.title == "정비사"
        assert best.metadata == {"language": "ko"}
        assert best.passage == "자동차 정비를 십 년 했습니다."
        assert 0.0 < best.lexical_score <= 1.0
        assert best.score > hits[1].score
        # A title is found by its words though it is no part of the passage.
        assert (await engine.search("정비사"))[0].lexical_score > 0
        with pytest.raises(ValueError, match="limit must be at least 1"):
            await engine.search("x", limit=0)

    on_engine(tmp_path, scenario)


@pytest.mark.parametrize(
    "query", ['" OR *', "words:car", "NEAR(a b)", "a AND NOT b", "(((", "^x -y + z", "'; DROP TABLE"]
)
def test_search_syntax_is_just_text(tmp_path: Path, query: str) -> None:
    async def scenario(engine: SimilarityEngine, _pool: FakePool) -> None:
        await engine.add_documents(DOCUMENTS)
        assert len(await engine.search(query)) == 3

    on_engine(tmp_path, scenario)


def test_a_very_long_query_is_answered(tmp_path: Path) -> None:
    async def scenario(engine: SimilarityEngine, _pool: FakePool) -> None:
        words = " ".join(f"w{number}" for number in range(3000))
        await engine.add_documents([NewDocument(id="long", text=words), *DOCUMENTS])
        assert (await engine.search(words))[0].id == "long"

    on_engine(tmp_path, scenario)


def test_a_long_document_is_found_by_the_passage_that_fits(tmp_path: Path) -> None:
    async def scenario(engine: SimilarityEngine, _pool: FakePool) -> None:
        filler = "Nothing in particular is told here at all. " * 40
        await engine.add_documents([NewDocument(id="long", text=filler + "The lighthouse keeper sang. " + filler)])
        document = await engine.get_document("long")
        assert document.chunk_count > 3
        (hit,) = await engine.search("lighthouse keeper")
        assert "lighthouse keeper" in hit.passage
        assert hit.passage in document.text

    on_engine(tmp_path, scenario)


def test_a_search_with_another_model_embeds_what_it_lacks_first(tmp_path: Path) -> None:
    async def scenario(engine: SimilarityEngine, pool: FakePool) -> None:
        await engine.add_documents(DOCUMENTS)
        progress: list[tuple[int, int]] = []
        hits = await engine.search("emergency", model=E5, progress=lambda done, total: progress.append((done, total)))
        assert hits[0].id == "nurse"
        assert progress == [(3, 3)]
        computed = len(pool.models[E5].calls)
        await engine.add_documents([NewDocument(id="new", text="An emergency exit.")])
        assert len(pool.models[E5].calls) == computed
        assert {hit.id for hit in (await engine.search("emergency", model=E5))[:2]} == {"nurse", "new"}

    on_engine(tmp_path, scenario)


def test_progress_is_told_batch_by_batch(tmp_path: Path) -> None:
    async def scenario(engine: SimilarityEngine, _pool: FakePool) -> None:
        documents = [NewDocument(text=f"document number {number}") for number in range(600)]
        progress: list[tuple[int, int]] = []
        await engine.add_documents(documents, progress=lambda done, total: progress.append((done, total)))
        assert progress == [(256, 600), (512, 600), (600, 600)]

    on_engine(tmp_path, scenario)


def test_a_model_that_cannot_be_loaded_stores_nothing(tmp_path: Path) -> None:
    async def scenario(engine: SimilarityEngine, pool: FakePool) -> None:
        pool.error = ModelLoadError("no weights")
        with pytest.raises(ModelLoadError):
            await engine.add_documents(DOCUMENTS)
        assert await engine.count_documents() == 0

    on_engine(tmp_path, scenario)


def test_a_model_that_fails_later_keeps_the_documents_and_the_next_search_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(engine: SimilarityEngine, pool: FakePool) -> None:
        pool.models[DEFAULT].error = ModelLoadError("out of memory")
        await engine.add_documents(DOCUMENTS)
        stats = engine.get_stats()["indexing"]
        assert (stats["index_failures"], stats["last_index_error"]) == (1, "ModelLoadError: out of memory")
        assert "not all of their passages are indexed" in caplog.text
        with pytest.raises(ModelLoadError):
            await engine.search("emergency")
        pool.models[DEFAULT].error = None
        assert (await engine.search("emergency"))[0].id == "nurse"

    on_engine(tmp_path, scenario)


def test_starting_resumes_what_was_asked_for_and_nothing_else(tmp_path: Path) -> None:
    async def interrupted(engine: SimilarityEngine, pool: FakePool) -> None:
        await engine.add_documents(DOCUMENTS[:1])
        await engine.search("x", model=E5)
        pool.models[DEFAULT].error = ModelLoadError("killed here")
        await engine.add_documents(DOCUMENTS[1:])

    async def resumed(engine: SimilarityEngine, pool: FakePool) -> None:
        await engine.start()
        await engine.wait_resumed()
        assert pool.background_loads == [DEFAULT]
        assert pool.models[DEFAULT].calls == [[document.text for document in DOCUMENTS[1:]]]
        assert not pool.models[E5].calls

    on_engine(tmp_path, interrupted)
    on_engine(tmp_path, resumed)


def test_starting_on_no_store_makes_none_and_loads_nothing(tmp_path: Path) -> None:
    async def scenario(engine: SimilarityEngine, pool: FakePool) -> None:
        await engine.start()
        await engine.wait_resumed()
        assert not pool.background_loads

    on_engine(tmp_path, scenario)
    assert not (tmp_path / STORE_FILE).exists()


def test_a_resume_that_fails_is_counted_and_stops_cleanly(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def interrupted(engine: SimilarityEngine, pool: FakePool) -> None:
        pool.models[DEFAULT].error = ModelLoadError("killed here")
        await engine.add_documents(DOCUMENTS)

    async def failing(engine: SimilarityEngine, pool: FakePool) -> None:
        pool.error = ModelLoadError("no weights")
        await engine.start()
        await engine.wait_resumed()
        assert engine.get_stats()["indexing"]["index_failures"] == 1
        assert "cannot be resumed" in caplog.text

    on_engine(tmp_path, interrupted)
    on_engine(tmp_path, failing)


def test_a_caller_that_leaves_in_the_middle_loses_nothing(tmp_path: Path) -> None:
    async def left(engine: SimilarityEngine, pool: FakePool) -> None:
        adding: asyncio.Task[list[str]] | None = None

        def leave(_done: int, _total: int) -> None:
            assert adding is not None
            adding.cancel()

        documents = [NewDocument(id=f"d{number}", text=f"emergency {number}") for number in range(600)]
        adding = asyncio.create_task(engine.add_documents(documents, progress=leave))
        await asyncio.wait([adding])
        assert adding.cancelled()
        assert await engine.count_documents() == 600
        assert sum(len(call) for call in pool.models[DEFAULT].calls) == 256

    async def resumed(engine: SimilarityEngine, pool: FakePool) -> None:
        await engine.start()
        await engine.wait_resumed()
        assert sum(len(call) for call in pool.models[DEFAULT].calls) == 344
        assert (await engine.search("emergency 577"))[0].id == "d577"

    on_engine(tmp_path, left)
    on_engine(tmp_path, resumed)


def test_what_another_process_writes_is_found(tmp_path: Path) -> None:
    async def scenario(engine: SimilarityEngine, _pool: FakePool) -> None:
        other = make_engine(tmp_path)
        await engine.add_documents(DOCUMENTS)
        assert (await engine.search("lighthouse"))[0].lexical_score == 0.0
        await other.add_documents([NewDocument(id="other", text="A lighthouse at sea.")])
        assert (await engine.search("lighthouse"))[0].id == "other"
        await other.delete_document("other")
        assert all(hit.id != "other" for hit in await engine.search("lighthouse"))
        await asyncio.gather(
            *(each.add_documents([NewDocument(text=f"{n} lamps")]) for n in range(10) for each in (engine, other))
        )
        assert await engine.count_documents() == 23
        assert len(await engine.search("lamps", limit=50)) == 23
        await other.stop()

    on_engine(tmp_path, scenario)


def test_vectors_of_another_dimension_are_made_anew(tmp_path: Path) -> None:
    async def scenario(engine: SimilarityEngine, pool: FakePool) -> None:
        await engine.add_documents(DOCUMENTS)
        await engine.stop()
        connection = sqlite3.connect(tmp_path / STORE_FILE)
        with connection:
            connection.execute("UPDATE models SET dimension = 3")
            connection.execute("UPDATE vectors SET vector = x'000000000000000000000000'")
        connection.close()
        pool.models[DEFAULT].calls.clear()
        assert (await engine.search("emergency"))[0].id == "nurse"
        assert [len(call) for call in pool.models[DEFAULT].calls] == [3, 1]

    on_engine(tmp_path, scenario)


def test_a_store_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / STORE_FILE)
    connection.execute("PRAGMA user_version = 99")
    connection.close()

    async def run(_clock: VirtualClock) -> None:
        engine = make_engine(tmp_path)
        with pytest.raises(StoreUnavailableError, match="version 99, this ondol knows versions up to 1"):
            await engine.add_documents(DOCUMENTS)
        await engine.stop()

    run_virtual(run)


def test_opening_waits_for_another_process_that_is_making_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = sqlite3.connect(tmp_path / STORE_FILE, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            other.execute("ROLLBACK")

    monkeypatch.setattr(sqlite_file, "_BUSY_TIMEOUT_S", 0.001)
    monkeypatch.setattr("ondol.similarity.sqlite_file.time.sleep", wait)
    store = DocumentStore(tmp_path / STORE_FILE)
    assert store.count_documents() == 0
    assert len(waits) == 3
    store.close()
    other.close()


def test_a_file_that_is_no_store_and_a_folder_that_cannot_be_made_are_told(tmp_path: Path) -> None:
    (tmp_path / STORE_FILE).write_bytes(b"this is no database" * 100)
    (tmp_path / "file").write_text("in the way")

    async def run(_clock: VirtualClock) -> None:
        for folder in (tmp_path, tmp_path / "file"):
            engine = make_engine(folder)
            with pytest.raises(StoreUnavailableError, match="ONDOL_DATA_DIR"):
                await engine.count_documents()
            await engine.stop()

    run_virtual(run)


def test_it_works_on_two_event_loops_in_a_row_started_or_not(tmp_path: Path) -> None:
    engine = make_engine(tmp_path, cache=Cache(is_enabled=False))

    async def first() -> None:
        await engine.start()
        await engine.add_documents(DOCUMENTS)

    async def second() -> None:
        assert (await engine.search("emergency"))[0].id == "nurse"
        await engine.stop()
        assert await engine.count_documents() == 3
        await engine.stop()

    asyncio.run(first())
    asyncio.run(second())


def test_many_searches_and_writes_at_once(tmp_path: Path) -> None:
    async def scenario(engine: SimilarityEngine, _pool: FakePool) -> None:
        await engine.add_documents(DOCUMENTS)

        async def churn(number: int) -> None:
            await engine.add_documents([NewDocument(id=f"d{number}", text=f"emergency {number}")])
            assert await engine.search(f"emergency {number}", limit=5)
            await engine.delete_document(f"d{number}")

        await asyncio.gather(*(churn(number) for number in range(20)))
        assert await engine.count_documents() == 3
        assert {hit.id for hit in await engine.search("emergency", limit=50)} == {"mechanic", "nurse", "cook"}

    on_engine(tmp_path, scenario)


def test_a_search_does_not_wait_for_somebody_elses_upload(tmp_path: Path) -> None:
    async def scenario(engine: SimilarityEngine, pool: FakePool) -> None:
        await engine.add_documents(DOCUMENTS)
        await engine.embed(["emergency room"], kind="query")
        stalled, gate = asyncio.Event(), asyncio.Event()

        def stall(_done: int, _total: int) -> None:
            pool.gate = gate
            stalled.set()

        documents = [NewDocument(id=f"d{number}", text=f"upload {number}") for number in range(600)]
        upload = asyncio.create_task(engine.add_documents(documents, progress=stall))
        await stalled.wait()
        hits = await engine.search("emergency room")
        assert hits[0].id == "nurse"
        assert not upload.done()
        gate.set()
        await upload
        assert (await engine.search("upload 577"))[0].id == "d577"

    on_engine(tmp_path, scenario)
