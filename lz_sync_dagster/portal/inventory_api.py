"""The REST API of the inventory: resources now and in the past, what changed between two instants, one resource in
full, exports, the coverage ledger row by row, and schema drift."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Self

import orjson
import sqlalchemy as sa
from fastapi import APIRouter, Depends, Path, Query
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.portal.answers import ERRORS, Answer, InPage, Limit, NextCursor, layer_status
from lz_sync_dagster.portal.context import InPortal, Portal
from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.inventory.exports import MEDIA_TYPES, ExportFormat, Head, export_resources
from lz_sync_dagster.sync.inventory.typed_views import typed_view
from lz_sync_dagster.sync.models import Coverage, CoverageStatus
from lz_sync_dagster.sync.state.json_diff import FieldChangeKind, JsonDiff
from lz_sync_dagster.sync.state.observation import ContentType
from lz_sync_dagster.sync.store import coverage_views, data_fields, layer_runs, resource_history
from lz_sync_dagster.sync.store.coverage_views import LedgerRow, Parts
from lz_sync_dagster.sync.store.data_fields import Drift
from lz_sync_dagster.sync.store.resource_details import NO_COST, ResourceDetails, known_name, resource_details
from lz_sync_dagster.sync.store.resource_history import ChangeKind, ResourceChange, Version
from lz_sync_dagster.sync.store.resource_views import (
    Dimension,
    ResourceFilter,
    ResourceRow,
    Sort,
    count,
    facet,
    list_resources,
)
from lz_sync_dagster.sync.timing import format_ns, from_ns, parse_ns, to_ns

router = APIRouter(prefix="/api/v1", responses=ERRORS, tags=["inventory"])


class _Item(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", from_attributes=True)


# --- what is answered -------------------------------------------------------------------------------------------------


class ResourceItem(_Item):
    """One content of a resource, as it was or is. Instants are the source's."""

    name: str
    content_type: str
    asset_type: str
    scope: str
    project: str | None
    location: str | None
    display_name: str | None
    deleted: bool
    resource_id: str | None = Field(description="The id that a recreated resource does not keep.")
    valid_from: str = Field(description="Since when it is what it is.")
    valid_to: str | None = Field(description="Until when it was; null if it still is.")
    update_time: str = Field(description="The source's last update time.")
    observed_at: str = Field(description="When a source told it last, but for complete reads that found no change.")
    version: int
    source: str = Field(description="`snapshot` or `feed`.")
    ancestors: list[str] = Field(description="Nearest first.")
    violations: int = Field(description="Open findings, over all contents. 0 is no proof: see `coverage`.")

    @classmethod
    def of(cls, row: ResourceRow) -> Self:
        """A row as an item."""
        return cls(
            name=row.name,
            content_type=row.content_type,
            asset_type=row.asset_type,
            scope=row.scope,
            project=row.project,
            location=row.location,
            display_name=row.display_name,
            deleted=row.deleted,
            resource_id=row.resource_id,
            valid_from=format_ns(row.valid_from_ns),
            valid_to=None if row.valid_to_ns is None else format_ns(row.valid_to_ns),
            update_time=format_ns(row.update_ns),
            observed_at=format_ns(row.observed_ns),
            version=row.version,
            source=row.source,
            ancestors=list(row.ancestors),
            violations=row.violations,
        )


class ResourcesAnswer(Answer):
    """A page of resources."""

    items: list[ResourceItem]
    next_cursor: NextCursor


class FacetValue(_Item):
    """How many resources have a value; null is no value."""

    value: str | None
    count: int


class FacetAnswer(Answer):
    """How many resources a filter finds, and how many of which value. `others` have values that are not listed."""

    total: int
    by: Dimension
    values: list[FacetValue]
    others: int


class FieldChangeItem(_Item):
    """A field that differs. `cut`: a value is long, and stands here as the beginning of its JSON text."""

    path: str
    kind: FieldChangeKind
    before: Any
    after: Any
    cut: bool


class ChangeItem(_Item):
    """What differs in a resource. `who` is null where the data does not say it."""

    name: str
    content_type: str
    asset_type: str
    project: str | None
    display_name: str | None
    change: ChangeKind
    when: str = Field(description="Since when it is what it is at the later instant, by the source's clock.")
    who: str | None
    versions: int = Field(description="How many times it changed in between.")
    before: ResourceItem | None
    after: ResourceItem | None
    fields: list[FieldChangeItem]
    fields_truncated: bool


