"""Terraform against the inventory: the rows that `sync.drift` made, what it makes them from, and the resources that no
block stands for."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Any

import sqlalchemy as sa

from lz_sync_dagster.sync.models import CoverageStatus
from lz_sync_dagster.sync.store.engine import in_chunks
from lz_sync_dagster.sync.store.repository import TerraformBlock
from lz_sync_dagster.sync.store.schema import (
    coverage,
    resource_contents,
    resources,
    source_findings,
    synced_files,
    terraform_blocks,
    terraform_compares,
    terraform_drift,
)
from lz_sync_dagster.sync.store.source_findings import FindingKind
from lz_sync_dagster.sync.timing import to_ns

#: The lock of whoever replaces the rows: `Store.write(exclusive=LOCK)`.
LOCK = "terraform_drift"

_NAME = "terraform"
_RESOURCE = "RESOURCE"


class DriftStatus(StrEnum):
    """What became of a block in the inventory: a closed vocabulary. What has no block is not here: `unmanaged`."""

    MATCHED = "matched"
    CHANGED = "changed"
    MISSING = "missing"
    UNRESOLVED = "unresolved"


_OF_BLOCKS = frozenset(DriftStatus)
_FOUND = (DriftStatus.MATCHED.value, DriftStatus.CHANGED.value)


@dataclass(frozen=True, slots=True)
class DriftRow:
    """A resource block, or one instance of it, and what the inventory knows of it.

    Attributes:
        resource_type: terraform's; ``module`` for the call of a module that is not in the repository.
        asset_type: ``None`` if none is known for the resource type.
        reason: of ``unresolved`` and ``missing`` why; of the others what was not compared.
        resource: the full resource name if it was found.
        differences: ``{"field", "terraform", "actual"}``.
        commit_sha: the commit at which its file was read.
    """

    address: str
    path: str
    line: int
    resource_type: str
    asset_type: str | None
    status: DriftStatus
    reason: str | None
    resource: str | None
    differences: list[dict[str, Any]]
    commit_sha: str


@dataclass(frozen=True, slots=True)
class ListedRow:
    """A row as it is kept. ``id`` tells rows of one path, line and address apart."""

    id: int
    row: DriftRow
    checked_at: datetime

    @property
    def place(self) -> tuple[str, int, str, int]:
        """Where the list goes on after it."""
        return (self.row.path, self.row.line, self.row.address, self.id)


@dataclass(frozen=True, slots=True)
class Compare:
    """What the rows were made from; see ``terraform_compares``."""

    fingerprint: str
    written: int
    compared_at: datetime


@dataclass(frozen=True, slots=True)
class Asset:
    """An existing resource. ``data`` is ``None`` if its content is not kept."""

    name: str
    asset_type: str
    project: str | None
    ancestors: tuple[str, ...]
    data: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Part:
    """What is known of a scope × type now: ``proven`` if it was read completely, and recently enough."""

    scope: str
    asset_type: str
    proven: bool
    status: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class Unmanaged:
    """An existing resource of a type that terraform can make, and that no block was found to stand for."""

    name: str
    asset_type: str
    display_name: str | None
    project: str | None
    location: str | None
    data: Mapping[str, Any] | None
    changed_at: datetime


# --- what the rows are made from --------------------------------------------------------------------------------------


def compared(connection: sa.Connection) -> Compare | None:
    """What the rows were made from, ``None`` if they never were."""
    row = connection.execute(
        sa.select(terraform_compares.c.fingerprint, terraform_compares.c.written, terraform_compares.c.compared_at)
    ).one_or_none()
    return None if row is None else Compare(*row)


def blocks_fingerprint(connection: sa.Connection) -> str:
    """Changes when a terraform file does."""
    query = sa.select(terraform_blocks.c.path, terraform_blocks.c.blob).distinct()
    digest = sha256()
    for path, blob in sorted((row.path, row.blob) for row in connection.execute(query)):
        digest.update(f"{path}\0{blob}\0".encode())
    return digest.hexdigest()


def read_blocks(connection: sa.Connection) -> list[TerraformBlock]:
    """Every terraform block."""
    columns = [terraform_blocks.c[item.name] for item in dataclasses.fields(TerraformBlock)]
    return [TerraformBlock(*row) for row in connection.execute(sa.select(*columns))]


def unread_files(connection: sa.Connection) -> list[str]:
    """Selected terraform files of which no block could be read: withheld, too large, no regular file, a defect."""
    has_blocks = sa.exists().where(terraform_blocks.c.path == synced_files.c.path)
    refused = sa.select(synced_files.c.path).where(
        synced_files.c.status == "not_synced", synced_files.c.path.endswith(".tf"), ~has_blocks
    )
    defects = sa.select(source_findings.c.path).where(
        source_findings.c.kind == FindingKind.UNREADABLE.value,
        source_findings.c.path.endswith(".tf"),
        source_findings.c.resolved_at.is_(None),
    )
    return sorted(set(connection.scalars(refused)) | set(connection.scalars(defects)))


def newest_write(connection: sa.Connection) -> int:
    """The number of the newest write of a resource, 0 for none."""
    return connection.scalar(sa.select(sa.func.max(resources.c.written))) or 0


def is_written_since(connection: sa.Connection, written: int, asset_types: Collection[str]) -> bool:
    """Whether a resource of these types was written after a write."""
    query = sa.select(resources.c.name).where(
        resources.c.written > written,
        resources.c.content_type == _RESOURCE,
        resources.c.asset_type.in_(sorted(asset_types)),
    )
    return connection.execute(query.limit(1)).first() is not None


def parts(connection: sa.Connection, asset_types: Collection[str], *, now: datetime, ttl: timedelta) -> list[Part]:
    """What is known of the resources of these types in each scope, ordered."""
    query = (
        sa.select(
            coverage.c.scope, coverage.c.asset_type, coverage.c.status, coverage.c.reason, coverage.c.complete_read_ns
        )
        .where(coverage.c.content_type == _RESOURCE, coverage.c.asset_type.in_(sorted(asset_types)))
        .order_by(coverage.c.scope, coverage.c.asset_type)
    )
    oldest = to_ns(now - ttl)
    found = []
    for row in connection.execute(query):
        fresh = row.complete_read_ns is not None and row.complete_read_ns >= oldest
        whole = row.status == CoverageStatus.COMPLETE.value
        status = CoverageStatus.STALE.value if whole and not fresh else row.status
        found.append(Part(row.scope, row.asset_type, whole and fresh, status, row.reason))
    return found


def assets_named(connection: sa.Connection, names: Collection[str]) -> dict[str, Asset]:
    """The existing resources with these full names."""
    found: dict[str, Asset] = {}
    for chunk in in_chunks(sorted(names)):
        found |= {asset.name: asset for asset in _assets(connection, resources.c.name.in_(chunk))}
    return found


def assets_of_projects(connection: sa.Connection, asset_type: str, projects: Collection[str]) -> list[Asset]:
    """The existing resources of a type in these projects."""
    return [
        asset
        for chunk in in_chunks(sorted(projects))
        for asset in _assets(connection, resources.c.asset_type == asset_type, resources.c.project.in_(chunk))
    ]


def assets_called(connection: sa.Connection, asset_type: str, display_names: Collection[str]) -> list[Asset]:
    """The existing resources of a type with these display names."""
    return [
        asset
        for chunk in in_chunks(sorted(display_names))
        for asset in _assets(connection, resources.c.asset_type == asset_type, resources.c.display_name.in_(chunk))
    ]


def ancestors_of_projects(connection: sa.Connection, projects: Collection[str]) -> dict[str, tuple[str, ...]]:
    """For each of these projects in which anything exists: itself by number, its folders, its organization."""
    found: dict[str, tuple[str, ...]] = {}
    for project in projects:
        query = sa.select(resources.c.ancestors).where(
            resources.c.project == project, resources.c.content_type == _RESOURCE, resources.c.deleted.is_(False)
        )
        ancestors = connection.scalar(query.limit(1))
        if ancestors:
            found[project] = tuple(ancestors)
    return found


def names_by_leaf(connection: sa.Connection, asset_type: str, leaves: Collection[str]) -> dict[str, list[str]]:
    """Full names of existing resources of a type, by the last part of their name."""
    wanted = frozenset(leaves)
    found: dict[str, list[str]] = {}
    query = (
        sa.select(resources.c.name)
        .where(
            resources.c.content_type == _RESOURCE, resources.c.asset_type == asset_type, resources.c.deleted.is_(False)
        )
        .order_by(resources.c.name)
    )
    for name in connection.execute(query).scalars():
        leaf = name.rpartition("/")[2]
        if leaf in wanted:
            found.setdefault(leaf, []).append(name)
    return found


def _assets(connection: sa.Connection, *conditions: sa.ColumnElement[bool]) -> Iterator[Asset]:
    query = (
        sa.select(
            resources.c.name,
            resources.c.asset_type,
            resources.c.project,
            resources.c.ancestors,
            resource_contents.c.data,
        )
        .select_from(resources.outerjoin(resource_contents, resource_contents.c.id == resources.c.content_id))
        .where(resources.c.content_type == _RESOURCE, resources.c.deleted.is_(False), *conditions)
    )
    for row in connection.execute(query):
        yield Asset(row.name, row.asset_type, row.project, tuple(row.ancestors), row.data)


# --- writing ----------------------------------------------------------------------------------------------------------


def replace(connection: sa.Connection, rows: Sequence[DriftRow], compare: Compare) -> None:
    """Make these the rows, inside a transaction of ``store.write(exclusive=LOCK)``."""
    connection.execute(terraform_drift.delete())
    if rows:
        connection.execute(
            terraform_drift.insert(),
            [
                {
                    "id": number,
                    "checked_at": compare.compared_at,
                    "status": row.status.value,
                    **{
                        item.name: getattr(row, item.name)
                        for item in dataclasses.fields(DriftRow)
                        if item.name != "status"
                    },
                }
                for number, row in enumerate(rows, start=1)
            ],
        )
    note(connection, compare)


def note(connection: sa.Connection, compare: Compare) -> None:
    """Say what the rows hold for, when they stay as they are."""
    connection.execute(terraform_compares.delete())
    connection.execute(terraform_compares.insert().values(name=_NAME, **dataclasses.asdict(compare)))


# --- reading ----------------------------------------------------------------------------------------------------------


def listed(
    connection: sa.Connection,
    *,
    limit: int,
    after: tuple[str, int, str, int] | None = None,
    before: tuple[str, int, str, int] | None = None,
    statuses: Collection[DriftStatus] = (),
    kind: str | None = None,
    path: str | None = None,
    address: str | None = None,
    resource: str | None = None,
    words: str | None = None,
) -> list[ListedRow]:
    """Rows by path, line and address, those after ``after`` (`ListedRow.place`), or the last ones before ``before``.

    Args:
        kind: a resource type of terraform, or an asset type.
        path: a file, or a folder and what is below it.
        words: a text in the address, the path or the resource's name, in any case.
    """
    table = terraform_drift
    place = (table.c.path, table.c.line, table.c.address, table.c.id)
    query = sa.select(table).where(*_chosen(kind, path, address, resource, words)).limit(limit)
    if statuses:
        query = query.where(table.c.status.in_(sorted(status.value for status in statuses)))
    if after is not None:
        query = query.where(sa.tuple_(*place) > sa.tuple_(*map(sa.literal, after)))
    if before is None:
        return [_listed(row) for row in connection.execute(query.order_by(*place))]
    query = query.where(sa.tuple_(*place) < sa.tuple_(*map(sa.literal, before)))
    backwards = query.order_by(*(column.desc() for column in place))
    return [_listed(row) for row in connection.execute(backwards)][::-1]


def _listed(row: sa.Row[Any]) -> ListedRow:
    values = {item.name: getattr(row, item.name) for item in dataclasses.fields(DriftRow)}
    return ListedRow(row.id, DriftRow(**{**values, "status": DriftStatus(row.status)}), row.checked_at)


def _chosen(
    kind: str | None, path: str | None, address: str | None, resource: str | None, words: str | None
) -> list[sa.ColumnElement[bool]]:
    table = terraform_drift
    conditions: list[sa.ColumnElement[bool]] = []
    if kind is not None:
        conditions.append(sa.or_(table.c.resource_type == kind, table.c.asset_type == kind))
    if path is not None:
        below = table.c.path.startswith(f"{path.rstrip('/')}/", autoescape=True)
        conditions.append(sa.or_(table.c.path == path, below))
    if address is not None:
        conditions.append(table.c.address == address)
    if resource is not None:
        conditions.append(table.c.resource == resource)
    if words:
        columns = (table.c.address, table.c.path, table.c.resource)
        conditions.append(
            sa.or_(*(sa.func.lower(column).contains(words.lower(), autoescape=True) for column in columns))
        )
    return conditions


def counts(
    connection: sa.Connection,
    *,
    kind: str | None = None,
    path: str | None = None,
    address: str | None = None,
    resource: str | None = None,
    words: str | None = None,
) -> dict[DriftStatus, int]:
    """How many rows have each status. The arguments are those of `listed`."""
    table = terraform_drift
    query = (
        sa.select(table.c.status, sa.func.count())
        .where(*_chosen(kind, path, address, resource, words))
        .group_by(table.c.status)
    )
    found = {status: int(number) for status, number in connection.execute(query)}
    return {status: found.get(status.value, 0) for status in DriftStatus}


def proven(found: Mapping[str, int], *, files_read: bool, resources_read: bool) -> dict[str, int | None]:
    """Counts by status and of ``unmanaged``, where a zero that a side was not read for is ``None``.

    A block is unresolved by what the files say; all other counts need the inventory, too. Without the files nothing is
    known: a resource is unmanaged because no block of theirs stands for it.
    """

    def is_known(name: str, number: int) -> bool:
        if number and (files_read or name in _OF_BLOCKS):
            return True
        return files_read and (resources_read or name == DriftStatus.UNRESOLVED)

    return {name: number if is_known(name, number) else None for name, number in found.items()}


def unresolved_by_type(connection: sa.Connection) -> dict[str, int]:
    """How many unresolved blocks may stand for a resource of each asset type; under ``""``, modules of which it is not
    known what they make."""
    kind = sa.func.coalesce(terraform_drift.c.asset_type, "")
    query = (
        sa.select(kind, sa.func.count())
        .where(
            terraform_drift.c.status == DriftStatus.UNRESOLVED.value,
            sa.or_(terraform_drift.c.asset_type.is_not(None), terraform_drift.c.resource_type == "module"),
        )
        .group_by(kind)
    )
    return {asset_type: int(number) for asset_type, number in connection.execute(query)}


def address_of(connection: sa.Connection, names: Collection[str]) -> dict[str, list[DriftRow]]:
    """The blocks that stand for resources, by full resource name. Two for one resource means that two of terraform's
    states claim it."""
    found: dict[str, list[DriftRow]] = {}
    for chunk in in_chunks(sorted(names)):
        query = (
            sa.select(terraform_drift)
            .where(terraform_drift.c.resource.in_(chunk), terraform_drift.c.status.in_(_FOUND))
            .order_by(terraform_drift.c.path, terraform_drift.c.line, terraform_drift.c.address)
        )
        for row in connection.execute(query):
            found.setdefault(row.resource, []).append(_listed(row).row)
    return found


def blocks_of(connection: sa.Connection, path: str, line: int | None = None) -> list[DriftRow]:
    """What became of the blocks of a file, or of the one that begins at a line."""
    query = sa.select(terraform_drift).where(terraform_drift.c.path == path)
    if line is not None:
        query = query.where(terraform_drift.c.line == line)
    rows = connection.execute(query.order_by(terraform_drift.c.line, terraform_drift.c.address))
    return [_listed(row).row for row in rows]


def _has_no_block(
    asset_types: Collection[str], words: str | None, project: str | None, resource: str | None = None
) -> list[sa.ColumnElement[bool]]:
    claimed = sa.exists().where(terraform_drift.c.resource == resources.c.name, terraform_drift.c.status.in_(_FOUND))
    conditions = [
        resources.c.content_type == _RESOURCE,
        resources.c.deleted.is_(False),
        resources.c.asset_type.in_(sorted(asset_types)),
        ~claimed,
    ]
    if words:
        conditions.append(sa.func.lower(resources.c.name).contains(words.lower(), autoescape=True))
    if project is not None:
        conditions.append(resources.c.project == project)
    if resource is not None:
        conditions.append(resources.c.name == resource)
    return conditions


def unmanaged(
    connection: sa.Connection,
    asset_types: Collection[str],
    *,
    limit: int,
    after: tuple[str, str] | None = None,
    before: tuple[str, str] | None = None,
    project: str | None = None,
    words: str | None = None,
) -> list[Unmanaged]:
    """Existing resources of these types that no block was found to stand for, by type and name: those after ``after``,
    or the last ones before ``before``.

    Args:
        words: a text in their name, in any case.
    """
    # One query per type, each along the index from where the page before ended; of a project, all in one.
    types = sorted(asset_types, reverse=before is not None)
    groups = [types] if project is not None else [[asset_type] for asset_type in types]
    place = (resources.c.asset_type, resources.c.name)
    order = place if before is None else tuple(column.desc() for column in place)
    found: list[Unmanaged] = []
    for group in groups:
        if after is not None and group and max(group) < after[0]:
            continue
        if before is not None and group and min(group) > before[0]:
            continue
        query = (
            sa.select(
                resources.c.name,
                resources.c.asset_type,
                resources.c.display_name,
                resources.c.project,
                resources.c.location,
                resource_contents.c.data,
                resources.c.changed_at,
            )
            .select_from(resources.outerjoin(resource_contents, resource_contents.c.id == resources.c.content_id))
            .where(*_has_no_block(group, words, project))
            .order_by(*order)
            .limit(limit - len(found))
        )
        if after is not None:
            query = query.where(sa.tuple_(*place) > sa.tuple_(*map(sa.literal, after)))
        if before is not None:
            query = query.where(sa.tuple_(*place) < sa.tuple_(*map(sa.literal, before)))
        found += [Unmanaged(*row) for row in connection.execute(query)]
        if len(found) == limit:
            break
    return found if before is None else found[::-1]


def count_unmanaged(
    connection: sa.Connection,
    asset_types: Collection[str],
    *,
    project: str | None = None,
    words: str | None = None,
    resource: str | None = None,
) -> dict[str, int]:
    """How many of each type there are; a type with none is not in it. ``resource``: a full resource name."""
    query = (
        sa.select(resources.c.asset_type, sa.func.count())
        .where(*_has_no_block(asset_types, words, project, resource))
        .group_by(resources.c.asset_type)
    )
    return {asset_type: int(number) for asset_type, number in connection.execute(query)}
