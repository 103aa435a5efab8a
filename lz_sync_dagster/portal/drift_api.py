"""The REST API of terraform against the inventory: what became of each block, and resources that have none."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.portal.answers import (
    ERRORS,
    Answer,
    InPage,
    Limit,
    NextCursor,
    layer_status,
)
from lz_sync_dagster.portal.context import InPortal, Portal
from lz_sync_dagster.sync.drift.mapping import ASSET_TYPES, MAPPINGS
from lz_sync_dagster.sync.drift.origin import created_by, note_of
from lz_sync_dagster.sync.models import CoverageStatus
from lz_sync_dagster.sync.store import coverage as coverage_ledger
from lz_sync_dagster.sync.store import terraform_drift
from lz_sync_dagster.sync.store.terraform_drift import DriftStatus, ListedRow, Unmanaged


class _Item(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", from_attributes=True)


class Difference(_Item):
    """An argument and what the resource has instead, each as its side writes it."""

    field: str
    terraform: Any
    actual: Any


class DriftItem(_Item):
    """A resource block of terraform, or one instance of it.

    `resource` is the full resource name if it was found. `reason`: why it is `unresolved` or `missing`; else what was
    not compared. `asset_type` is null if none is known for the resource type.
    """

    address: str
    path: str
    line: int
    status: DriftStatus
    resource_type: str
    asset_type: str | None
    resource: str | None
    reason: str | None
    differences: list[Difference]
    commit: str
    checked_at: datetime


class DriftCounts(_Item):
    """Blocks by what became of them, and existing resources without a block. Null if they were never compared; a
    zero is null, too, unless both sides were read for it."""

    matched: int | None
    changed: int | None
    missing: int | None
    unresolved: int | None
    unmanaged: int | None


class DriftAnswer(Answer):
    """A page of blocks, by path and line. `counts` are those of the filters, `status` aside; `unmanaged` heeds those
    that apply to resources: `type`, `resource` and `q`."""

    items: list[DriftItem]
    counts: DriftCounts
    next_cursor: NextCursor


class UnmanagedItem(_Item):
    """An existing resource that no block was found to stand for.

    `created_by`: who made it, if its data proves it. `note`: why a block may stand for it all the same.
    """

    resource: str
    asset_type: str
    project: str | None
    location: str | None
    created_by: str | None
    note: str | None
    changed_at: datetime


class UnmanagedCount(_Item):
    """How many resources of a type have no block, and how many blocks of the type are unresolved."""

    asset_type: str
    unmanaged: int
    unresolved_blocks: int


class UnmanagedAnswer(Answer):
    """A page of resources, by type and name; `counts` are those of the filters. Null if they were never compared, or
    if none was found and a side was not read."""

    items: list[UnmanagedItem]
    counts: list[UnmanagedCount] | None
    unread_modules: int | None = Field(description="Calls of modules of which it is not known what they make.")
    next_cursor: NextCursor


Text = Annotated[str | None, Query(max_length=10_000, pattern=r"^[^\x00]*$")]

router = APIRouter(prefix="/api/v1", responses=ERRORS, tags=["drift"])


@router.get("/terraform-drift", summary="Terraform blocks against the inventory")
def drift(
    portal: InPortal,
    page: InPage,
    status: Annotated[list[DriftStatus] | None, Query(description="Only these.")] = None,
    kind: Annotated[Text, Query(alias="type", description="Only this resource type or asset type.")] = None,
    path: Annotated[Text, Query(description="Only this file, or files below this folder.")] = None,
    address: Annotated[Text, Query(description="Only this address.")] = None,
    resource: Annotated[Text, Query(description="Only blocks that stand for this full resource name.")] = None,
    q: Annotated[Text, Query(description="Only with this text in the address, the path or the resource.")] = None,
    limit: Limit = 100,
) -> DriftAnswer:
    """What the files say for certain against what exists. What they do not tell (variables of a root module, modules
    from elsewhere, …) is `unresolved`, with the reason."""
    after = page.read_place(str, int, str, int)
    with portal.store.read() as connection:
        rows = terraform_drift.listed(
            connection,
            limit=limit + 1,
            after=after,
            statuses=status or (),
            kind=kind,
            path=path,
            address=address,
            resource=resource,
            words=q,
        )
        base, is_compared, read = both_sides(connection, portal)
        found: dict[str, int | None] = dict.fromkeys((*DriftStatus, "unmanaged"))
        if is_compared:
            found = counts_of(connection, read, kind=kind, path=path, address=address, resource=resource, words=q)
    return DriftAnswer(
        items=[_item(row) for row in rows[:limit]],
        counts=DriftCounts.model_validate(found),
        next_cursor=page.write_place(*rows[limit - 1].place) if len(rows) > limit else None,
        **base,
    )


@router.get("/unmanaged-resources", summary="Resources without a terraform block")
def unmanaged_resources(
    portal: InPortal,
    page: InPage,
    kind: Annotated[Text, Query(alias="type", description="Only this resource type or asset type.")] = None,
    project: Annotated[Text, Query(description="Only this project's.")] = None,
    q: Annotated[Text, Query(description="Only with this text in the full resource name.")] = None,
    limit: Limit = 100,
) -> UnmanagedAnswer:
    """Existing resources, of the types that are compared, that no block was found to stand for. As long as blocks of
    the type are unresolved, one of them may: then `note` says so."""
    after = page.read_place(str, str)
    types = types_of(kind)
    with portal.store.read() as connection:
        base, is_compared, read = both_sides(connection, portal)
        if not is_compared or not read.files:
            return UnmanagedAnswer(items=[], counts=None, unread_modules=None, next_cursor=None, **base)
        rows = terraform_drift.unmanaged(connection, types, limit=limit + 1, after=after, project=project, words=q)
        counted = terraform_drift.count_unmanaged(connection, types, project=project, words=q)
        unresolved = terraform_drift.unresolved_by_type(connection)
    modules = unresolved.get("", 0)
    is_told = bool(counted) or read.has(types)
    return UnmanagedAnswer(
        items=[_unmanaged(row, unresolved.get(row.asset_type, 0), modules) for row in rows[:limit]],
        counts=[
            UnmanagedCount(asset_type=name, unmanaged=number, unresolved_blocks=unresolved.get(name, 0))
            for name, number in sorted(counted.items())
        ]
        if is_told
        else None,
        unread_modules=modules,
        next_cursor=page.write_place(rows[limit - 1].asset_type, rows[limit - 1].name) if len(rows) > limit else None,
        **base,
    )


def types_of(kind: str | None) -> frozenset[str]:
    """The asset types that a filter by type means."""
    if kind is None:
        return ASSET_TYPES
    mapping = MAPPINGS.get(kind)
    return ASSET_TYPES & {kind if mapping is None else mapping.asset_type}


@dataclass(frozen=True, slots=True)
class SidesRead:
    """What was read at all. ``files``: the landing zone. ``types``: asset types whose resources were; ``gaps``: those
    that are not known completely."""

    files: bool
    types: frozenset[str]
    gaps: frozenset[str]

    def has(self, types: frozenset[str]) -> bool:
        """Whether resources of some of these types were read, and none of these types has a gap."""
        return bool(types & self.types) and not types & self.gaps


def counts_of(
    connection: sa.Connection,
    read: SidesRead,
    *,
    kind: str | None = None,
    path: str | None = None,
    address: str | None = None,
    resource: str | None = None,
    words: str | None = None,
) -> dict[str, int | None]:
    """How many blocks have each status, and how many resources have none, with the filters that apply to them."""
    types = types_of(kind)
    blocks = terraform_drift.counts(connection, kind=kind, path=path, address=address, resource=resource, words=words)
    found = {status.value: number for status, number in blocks.items()}
    unmanaged = terraform_drift.count_unmanaged(connection, types, words=words, resource=resource)
    found["unmanaged"] = sum(unmanaged.values())
    return terraform_drift.proven(found, files_read=read.files, resources_read=read.has(types))


def both_sides(connection: sa.Connection, portal: Portal) -> tuple[dict[str, Any], bool, SidesRead]:
    """``as_of``, ``source`` and ``coverage`` of both sides, whether they were ever compared, and what was read."""
    now = portal.clock()
    git = layer_status(connection, portal, LayerId.GIT, now)
    inventory = layer_status(connection, portal, LayerId.API, now)
    compare = terraform_drift.compared(connection)
    instants = [git.as_of, inventory.as_of, None if compare is None else compare.compared_at]
    known = [instant for instant in instants if instant is not None]
    sides = (git.coverage, inventory.coverage)
    counts = {status: sum(int(getattr(side, status.value)) for side in sides) for status in CoverageStatus}
    coverage = coverage_ledger.of_counts(counts, [gap for side in sides for gap in side.gaps])
    base = {
        "as_of": min(known) if len(known) == len(instants) else None,
        "source": f"{git.source}; {inventory.source}",
        "coverage": coverage,
    }
    gaps = frozenset(gap.asset_type for gap in inventory.coverage.gaps if gap.content_type == "RESOURCE")
    return base, compare is not None, SidesRead(git.as_of is not None, coverage_ledger.types_read(connection), gaps)


def _item(listed: ListedRow) -> DriftItem:
    row = listed.row
    return DriftItem(
        address=row.address,
        path=row.path,
        line=row.line,
        status=row.status,
        resource_type=row.resource_type,
        asset_type=row.asset_type,
        resource=row.resource,
        reason=row.reason,
        differences=[Difference.model_validate(item) for item in row.differences],
        commit=row.commit_sha,
        checked_at=listed.checked_at,
    )


def _unmanaged(row: Unmanaged, unresolved: int, modules: int) -> UnmanagedItem:
    return UnmanagedItem(
        resource=row.name,
        asset_type=row.asset_type,
        project=row.project,
        location=row.location,
        created_by=created_by(row.asset_type, row.name, row.data),
        note=note_of(unresolved, modules),
        changed_at=row.changed_at,
    )
