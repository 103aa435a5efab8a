"""search of documents

The database keeps the full-text index of ``documents`` by itself, so that no writer can forget it, and the cost of a
document does not depend on the others. Both engines index the same words: ASCII punctuation separates them (PostgreSQL
would take ``docs/network.md`` for one word), they are folded to lower case, and not stemmed.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

#: The characters of a body that are indexed; fewer if its words do not fit the 1 MiB that PostgreSQL allows.
_INDEXED = 250_000
_INDEXED_OF_A_DENSE_TEXT = 40_000
_INDEXED_HEADINGS = 20_000


def upgrade() -> None:
    op.execute("CREATE TEMPORARY TABLE documents_before AS SELECT * FROM documents")
    op.drop_table("documents")
    op.create_table(
        "documents",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column(
            "headings", sa.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql"), nullable=False
        ),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("blob", sa.String(length=64), nullable=False),
        sa.Column("commit_sha", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_documents")),
        sa.UniqueConstraint("path", name=op.f("uq_documents_path")),
    )
    for statement in _SQLITE if op.get_bind().dialect.name == "sqlite" else _POSTGRESQL:
        op.get_bind().exec_driver_sql(statement)
    op.execute(
        "INSERT INTO documents (path, title, headings, body, blob, commit_sha) "
        "SELECT path, title, headings, body, blob, commit_sha FROM documents_before ORDER BY path"
    )
    op.execute("DROP TABLE documents_before")


def _sqlite_values(row: str) -> str:
    headings = f"SELECT group_concat(json_extract(value, '$.text'), ' ') FROM json_each({row}.headings)"  # noqa: S608
    return (
        f"{row}.id, {row}.title, {row}.path, substr(coalesce(({headings}), ''), 1, {_INDEXED_HEADINGS}), "
        f"substr({row}.body, 1, {_INDEXED})"
    )


_ADD = f"INSERT INTO documents_fts(rowid, title, path, headings, body) VALUES ({_sqlite_values('new')});"  # noqa: S608
_REMOVE = (
    "INSERT INTO documents_fts(documents_fts, rowid, title, path, headings, body) "  # noqa: S608
    f"VALUES ('delete', {_sqlite_values('old')});"
)
_SQLITE = (
    "CREATE VIRTUAL TABLE documents_fts USING fts5("
    "title, path, headings, body, content='', prefix='2 3', tokenize='unicode61 remove_diacritics 0')",
    f"CREATE TRIGGER documents_fts_insert AFTER INSERT ON documents BEGIN {_ADD} END",
    f"CREATE TRIGGER documents_fts_delete AFTER DELETE ON documents BEGIN {_REMOVE} END",
    f"CREATE TRIGGER documents_fts_update AFTER UPDATE ON documents BEGIN {_REMOVE} {_ADD} END",
)

# A restore runs with an empty search path: one function names pg_catalog, the other keeps the path it was made with.
_POSTGRESQL = (
    r"""
    CREATE FUNCTION documents_fts_words(value text) RETURNS tsvector LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
        SELECT pg_catalog.to_tsvector('pg_catalog.simple', pg_catalog.translate(value,
            '!"#$&''()*+,-./:;<=>?@[\]^_`{|}~–—…“”‘’«»·•→' || chr(37), pg_catalog.repeat(' ', 44)))
    $$
    """,
    f"""
    CREATE FUNCTION documents_fts_vector(title text, path text, headings jsonb, body text) RETURNS tsvector
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path FROM CURRENT AS $$
    DECLARE
        outline text;
        head tsvector;
    BEGIN
        SELECT string_agg(heading ->> 'text', ' ') INTO outline FROM jsonb_array_elements(headings) AS heading;
        head := setweight(documents_fts_words(left(title, 2000)), 'A')
            || setweight(documents_fts_words(left(path, 2000)), 'B')
            || setweight(documents_fts_words(left(coalesce(outline, ''), {_INDEXED_HEADINGS})), 'B');
        BEGIN
            RETURN head || setweight(documents_fts_words(left(body, {_INDEXED})), 'D');
        EXCEPTION WHEN program_limit_exceeded THEN
            RETURN head || setweight(documents_fts_words(left(body, {_INDEXED_OF_A_DENSE_TEXT})), 'D');
        END;
    END
    $$
    """,  # noqa: S608
    """
    ALTER TABLE documents ADD COLUMN documents_fts tsvector
    GENERATED ALWAYS AS (documents_fts_vector(title, path, headings, body)) STORED
    """,
    "CREATE INDEX documents_fts_gin ON documents USING gin (documents_fts)",
)