class DiffAnswer(Answer):
    """A page of resources that are not the same at two instants, by name."""

    from_: str = Field(serialization_alias="from")
    to: str
    items: list[ChangeItem]
    next_cursor: NextCursor

    model_config = ConfigDict(serialize_by_alias=True)


class VersionItem(_Item):
    """A version of a content. `fields`: what differs from the one before; null if that is not kept."""

    resource: ResourceItem
    change: ChangeKind
    recorded_at: datetime
    who: str | None
    fields: list[FieldChangeItem] | None
    fields_truncated: bool


class HistoryAnswer(Answer):
    """A page of versions of one content of a resource, the newest first."""

    items: list[VersionItem]
    next_cursor: NextCursor


class ContentItem(_Item):
    """What a resource says, and the paths in it whose value was removed. `data` is null where it is not known."""

    resource: ResourceItem
    data: dict[str, Any] | None
    redacted: list[str]


class ResourceFinding(_Item):
    """A finding; `resolved_at` and `resolution` are null while it is open."""

    control: str
    framework: str
    title: str
    severity: str
    source: str
    content_type: str
    message: str
    opened_at: datetime
    resolved_at: datetime | None
    resolution: str | None


class AncestorItem(_Item):
    """Where a resource is; `name` and `display_name` are null if the inventory lacks it."""

    ancestor: str
    name: str | None
    display_name: str | None


class RelationItem(_Item):
    """A reference; `path` is the field that has it, in the resource that refers."""

    path: str
    resource: ResourceItem


class UnresolvedItem(_Item):
    """A reference to what is not in the inventory, with the names that it may mean."""

    path: str
    text: str
    names: list[str]


class IncomingItem(_Item):
    """What refers to a resource: looked for in `asset_types` of the same project; `complete`: all were looked at."""

    relations: list[RelationItem]
    asset_types: list[str]
    project: str | None
    looked_through: int
    complete: bool


class TerraformItem(_Item):
    """The terraform block that stands for a resource, and what differs."""

    address: str
    path: str
    line: int
    status: str
    reason: str | None
    differences: list[dict[str, Any]]
    commit: str
    checked_at: datetime


class CostItem(_Item):
    """What a resource costs; null, with the reason, where that is not known."""

    amount: float | None
    currency: str | None
    reason: str | None


class ResourceAnswer(Answer):
    """One resource in full. Relations, children, findings and terraform are those of now, whatever `as_of` is."""

    resource: ResourceItem
    kind: str | None = Field(description="The typed view that `view` has; null for a type without one.")
    view: dict[str, Any] | None
    contents: list[ContentItem]
    history: dict[str, list[VersionItem]] = Field(description="By content type, the newest versions first.")
    history_truncated: list[str] = Field(description="Contents with more versions: see `resource/history`.")
    findings: list[ResourceFinding]
    ancestors: list[AncestorItem]
    children: list[ResourceItem]
    children_truncated: bool
    outgoing: list[RelationItem]
    unresolved: list[UnresolvedItem]
    incoming: IncomingItem
    terraform: list[TerraformItem]
    cost: CostItem


class MatrixItem(_Item):
    """What is known of one scope × type × content."""

    scope: str
    asset_type: str
    content_type: str
    status: CoverageStatus
    reason: Reason | None
    detail: str | None
    remedy: str | None
    since: datetime
    checked_at: datetime | None
    complete_read: str | None = Field(description="The read time of the newest complete read.")
    age_seconds: float | None = Field(description="How old that is.")
    assets: int | None = Field(description="How many assets that read had.")
    known: int = Field(description="How many assets of the part are kept now.")


class MatrixAnswer(Answer):
    """A page of the coverage ledger, by scope, asset type and content type."""

    items: list[MatrixItem]
    next_cursor: NextCursor


class SpanItem(_Item):
    """A time through which a part had one status for one reason; `until` is null if it still has."""

    scope: str
    asset_type: str
    content_type: str
    status: CoverageStatus
    reason: Reason | None
    detail: str | None
    since: datetime
    until: datetime | None
    complete_read: str | None


class SpansAnswer(Answer):
    """A page of the ledger's history, the newest first."""

    items: list[SpanItem]
    next_cursor: NextCursor


