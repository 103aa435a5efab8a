"""What the API and the pages read of the landing-zone repository: lists, and what changed when. Reads only."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from lz_sync_dagster.sync.store.repository import Gate, GovernanceValue, RunbookSection, SyncedFile, TerraformBlock
from lz_sync_dagster.sync.store.schema import (
    commit_files,
    commits,
    enforcement_gates,
    git_state,
    governance,
    head_moves,
    item_changes,
    runbooks,
    synced_files,
    terraform_blocks,
)

#: How many renames a file's history is followed through.
_RENAMES = 10


@dataclass(frozen=True, slots=True)
class FileChange:
    """A commit that touched a file.

    Attributes:
        path: the file's name after the commit; ``old_path`` the one before, if it was renamed.
        change: ``added``, ``modified``, ``deleted`` or ``renamed``.
        author, subject: ``None`` if the commit is not kept.
        insertions, deletions: ``None`` for a binary file.
    """

    sha: str
    committed_at: datetime
    path: str
    change: str
    old_path: str | None
    insertions: int | None
    deletions: int | None
    author: str | None
    subject: str | None


@dataclass(frozen=True, slots=True)
class ItemChange:
    """A commit that changed an item. ``kind``: governance, gate, terraform_block, runbook; ``change``: added, modified,
    removed; ``author`` is ``None`` if the commit is not kept."""

    id: int
    kind: str
    key: str
    path: str
    sha: str
    committed_at: datetime
    change: str
    before: Any
    after: Any
    author: str | None


@dataclass(frozen=True, slots=True)
class GovernanceEntry:
    """A value of ``pmo.yaml`` and when it last changed; ``None`` if that is not known."""

    value: GovernanceValue
    changed_at: datetime | None


def head(connection: sa.Connection) -> str | None:
    """The landing zone's commit that the tables show, ``None`` if it is not known."""
    proven = connection.scalar(sa.select(git_state.c.source_commit).order_by(git_state.c.proven_at.desc()).limit(1))
    if proven is not None:
        return str(proven)
    moved: str | None = connection.scalar(sa.select(head_moves.c.new_sha).order_by(head_moves.c.id.desc()).limit(1))
    return moved


def committed_at(connection: sa.Connection, shas: Collection[str]) -> dict[str, datetime]:
    """When commits were made; one that is not kept is not in it."""
    query = sa.select(commits.c.sha, commits.c.committed_at).where(commits.c.sha.in_(shas))
    return {row.sha: row.committed_at for row in connection.execute(query)}


def history(connection: sa.Connection, path: str, *, limit: int) -> list[FileChange]:
    """The commits that touched a file, the newest first, also under the names that it had before."""
    found: list[FileChange] = []
    before: datetime | None = None
    seen: set[str] = set()
    name: str | None = path
    while name is not None and name not in seen and len(seen) <= _RENAMES and len(found) < limit:
        seen.add(name)
        query = _with_commits(commit_files, commits.c.subject).where(commit_files.c.path == name)
        if before is not None:
            query = query.where(commit_files.c.committed_at <= before)
        query = query.order_by(commit_files.c.committed_at.desc(), commit_files.c.sha).limit(limit - len(found))
        name = None
        for row in connection.execute(query):
            found.append(
                FileChange(
                    row.sha,
                    row.committed_at,
                    row.path,
                    row.change,
                    row.old_path,
                    row.insertions,
                    row.deletions,
                    row.author_name,
                    row.subject,
                )
            )
            before = row.committed_at
            if row.change == "renamed" and row.old_path:
                name = row.old_path
                break
    return found


def item_history(
    connection: sa.Connection,
    kinds: Collection[str],
    *,
    keys: Collection[str] | None = None,
    below: str | None = None,
    limit: int,
) -> list[ItemChange]:
    """The changes of items of these kinds, the newest first.

    Args:
        keys: of these keys only.
        below: of this dotted key and those below it only.
    """
    query = _with_commits(item_changes).where(item_changes.c.kind.in_(kinds))
    if keys is not None:
        query = query.where(item_changes.c.key.in_(keys))
    if below is not None:
        key = item_changes.c.key
        query = query.where(sa.or_(key == below, key.startswith(f"{below}.", autoescape=True)))
    query = query.order_by(item_changes.c.committed_at.desc(), item_changes.c.id.desc()).limit(limit)
    return [
        ItemChange(
            row.id,
            row.kind,
            row.key,
            row.path,
            row.sha,
            row.committed_at,
            row.change,
            row.before,
            row.after,
            row.author_name,
        )
        for row in connection.execute(query)
    ]


