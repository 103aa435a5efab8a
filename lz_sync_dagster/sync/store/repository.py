"""What the landing-zone repository holds, as rows: commits, files, and what the readers of `sync.git` found in them.

The readers in `sync.git` make these records; this module replaces the rows of a file as a whole, so that what is gone
from a file is gone from its table.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import sqlalchemy as sa

from lz_sync_dagster.sync.store.engine import in_chunks
from lz_sync_dagster.sync.store.schema import (
    commits,
    documents,
    enforcement_gates,
    governance,
    portal_commits,
    runbooks,
    synced_files,
    terraform_blocks,
)
from lz_sync_dagster.sync.store.schema import git_state as git_states

Key = TypeVar("Key", str, tuple[str, str])


@dataclass(frozen=True, slots=True)
class CommitRecord:
    """A commit of the landing zone. Counts are against the first parent; lines of files whose content is binary, too
    large or not at hand are not counted. ``signature``: good, bad, unsigned, unknown_key, expired; ``None``: not
    checked."""

    sha: str
    committed_at: datetime
    author_name: str
    author_email: str
    subject: str
    parents: list[str]
    files_changed: int
    insertions: int
    deletions: int
    signature: str | None = None


@dataclass(frozen=True, slots=True)
class SyncedFile:
    """A selected file and its place in the portal repository. ``mode``: git's (0o100644, 0o100755). ``status``:
    ``synced``, or ``not_synced`` with a ``reason``. ``commit_sha``: the head when its row last changed."""

    path: str
    destination: str
    blob: str
    mode: int
    size: int
    status: str
    reason: str | None
    commit_sha: str


@dataclass(frozen=True, slots=True)
class Document:
    """A Markdown file. ``headings``: ``{"level": 1-6, "text": str, "line": int}`` in order; ``body``: its Markdown
    text."""

    path: str
    title: str
    headings: list[dict[str, Any]]
    body: str
    blob: str
    commit_sha: str


@dataclass(frozen=True, slots=True)
class GovernanceValue:
    """A leaf of ``pmo.yaml``. ``key`` is its dotted path; list items are numbered from 0. ``line`` counts from 1,
    ``None`` if it is not known."""

    key: str
    value: Any
    path: str
    commit_sha: str
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Gate:
    """An enforcement gate, as ``ENFORCEMENT_GATES.md`` words it. ``line`` counts from 1."""

    gate_id: str
    title: str
    phase: str | None
    severity: str | None
    blocks: str | None
    validation: str | None
    status: str | None
    path: str
    line: int
    commit_sha: str


@dataclass(frozen=True, slots=True)
class TerraformBlock:
    """A top-level block of a ``.tf`` file.

    Attributes:
        address: as terraform writes it within its module: ``google_compute_network.hub``,
        ``data.google_project.ops``, ``module.vpc``,
            ``var.region``, ``local.name``, ``output.id``, ``provider.google``, ``terraform``.
        module: the folder of the file.
        references: addresses that its expressions mention.
        labels: the ``labels`` argument; a value that is no literal is kept as its expression.
        attributes: what it says, redacted, in the form of `sync.drift.hcl`.
        has_error: the block could be read only in part.
    """

    path: str
    line: int
    address: str
    block_type: str
    resource_type: str | None
    name: str | None
    module: str
    provider: str | None
    references: list[str]
    labels: dict[str, str]
    attributes: dict[str, Any]
    blob: str
    has_error: bool
    commit_sha: str


@dataclass(frozen=True, slots=True)
class RunbookSection:
    """A section of a runbook. ``commands``: ``{"language": str, "command": str, "line": int}`` in order."""

    path: str
    line: int
    section: str
    commands: list[dict[str, Any]]
    commit_sha: str


@dataclass(frozen=True, slots=True)
class PortalCommit:
    """A commit that the sync made in the portal repository. Counts are of files, the manifest aside."""

    sha: str
    source_sha: str
    branch: str
    added: int
    modified: int
    deleted: int
    triggered_by: str
    pushed_at: datetime


def known_commits(connection: sa.Connection) -> dict[str, list[str]]:
    """Ids of the commits that are kept, each with its parents' ids."""
    return {row.sha: row.parents for row in connection.execute(sa.select(commits.c.sha, commits.c.parents))}


