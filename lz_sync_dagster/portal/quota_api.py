"""The REST API of the quota budget: what is used, what is left, and what the next sync of the inventory would read."""

from __future__ import annotations

from datetime import datetime

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from lz_sync_dagster.portal.answers import ERRORS, Answer
from lz_sync_dagster.portal.context import InPortal
from lz_sync_dagster.sync.inventory.forecast import Forecast, forecast
from lz_sync_dagster.sync.inventory.planner import Mode, ReadPlan
from lz_sync_dagster.sync.models import Coverage, CoverageStatus
from lz_sync_dagster.sync.store.quota import Quota

#: ``source`` of what the portal knows from its own records: calls of others against the same quota are not in them.
OWN_RECORDS = "lz_sync"


class QuotaState(BaseModel):
    """One quota of Cloud Asset Inventory, for all processes of this installation together."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    quota: Quota
    configured: int = Field(description="Calls a minute that the configuration allows.")
    limit: int = Field(description="Calls a minute that are allowed now: less than configured after a 429.")
    used: int = Field(description="Calls that count against the limit now.")
    left: int = Field(description="Calls that could be made now.")
    blocked_until: datetime | None = Field(description="Nobody calls before; null if nobody is asked to wait.")
    calls_per_day: int = Field(description="Calls of the last 24 hours.")
    forecast: int | None = Field(
        description="Expected calls of the next sync; searches and histories may take more. Null if unconfigured."
    )


class PlannedPart(BaseModel):
    """How the next sync would read a part, and why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scope: str
    asset_type: str
    content_type: str
    mode: Mode = Field(description="`full`, `delta` (what changed alone) or `skip`.")
    calls: int | None = Field(description="Calls that it is expected to take; null for a delta, which has one for all.")
    reason: str
    until: datetime | None = Field(description="Until when the reason holds, as far as that is known.")


class PlannedSync(BaseModel):
    """What the next sync of the inventory would read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    full: int
    delta: int
    skip: int
    minutes: float = Field(description="How long its calls take at the quotas' pace; 0 if there is room for all.")
    proof_age_minutes: int = Field(description="Every part is to be proven by a full read that is not older.")
    rotation_minutes: float = Field(description="Within how many minutes each part is proven once, at most.")
    proof_age_attainable: bool = Field(description="Whether the quota permits the proof age.")
    parts: list[PlannedPart]


class QuotaAnswer(Answer):
    """The quotas, and the plan of a sync that would begin now; `plan` is null if no scope is configured."""

    quotas: list[QuotaState]
    plan: PlannedSync | None


router = APIRouter(prefix="/api/v1", responses=ERRORS)


@router.get("/sync/quota", summary="Quotas of Cloud Asset Inventory, and the next sync's plan", tags=["sync"])
def sync_quota(portal: InPortal) -> QuotaAnswer:
    """Used, left and forecast of each quota, counted by this installation: what others use of it is not known here."""
    now = portal.clock()
    config = portal.settings.sync_layers.api_sync
    with portal.store.read() as connection:
        found = forecast(connection, config, now=now)
    return QuotaAnswer(
        as_of=now,
        source=OWN_RECORDS,
        coverage=Coverage(status=CoverageStatus.COMPLETE, complete=1),
        quotas=_quotas(found),
        plan=None if found.plan is None else _plan(found.plan, config.proof_age_minutes),
    )


def _quotas(found: Forecast) -> list[QuotaState]:
    return [
        QuotaState(
            quota=usage.quota,
            configured=usage.configured,
            limit=usage.limit,
            used=usage.used,
            left=usage.left,
            blocked_until=usage.blocked_until,
            calls_per_day=usage.calls_per_day,
            forecast=None if found.plan is None else found.plan.calls.get(usage.quota, 0),
        )
        for usage in found.quotas.values()
    ]


def _plan(plan: ReadPlan, proof_age_minutes: int) -> PlannedSync:
    parts = [
        *(_part(*read.part, Mode.FULL, read.calls, read.reason, None) for read in plan.full),
        *(
            _part(*part, Mode.DELTA, None, "what changed since its last read is looked for", None)
            for delta in plan.deltas
            for part in delta.parts
        ),
        *(_part(*skip.part, Mode.SKIP, 0, skip.reason, skip.until) for skip in plan.skipped),
    ]
    modes = [part.mode for part in parts]
    return PlannedSync(
        full=modes.count(Mode.FULL),
        delta=modes.count(Mode.DELTA),
        skip=modes.count(Mode.SKIP),
        minutes=plan.minutes,
        proof_age_minutes=proof_age_minutes,
        rotation_minutes=plan.rotation_minutes,
        proof_age_attainable=plan.proof_age_attainable,
        parts=parts,
    )


def _part(
    scope: str, asset_type: str, content_type: str, mode: Mode, calls: int | None, reason: str, until: datetime | None
) -> PlannedPart:
    return PlannedPart(
        scope=scope,
        asset_type=asset_type,
        content_type=content_type,
        mode=mode,
        calls=calls,
        reason=reason,
        until=until,
    )
