"""service: `ondol similarity`: one text compared with others, in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from ondol.cli.options import examples, json_option, model_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ondol.similarity.records import PairScore

__all__ = ["command"]

_SHOWN_CHARS: Final = 100


@click.command(
    "similarity",
    short_help="Compare one text with others.",
    epilog=examples(
        'ondol similarity "머신러닝 엔지니어" "machine learning engineer" "florist"',
        'ondol similarity "same text" "same text" --json',
        'cat candidates.txt | ondol similarity "backend developer" -',
    ),
)
@click.argument("text_a", metavar="TEXT_A")
@click.argument("texts", metavar="TEXT_B...|-", nargs=-1, required=True)
@model_option
@json_option
def command(text_a: str, texts: tuple[str, ...], model: str | None, is_json: bool) -> None:
    """Compare TEXT_A with each TEXT_B. With - these are read from stdin, one per line.

    The semantic score says how near the meanings are (cosine of the embeddings, at most 1, also across languages).
    The lexical score says how much of the wording is shared (0 to 1).
    """
    from ondol.cli.progress import progress
    from ondol.cli.runtime import checked_model, run_with_engine
    from ondol.cli.texts import read_texts
    from ondol.settings_reader import load_settings
    from ondol.similarity.text import check_text

    settings = load_settings().values
    name = checked_model(settings, model)
    one = check_text(text_a, field="TEXT_A", max_chars=settings.max_text_chars)
    others = read_texts(texts, field="TEXT_B", max_chars=settings.max_text_chars)
    with progress("comparing"):
        scores = run_with_engine(settings, lambda engine: engine.compare(one, others, model=name))
    if is_json:
        _print_json(name, one, others, scores)
    else:
        _print_table(others, scores)


def _print_json(model: str, text_a: str, texts: Sequence[str], scores: Sequence[PairScore]) -> None:
    from ondol.cli.output import print_json

    pairs = [
        {"text_b": text, "semantic_score": float(score.semantic_score), "lexical_score": float(score.lexical_score)}
        for text, score in zip(texts, scores, strict=True)
    ]
    print_json({"model": model, "text_a": text_a, "pairs": pairs})


def _print_table(texts: Sequence[str], scores: Sequence[PairScore]) -> None:
    from ondol.cli.layout import Column, shorten
    from ondol.cli.output import print_table

    columns = [Column("semantic", is_number=True, style="cyan"), Column("lexical", is_number=True), Column("text")]
    print_table(
        columns,
        [
            [f"{score.semantic_score:.3f}", f"{score.lexical_score:.3f}", shorten(text, _SHOWN_CHARS)]
            for text, score in zip(texts, scores, strict=True)
        ],
    )