class DriftItem(_Item):
    """A field that the first reads of a type did not show, or not with this kind of value."""

    asset_type: str
    content_type: str
    path: str
    kinds: list[str]
    drift: Drift
    example: str = Field(description="A resource that has it.")
    first_seen: datetime
    drifted_at: datetime


class SchemaDriftAnswer(Answer):
    """A page of drifted fields, the newest first."""

    items: list[DriftItem]
    next_cursor: NextCursor


# --- what is asked ----------------------------------------------------------------------------------------------------

Text = Annotated[str | None, Query(max_length=1_024, pattern=r"^[^\x00]*$")]
_One = Annotated[str, Query(max_length=1_024, pattern=r"^[^\x00]*$")]
Texts = Annotated[list[Annotated[str, Field(max_length=1_024, pattern=r"^[^\x00]*$")]] | None, Query(max_length=100)]
AsOf = Annotated[Text, Query(description="An instant (RFC 3339): what was known to be there then. Now without it.")]
Contents = Annotated[ContentType, Query(description="Which content of the assets the list is of: one row per asset.")]
ResourceName = Annotated[_One, Query(min_length=1, description="The full resource name, `//service/…`.")]


def _filter(
    type: Annotated[Texts, Query(description="Only these asset types; several times for several.")] = None,
    project: Annotated[Texts, Query(description="Only these project ids.")] = None,
    scope: Annotated[Texts, Query(description="Only these configured scopes.")] = None,
    location: Annotated[Texts, Query(description="Only these regions, zones, multi-regions.")] = None,
    q: Annotated[Text, Query(description="A text in the full name or the display name, in any case.")] = None,
    content_type: Contents = ContentType.RESOURCE,
) -> ResourceFilter:
    return ResourceFilter(
        content_type=content_type.value,
        asset_types=tuple(sorted(type or ())),
        projects=tuple(sorted(project or ())),
        scopes=tuple(sorted(scope or ())),
        locations=tuple(sorted(location or ())),
        q=q or None,
    )


def _filter_of_state(
    where: Annotated[ResourceFilter, Depends(_filter)],
    violations: Annotated[
        bool | None, Query(description="Only those with open findings, or only those without.")
    ] = None,
    deleted: Annotated[bool, Query(description="What is gone, instead of what is there.")] = False,
    since: Annotated[Text, Query(description="Only what has been what it is since then or later (RFC 3339).")] = None,
) -> ResourceFilter:
    return ResourceFilter(
        where.content_type,
        where.asset_types,
        where.projects,
        where.scopes,
        where.locations,
        where.q,
        violations,
        deleted,
        None if since is None else _instant("since", since),
    )


Where = Annotated[ResourceFilter, Depends(_filter)]
WhereState = Annotated[ResourceFilter, Depends(_filter_of_state)]


SortBy = Annotated[
    str,
    Query(
        pattern=rf"^-?({'|'.join(Sort)})$",
        description="`name`, `asset_type`, `project`, `location`, `updated` or `violations`; with a minus, the other "
        "way round. What has no value comes last.",
    ),
]


def _instant(name: str, text: str) -> int:
    try:
        number = parse_ns(text.replace(" ", "+"))  # a plus that was not encoded
    except (ValueError, OverflowError) as error:
        raise _invalid(name, str(error)) from error
    if not 0 <= number < 2**63:
        raise _invalid(name, "is out of range")
    return number


def _past(name: str, text: str | None, now: datetime) -> int | None:
    if text is None:
        return None
    number = _instant(name, text)
    if number > to_ns(now):
        raise _invalid(name, "is in the future")
    return number


def _invalid(name: str, message: str) -> RequestValidationError:
    return RequestValidationError([{"loc": ("query", name), "msg": message, "type": "value"}])


# --- what every answer carries ----------------------------------------------------------------------------------------


def _parts(where: ResourceFilter) -> Parts:
    """The parts of the ledger that a filter is about. A project's resources may be in any of them."""
    return Parts(where.scopes, where.asset_types, (where.content_type,))


