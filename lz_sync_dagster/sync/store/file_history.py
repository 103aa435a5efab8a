"""The landing zone's history by commit: which files a commit changed, which items in them, and how the head moved.

`sync.git.history` makes these records; the API and the pages read them here. Rows are only added, and forgotten
together with the commit they belong to.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from lz_sync_dagster.sync.store.engine import in_chunks
from lz_sync_dagster.sync.store.schema import commit_files, commits, head_moves, item_changes

#: Rows of one insert: what is in memory twice for a moment.
_ROWS = 2_000


class FileChange(StrEnum):
    """What a commit did to a file."""

    ADDED = "added"
    MODIFIED = "modified"
    DELETED = "deleted"
    RENAMED = "renamed"


class ItemKind(StrEnum):
    """What an item is, and its key: the dotted key, the gate's id, the block's address, the section's heading."""

    GOVERNANCE = "governance"
    GATE = "gate"
    TERRAFORM_BLOCK = "terraform_block"
    RUNBOOK = "runbook"


class ItemDelta(StrEnum):
    """What a commit did to an item."""

    ADDED = "added"
    MODIFIED = "modified"
    REMOVED = "removed"


class MoveKind(StrEnum):
    """How a head moved; ``rewritten``: the old head is no part of the new history."""

    FIRST = "first"
    FORWARD = "forward"
    REWRITTEN = "rewritten"


@dataclass(frozen=True, slots=True)
class CommitFile:
    """A selected file that a commit changed.

    Attributes:
        path: the path afterwards; of a deleted file the one before.
        old_path: where a renamed file was before.
        insertions: lines, against the first parent. ``None`` if they are not known: the file is binary, too large, or
            its content is not in the copy of the repository. So is ``deletions``.
    """

    path: str
    sha: str
    committed_at: datetime
    change: FileChange
    old_path: str | None
    insertions: int | None
    deletions: int | None


@dataclass(frozen=True, slots=True)
class ItemChange:
    """An item that a commit changed.

    Attributes:
        key: at most 512 characters.
        path: the file it is in; of a removed item the one it was in.
        before: the item before, secrets removed; ``None`` if it was added. A governance value as it is, of a gate its
            columns, of a terraform block and a runbook's section ``{"text": …}``. Long texts are cut, and end with a
            note that says so. ``{"omitted": "bulk"}`` if the commit changed so many files that texts are not kept.
        after: the item afterwards; ``None`` if it was removed.
    """

    kind: ItemKind
    key: str
    path: str
    sha: str
    committed_at: datetime
    change: ItemDelta
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class HeadMove:
    """A move of the head that a sync saw. ``commits``: how many came with it."""

    old_sha: str | None
    new_sha: str
    kind: MoveKind
    commits: int
    triggered_by: str
    seen_at: datetime


@dataclass(frozen=True, slots=True)
class FileVersion:
    """A line of a file's history: the change, and whose commit it was (``None`` if the commit is not kept)."""

    file: CommitFile
    subject: str | None
    author_name: str | None


@dataclass(frozen=True, slots=True)
class ItemVersion:
    """A line of an item's history: the change, and whose commit it was (``None`` if the commit is not kept). ``id``
    pages through the list."""

    id: int
    item: ItemChange
    subject: str | None
    author_name: str | None


def kept_among(connection: sa.Connection, shas: Collection[str]) -> set[str]:
    """Which of these commits are kept."""
    found: set[str] = set()
    for part in in_chunks(sorted(shas)):
        found.update(connection.scalars(sa.select(commits.c.sha).where(commits.c.sha.in_(part))))
    return found


def add_commit_files(connection: sa.Connection, records: Sequence[CommitFile]) -> None:
    """Keep what commits changed; none of them is kept yet."""
    _insert(connection, commit_files, records)


def add_item_changes(connection: sa.Connection, records: Sequence[ItemChange]) -> None:
    """Keep what commits changed in items, in this order; none of them is kept yet."""
    _insert(connection, item_changes, records)


def record_move(connection: sa.Connection, move: HeadMove) -> None:
    """Keep a move of the head."""
    _insert(connection, head_moves, [move])


def forget(connection: sa.Connection, shas: Collection[str]) -> None:
    """Forget what these commits changed. The commits themselves: `repository.drop_commits`."""
    for part in in_chunks(sorted(shas)):
        connection.execute(commit_files.delete().where(commit_files.c.sha.in_(part)))
        connection.execute(item_changes.delete().where(item_changes.c.sha.in_(part)))


