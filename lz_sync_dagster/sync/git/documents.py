"""Reads a Markdown document: its title, its headings, its text."""

from __future__ import annotations

from pathlib import PurePosixPath

from lz_sync_dagster.sync.git import markdown
from lz_sync_dagster.sync.store.repository import Document

SUFFIXES = (".md", ".markdown")


def is_document(path: str) -> bool:
    """Whether a file is read as a document."""
    return path.lower().endswith(SUFFIXES)


def read_document(path: str, text: str, *, blob: str, commit: str) -> Document:
    """The title is the first heading of the topmost level there is, else the file's name."""
    found = markdown.headings(markdown.parse(text))
    top = min((heading.level for heading in found), default=0)
    titles = [heading.text for heading in found if heading.level == top and heading.text]
    return Document(
        path=path,
        title=titles[0] if titles else PurePosixPath(path).stem,
        headings=[{"level": heading.level, "text": heading.text, "line": heading.line} for heading in found],
        body=text,
        blob=blob,
        commit_sha=commit,
    )
