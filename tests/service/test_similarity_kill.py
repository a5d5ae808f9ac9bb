"""A process that is killed while it stores documents leaves every document whole, and its work is taken up again."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ondol.cache import Cache
from ondol.models import ModelPool, ModelSpec
from ondol.similarity import STORE_FILE, SimilarityEngine, split_chunks
from ondol.testing import run_virtual
from ondol.testing.embedder import FakeEmbedder
from tests.service.similarity_fakes import DEFAULT, settings_in
from tests.service.test_similarity_engine import assert_sound

if TYPE_CHECKING:
    from ondol.testing import VirtualClock

ROOT = Path(__file__).parents[2]

_CHILD = """
import asyncio, pathlib, sys, threading
from ondol.cache import Cache
from ondol.models import ModelPool, ModelSpec
from ondol.similarity import NewDocument, SimilarityEngine
from ondol.testing.embedder import FakeEmbedder
from tests.service.similarity_fakes import DEFAULT, settings_in

folder, mode = pathlib.Path(sys.argv[1]), sys.argv[2]
fake = FakeEmbedder()

def tell(line):
    print(line, flush=True)

def text(number):
    return " ".join(f"Sentence {part} of document {number} stands here." for part in range(60))

async def endless(engine):
    # One request after the other, some of them replacing documents: the kill comes at any point of any of them.
    number = 0
    while True:
        documents = [NewDocument(id=f"d{each % 50}", text=text(each)) for each in range(number, number + 3)]
        ids = await engine.add_documents(documents)
        number += 3
        tell(" ".join(ids))

async def stalled(engine):
    # The third batch of vectors never ends: the kill comes with the documents stored and two batches done.
    original, calls = fake.embed, []

    def embed(texts, kind):
        calls.append(len(texts))
        if sum(calls) > 512:
            tell("stalled")
            threading.Event().wait()
        return original(texts, kind)

    fake.embed = embed
    await engine.add_documents([NewDocument(id=f"d{each}", text=f"document {each}") for each in range(700)])

async def main():
    async with ModelPool() as pool:
        pool.register(ModelSpec(name=DEFAULT, load=lambda: fake))
        await {"endless": endless, "stalled": stalled}[mode](SimilarityEngine(pool, Cache(), settings_in(folder)))

asyncio.run(main())
"""


def kill_after(folder: Path, mode: str, lines: int) -> list[str]:
    """Run the child until it has told ``lines`` lines, then SIGKILL it; return all it told."""
    with subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(folder), mode], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        told = [child.stdout.readline().strip() for _line in range(lines)]
        child.send_signal(signal.SIGKILL)
        told += [line.strip() for line in child.stdout]
    assert child.returncode == -signal.SIGKILL
    return told


def expected_text(number: int) -> str:
    return " ".join(f"Sentence {part} of document {number} stands here." for part in range(60))


def test_every_acknowledged_document_is_there_and_every_document_is_whole(tmp_path: Path) -> None:
    told = kill_after(tmp_path, "endless", 8)
    assert_sound(tmp_path / STORE_FILE)
    acknowledged = 3 * len(told)
    possible: dict[str, set[str]] = {}
    for number in range(acknowledged + 3):  # the last request may have been stored without an answer
        possible.setdefault(f"d{number % 50}", set()).add(expected_text(number))

    async def scenario(_clock: VirtualClock) -> None:
        async with ModelPool() as pool:
            pool.register(ModelSpec(name=DEFAULT, load=FakeEmbedder))
            engine = SimilarityEngine(pool, Cache(), settings_in(tmp_path))
            for number in range(min(acknowledged, 50)):
                document = await engine.get_document(f"d{number}")
                assert document.text in possible[document.id]
                assert document.chunk_count == len(split_chunks(document.text))
            await engine.start()
            await engine.wait_resumed()
            newest = await engine.search(f"document {acknowledged - 1}", limit=50)
            assert len(newest) == await engine.count_documents()
            assert engine.get_stats()["indexing"]["index_failures"] == 0
            await engine.stop()

    run_virtual(scenario)
    assert_sound(tmp_path / STORE_FILE)


def test_interrupted_indexing_goes_on_where_it_was(tmp_path: Path) -> None:
    assert kill_after(tmp_path, "stalled", 1) == ["stalled"]
    assert_sound(tmp_path / STORE_FILE)

    async def scenario(_clock: VirtualClock) -> None:
        fake = FakeEmbedder()
        async with ModelPool() as pool:
            pool.register(ModelSpec(name=DEFAULT, load=lambda: fake))
            engine = SimilarityEngine(pool, Cache(), settings_in(tmp_path))
            assert await engine.count_documents() == 700
            await engine.start()
            await engine.wait_resumed()
            assert engine.get_stats()["indexing"]["chunks_indexed"] == 188
            assert sum(len(call) for call in fake.calls) == 188
            assert (await engine.search("document 699"))[0].id == "d699"
            assert engine.get_stats()["indexing"]["chunks_indexed"] == 188
            await engine.stop()

    run_virtual(scenario)
    assert_sound(tmp_path / STORE_FILE)