def drop_commits(connection: sa.Connection, shas: Collection[str]) -> None:
    """Forget commits."""
    _delete_keys(connection, commits.c.sha, shas)


def add_commits(connection: sa.Connection, records: Sequence[CommitRecord]) -> None:
    """Keep commits that are not kept yet."""
    _insert(connection, commits, records)


def is_known_portal_commit(connection: sa.Connection, sha: str) -> bool:
    """Whether a portal commit is kept."""
    return connection.scalar(sa.select(portal_commits.c.sha).where(portal_commits.c.sha == sha)) is not None


def add_portal_commits(connection: sa.Connection, records: Sequence[PortalCommit]) -> None:
    """Keep portal commits that are not kept yet."""
    _insert(connection, portal_commits, records)


@dataclass(frozen=True, slots=True)
class GitState:
    """What the last sync proved: the portal's ``tree`` is what the landing zone's ``source_commit`` asks for under the
    settings of ``fingerprint``.

    ``portal_commit``: the head of the portal's branch. With pull requests, ``proposed_commit`` has the tree, on top of
    ``portal_commit``, until it is merged; ``pull_request`` is its address.
    """

    source_commit: str
    portal_commit: str
    tree: str
    fingerprint: str
    proposed_commit: str | None
    pull_request: str | None
    proven_at: datetime


def git_state(connection: sa.Connection) -> GitState | None:
    """What the last sync proved, ``None`` if none did."""
    row = connection.execute(sa.select(*(git_states.c[field.name] for field in dataclasses.fields(GitState)))).first()
    return None if row is None else GitState(*row)


def set_git_state(connection: sa.Connection, state: GitState) -> None:
    """Keep what a sync proved."""
    connection.execute(git_states.delete())
    connection.execute(git_states.insert().values(name="git", **dataclasses.asdict(state)))


def doubt_git_state(connection: sa.Connection) -> None:
    """Let the next sync look at everything: what was proved does not hold for any settings."""
    connection.execute(git_states.update().values(fingerprint=""))


def files(connection: sa.Connection) -> dict[tuple[str, str], SyncedFile]:
    """Every selected file of the last sync, by path and destination."""
    return _files(connection, sa.true())


def files_at(
    connection: sa.Connection, paths: Collection[str], destinations: Collection[str]
) -> dict[tuple[str, str], SyncedFile]:
    """The selected files of these paths, and those at these places in the portal repository."""
    found: dict[tuple[str, str], SyncedFile] = {}
    for column, wanted in ((synced_files.c.path, paths), (synced_files.c.destination, destinations)):
        for chunk in in_chunks(sorted(wanted)):
            found |= _files(connection, column.in_(chunk))
    return found


def refused_files(connection: sa.Connection) -> dict[tuple[str, str], SyncedFile]:
    """The selected files that are not synced."""
    return _files(connection, synced_files.c.status != "synced")


def change_files(
    connection: sa.Connection, gone: Iterable[tuple[str, str]], changed: Mapping[tuple[str, str], SyncedFile]
) -> None:
    """Remove rows and write others, by path and destination."""
    for chunk in in_chunks(sorted({*gone, *changed})):
        connection.execute(
            synced_files.delete().where(sa.tuple_(synced_files.c.path, synced_files.c.destination).in_(chunk))
        )
    _insert(connection, synced_files, list(changed.values()))


def _files(connection: sa.Connection, condition: sa.ColumnElement[bool]) -> dict[tuple[str, str], SyncedFile]:
    rows = connection.execute(sa.select(synced_files).where(condition))
    return {(row.path, row.destination): SyncedFile(*row) for row in rows}


def replace_documents(connection: sa.Connection, paths: Collection[str], records: Sequence[Document]) -> None:
    """Replace the documents of these paths."""
    _replace(connection, documents, paths, records)


