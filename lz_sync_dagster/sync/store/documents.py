"""The documents: reading one, listing them, and full-text search with ranking and snippets.

Search means the same on both engines. Every word of a query has to occur in a document's title, path, headings or body.
The last word, and every word of four letters or more, also finds longer words that begin with it; a plural finds its
singular. Words between double quotes have to follow each other. Nothing in a query is an operator.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import sqlalchemy as sa

from lz_sync_dagster.sync.store.repository import Document
from lz_sync_dagster.sync.store.schema import documents

#: What a query may hold; the rest of it is not looked at.
MAX_WORDS = 12
MAX_WORD = 64
MAX_QUERY = 1_000
#: The characters of a body that snippets are taken from.
SNIPPET_SOURCE = 250_000
SNIPPET_LENGTH = 220

_WORD = re.compile(r"[^\W_]+")
_LONG = 4


@dataclass(frozen=True, slots=True)
class Term:
    """Words that follow each other, in lower case. ``prefix``: the last one may go on; ``also``: another word that will
    do."""

    words: tuple[str, ...]
    prefix: bool
    also: str | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a snippet; ``match``: it is what was searched for."""

    text: str
    match: bool


@dataclass(frozen=True, slots=True)
class Hit:
    """A document that a search found.

    Attributes:
        snippet: its text around what was found, without markup; its beginning if nothing of the body was.
        rank: greater is better, among hits in the same place (title, headings, body) of one search of one store.
        headings: the texts of the document's headings.
        heading: the index of the one above the snippet, or ``None`` if there is none above it.
    """

    path: str
    title: str
    snippet: tuple[Piece, ...]
    rank: float
    headings: tuple[str, ...]
    heading: int | None


@dataclass(frozen=True, slots=True)
class Entry:
    """A document in a list."""

    path: str
    title: str
    commit_sha: str


def terms(query: str) -> list[Term]:
    """What a query asks for; empty if it has no word."""
    found: list[Term] = []
    count = 0
    for number, part in enumerate(query[:MAX_QUERY].split('"')):
        quoted = number % 2 == 1
        words = [word[:MAX_WORD] for word in islice(_WORD.findall(part.lower()), MAX_WORDS - count)]
        count += len(words)
        if quoted and words:
            found.append(Term(tuple(words), prefix=False))
        elif not quoted:
            found.extend(_term(word) for word in words)
    if found and not found[-1].prefix and len(found[-1].words) == 1 and not query.rstrip().endswith('"'):
        found[-1] = replace(found[-1], prefix=True)
    return found


def _term(word: str) -> Term:
    if len(word) > _LONG and word.endswith("ies"):
        return Term((word,), prefix=True, also=f"{word[:-3]}y")
    if len(word) >= _LONG and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return Term((word[:-1],), prefix=True)
    return Term((word,), prefix=len(word) >= _LONG)


def search(connection: sa.Connection, query: str, *, limit: int, offset: int = 0) -> list[Hit]:
    """The documents that match, best first.

    First those whose title has all the words, then those that have them in title, path and headings; then by rank.

    Any text is a query. One without a word finds nothing.
    """
    asked = terms(query)
    if not asked:
        return []
    find = _FIND_SQLITE if connection.dialect.name == "sqlite" else _FIND_POSTGRESQL
    write = _fts5 if connection.dialect.name == "sqlite" else _tsquery
    text = write(asked)
    found = connection.execute(find, {"query": text, "limit": limit, "offset": offset}).all()
    rank = {row.id: float(row.rank) for row in found}
    rows = connection.execute(
        sa.select(
            documents.c.id,
            documents.c.path,
            documents.c.title,
            documents.c.headings,
            sa.func.substr(documents.c.body, 1, SNIPPET_SOURCE).label("body"),
        ).where(documents.c.id.in_(rank))
    )
    by_id = {row.id: row for row in rows}
    return [_hit(by_id[key], rank[key], asked) for key in rank]


_FIND_SQLITE = sa.text(
    """
    SELECT found.id, found.rank FROM (
        SELECT rowid AS id, -bm25(documents_fts, 10.0, 4.0, 4.0, 1.0) AS rank
        FROM documents_fts WHERE documents_fts MATCH :query
    ) AS found JOIN documents USING (id)
    ORDER BY found.id IN (SELECT rowid FROM documents_fts WHERE documents_fts MATCH '{title} : ' || :query) DESC,
        found.id IN (
            SELECT rowid FROM documents_fts WHERE documents_fts MATCH '{title path headings} : ' || :query
        ) DESC,
        found.rank DESC, documents.path LIMIT :limit OFFSET :offset
    """
)
_FIND_POSTGRESQL = sa.text(
    """
    SELECT id, ts_rank('{0.1, 0.2, 0.4, 1.0}', documents_fts, to_tsquery('simple', :query), 1) AS rank
    FROM documents WHERE documents_fts @@ to_tsquery('simple', :query)
    ORDER BY ts_filter(documents_fts, '{a}') @@ to_tsquery('simple', :query) DESC,
        ts_filter(documents_fts, '{a,b}') @@ to_tsquery('simple', :query) DESC, rank DESC, path COLLATE "C"
    LIMIT :limit OFFSET :offset
    """
)


def _fts5(asked: Sequence[Term]) -> str:
    """Words between quotes are never syntax, and the words have no quotes in them."""

    def one(term: Term) -> str:
        words = f'"{" ".join(term.words)}"{" *" if term.prefix else ""}'
        return f'({words} OR "{term.also}")' if term.also else words

    return f"({' AND '.join(map(one, asked))})"


