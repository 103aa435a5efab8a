"""Typed views of the inventory: projects, networks, instances, clusters and databases, as the Portal shows them.

A field that the inventory does not carry is ``None``: nothing is assumed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import Any, TypeVar

import sqlalchemy as sa

from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.inventory.types import CLUSTER, DATABASES, INSTANCE, NETWORK, PROJECT
from lz_sync_dagster.sync.models import (
    VM,
    VPC,
    Cluster,
    CoverageStatus,
    Database,
    LZInfrastructureState,
    Project,
)
from lz_sync_dagster.sync.store import assets, findings, layer_runs
from lz_sync_dagster.sync.store import coverage as coverage_ledger
from lz_sync_dagster.sync.store.schema import resource_contents, resources

View = TypeVar("View")

#: The lists of the state, by the asset types that they hold.
KINDS: dict[str, frozenset[str]] = {
    "projects": frozenset({PROJECT}),
    "vpcs": frozenset({NETWORK}),
    "compute_instances": frozenset({INSTANCE}),
    "gke_clusters": frozenset({CLUSTER}),
    "databases": frozenset(DATABASES),
}

#: How many items a list of the state holds unless told.
DEFAULT_LIMIT = 1000


def infrastructure_state(
    connection: sa.Connection, *, now: datetime, disabled: Collection[LayerId] = (), limit: int = DEFAULT_LIMIT
) -> LZInfrastructureState:
    """The landing zone as it is known now. Each list holds at most ``limit`` items; ``counts`` has the true totals."""
    statuses = {status.layer: status for status in layer_runs.statuses(connection, now=now, disabled=disabled)}
    layer = statuses[LayerId.API]
    by_type = assets.count_existing(connection)
    violations = [violation for _, violation in findings.open_violations(connection, limit=limit)]
    read = coverage_ledger.types_read(connection)
    unread = {gap.asset_type for gap in layer.coverage.gaps}
    counts = {
        kind: _proven(sum(by_type.get(name, 0) for name in names), whole=names & read and not names & unread)
        for kind, names in KINDS.items()
    }
    whole = layer.coverage.status is CoverageStatus.COMPLETE
    counts["policy_violations"] = _proven(findings.count_open(connection), whole=whole)
    counts["resources"] = _proven(sum(by_type.values()), whole=whole)
    lists: dict[str, list[Any]] = {
        "projects": _read(connection, [PROJECT], limit, _project),
        "vpcs": _read(connection, [NETWORK], limit, _vpc),
        "compute_instances": _read(connection, [INSTANCE], limit, _vm),
        "gke_clusters": _read(connection, [CLUSTER], limit, _cluster),
        "databases": _read(connection, list(DATABASES), limit, _database),
        "policy_violations": violations,
    }
    return LZInfrastructureState(
        timestamp=now,
        **lists,
        compliance_score=compliance_score(connection),
        sync_metadata=layer,
        counts=counts,
        truncated=sorted(kind for kind, items in lists.items() if len(items) < (counts[kind] or 0)),
        as_of=layer.as_of,
        source=layer.source,
        coverage=layer.coverage,
    )


def _proven(count: int, *, whole: object) -> int | None:
    """A count; ``None`` for a zero that nothing proves."""
    return count if count or whole else None


def compliance_score(connection: sa.Connection) -> float | None:
    """Passed / decided control evaluations over everything that exists (0 to 1); ``None`` if none was decided."""
    query = sa.select(
        sa.func.coalesce(sa.func.sum(resources.c.controls_decided), 0),
        sa.func.coalesce(sa.func.sum(resources.c.controls_failed), 0),
    ).where(resources.c.deleted.is_(False))
    decided, failed = (int(value) for value in connection.execute(query).one())
    return None if decided == 0 else (decided - failed) / decided


def _read(
    connection: sa.Connection, kinds: list[str], limit: int, view: Callable[[sa.Row[Any], Mapping[str, Any]], View]
) -> list[View]:
    columns = [resources.c[name] for name in ("name", "asset_type", "project", "location", "display_name")]
    query = (
        sa.select(*columns, resource_contents.c.data)
        .outerjoin(resource_contents, resource_contents.c.id == resources.c.content_id)
        .where(
            resources.c.content_type == "RESOURCE", resources.c.asset_type.in_(kinds), resources.c.deleted.is_(False)
        )
        .order_by(resources.c.asset_type, resources.c.name)
        .limit(limit)
    )
    return [view(row, row.data or {}) for row in connection.execute(query)]


def _project(row: sa.Row[Any], data: Mapping[str, Any]) -> Project:
    parent = data.get("parent")
    if isinstance(parent, Mapping):
        parent = f"{parent.get('type')}s/{parent.get('id')}"
    number = data.get("projectNumber") or row.name.rsplit("/", 1)[-1]
    return Project(
        name=row.name,
        project_id=data.get("projectId") or row.project or row.name.rsplit("/", 1)[-1],
        project_number=str(number) if str(number).isdigit() else None,
        display_name=data.get("displayName") or data.get("name"),
        parent=parent,
        state=data.get("state") or data.get("lifecycleState"),
        labels=_labels(data),
    )


def _vpc(row: sa.Row[Any], data: Mapping[str, Any]) -> VPC:
    subnetworks = data.get("subnetworks", data.get("subnetwork"))
    return VPC(
        name=row.name,
        display_name=row.display_name,
        project=row.project,
        auto_create_subnetworks=data.get("autoCreateSubnetworks"),
        subnetworks=None if subnetworks is None else len(subnetworks),
        routing_mode=(data.get("routingConfig") or {}).get("routingMode"),
    )


def _vm(row: sa.Row[Any], data: Mapping[str, Any]) -> VM:
    interfaces = data.get("networkInterfaces") or data.get("networkInterface") or []
    internal = [interface.get("networkIP") or interface.get("ipAddress") for interface in interfaces]
    external = [
        access.get("natIP") or access.get("externalIp")
        for interface in interfaces
        for access in interface.get("accessConfigs") or interface.get("accessConfig") or []
    ]
    return VM(
        name=row.name,
        display_name=row.display_name,
        project=row.project,
        zone=_last(data.get("zone")) or row.location,
        machine_type=_last(data.get("machineType")),
        status=data.get("status"),
        internal_ips=[address for address in internal if address],
        external_ips=[address for address in external if address],
        labels=_labels(data),
    )


def _cluster(row: sa.Row[Any], data: Mapping[str, Any]) -> Cluster:
    return Cluster(
        name=row.name,
        display_name=row.display_name,
        project=row.project,
        location=data.get("location") or row.location,
        status=data.get("status"),
        version=data.get("currentMasterVersion"),
        node_count=data.get("currentNodeCount"),
    )


def _database(row: sa.Row[Any], data: Mapping[str, Any]) -> Database:
    return Database(
        name=row.name,
        display_name=row.display_name,
        project=row.project,
        location=data.get("region") or row.location,
        kind=row.asset_type,
        engine=data.get("databaseVersion") or data.get("redisVersion") or DATABASES.get(row.asset_type),
        state=data.get("state"),
    )


def _last(path: str | None) -> str | None:
    return path.rsplit("/", 1)[-1] if path else None


def _labels(data: Mapping[str, Any]) -> dict[str, str]:
    labels = data.get("labels")
    return {str(key): str(value) for key, value in labels.items()} if isinstance(labels, Mapping) else {}