def replace_terraform(connection: sa.Connection, paths: Collection[str], records: Sequence[TerraformBlock]) -> None:
    """Replace the terraform blocks of these files."""
    _replace(connection, terraform_blocks, paths, records)


def replace_runbooks(connection: sa.Connection, paths: Collection[str], records: Sequence[RunbookSection]) -> None:
    """Replace the sections of these runbooks."""
    _replace(connection, runbooks, paths, records)


def replace_governance(connection: sa.Connection, records: Sequence[GovernanceValue]) -> int:
    """Make these the governance values. Returns how many keys were added, changed or removed; the others keep their
    commit, wherever in the file they are now."""
    before = {row.key: GovernanceValue(*row) for row in connection.execute(sa.select(governance))}
    after = {record.key: record for record in records}
    gone = before.keys() - after.keys()
    changed = [
        record
        for key, record in after.items()
        if key not in before or (before[key].value, before[key].path) != (record.value, record.path)
    ]
    new = {record.key for record in changed}
    moved = [
        dataclasses.replace(before[key], line=record.line)
        for key, record in after.items()
        if key not in new and before[key].line != record.line
    ]
    _delete_keys(connection, governance.c.key, gone | new | {record.key for record in moved})
    _insert(connection, governance, [*changed, *moved])
    return len(gone) + len(changed)


def replace_gates(connection: sa.Connection, records: Sequence[Gate]) -> int:
    """Make these the enforcement gates. Returns how many were added, changed or removed; the others keep their row."""
    before = {row.gate_id: Gate(*row) for row in connection.execute(sa.select(enforcement_gates))}
    after = {record.gate_id: record for record in records}
    gone = before.keys() - after.keys()
    changed = [
        record
        for key, record in after.items()
        if key not in before or dataclasses.replace(before[key], commit_sha=record.commit_sha) != record
    ]
    _delete_keys(connection, enforcement_gates.c.gate_id, gone | {record.gate_id for record in changed})
    _insert(connection, enforcement_gates, changed)
    return len(gone) + len(changed)


@dataclass(frozen=True, slots=True)
class RepositoryCounts:
    """How many rows each table has."""

    commits: int
    documents: int
    governance: int
    enforcement_gates: int
    terraform_blocks: int
    terraform_errors: int
    runbooks: int
    portal_commits: int
    synced_files: int
    not_synced: int


def counts(connection: sa.Connection) -> RepositoryCounts:
    """How many rows there are of each kind; ``terraform_errors``: blocks that could be read only in part."""

    def count(table: sa.Table, *conditions: sa.ColumnElement[bool]) -> int:
        return connection.scalar(sa.select(sa.func.count()).select_from(table).where(*conditions)) or 0

    return RepositoryCounts(
        commits=count(commits),
        documents=count(documents),
        governance=count(governance),
        enforcement_gates=count(enforcement_gates),
        terraform_blocks=count(terraform_blocks),
        terraform_errors=count(terraform_blocks, terraform_blocks.c.has_error.is_(True)),
        runbooks=count(runbooks),
        portal_commits=count(portal_commits),
        synced_files=count(synced_files, synced_files.c.status == "synced"),
        not_synced=count(synced_files, synced_files.c.status != "synced"),
    )


def _replace(connection: sa.Connection, table: sa.Table, paths: Collection[str], records: Sequence[Any]) -> None:
    _delete(connection, table, paths)
    _insert(connection, table, records)


def _delete(connection: sa.Connection, table: sa.Table, paths: Collection[str]) -> None:
    _delete_keys(connection, table.c.path, paths)


def _delete_keys(connection: sa.Connection, column: sa.Column[Any], keys: Collection[str]) -> None:
    for chunk in in_chunks(sorted(keys)):
        connection.execute(column.table.delete().where(column.in_(chunk)))


def _insert(connection: sa.Connection, table: sa.Table, records: Sequence[Any]) -> None:
    if records:
        fields = [field.name for field in dataclasses.fields(records[0])]
        connection.execute(table.insert(), [{name: getattr(record, name) for name in fields} for record in records])