def _with_commits(table: sa.Table, *columns: sa.Column[Any]) -> sa.Select[Any]:
    return sa.select(table, commits.c.author_name, *columns).outerjoin(commits, commits.c.sha == table.c.sha)


def governance_entries(connection: sa.Connection) -> list[GovernanceEntry]:
    """The values of ``pmo.yaml``, in the order of their keys; items of a list by their number."""
    changed = (
        sa.select(item_changes.c.key, sa.func.max(item_changes.c.committed_at).label("at"))
        .where(item_changes.c.kind == "governance")
        .group_by(item_changes.c.key)
        .subquery()
    )
    query = (
        sa.select(governance, changed.c.at, commits.c.committed_at)
        .outerjoin(changed, changed.c.key == governance.c.key)
        .outerjoin(commits, commits.c.sha == governance.c.commit_sha)
    )
    entries = [
        GovernanceEntry(GovernanceValue(row.key, row.value, row.path, row.commit_sha), row.at or row.committed_at)
        for row in connection.execute(query)
    ]
    return sorted(entries, key=lambda entry: key_order(entry.value.key))


def key_order(key: str) -> tuple[tuple[int, int, str], ...]:
    """Sorts dotted keys, with the numbers of list items as numbers."""
    return tuple((0, int(part), part) if re.fullmatch(r"[0-9]{1,9}", part) else (1, 0, part) for part in key.split("."))


def gates(connection: sa.Connection) -> list[Gate]:
    """The enforcement gates, in the order of their file."""
    query = sa.select(enforcement_gates).order_by(
        enforcement_gates.c.path, enforcement_gates.c.line, enforcement_gates.c.gate_id
    )
    return [Gate(*row) for row in connection.execute(query)]


def runbook_sections(
    connection: sa.Connection, *, limit: int, after: tuple[str, int] | None = None
) -> list[RunbookSection]:
    """The sections of the runbooks by path and line, those after ``after``."""
    query = sa.select(runbooks).order_by(runbooks.c.path, runbooks.c.line).limit(limit)
    if after is not None:
        query = query.where(sa.tuple_(runbooks.c.path, runbooks.c.line) > sa.tuple_(*map(sa.literal, after)))
    return [RunbookSection(*row) for row in connection.execute(query)]


def blocks(
    connection: sa.Connection,
    *,
    limit: int,
    after: tuple[str, int, str] | None = None,
    block_type: str | None = None,
    module: str | None = None,
    words: str | None = None,
) -> list[TerraformBlock]:
    """Terraform blocks by path, line and address, those after ``after``.

    Args:
        block_type: ``resource``, ``module``, … or a resource type such as ``google_compute_network``.
        module: the folder of their file.
        words: a text in their address or path, in any case.
    """
    table = terraform_blocks
    place = (table.c.path, table.c.line, table.c.address)
    query = sa.select(table).order_by(*place).limit(limit)
    if after is not None:
        query = query.where(sa.tuple_(*place) > sa.tuple_(*map(sa.literal, after)))
    if block_type is not None:
        query = query.where(sa.or_(table.c.block_type == block_type, table.c.resource_type == block_type))
    if module is not None:
        query = query.where(table.c.module == module)
    if words:
        lower = words.lower()
        query = query.where(
            sa.or_(
                sa.func.lower(table.c.address).contains(lower, autoescape=True),
                sa.func.lower(table.c.path).contains(lower, autoescape=True),
            )
        )
    return [TerraformBlock(*row) for row in connection.execute(query)]


def copies(connection: sa.Connection, path: str) -> list[SyncedFile]:
    """The places of a file in the portal repository."""
    return _files(connection, synced_files.c.path == path)


def not_synced(connection: sa.Connection) -> list[SyncedFile]:
    """The selected files that are not copied, each with its reason, by path."""
    return _files(connection, synced_files.c.status == "not_synced")


def _files(connection: sa.Connection, condition: sa.ColumnElement[bool]) -> list[SyncedFile]:
    query = sa.select(synced_files).where(condition).order_by(synced_files.c.path, synced_files.c.destination)
    return [SyncedFile(*row) for row in connection.execute(query)]


def grouped(changes: Sequence[ItemChange]) -> dict[str, list[ItemChange]]:
    """Changes by key, in their order."""
    found: dict[str, list[ItemChange]] = {}
    for change in changes:
        found.setdefault(change.key, []).append(change)
    return found
