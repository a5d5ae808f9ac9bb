"""adapter: the tables of the document store, as SQLite knows them, and their version.

What holds at the end of every transaction: each chunk has, for each model in ``models``, either one row in ``vectors``
or one in ``pending``; each chunk has one row in ``chunk_words``, under the same number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ondol.errors import StoreUnavailableError

if TYPE_CHECKING:
    import sqlite3

__all__ = ["SCHEMA_VERSION", "ensure_schema"]

SCHEMA_VERSION: Final = 1

# Chunk and vector numbers are never used twice (AUTOINCREMENT): a number that is kept in memory can be gone,
# but it cannot mean something else. chunk_words splits at spaces only, given tokens of letters and digits: its
# "ascii" tokenizer takes every other character for a letter.
_TABLES: Final = """
CREATE TABLE documents (
    document_key INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    title TEXT NOT NULL,
    text TEXT NOT NULL,
    metadata TEXT NOT NULL,
    added_at_s REAL NOT NULL
) STRICT;

CREATE TABLE chunks (
    chunk_id INTEGER PRIMARY KEY AUTOINCREMENT,
    document_key INTEGER NOT NULL REFERENCES documents ON DELETE CASCADE,
    start_char INTEGER NOT NULL,
    end_char INTEGER NOT NULL
) STRICT;
CREATE INDEX chunks_by_document ON chunks (document_key);

CREATE TABLE models (
    model_id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    dimension INTEGER NOT NULL,
    removals INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE vectors (
    vector_id INTEGER PRIMARY KEY AUTOINCREMENT,
    chunk_id INTEGER NOT NULL REFERENCES chunks ON DELETE CASCADE,
    model_id INTEGER NOT NULL REFERENCES models,
    vector BLOB NOT NULL,
    UNIQUE (chunk_id, model_id)
) STRICT;
CREATE INDEX vectors_by_model ON vectors (model_id, vector_id);
CREATE TRIGGER vector_removed AFTER DELETE ON vectors BEGIN
    UPDATE models SET removals = removals + 1 WHERE model_id = OLD.model_id;
END;

CREATE TABLE pending (
    model_id INTEGER NOT NULL REFERENCES models,
    chunk_id INTEGER NOT NULL REFERENCES chunks ON DELETE CASCADE,
    is_wanted INTEGER NOT NULL,
    PRIMARY KEY (model_id, chunk_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX pending_by_chunk ON pending (chunk_id);

CREATE VIRTUAL TABLE chunk_words USING fts5 (words, tokenize = 'ascii');
CREATE VIRTUAL TABLE word_counts USING fts5vocab (chunk_words, 'row');
CREATE TRIGGER chunk_removed AFTER DELETE ON chunks BEGIN
    DELETE FROM chunk_words WHERE rowid = OLD.chunk_id;
END;
"""


def ensure_schema(connection: sqlite3.Connection) -> None:
    """Create the tables in a new file; leave those of this version alone.

    Raises:
        StoreUnavailableError: the file was made by a newer ondol.
    """
    version = _version(connection)
    if version > SCHEMA_VERSION:
        message = (
            f"the document store has version {version}, this ondol knows versions up to {SCHEMA_VERSION}: "
            "use a newer ondol, or set ONDOL_DATA_DIR to another folder"
        )
        raise StoreUnavailableError(message)
    if version < SCHEMA_VERSION:
        _create(connection)


def _create(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Another process may have created them while this one waited for the lock.
        if _version(connection) == 0:
            for statement in _statements(_TABLES):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _statements(script: str) -> list[str]:
    """Return the statements of ``script``; a trigger, which holds semicolons inside, is one."""
    import sqlite3  # noqa: PLC0415  # a store that is never opened costs no import

    statements, lines = [], ""
    for line in script.splitlines():
        lines += line + "\n"
        if lines.strip() and sqlite3.complete_statement(lines):
            statements.append(lines.strip())
            lines = ""
    return statements
