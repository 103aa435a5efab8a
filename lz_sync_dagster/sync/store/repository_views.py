"""What the API and the pages read of the landing-zone repository as it is now: lists. Its history: `file_history`."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from lz_sync_dagster.sync.store.file_history import ItemKind
from lz_sync_dagster.sync.store.repository import Gate, GovernanceValue, RunbookSection, SyncedFile, TerraformBlock
from lz_sync_dagster.sync.store.schema import (
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


@dataclass(frozen=True, slots=True)
class GovernanceEntry:
    """A value of ``pmo.yaml``, and when and by which commit it last changed.

    Attributes:
        changed_at: ``None`` if it is not known.
        changed_by: the commit; of a value without a history, the one that it was first read at.
    """

    value: GovernanceValue
    changed_at: datetime | None
    changed_by: str


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


def governance_entries(connection: sa.Connection) -> list[GovernanceEntry]:
    """The values of ``pmo.yaml``, in the order of their keys; items of a list by their number."""
    newest = sa.func.row_number().over(
        partition_by=item_changes.c.key, order_by=(item_changes.c.committed_at.desc(), item_changes.c.id.desc())
    )
    changed = (
        sa.select(
            item_changes.c.key, item_changes.c.sha, item_changes.c.committed_at.label("at"), newest.label("place")
        )
        .where(item_changes.c.kind == ItemKind.GOVERNANCE.value)
        .subquery()
    )
    query = (
        sa.select(governance, changed.c.at, changed.c.sha, commits.c.committed_at)
        .outerjoin(changed, (changed.c.key == governance.c.key) & (changed.c.place == 1))
        .outerjoin(commits, commits.c.sha == governance.c.commit_sha)
    )
    entries = [
        GovernanceEntry(
            GovernanceValue(row.key, row.value, row.path, row.commit_sha, row.line),
            row.at or row.committed_at,
            row.sha or row.commit_sha,
        )
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
