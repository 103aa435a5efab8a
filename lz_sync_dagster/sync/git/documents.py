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
    """The title is the one of the front matter, else the first heading of the topmost level there is, else the file's
    name. The body is the text without front matter; its lines count as in the file."""
    front, body = markdown.split(text)
    found = markdown.headings(markdown.parse(body))
    top = min((heading.level for heading in found), default=0)
    named = front.get("title")
    titles = [heading.text for heading in found if heading.level == top and heading.text]
    if isinstance(named, str) and (title := " ".join(named.encode("utf-8", "replace").decode().split())):
        titles.insert(0, title.replace("\0", "\N{REPLACEMENT CHARACTER}"))
    return Document(
        path=path,
        title=titles[0] if titles else PurePosixPath(path).stem,
        headings=[{"level": heading.level, "text": heading.text, "line": heading.line} for heading in found],
        body=body,
        blob=blob,
        commit_sha=commit,
    )