def _base(
    connection: sa.Connection, portal: Portal, only: Parts, now: datetime, as_of_ns: int | None = None
) -> dict[str, Any]:
    layer = layer_status(connection, portal, LayerId.API, now)
    if as_of_ns is None:
        rows = coverage_views.ledger(connection, now=now, ttl=layer_runs.CACHE_TTL, only=only)
        return {"as_of": layer.as_of, "source": layer.source, "coverage": coverage_views.of_rows(rows)}
    rows = coverage_views.ledger_at(connection, as_of_ns, ttl=layer_runs.CACHE_TTL, only=only)
    return {"as_of": from_ns(as_of_ns), "source": layer.source, "coverage": coverage_views.of_rows(rows)}


def _fields(diff: JsonDiff) -> list[FieldChangeItem]:
    return [FieldChangeItem.model_validate(change) for change in diff.changes]


# --- lists ------------------------------------------------------------------------------------------------------------


@router.get("/resources", summary="Resources, now or as of an instant")
def resources(
    portal: InPortal, page: InPage, where: WhereState, sort: SortBy = "name", as_of: AsOf = None, limit: Limit = 100
) -> ResourcesAnswer:
    """One row per asset that has the content. The cost does not grow with the page's number."""
    now = portal.clock()
    as_of_ns = _past("as_of", as_of, now)
    by, descending = Sort(sort.removeprefix("-")), sort.startswith("-")
    after = page.read_place(int, str | int | None, str)
    with portal.store.read() as connection:
        found = list_resources(
            connection, where, sort=by, descending=descending, after=after, limit=limit, as_of_ns=as_of_ns
        )
        base = _base(connection, portal, _parts(where), now, as_of_ns)
    return ResourcesAnswer(
        items=[ResourceItem.of(row) for row in found.items],
        next_cursor=None if found.following is None else page.write_place(*found.following),
        **base,
    )


@router.get("/resources/facets", summary="How many resources of which type, project or location")
def facets(
    portal: InPortal,
    where: WhereState,
    by: Annotated[Dimension, Query(description="`asset_type`, `project` or `location`.")],
    as_of: AsOf = None,
    limit: Limit = 200,
) -> FacetAnswer:
    """Counted without the filter's own condition on `by`, so that the alternatives show; `total` is with it."""
    now = portal.clock()
    as_of_ns = _past("as_of", as_of, now)
    with portal.store.read() as connection:
        total = count(connection, where, as_of_ns=as_of_ns)
        found = facet(connection, where, by, as_of_ns=as_of_ns, values=limit)
        base = _base(connection, portal, _parts(where), now, as_of_ns)
    values = [FacetValue(value=value, count=number) for value, number in found.values]
    return FacetAnswer(total=total, by=by, values=values, others=found.others, **base)


@router.get("/resources/diff", summary="What is not the same at two instants")
def diff(
    portal: InPortal,
    page: InPage,
    where: Where,
    from_: Annotated[_One, Query(alias="from", description="The earlier instant (RFC 3339).")],
    to: Annotated[Text, Query(description="The later instant; now without it.")] = None,
    limit: Limit = 100,
) -> DiffAnswer:
    """Resources that were created, updated, deleted or recreated, with the fields that differ, by name.

    `first_seen`: known since then, and it may have been there before, since its part had not been read completely.
    """
    now = portal.clock()
    from_ns = _instant("from", from_)
    to_ns_ = _past("to", to, now)
    until_ns = to_ns(now) if to_ns_ is None else to_ns_
    if from_ns > until_ns:
        raise _invalid("from", "is after 'to'")
    after = page.read_place(int, str)
    if after is not None:
        until_ns = after[0]  # "now" is the same on every page
    with portal.store.read() as connection:
        found = resource_history.diff(
            connection,
            from_ns,
            until_ns,
            where,
            ttl=layer_runs.CACHE_TTL,
            after=after[1] if after else None,
            limit=limit,
        )
        base = _base(connection, portal, _parts(where), now, until_ns if to_ns_ is not None else None)
        earlier = coverage_views.ledger_at(connection, from_ns, ttl=layer_runs.CACHE_TTL, only=_parts(where))
    base["coverage"] = _both(base["coverage"], coverage_views.of_rows(earlier))
    return DiffAnswer(
        from_=format_ns(from_ns),
        to=format_ns(until_ns),
        items=[_change(item) for item in found.items],
        next_cursor=None if found.following is None else page.write_place(until_ns, found.following),
        **base,
    )