def _tsquery(asked: Sequence[Term]) -> str:
    def one(term: Term) -> str:
        words = " <-> ".join(f"'{word}'" for word in term.words) + (":*" if term.prefix else "")
        return f"({words} | '{term.also}')" if term.also else f"({words})"

    return " & ".join(map(one, asked))


def listed(connection: sa.Connection, *, limit: int, after: str = "") -> list[Entry]:
    """The documents by path, those after ``after``."""
    path = _in_byte_order(connection, documents.c.path)
    query = (
        sa.select(documents.c.path, documents.c.title, documents.c.commit_sha)
        .where(path > after)
        .order_by(path)
        .limit(limit)
    )
    return [Entry(*row) for row in connection.execute(query)]


def read(connection: sa.Connection, path: str) -> Document | None:
    """One document, or ``None`` if there is none at this path."""
    query = sa.select(*(documents.c[name] for name in Document.__dataclass_fields__)).where(documents.c.path == path)
    row = connection.execute(query).one_or_none()
    return None if row is None else Document(*row)


def paths(connection: sa.Connection) -> frozenset[str]:
    """The paths of all documents."""
    return frozenset(connection.scalars(sa.select(documents.c.path)))


def _in_byte_order(connection: sa.Connection, column: sa.Column[str]) -> sa.ColumnElement[str]:
    """The same order on both engines."""
    return column.collate("C") if connection.dialect.name == "postgresql" else column


# --- snippets


def _hit(row: sa.Row[Any], rank: float, asked: Sequence[Term]) -> Hit:
    text, starts = _plain_lines(row.body)
    pattern = _pattern(asked)
    window = _window(text, pattern)
    heading = None
    if window is not None:
        line = bisect_right(starts, window[2])
        above = [number for number, item in enumerate(row.headings) if item["line"] <= line]
        heading = above[-1] if above else None
    texts = tuple(str(item["text"]) for item in row.headings)
    start, end = (0, SNIPPET_LENGTH) if window is None else window[:2]
    return Hit(row.path, row.title, pieces(_cut(text, start, end), asked), rank, texts, heading)


def pieces(text: str, asked: Collection[Term]) -> tuple[Piece, ...]:
    """A text in parts: what is searched for, and what is not."""
    found: list[Piece] = []
    position = 0
    pattern = _pattern(list(asked))
    for match in pattern.finditer(text) if asked else ():
        if match.start() > position:
            found.append(Piece(text[position : match.start()], False))
        found.append(Piece(match[0], True))
        position = match.end()
    if position < len(text):
        found.append(Piece(text[position:], False))
    return tuple(found)


def _pattern(asked: Sequence[Term]) -> re.Pattern[str]:
    """Finds the terms in a plain text, the longer ones first."""
    options = [
        r"[\W_]{1,8}".join(map(re.escape, term.words))
        + (r"[^\W_]{0,64}" if term.prefix else r"(?![^\W_])")
        + (rf"|{term.also}(?![^\W_])" if term.also else "")
        for term in sorted(asked, key=lambda term: -sum(map(len, term.words)))
    ]
    return re.compile(rf"(?<![^\W_])(?:{'|'.join(options)})", re.IGNORECASE)


#: Markup that a snippet is shown without: link targets, tags, table rules, and marks.
_MARKUP = re.compile(
    r"^[ \t]*(?:```|~~~).*$|"
    r"!?\[([^\[\]\n]{0,300})\]\([^()\n]{0,1000}\)|</?[a-zA-Z][^<>\n]{0,300}>|^[ \t]*(?:[#>]+|[-*+]|\d+\.)[ \t]|"
    r"\|?[ \t]{0,4}:?-{3,}:?[ \t]{0,4}(?=\||$)|[`*~|]+|^[ \t]*#{1,6}[ \t]*",
    re.MULTILINE,
)


def _plain_lines(body: str) -> tuple[str, list[int]]:
    """A body without markup, and where each of its lines begins."""
    text = _MARKUP.sub(lambda match: match[1] or "", body)
    starts = [0, *(match.end() for match in re.finditer(r"\n", text))]
    return text, starts


def _window(text: str, pattern: re.Pattern[str]) -> tuple[int, int, int] | None:
    """The part of a text with the most different words that match: its begin, its end, and the first match in it."""
    matches = [(match.start(), match.end(), match[0].lower()) for match in islice(pattern.finditer(text), 200)]
    if not matches:
        return None

    def words_from(first: int) -> int:
        begin = matches[first][0]
        inside = (word for start, end, word in matches[first:] if end <= begin + SNIPPET_LENGTH - 60)
        return len(set(inside))

    best = max(range(len(matches)), key=lambda first: (words_from(first), -first))
    start = matches[best][0]
    return max(0, start - 60), max(0, start - 60) + SNIPPET_LENGTH, start


def _cut(text: str, start: int, end: int) -> str:
    """A part of a text in one line, begun and ended between words."""
    if start > 0:
        space = re.compile(r"\s").search(text, start, start + 40)
        start = space.end() if space else start
    part = text[start:end]
    if end < len(text):
        part = re.sub(r"\s\S{0,40}$", "", part)
    shown = " · ".join(" ".join(block.split()) for block in re.split(r"\n\s*\n", part) if block.strip())
    ellipsis = "\N{HORIZONTAL ELLIPSIS}"
    return f"{ellipsis if start > 0 else ''}{shown}{ellipsis if end < len(text) else ''}"
