"""One resource in full: its contents, findings, place in the hierarchy, what it refers to and what refers to it, its
terraform address and its cost. Lists of resources are `resource_views`; the past of one is `resource_history`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from lz_sync_dagster.sync.state.references import Reference, references
from lz_sync_dagster.sync.store.assets import PROJECT_TYPE
from lz_sync_dagster.sync.store.resource_history import Content, contents
from lz_sync_dagster.sync.store.resource_views import (
    Columns,
    ResourceRow,
    columns_of,
    row_of,
    tables_at,
    with_violations,
)
from lz_sync_dagster.sync.store.schema import (
    findings,
    policy_sets,
    resource_contents,
    resource_versions,
    resources,
    terraform_drift,
)

#: Findings, children, outgoing and incoming relations that are told of one resource.
SHOWN = 100
#: Contents that are looked through for what refers to a resource.
LOOKED_THROUGH = 5_000

_MANAGER = "//cloudresourcemanager.googleapis.com/"
_FOLDER = "cloudresourcemanager.googleapis.com/Folder"
_ORGANIZATION = "cloudresourcemanager.googleapis.com/Organization"
_SERVICE_ACCOUNT = "iam.googleapis.com/ServiceAccount"

#: Which asset types are known to name a type in their data: where incoming relations are looked for.
REFERRERS: dict[str, tuple[str, ...]] = {
    "compute.googleapis.com/Network": (
        "compute.googleapis.com/Subnetwork",
        "compute.googleapis.com/Firewall",
        "compute.googleapis.com/Instance",
        "compute.googleapis.com/Router",
        "compute.googleapis.com/Route",
        "container.googleapis.com/Cluster",
        "sqladmin.googleapis.com/Instance",
        "alloydb.googleapis.com/Cluster",
        "redis.googleapis.com/Instance",
        "dns.googleapis.com/ManagedZone",
    ),
    "compute.googleapis.com/Subnetwork": (
        "compute.googleapis.com/Network",
        "compute.googleapis.com/Instance",
        "container.googleapis.com/Cluster",
    ),
    "compute.googleapis.com/Disk": ("compute.googleapis.com/Instance", "compute.googleapis.com/Snapshot"),
    "compute.googleapis.com/Instance": ("compute.googleapis.com/Disk",),
    "cloudkms.googleapis.com/CryptoKey": (
        "compute.googleapis.com/Disk",
        "storage.googleapis.com/Bucket",
        "bigquery.googleapis.com/Dataset",
        "sqladmin.googleapis.com/Instance",
        "container.googleapis.com/Cluster",
        "spanner.googleapis.com/Instance",
    ),
    _SERVICE_ACCOUNT: (
        "compute.googleapis.com/Instance",
        "compute.googleapis.com/Project",
        "container.googleapis.com/Cluster",
        "container.googleapis.com/NodePool",
        "iam.googleapis.com/ServiceAccountKey",
        "run.googleapis.com/Service",
    ),
    "storage.googleapis.com/Bucket": ("logging.googleapis.com/LogSink", "storage.googleapis.com/Bucket"),
    "bigquery.googleapis.com/Dataset": ("logging.googleapis.com/LogSink",),
    "pubsub.googleapis.com/Topic": ("logging.googleapis.com/LogSink", "pubsub.googleapis.com/Subscription"),
}

NO_COST = "billing data is kept per day and source, not per resource"


@dataclass(frozen=True, slots=True)
class HeldContent:
    """One content of a resource; ``content`` is ``None`` where it is gone or was never told."""

    row: ResourceRow
    content: Content | None


@dataclass(frozen=True, slots=True)
class FindingEntry:
    """A finding on a resource. ``resolved_at`` and ``resolution`` are ``None`` while it is open."""

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


@dataclass(frozen=True, slots=True)
class Ancestor:
    """Where a resource is: ``folders/123``. ``name`` and ``display_name``: ``None`` if the inventory lacks it."""

    ancestor: str
    name: str | None
    display_name: str | None


@dataclass(frozen=True, slots=True)
class Relation:
    """A reference between two resources of the inventory. ``path``: the field that has it, in the one that refers."""

    path: str
    resource: ResourceRow


@dataclass(frozen=True, slots=True)
class Incoming:
    """What refers to a resource, as far as it was looked for.

    Attributes:
        asset_types: where it was looked: resources of these types; none if no type is known to name such a resource.
        project: in this project; what other projects refer to is not known.
        looked_through: contents that have been looked through.
        complete: all of them were.
    """

    relations: list[Relation]
    asset_types: tuple[str, ...]
    project: str | None
    looked_through: int
    complete: bool


@dataclass(frozen=True, slots=True)
class Children:
    """What is directly below a resource; ``truncated``: there is more."""

    items: list[ResourceRow]
    truncated: bool


@dataclass(frozen=True, slots=True)
class TerraformAddress:
    """The terraform block that stands for a resource, and what differs."""

    address: str
    path: str
    line: int
    status: str
    reason: str | None
    differences: list[dict[str, Any]]
    commit_sha: str
    checked_at: datetime


@dataclass(frozen=True, slots=True)
class ResourceDetails:
    """Everything that is known of one resource."""

    row: ResourceRow
    contents: list[HeldContent]
    findings: list[FindingEntry]
    ancestors: list[Ancestor]
    children: Children
    outgoing: list[Relation]
    unresolved: list[Reference]
    incoming: Incoming
    terraform: list[TerraformAddress]


def known_name(connection: sa.Connection, name: str) -> bool:
    """Whether a resource of this name is or was known."""
    return connection.scalar(sa.select(resources.c.name).where(resources.c.name == name).limit(1)) is not None


def evaluated(connection: sa.Connection, name: str) -> tuple[int, datetime] | None:
    """The version of a resource that the controls judged last, and when; ``None`` if they did not, as far as is known.

    Every version is judged as it is written, and again when other controls are applied.
    """
    applied_at = connection.scalar(sa.select(policy_sets.c.applied_at).limit(1))
    table = resources
    row = connection.execute(
        sa.select(table.c.version, table.c.changed_at)
        .where(table.c.name == name)
        .order_by(table.c.content_type != "RESOURCE", table.c.content_type)
        .limit(1)
    ).one_or_none()
    return None if row is None or applied_at is None else (row.version, max(row.changed_at, applied_at))


def known_parts(connection: sa.Connection, name: str) -> list[tuple[str, str, str]]:
    """The parts (scope, asset type, content type) that a resource is of that is or was known; none if it never was."""
    table = resources
    query = sa.select(table.c.scope, table.c.asset_type, table.c.content_type).where(table.c.name == name)
    return [(row.scope, row.asset_type, row.content_type) for row in connection.execute(query)]


def resource_details(connection: sa.Connection, name: str, *, as_of_ns: int | None = None) -> ResourceDetails | None:
    """A resource as it is, or was at an instant; ``None`` if it is not known, or was not then.

    Its relations, children, findings and terraform address are those of now; references are those of the content.
    """
    held = _held(connection, name, as_of_ns)
    if not held:
        return None
    main = next((item for item in held if item.row.content_type == "RESOURCE"), held[0])
    data = main.content.data if main.content else {}
    found = references(data, own_name=name, project=main.row.project, location=main.row.location)
    outgoing, unresolved = _resolve(connection, found)
    return ResourceDetails(
        row=with_violations(connection, [main.row], as_of_ns)[0],
        contents=held,
        findings=_findings(connection, name),
        ancestors=_ancestors(connection, main.row),
        children=_children(connection, main.row),
        outgoing=outgoing,
        unresolved=unresolved,
        incoming=_incoming(connection, main.row, data),
        terraform=_terraform(connection, name),
    )


def _held(connection: sa.Connection, name: str, as_of_ns: int | None) -> list[HeldContent]:
    rows: list[ResourceRow] = []
    for table in tables_at(as_of_ns):
        query = sa.select(*columns_of(table)).where(table.c.name == name)
        if as_of_ns is not None:
            query = query.where(table.c.valid_from_ns <= as_of_ns)
            if table is resource_versions:
                query = query.where(table.c.valid_to_ns > as_of_ns)
        rows += [row_of(row._mapping) for row in connection.execute(query)]
    rows.sort(key=lambda row: (row.content_type != "RESOURCE", row.content_type))
    known = contents(connection, {row.content_id for row in rows})
    return [HeldContent(row, None if row.content_id is None else known.get(row.content_id)) for row in rows]


def _findings(connection: sa.Connection, name: str) -> list[FindingEntry]:
    """Open ones first, then the newest."""
    table = findings
    query = (
        sa.select(table)
        .where(table.c.resource == name)
        .order_by(table.c.resolved_at.is_not(None), table.c.opened_at.desc(), table.c.id.desc())
        .limit(SHOWN)
    )
    return [
        FindingEntry(
            row.control,
            row.framework,
            row.title,
            row.severity,
            row.source,
            row.content_type,
            row.message,
            row.opened_at,
            row.resolved_at,
            row.resolution,
        )
        for row in connection.execute(query)
    ]


def _ancestors(connection: sa.Connection, row: ResourceRow) -> list[Ancestor]:
    names = {ancestor: [_MANAGER + ancestor] for ancestor in row.ancestors}
    for ancestor in row.ancestors:
        if ancestor.startswith("projects/") and row.project:  # a project's name may have its id or its number
            names[ancestor].append(f"{_MANAGER}projects/{row.project}")
    known = _rows_by_name(connection, [name for found in names.values() for name in found])
    found = []
    for ancestor in row.ancestors:
        match = next((known[name] for name in names[ancestor] if name in known), None)
        found.append(
            Ancestor(ancestor, None, None) if match is None else Ancestor(ancestor, match.name, match.display_name)
        )
    return found


def _children(connection: sa.Connection, row: ResourceRow) -> Children:
    """Of a folder or an organization, projects and folders; of a project, its resources; else what its name heads."""
    if row.asset_type in (_FOLDER, _ORGANIZATION):
        return _children_above(connection, row)
    by_project = row.asset_type == PROJECT_TYPE
    column = Columns(connection, resources, frozenset({"deleted"} if by_project else {"deleted", "content_type"}))
    query = (
        sa.select(*columns_of(resources))
        .where(column["content_type"] == "RESOURCE", column["deleted"] == sa.false(), resources.c.name != row.name)
        .order_by(resources.c.asset_type, resources.c.name)
        .limit(SHOWN + 1)
    )
    if by_project:
        query = query.where(column["project"] == row.project)
    else:
        query = query.where(column["name"] > f"{row.name}/", column["name"] < f"{row.name}0")  # "0" follows "/"
    items = [row_of(found._mapping) for found in connection.execute(query)]
    return Children(items[:SHOWN], len(items) > SHOWN)


def _children_above(connection: sa.Connection, row: ResourceRow) -> Children:
    """Projects and folders whose nearest ancestor, after themselves, is the row."""
    own = row.name.removeprefix(_MANAGER)
    table = resources
    query = (
        sa.select(*columns_of(table))
        .where(
            table.c.content_type == "RESOURCE",
            table.c.deleted == sa.false(),
            table.c.asset_type.in_((_FOLDER, PROJECT_TYPE)),
        )
        .order_by(table.c.asset_type, table.c.name)
    )
    found = []
    for each in connection.execute(query):
        child = row_of(each._mapping)
        if child.ancestors[1:2] == (own,):
            found.append(child)
    return Children(found[:SHOWN], len(found) > SHOWN)


# --- relations --------------------------------------------------------------------------------------------------------


def _rows_by_name(connection: sa.Connection, names: Iterable[str]) -> dict[str, ResourceRow]:
    wanted = sorted(set(names))
    found: dict[str, ResourceRow] = {}
    for start in range(0, len(wanted), 1_000):
        query = sa.select(*columns_of(resources)).where(
            resources.c.content_type == "RESOURCE", resources.c.name.in_(wanted[start : start + 1_000])
        )
        found |= {row.name: row_of(row._mapping) for row in connection.execute(query)}
    return found


def _resolve(connection: sa.Connection, found: Sequence[Reference]) -> tuple[list[Relation], list[Reference]]:
    """The references to resources that are known, and those that are not."""
    known = _rows_by_name(connection, [name for reference in found for name in reference.names])
    accounts = _accounts(
        connection,
        {
            (reference.email, reference.project)
            for reference in found
            if reference.email and reference.project and not any(name in known for name in reference.names)
        },
    )
    relations, unresolved = [], []
    for reference in found:
        match = next((known[name] for name in reference.names if name in known), None) or accounts.get(
            reference.email or ""
        )
        if match is None:
            unresolved.append(reference)
        else:
            relations.append(Relation(reference.path, match))
    return relations[:SHOWN], unresolved[:SHOWN]


def _accounts(connection: sa.Connection, wanted: set[tuple[str, str]]) -> dict[str, ResourceRow]:
    """Service accounts by email, whose full names have their number instead."""
    projects = sorted({project for _, project in wanted})
    if not projects:
        return {}
    query = (
        sa.select(*columns_of(resources), resource_contents.c.data)
        .join(resource_contents, resource_contents.c.id == resources.c.content_id)
        .where(
            resources.c.content_type == "RESOURCE",
            resources.c.asset_type == _SERVICE_ACCOUNT,
            resources.c.project.in_(projects),
        )
        .order_by(resources.c.name)
        .limit(LOOKED_THROUGH)
    )
    emails = {email for email, _ in wanted}
    found: dict[str, ResourceRow] = {}
    for row in connection.execute(query):
        email = row.data.get("email")
        if email in emails:
            found[email] = row_of(row._mapping)
    return found


def _incoming(connection: sa.Connection, row: ResourceRow, data: dict[str, Any]) -> Incoming:
    types = REFERRERS.get(row.asset_type, ())
    if not types or row.project is None:
        return Incoming([], types, row.project, 0, complete=not types)
    email = data.get("email") if row.asset_type == _SERVICE_ACCOUNT else None
    needle = email if isinstance(email, str) and email else row.name.rsplit("/", 1)[-1]
    column = Columns(connection, resources, frozenset({"deleted"}))
    looked = (
        sa.select(*columns_of(resources))
        .where(
            column["content_type"] == "RESOURCE",
            column["asset_type"].in_(types),
            column["project"] == row.project,
            column["deleted"] == sa.false(),
        )
        .order_by(resources.c.asset_type, resources.c.name)
        .limit(LOOKED_THROUGH + 1)
        .subquery("looked")
    )
    total = connection.execute(sa.select(sa.func.count()).select_from(looked)).scalar_one()
    place = sa.func.instr if connection.dialect.name == "sqlite" else sa.func.strpos
    text = sa.cast(resource_contents.c.data, sa.Text)
    query = (
        sa.select(looked, resource_contents.c.data)
        .join(resource_contents, resource_contents.c.id == looked.c.content_id)
        .where(place(text, needle) > 0)
        .order_by(looked.c.asset_type, looked.c.name)
    )
    relations = []
    for other in connection.execute(query):
        referrer = row_of(other._mapping)
        for reference in references(
            other.data, own_name=referrer.name, project=referrer.project, location=referrer.location
        ):
            if row.name in reference.names or (email and reference.email == email):
                relations.append(Relation(reference.path, referrer))
                break
        if len(relations) > SHOWN:
            break
    complete = total <= LOOKED_THROUGH and len(relations) <= SHOWN
    return Incoming(relations[:SHOWN], types, row.project, min(total, LOOKED_THROUGH), complete)


def _terraform(connection: sa.Connection, name: str) -> list[TerraformAddress]:
    table = terraform_drift
    query = sa.select(table).where(table.c.resource == name).order_by(table.c.address, table.c.path, table.c.line)
    return [
        TerraformAddress(
            row.address,
            row.path,
            row.line,
            row.status,
            row.reason,
            list(row.differences),
            row.commit_sha,
            row.checked_at,
        )
        for row in connection.execute(query.limit(SHOWN))
    ]
