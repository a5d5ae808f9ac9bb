"""service: `ondol search`: the stored documents nearest to a query, in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ondol.cli.options import examples, json_option, model_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ondol.similarity.engine import SimilarityEngine
    from ondol.similarity.records import SearchHit

__all__ = ["command"]


@click.command(
    "search",
    short_help="Search the stored documents by meaning and words.",
    epilog=examples(
        'ondol search "결제 시스템을 만든 개발자"',
        'ondol search "experience in a restaurant kitchen" --limit 3',
        'ondol search "어린이 도서관" --json',
    ),
)
@click.argument("query")
@click.option("--limit", type=click.IntRange(min=1), default=10, show_default=True, help="Most results.")
@model_option
@json_option
def command(query: str, limit: int, model: str | None, is_json: bool) -> None:
    """Search the stored documents for QUERY, by meaning and by words.

    Documents and queries may be in different languages. The documents are those of ONDOL_DATA_DIR, which the server
    uses too; `ondol demo` stores some to begin with.
    """
    from ondol.cli.runtime import checked_model, run_with_engine
    from ondol.settings_reader import load_settings
    from ondol.similarity.text import check_text

    settings = load_settings().values
    name = checked_model(settings, model)
    if limit > settings.max_search_limit:
        message = f"{limit} is more than {settings.max_search_limit} (ONDOL_MAX_SEARCH_LIMIT)"
        raise click.BadParameter(message, param_hint="'--limit'")
    checked = check_text(query, field="QUERY", max_chars=settings.max_text_chars)
    hits, count = run_with_engine(settings, lambda engine: _search(engine, checked, limit, name))
    if is_json:
        _print_json(name, checked, hits)
    else:
        _print_text(hits, count)


async def _search(engine: SimilarityEngine, query: str, limit: int, model: str) -> tuple[list[SearchHit], int]:
    from ondol.cli.progress import progress

    with progress("searching") as show:  # documents that the model has not read yet are read first
        hits = await engine.search(query, limit=limit, model=model, progress=show)
    return hits, await engine.count_documents()


def _print_json(model: str, query: str, hits: Sequence[SearchHit]) -> None:
    from ondol.cli.hits import hit_values
    from ondol.cli.output import print_json

    print_json({"model": model, "query": query, "results": [hit_values(hit) for hit in hits]})


def _print_text(hits: Sequence[SearchHit], count: int) -> None:
    from ondol.cli.hits import print_hits
    from ondol.cli.messages import print_note

    print_hits(hits)
    if count == 0:
        print_note("no documents are stored yet; store the sample corpus: ondol demo")
    elif not hits:
        print_note(f"nothing found in {count} stored documents")
