"""The REST API: read-only, JSON, every answer with ``as_of``, ``source`` and ``coverage``.

Handlers are plain functions, so that the database is read in a worker thread.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.portal.answers import ERRORS, Answer, InPage, Limit, layer_status
from lz_sync_dagster.portal.context import InPortal
from lz_sync_dagster.sync.compliance.verdict import Severity
from lz_sync_dagster.sync.inventory.views import infrastructure_state
from lz_sync_dagster.sync.models import (
    Coverage,
    CoverageStatus,
    LZInfrastructureState,
    Status,
    SyncStatus,
    Violation,
)
from lz_sync_dagster.sync.store import coverage as coverage_ledger
from lz_sync_dagster.sync.store import findings, inbox, layer_runs
from lz_sync_dagster.sync.store.inbox import DeliveryRecord, DeliveryStatus

#: ``source`` of what the portal knows from its own records.
OWN_RECORDS = "lz_sync"
#: Paths that a delivery lists; ``touched_total`` has their number.
TOUCHED_SHOWN = 50


class SyncStatusAnswer(Answer):
    """Health of the five layers, in their order."""

    layers: list[SyncStatus]


class CoverageAnswer(Answer):
    """The coverage ledger: counts, and every gap with its remedy."""


class SyncRun(BaseModel):
    """One sync of one layer. The item counts are null while they are not known: under way, or failed."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "id": 812,
                    "layer": "api",
                    "status": "success",
                    "triggered_by": "schedule",
                    "started_at": "2026-03-01T11:55:00Z",
                    "finished_at": "2026-03-01T11:55:09Z",
                    "items_synced": 20154,
                    "items_changed": 3,
                    "attempts": 1,
                    "errors": [],
                }
            ]
        },
    )

    id: int
    layer: LayerId
    status: Status
    triggered_by: str
    started_at: datetime
    finished_at: datetime | None
    items_synced: int | None
    items_changed: int | None
    attempts: int
    errors: list[str]


class SyncRunsAnswer(Answer):
    """A page of syncs, the newest first."""

    items: list[SyncRun]
    next_cursor: str | None = Field(description="`cursor` of the next page; null on the last one.")


class DeliveryRepair(BaseModel):
    """GitHub could not deliver it (`failure`) and was asked to send it again: `requested`, `delivered`, `given_up`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    outcome: str
    failure: str
    attempts: int


class Delivery(BaseModel):
    """What asked for a sync: a webhook delivery, a head that polling found, or a change for another layer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: int
    delivery_id: str
    layer: LayerId = Field(description="Which layer is to sync.")
    event: str = Field(
        description="GitHub's event; `head_poll` if polling found it; `terraform_change`, `breaker_confirmed`."
    )
    action: str | None
    repository: str
    ref: str | None
    actor: str | None
    commit_claim: str | None = Field(description="The commit that the sender claims.")
    touched: list[str] | None = Field(description="Paths that a push changed, the first 50; null if not known.")
    touched_total: int | None
    status: DeliveryStatus
    reason: str | None = Field(description="Why it is ignored.")
    received_at: datetime
    finished_at: datetime | None
    resolved_sha: str | None = Field(description="The head of the sync that settled it.")
    claim: str | None = Field(description="Whether that head reaches the claimed commit: `reached` or `absent`.")
    missed: bool = Field(description="Polling found this head, and no delivery has told of it to this day.")
    late_seconds: float | None = Field(description="How long after polling had found it a delivery told of the head.")
    repair: DeliveryRepair | None


class DeliveriesAnswer(Answer):
    """A page of deliveries, the newest first."""

    items: list[Delivery]
    next_cursor: str | None = Field(description="`cursor` of the next page; null on the last one.")


class ViolationsAnswer(Answer):
    """A page of open violations, the longest known first."""

    items: list[Violation]
    next_cursor: str | None = Field(description="`cursor` of the next page; null on the last one.")


router = APIRouter(prefix="/api/v1", responses=ERRORS)


@router.get("/sync/status", summary="Health of the five layers", tags=["sync"])
def sync_status(portal: InPortal) -> SyncStatusAnswer:
    """Status, age, items, errors and next sync of every layer. A layer that never synced is `unknown`, not fine."""
    now = portal.clock()
    with portal.store.read() as connection:
        layers = layer_runs.statuses(connection, now=now, disabled=portal.settings.disabled_layers)
        ledger = coverage_ledger.summary(connection, now=now, ttl=layer_runs.CACHE_TTL)
    return SyncStatusAnswer(layers=layers, as_of=now, source=OWN_RECORDS, coverage=ledger)