def _both(one: Coverage, other: Coverage) -> Coverage:
    """A difference is known as far as both of its ends are."""
    statuses = {one.status, other.status}
    status = statuses.pop() if len(statuses) == 1 else CoverageStatus.PARTIAL
    return Coverage(
        status=status,
        complete=one.complete + other.complete,
        partial=one.partial + other.partial,
        stale=one.stale + other.stale,
        unknown=one.unknown + other.unknown,
        gaps=[*one.gaps, *other.gaps],
    )


def _change(item: ResourceChange) -> ChangeItem:
    row = item.row
    return ChangeItem(
        name=item.name,
        content_type=item.content_type,
        asset_type=row.asset_type,
        project=row.project,
        display_name=row.display_name,
        change=item.change,
        when=format_ns(item.changed_ns),
        who=item.who,
        versions=item.versions,
        before=None if item.before is None else ResourceItem.of(item.before),
        after=None if item.after is None else ResourceItem.of(item.after),
        fields=_fields(item.diff),
        fields_truncated=item.diff.truncated,
    )


@router.get(
    "/resources/export",
    summary="Resources as a file",
    response_class=StreamingResponse,
    responses={200: {"description": "The file.", "content": {kind: {} for kind in MEDIA_TYPES.values()}}},
)
def export(
    portal: InPortal,
    where: WhereState,
    format: Annotated[ExportFormat, Query(description="`csv`, `jsonl` or `parquet`.")],
    as_of: AsOf = None,
    data: Annotated[bool, Query(description="Also what the resources say.")] = False,
) -> StreamingResponse:
    """Every resource that the filter finds, by name, of one state of the store, however many there are."""
    now = portal.clock()
    as_of_ns = _past("as_of", as_of, now)
    with ExitStack() as stack:
        connection = stack.enter_context(portal.store.read())
        base = _base(connection, portal, _parts(where), now, as_of_ns)
        coverage: Coverage = base["coverage"]
        head = Head(
            as_of=None
            if base["as_of"] is None
            else format_ns(as_of_ns if as_of_ns is not None else to_ns(base["as_of"])),
            source=base["source"],
            coverage=coverage.model_dump(mode="json"),
            query={name: value for name, value in asdict(where).items() if value not in (None, (), False)},
        )
        pieces = export_resources(connection, where, format, head, as_of_ns=as_of_ns, with_data=data)
        first = next(pieces)  # what fails at once is a problem, not a broken file
        kept = stack.pop_all()
    counts = coverage.model_dump(mode="json", exclude={"gaps"})
    return StreamingResponse(
        _streamed(first, pieces, kept),
        media_type=MEDIA_TYPES[format],
        headers={
            "Content-Disposition": f'attachment; filename="resources.{format}"',
            "X-As-Of": head.as_of or "unknown",
            "X-Source": head.source,
            "X-Coverage": orjson.dumps(counts).decode(),
            "Cache-Control": "no-store",
        },
    )


def _streamed(first: bytes, pieces: Iterator[bytes], kept: ExitStack) -> Iterator[bytes]:
    """The pieces; the transaction ends with the last one, or when nobody reads on."""
    with kept:
        yield first
        yield from pieces


# --- one resource -----------------------------------------------------------------------------------------------------


@router.get("/resource", summary="One resource in full", responses={404: ERRORS[503] | {"description": "None."}})
def resource(portal: InPortal, name: ResourceName, as_of: AsOf = None) -> ResourceAnswer:
    """What it says, its past, findings, place, relations and terraform address. The name is given whole, encoded as any
    parameter: this form survives proxies that merge slashes."""
    return _resource(portal, name, as_of)


@router.get("/resource/history", summary="The versions of a resource, the newest first")
def history(
    portal: InPortal, page: InPage, name: ResourceName, content_type: Contents = ContentType.RESOURCE, limit: Limit = 50
) -> HistoryAnswer:
    """Every version that is kept of one content, each with what differs from the one before."""
    now = portal.clock()
    before = page.read_number()
    with portal.store.read() as connection:
        found = resource_history.versions(connection, name, content_type.value, limit=limit + 1, before=before)
        if not found and not known_name(connection, name):
            raise _unknown(name)
        base = _base(connection, portal, Parts(content_types=(content_type.value,)), now)
    items = found[:limit]
    return HistoryAnswer(
        items=[_version(item) for item in items],
        next_cursor=page.write_number(items[-1].row.version) if len(found) > limit else None,
        **base,
    )


