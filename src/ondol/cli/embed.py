"""service: `ondol embed`: texts to vectors, in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from ondol.cli.options import examples, json_option, model_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ondol.similarity.engine import SimilarityEngine
    from ondol.similarity.records import EmbeddingBatch

__all__ = ["command"]

_BATCH_TEXTS: Final = 64
_SHOWN_VALUES: Final = 4
_SHOWN_CHARS: Final = 40


@click.command(
    "embed",
    short_help="Turn texts into embedding vectors.",
    epilog=examples(
        'ondol embed "온돌은 바닥을 데우는 난방이다" "Ondol heats the floor"',
        'ondol embed --model wordllama "floor heating"',
        "cat lines.txt | ondol embed - --json > vectors.json",
    ),
)
@click.argument("texts", metavar="TEXT...|-", nargs=-1, required=True)
@model_option
@json_option
def command(texts: tuple[str, ...], model: str | None, is_json: bool) -> None:
    """Turn each TEXT into an embedding vector. With - the texts are read from stdin, one per line.

    The table shows the first values of each vector; --json prints all of them.
    """
    from ondol.cli.runtime import checked_model, run_with_engine
    from ondol.cli.texts import read_texts
    from ondol.settings_reader import load_settings

    settings = load_settings().values
    name = checked_model(settings, model)
    checked = read_texts(texts, field="TEXT", max_chars=settings.max_text_chars)
    batches = run_with_engine(settings, lambda engine: _embed(engine, checked, name))
    if is_json:
        _print_json(checked, batches)
    else:
        _print_table(checked, batches)


async def _embed(engine: SimilarityEngine, texts: Sequence[str], model: str) -> list[EmbeddingBatch]:
    from ondol.cli.progress import progress

    batches: list[EmbeddingBatch] = []
    with progress("embedding") as show:
        for start in range(0, len(texts), _BATCH_TEXTS):
            part = texts[start : start + _BATCH_TEXTS]
            batches.append(await engine.embed(part, model=model))
            show(start + len(part), len(texts))
    return batches


def _rows(texts: Sequence[str], batches: Sequence[EmbeddingBatch]) -> list[tuple[str, int, list[float]]]:
    vectors = [vector.tolist() for batch in batches for vector in batch.vectors]
    counts = [count for batch in batches for count in batch.token_counts]
    return list(zip(texts, counts, vectors, strict=True))


def _print_json(texts: Sequence[str], batches: Sequence[EmbeddingBatch]) -> None:
    from ondol.cli.output import print_json

    embeddings: list[dict[str, Any]] = [
        {"text": text, "token_count": count, "embedding": vector} for text, count, vector in _rows(texts, batches)
    ]
    print_json({"model": batches[0].model, "dimension": int(batches[0].vectors.shape[1]), "embeddings": embeddings})


def _print_table(texts: Sequence[str], batches: Sequence[EmbeddingBatch]) -> None:
    from ondol.cli.layout import Column, shorten
    from ondol.cli.output import print_table

    columns = [Column("text"), Column("tokens", is_number=True), Column("vector", style="cyan")]
    print_table(
        columns,
        [[shorten(text, _SHOWN_CHARS), str(count), _shown(vector)] for text, count, vector in _rows(texts, batches)],
    )
    click.echo(f"model {batches[0].model}, {batches[0].vectors.shape[1]} values a vector; all of them with --json")


def _shown(vector: list[float]) -> str:
    values = " ".join(f"{value:+.4f}" for value in vector[:_SHOWN_VALUES])
    return f"{values} …" if len(vector) > _SHOWN_VALUES else values