@router.get("/sync/infrastructure-state", summary="The landing zone as it is known now", tags=["state"])
def state(portal: InPortal, limit: Limit = 1000) -> LZInfrastructureState:
    """Projects, networks, instances, clusters, databases and violations, each list cut at `limit`.

    `counts` has the totals, `truncated` names the lists that were cut.
    """
    with portal.store.read() as connection:
        return infrastructure_state(
            connection, now=portal.clock(), disabled=portal.settings.disabled_layers, limit=limit
        )


@router.get("/sync/runs", summary="Syncs, the newest first", tags=["sync"])
def sync_runs(
    portal: InPortal,
    page: InPage,
    layer: Annotated[LayerId | None, Query(description="Only this layer's.")] = None,
    limit: Limit = 100,
) -> SyncRunsAnswer:
    """The record of every sync: who asked, how long it took, what it changed, how it ended."""
    before = page.read_number()
    with portal.store.read() as connection:
        rows = layer_runs.recent(connection, limit=limit + 1, layer=layer, before=before)
    items = [_run(row) for row in rows[:limit]]
    return SyncRunsAnswer(
        items=items,
        next_cursor=page.write_number(items[-1].id) if len(rows) > limit else None,
        as_of=portal.clock(),
        source=OWN_RECORDS,
        coverage=Coverage(status=CoverageStatus.COMPLETE, complete=1),
    )


def _run(row: Any) -> SyncRun:
    known = row.status in (Status.SUCCESS, Status.PARTIAL)
    return SyncRun(
        id=row.id,
        layer=row.layer,
        status=row.status,
        triggered_by=row.triggered_by,
        started_at=row.started_at,
        finished_at=row.finished_at,
        items_synced=row.items_synced if known else None,
        items_changed=row.items_changed if known else None,
        attempts=row.attempts,
        errors=row.errors,
    )


@router.get("/sync/deliveries", summary="What asked for a sync, the newest first", tags=["sync"])
def deliveries(portal: InPortal, page: InPage, limit: Limit = 100) -> DeliveriesAnswer:
    """The inbox: webhook deliveries, heads that polling found since their webhook was missed, changes for other layers.

    `missed` and `late_seconds` say what is known now: a delivery that comes afterwards is late, not missed.
    """
    with portal.store.read() as connection:
        rows = inbox.records(connection, limit=limit + 1, before=page.read_number())
    return DeliveriesAnswer(
        items=[_delivery(row) for row in rows[:limit]],
        next_cursor=page.write_number(rows[limit - 1].id) if len(rows) > limit else None,
        as_of=portal.clock(),
        source=OWN_RECORDS,
        coverage=Coverage(status=CoverageStatus.COMPLETE, complete=1),
    )


def _delivery(row: DeliveryRecord) -> Delivery:
    return Delivery(
        id=row.id,
        delivery_id=row.delivery_id,
        layer=row.layer,
        event=row.event,
        action=row.action,
        repository=row.repository,
        ref=row.ref,
        actor=row.actor,
        commit_claim=row.commit_claim,
        touched=None if row.touched is None else list(row.touched[:TOUCHED_SHOWN]),
        touched_total=None if row.touched is None else len(row.touched),
        status=row.status,
        reason=row.reason,
        received_at=row.received_at,
        finished_at=row.finished_at,
        resolved_sha=row.resolved_sha,
        claim=row.claim,
        missed=row.missed,
        late_seconds=None if row.late is None else row.late.total_seconds(),
        repair=None
        if row.repair is None
        else DeliveryRepair(outcome=row.repair.outcome, failure=row.repair.failure, attempts=row.repair.attempts),
    )


@router.get("/coverage", summary="What is known, what is not, and why", tags=["state"])
def coverage(portal: InPortal) -> CoverageAnswer:
    """One count per scope × type × content, and every gap with the role or API that is missing."""
    now = portal.clock()
    with portal.store.read() as connection:
        ledger = coverage_ledger.summary(connection, now=now, ttl=layer_runs.CACHE_TTL)
        inventory = layer_status(connection, portal, LayerId.API, now)
    return CoverageAnswer(as_of=inventory.as_of, source=inventory.source, coverage=ledger)


@router.get("/violations", summary="Open violations", tags=["state"])
def violations(
    portal: InPortal,
    page: InPage,
    severity: Annotated[list[Severity] | None, Query(description="Only these severities.")] = None,
    limit: Limit = 100,
) -> ViolationsAnswer:
    """Controls that a resource does not meet now. What was not read or not decided is not here: see `coverage`."""
    after = page.read_number()
    with portal.store.read() as connection:
        rows = findings.open_violations(connection, limit=limit + 1, after=after or 0, severities=severity or ())
        inventory = layer_status(connection, portal, LayerId.API, portal.clock())
    return ViolationsAnswer(
        items=[violation for _, violation in rows[:limit]],
        next_cursor=page.write_number(rows[limit - 1][0]) if len(rows) > limit else None,
        as_of=inventory.as_of,
        source=inventory.source,
        coverage=inventory.coverage,
    )
