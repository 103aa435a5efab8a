"""The REST API of what a person has to look at: alerts, the mass-delete breaker, and the audit log."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Security
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from lz_sync_dagster.portal.answers import ERRORS, Answer, InPage, Limit, NextCursor
from lz_sync_dagster.portal.context import InPortal, Portal
from lz_sync_dagster.portal.operators import Refused, operator_of
from lz_sync_dagster.portal.problems import STATUS_OF_REASON, Problem
from lz_sync_dagster.sync.errors import SyncError
from lz_sync_dagster.sync.models import Coverage, CoverageStatus
from lz_sync_dagster.sync.store import alerts, audit, breakers, reads
from lz_sync_dagster.sync.store.breakers import OpenBreaker
from lz_sync_dagster.sync.timing import from_ns

#: ``source`` of what the portal knows from its own records.
OWN_RECORDS = "lz_sync"
#: Names that the list of breakers shows of each.
SAMPLE = 10
#: Deletions that a confirmation makes before it answers; the next sync, which it asks for, makes the rest.
AT_ONCE = 5_000

#: Text that every database takes.
_TEXT = r"^[^\x00]*$"
_WHOLE = Coverage(status=CoverageStatus.COMPLETE, complete=1)


class Breaker(BaseModel):
    """So many assets of a part vanished at once that nothing was deleted; a person is asked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scope: str
    asset_type: str
    content_type: str
    known: int = Field(description="How many assets were known.")
    lost: int = Field(description="How many of them vanished.")
    since: datetime
    read_at: datetime = Field(description="The read that lacks them.")
    fingerprint: str = Field(description="Of the names of what vanished; a confirmation names it.")
    sample: list[str] = Field(description=f"The first {SAMPLE} names.")


class BreakersAnswer(Answer):
    """What waits for a person, the longest first."""

    items: list[Breaker]


class LossesAnswer(Answer):
    """A page of the full resource names of what vanished from a part, in their order."""

    items: list[str]
    fingerprint: str
    next_cursor: NextCursor


class Confirmation(BaseModel):
    """What an operator confirms: the deletion of what vanished from a part, as it was shown."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scope: str = Field(max_length=128, pattern=_TEXT)
    asset_type: str = Field(max_length=128, pattern=_TEXT)
    content_type: str = Field(max_length=16, pattern=_TEXT)
    fingerprint: str = Field(max_length=32, description="As `GET /api/v1/breakers` showed it.")


class ConfirmationAnswer(Answer):
    """What became of a confirmation."""

    lost: int
    deleted: int = Field(description="How many were deleted by now; what came back since is not deleted.")
    remaining: int = Field(description="How many the next sync deletes, which was asked for.")


class Alert(BaseModel):
    """Something that a person has to look at, and that has not ended yet."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    subject: str = Field(description="What it is about; one alert of a name is open per subject.")
    severity: str
    message: str
    opened_at: datetime


class AlertsAnswer(Answer):
    """Every open alert, the oldest first."""

    items: list[Alert]