@router.get(
    "/resources/{name:path}", summary="One resource in full", responses={404: ERRORS[503] | {"description": "None."}}
)
def resource_by_path(
    portal: InPortal, name: Annotated[str, Path(description="The full resource name.")], as_of: AsOf = None
) -> ResourceAnswer:
    """The same with the name in the path, as it is or percent-encoded, with or without its two slashes."""
    return _resource(portal, "//" + name.lstrip("/"), as_of)


def _resource(portal: Portal, name: str, as_of: str | None) -> ResourceAnswer:
    now = portal.clock()
    as_of_ns = _past("as_of", as_of, now)
    if "\0" in name:
        raise _unknown(name)
    with portal.store.read() as connection:
        found = resource_details(connection, name, as_of_ns=as_of_ns)
        if found is None:
            raise _unknown(name) if as_of_ns is None or not known_name(connection, name) else _absent(name)
        versions = {
            item.row.content_type: resource_history.versions(
                connection,
                name,
                item.row.content_type,
                limit=resource_history.VERSIONS + 1,
                before=None if as_of_ns is None else item.row.version + 1,
            )
            for item in found.contents
        }
        only = Parts((found.row.scope,), (found.row.asset_type,), tuple(versions))
        base = _base(connection, portal, only, now, as_of_ns)
    return _answer(found, versions, base)


def _answer(found: ResourceDetails, versions: dict[str, list[Version]], base: dict[str, Any]) -> ResourceAnswer:
    main = next((item for item in found.contents if item.row.content_type == "RESOURCE"), None)
    kind, view = (None, None)
    if main is not None and main.content is not None:
        kind, view = typed_view(main.row, main.content.data)
    shown = resource_history.VERSIONS
    return ResourceAnswer(
        resource=ResourceItem.of(found.row),
        kind=kind,
        view=view,
        contents=[
            ContentItem(
                resource=ResourceItem.of(item.row),
                data=item.content.data if item.content else None,
                redacted=list(item.content.redacted) if item.content else [],
            )
            for item in found.contents
        ],
        history={content: [_version(item) for item in items[:shown]] for content, items in versions.items()},
        history_truncated=sorted(content for content, items in versions.items() if len(items) > shown),
        findings=[ResourceFinding.model_validate(item) for item in found.findings],
        ancestors=[AncestorItem.model_validate(item) for item in found.ancestors],
        children=[ResourceItem.of(row) for row in found.children.items],
        children_truncated=found.children.truncated,
        outgoing=[RelationItem(path=item.path, resource=ResourceItem.of(item.resource)) for item in found.outgoing],
        unresolved=[
            UnresolvedItem(path=item.path, text=item.text, names=list(item.names)) for item in found.unresolved
        ],
        incoming=IncomingItem(
            relations=[
                RelationItem(path=item.path, resource=ResourceItem.of(item.resource))
                for item in found.incoming.relations
            ],
            asset_types=list(found.incoming.asset_types),
            project=found.incoming.project,
            looked_through=found.incoming.looked_through,
            complete=found.incoming.complete,
        ),
        terraform=[
            TerraformItem(
                address=item.address,
                path=item.path,
                line=item.line,
                status=item.status,
                reason=item.reason,
                differences=item.differences,
                commit=item.commit_sha,
                checked_at=item.checked_at,
            )
            for item in found.terraform
        ],
        cost=CostItem(amount=None, currency=None, reason=NO_COST),
        **base,
    )


def _version(item: Version) -> VersionItem:
    return VersionItem(
        resource=ResourceItem.of(item.row),
        change=item.change,
        recorded_at=item.recorded_at,
        who=item.who,
        fields=None if item.diff is None else _fields(item.diff),
        fields_truncated=item.diff is not None and item.diff.truncated,
    )


def _unknown(name: str) -> SyncError:
    return SyncError(
        "no resource of this name is known",
        where=name,
        remedy="look it up in /api/v1/resources; /api/v1/coverage says what was not read",
        reason=Reason.NOT_FOUND,
    )


def _absent(name: str) -> SyncError:
    return SyncError(
        "the resource was not known at this instant",
        where=name,
        remedy="ask without 'as_of', or for a later instant; /api/v1/coverage/history says what was read when",
        reason=Reason.NOT_FOUND,
    )


# --- the ledger -------------------------------------------------------------------------------------------------------


