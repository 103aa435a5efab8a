"""The state of the landing zone as the Portal shows it: typed views of what is there (`typed_views`), violations, and
the score."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from pydantic import BaseModel

from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.inventory.typed_views import VIEWS, Data, View, iam_bindings
from lz_sync_dagster.sync.models import CoverageStatus, IamBinding, LZInfrastructureState
from lz_sync_dagster.sync.state.observation import ContentType
from lz_sync_dagster.sync.store import assets, findings, layer_runs
from lz_sync_dagster.sync.store import coverage as coverage_ledger
from lz_sync_dagster.sync.store.schema import resource_contents, resources

#: The lists of the state, by the asset types that they hold.
KINDS: dict[str, frozenset[str]] = {view.kind: frozenset(view.asset_types) for view in VIEWS}

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
    bindings, every = _read_bindings(connection, limit)
    counts["iam_bindings"] = _proven(len(bindings), whole=whole) if every else None
    lists: dict[str, list[Any]] = {view.kind: _read(connection, view, limit) for view in VIEWS}
    lists |= {"policy_violations": violations, "iam_bindings": bindings}
    cut = {kind for kind, items in lists.items() if len(items) < (counts[kind] or 0)}
    return LZInfrastructureState(
        timestamp=now,
        **lists,
        compliance_score=compliance_score(connection),
        sync_metadata=layer,
        counts=counts,
        truncated=sorted(cut if every else cut | {"iam_bindings"}),
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


def _read(connection: sa.Connection, view: View, limit: int) -> list[BaseModel]:
    query = (
        _described()
        .where(
            resources.c.content_type == "RESOURCE",
            resources.c.asset_type.in_(view.asset_types),
            resources.c.deleted.is_(False),
        )
        .order_by(resources.c.asset_type, resources.c.name)
        .limit(limit)
    )
    return [view.make(row, Data(row.data)) for row in connection.execute(query)]


def _read_bindings(connection: sa.Connection, limit: int) -> tuple[list[IamBinding], bool]:
    """At most ``limit`` bindings, and whether these are all that are known."""
    query = (
        _described()
        .where(resources.c.content_type == ContentType.IAM_POLICY.value, resources.c.deleted.is_(False))
        .order_by(resources.c.asset_type, resources.c.name)
        .execution_options(yield_per=_POLICIES)
    )
    found: list[IamBinding] = []
    with connection.execute(query) as rows:
        for row in rows:
            found += iam_bindings(row, row.data)
            if len(found) > limit:
                return found[:limit], False
    return found, True


#: Policies that are read at once.
_POLICIES = 200


def _described() -> sa.Select[Any]:
    columns = [resources.c[name] for name in ("name", "asset_type", "project", "location", "display_name")]
    return sa.select(*columns, resource_contents.c.data).outerjoin(
        resource_contents, resource_contents.c.id == resources.c.content_id
    )