class AuditEntry(BaseModel):
    """Who did what to what, or was refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: int
    at: datetime
    actor: str = Field(description="`cli:NAME`, `api:NAME`; `api:unknown` for somebody without a valid token.")
    action: str = Field(description="`confirm_deletions`, or `refused`: then `details.action` says what.")
    target: str
    details: dict[str, Any]


class AuditAnswer(Answer):
    """A page of the audit log, the newest first."""

    items: list[AuditEntry]
    next_cursor: NextCursor


router = APIRouter(prefix="/api/v1", responses=ERRORS)

Part = Annotated[str, Query(max_length=128, pattern=_TEXT)]


@router.get("/alerts", summary="What a person has to look at", tags=["operations"])
def list_alerts(portal: InPortal) -> AlertsAnswer:
    """Open alerts. Each is resolved by what it asks for, or when its cause is gone."""
    with portal.store.read() as connection:
        items = [Alert(**asdict(item)) for item in alerts.open_alerts(connection)]
    return AlertsAnswer(as_of=portal.clock(), source=OWN_RECORDS, coverage=_WHOLE, items=items)


@router.get("/breakers", summary="Deletions that wait for a person", tags=["operations"])
def list_breakers(portal: InPortal) -> BreakersAnswer:
    """Parts that lost too many assets at once. Nothing of them is deleted until an operator confirms it."""
    with portal.store.read() as connection:
        items = [
            _breaker(item, breakers.losses(connection, item.part, limit=SAMPLE))
            for item in breakers.open_breakers(connection)
        ]
    return BreakersAnswer(as_of=portal.clock(), source=OWN_RECORDS, coverage=_WHOLE, items=items)


@router.get("/breakers/losses", summary="What vanished from a part", tags=["operations"])
def list_losses(
    portal: InPortal, scope: Part, asset_type: Part, content_type: Part, page: InPage, limit: Limit = 100
) -> LossesAnswer:
    """All names. `fingerprint` changes if a sync renews the breaker between two pages: begin again then."""
    part = (scope, asset_type, content_type)
    place = page.read_place(str)
    with portal.store.read() as connection:
        found = breakers.find(connection, part)
        names = breakers.losses(connection, part, limit=limit + 1, after=place[0] if place else "")
    return LossesAnswer(
        as_of=from_ns(found.read_ns),
        source=OWN_RECORDS,
        coverage=_WHOLE,
        items=names[:limit],
        fingerprint=found.fingerprint,
        next_cursor=page.write_place(names[limit - 1]) if len(names) > limit else None,
    )


def in_name_of(request: Request, portal: InPortal) -> str:
    """The operator who makes a request. A refusal is in the audit log, within bounds."""
    try:
        return operator_of(request.headers, portal.settings.operators)
    except Refused as error:
        _refused(portal, "unknown", request.url.path, error.status, error.detail)
        raise HTTPException(error.status, error.detail, error.headers) from error


Operator = Annotated[str, Depends(in_name_of)]

_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "content": {"application/problem+json": {}}, "description": description}
    for status, description in (
        (401, "The operator's token is missing or wrong."),
        (403, "No operator is configured, or a page of another host asks."),
        (404, "No deletions of this part wait."),
        (409, "What vanished has changed since it was looked at."),
        (415, "The body is not JSON."),
    )
}


@router.post(
    "/breakers/confirm",
    summary="Confirm deletions",
    tags=["operations"],
    responses=_REFUSALS,
    dependencies=[Security(HTTPBearer(auto_error=False, description="A token of LZ_SYNC_OPERATOR_TOKENS."))],
)
def confirm(portal: InPortal, operator: Operator, wanted: Confirmation) -> ConfirmationAnswer:
    """An operator says that the deletions were meant: they are made, and the audit log says who it was."""
    part = (wanted.scope, wanted.asset_type, wanted.content_type)
    try:
        done = reads.confirm_losses(
            portal.store,
            part,
            fingerprint=wanted.fingerprint,
            actor=f"api:{operator}",
            clock=portal.clock,
            limit=AT_ONCE,
        )
    except SyncError as error:
        _refused(portal, operator, "/".join(part), STATUS_OF_REASON.get(error.reason, 503), str(error))
        raise
    return ConfirmationAnswer(
        as_of=portal.clock(),
        source=OWN_RECORDS,
        coverage=_WHOLE,
        lost=done.lost,
        deleted=done.deleted,
        remaining=done.remaining,
    )


@router.get("/audit", summary="Who did what, the newest first", tags=["operations"])
def audit_lines(
    portal: InPortal,
    page: InPage,
    action: Annotated[Literal["confirm_deletions", "refused"] | None, Query(description="Only this action.")] = None,
    limit: Limit = 100,
) -> AuditAnswer:
    """The audit log: confirmations, and what was refused."""
    with portal.store.read() as connection:
        lines = audit.recent(connection, limit=limit + 1, before=page.read_number(), action=action)
    return AuditAnswer(
        as_of=portal.clock(),
        source=OWN_RECORDS,
        coverage=_WHOLE,
        items=[
            AuditEntry(
                id=line.id,
                at=line.at,
                actor=line.actor,
                action=line.action,
                target=line.target,
                details=line.details,
            )
            for line in lines[:limit]
        ],
        next_cursor=page.write_number(lines[limit - 1].id) if len(lines) > limit else None,
    )


def _refused(portal: Portal, actor: str, target: str, status: int, detail: str) -> None:
    audit.record_refusal(
        portal.store,
        actor=f"api:{actor}",
        action=breakers.CONFIRMED,
        target=target,
        details={"status": status, "detail": detail},
        now=portal.clock(),
    )


def _breaker(item: OpenBreaker, sample: list[str]) -> Breaker:
    scope, asset_type, content_type = item.part
    return Breaker(
        scope=scope,
        asset_type=asset_type,
        content_type=content_type,
        known=item.known,
        lost=item.lost,
        since=item.opened_at,
        read_at=from_ns(item.read_ns),
        fingerprint=item.fingerprint,
        sample=sample,
    )