@router.get("/coverage/matrix", summary="The coverage ledger, row by row")
def matrix(
    portal: InPortal,
    page: InPage,
    scope: Annotated[Texts, Query(description="Only these scopes.")] = None,
    type: Annotated[Texts, Query(description="Only these asset types.")] = None,
    content_type: Annotated[list[ContentType] | None, Query(description="Only these contents.")] = None,
    status: Annotated[list[CoverageStatus] | None, Query(description="Only these statuses.")] = None,
    limit: Limit = 1000,
) -> MatrixAnswer:
    """Status, reason, remedy, age and counts of every scope × type × content."""
    now = portal.clock()
    only = Parts(tuple(scope or ()), tuple(type or ()), tuple(content_type or ()))
    after = page.read_place(str, str, str)
    with portal.store.read() as connection:
        rows = coverage_views.ledger(connection, now=now, ttl=layer_runs.CACHE_TTL, only=only)
        known = coverage_views.known_assets(connection, only)
        layer = layer_status(connection, portal, LayerId.API, now)
    chosen = [row for row in rows if (not status or row.status in status) and (after is None or row.part > after)]
    items = [_matrix_item(row, known.get(row.part, 0), now) for row in chosen[:limit]]
    return MatrixAnswer(
        items=items,
        next_cursor=page.write_place(*chosen[limit - 1].part) if len(chosen) > limit else None,
        as_of=layer.as_of,
        source=layer.source,
        coverage=coverage_views.of_rows(rows),
    )


def _matrix_item(row: LedgerRow, known: int, now: datetime) -> MatrixItem:
    read_ns = row.complete_read_ns
    return MatrixItem(
        scope=row.scope,
        asset_type=row.asset_type,
        content_type=row.content_type,
        status=row.status,
        reason=row.reason,
        detail=row.detail,
        remedy=row.remedy,
        since=row.since,
        checked_at=row.checked_at,
        complete_read=None if read_ns is None else format_ns(read_ns),
        age_seconds=None if read_ns is None else (to_ns(now) - read_ns) / 1e9,
        assets=row.assets,
        known=known,
    )


@router.get("/coverage/history", summary="What the coverage ledger said before, the newest first")
def coverage_history(
    portal: InPortal,
    page: InPage,
    scope: Annotated[Texts, Query(description="Only these scopes.")] = None,
    type: Annotated[Texts, Query(description="Only these asset types.")] = None,
    content_type: Annotated[list[ContentType] | None, Query(description="Only these contents.")] = None,
    limit: Limit = 100,
) -> SpansAnswer:
    """Times through which a part had one status for one reason."""
    now = portal.clock()
    only = Parts(tuple(scope or ()), tuple(type or ()), tuple(content_type or ()))
    with portal.store.read() as connection:
        spans = coverage_views.history(
            connection, now=now, ttl=layer_runs.CACHE_TTL, limit=limit + 1, before=page.read_number(), only=only
        )
        base = _base(connection, portal, only, now)
    return SpansAnswer(
        items=[
            SpanItem(
                scope=span.scope,
                asset_type=span.asset_type,
                content_type=span.content_type,
                status=span.status,
                reason=span.reason,
                detail=span.detail,
                since=span.since,
                until=span.until,
                complete_read=None if span.complete_read_ns is None else format_ns(span.complete_read_ns),
            )
            for span in spans[:limit]
        ],
        next_cursor=page.write_number(spans[limit - 1].id) if len(spans) > limit else None,
        **base,
    )


@router.get("/schema-drift", summary="Fields that the data of a type had not had before, the newest first")
def schema_drift(
    portal: InPortal,
    page: InPage,
    type: Annotated[Texts, Query(description="Only these asset types.")] = None,
    limit: Limit = 100,
) -> SchemaDriftAnswer:
    """New fields, and fields with another kind of value than before. Nothing fails because of them."""
    now = portal.clock()
    after = page.read_place(int, str, str, str)
    with portal.store.read() as connection:
        found = data_fields.drifted(connection, asset_types=tuple(type or ()), after=after, limit=limit + 1)
        base = _base(connection, portal, Parts(asset_types=tuple(type or ())), now)
    return SchemaDriftAnswer(
        items=[DriftItem.model_validate(item) for item in found[:limit]],
        next_cursor=page.write_place(*found[limit - 1].place) if len(found) > limit else None,
        **base,
    )