def file_history(
    connection: sa.Connection, path: str, limit: int = 50, before: tuple[datetime, str] | None = None
) -> list[FileVersion]:
    """The changes of a file, newest first, through its renames.

    Args:
        before: the instant and the id of the commit that a page ended with. That page's last entry also says the path
            to go on with: its ``old_path`` if it was renamed there, else its ``path``.
    """
    found: list[FileVersion] = []
    seen: set[tuple[str, str]] = set()
    where = commit_files.c.path == path
    if before is not None:
        where &= _older(*before)
    while len(found) < limit:
        query = (
            _with_commits(commit_files)
            .where(where)
            .order_by(commit_files.c.committed_at.desc(), commit_files.c.sha.desc())
            .limit(limit - len(found))
        )
        renamed: CommitFile | None = None
        for row in connection.execute(query):
            file = _file(row)
            if (file.path, file.sha) in seen:
                return found
            seen.add((file.path, file.sha))
            found.append(FileVersion(file, row.subject, row.author_name))
            if file.old_path is not None:
                renamed = file
                break
        if renamed is None:
            return found
        # Commits of the same second have no order: none of them is left out.
        where = (
            (commit_files.c.path == renamed.old_path)
            & (commit_files.c.committed_at <= renamed.committed_at)
            & (commit_files.c.sha != renamed.sha)
        )
    return found


def item_history(
    connection: sa.Connection,
    *kinds: ItemKind,
    keys: Collection[str] | None = None,
    below: str | None = None,
    path: str | None = None,
    limit: int = 50,
    before: tuple[datetime, int] | None = None,
) -> list[ItemVersion]:
    """The changes of items of these kinds, newest first.

    Args:
        keys: of these keys only.
        below: of this dotted key and those below it only.
        path: only in this file; two folders may have blocks of one address, two runbooks sections of one heading.
        before: the instant and the ``id`` of the entry that a page ended with.
    """
    query = (
        _with_commits(item_changes)
        .where(item_changes.c.kind.in_([kind.value for kind in kinds]))
        .order_by(item_changes.c.committed_at.desc(), item_changes.c.id.desc())
        .limit(limit)
    )
    if keys is not None:
        query = query.where(item_changes.c.key.in_(keys))
    if below is not None:
        key = item_changes.c.key
        query = query.where(sa.or_(key == below, key.startswith(f"{below}.", autoescape=True)))
    if path is not None:
        query = query.where(item_changes.c.path == path)
    if before is not None:
        at, number = before
        query = query.where(
            (item_changes.c.committed_at < at) | ((item_changes.c.committed_at == at) & (item_changes.c.id < number))
        )
    return [ItemVersion(row.id, _item(row), row.subject, row.author_name) for row in connection.execute(query)]


def head_history(connection: sa.Connection, limit: int = 50) -> list[HeadMove]:
    """The moves of the head, newest first."""
    query = sa.select(head_moves).order_by(head_moves.c.id.desc()).limit(limit)
    return [
        HeadMove(row.old_sha, row.new_sha, MoveKind(row.kind), row.commits, row.triggered_by, row.seen_at)
        for row in connection.execute(query)
    ]


def prune_moves(connection: sa.Connection, *, before: datetime) -> int:
    """Forget the moves that were seen before an instant, save the newest one: it says what the head is. Returns how
    many."""
    newest = sa.select(sa.func.max(head_moves.c.id)).scalar_subquery()
    old = sa.and_(head_moves.c.seen_at < before, head_moves.c.id != newest)
    return connection.execute(head_moves.delete().where(old)).rowcount


def by_key(versions: Iterable[ItemVersion]) -> dict[str, list[ItemVersion]]:
    """Changes by the item's key, in their order."""
    found: dict[str, list[ItemVersion]] = {}
    for version in versions:
        found.setdefault(version.item.key, []).append(version)
    return found


def _with_commits(table: sa.Table) -> sa.Select[Any]:
    kept = table.outerjoin(commits, commits.c.sha == table.c.sha)
    return sa.select(table, commits.c.subject, commits.c.author_name).select_from(kept)


def _older(at: datetime, sha: str) -> sa.ColumnElement[bool]:
    return (commit_files.c.committed_at < at) | ((commit_files.c.committed_at == at) & (commit_files.c.sha < sha))


def _file(row: sa.Row[Any]) -> CommitFile:
    return CommitFile(
        row.path, row.sha, row.committed_at, FileChange(row.change), row.old_path, row.insertions, row.deletions
    )


def _item(row: sa.Row[Any]) -> ItemChange:
    return ItemChange(
        ItemKind(row.kind),
        row.key,
        row.path,
        row.sha,
        row.committed_at,
        ItemDelta(row.change),
        row.before,
        row.after,
    )


def _insert(connection: sa.Connection, table: sa.Table, records: Sequence[Any]) -> None:
    for start in range(0, len(records), _ROWS):
        part = records[start : start + _ROWS]
        fields = [field.name for field in dataclasses.fields(part[0])]
        connection.execute(table.insert(), [{name: getattr(record, name) for name in fields} for record in part])
