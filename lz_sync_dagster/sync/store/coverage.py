"""The coverage ledger: for each scope × type × content, is it known, since when, and if not, why.

An error is written here as a row with its reason and remedy. It never becomes an absence of rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from lz_sync_dagster.sync.errors import Reason
from lz_sync_dagster.sync.models import Coverage, CoverageGap, CoverageStatus
from lz_sync_dagster.sync.store.schema import coverage
from lz_sync_dagster.sync.timing import to_ns


@dataclass(frozen=True, slots=True)
class CoverageMark:
    """What one read says of one scope × type × content.

    ``complete_read_ns`` and ``assets`` are set by a complete read only, and survive a later gap.
    """

    scope: str
    asset_type: str
    content_type: str
    status: CoverageStatus
    reason: Reason | None = None
    detail: str | None = None
    remedy: str | None = None
    complete_read_ns: int | None = None
    assets: int | None = None


def mark(connection: sa.Connection, marks: list[CoverageMark], *, now: datetime) -> None:
    """Write marks. ``since`` keeps its value while status and reason stay the same."""
    for item in marks:
        key = sa.and_(
            coverage.c.scope == item.scope,
            coverage.c.asset_type == item.asset_type,
            coverage.c.content_type == item.content_type,
        )
        before = connection.execute(sa.select(coverage).where(key)).one_or_none()
        values: dict[str, Any] = {
            "status": item.status.value,
            "reason": item.reason.value if item.reason else None,
            "detail": item.detail,
            "remedy": item.remedy,
            "checked_at": now,
        }
        if item.complete_read_ns is not None:
            values |= {"complete_read_ns": item.complete_read_ns, "assets": item.assets}
        if before is None:
            connection.execute(
                coverage.insert().values(
                    scope=item.scope,
                    asset_type=item.asset_type,
                    content_type=item.content_type,
                    since=now,
                    **values,
                )
            )
        else:
            if (before.status, before.reason) != (values["status"], values["reason"]):
                values["since"] = now
            connection.execute(coverage.update().where(key).values(**values))


def forget(connection: sa.Connection, parts: Iterable[tuple[str, str, str]]) -> None:
    """Drop the rows of parts (scope, asset type, content type) that are no longer asked for."""
    for scope, asset_type, content_type in parts:
        connection.execute(
            coverage.delete().where(
                coverage.c.scope == scope,
                coverage.c.asset_type == asset_type,
                coverage.c.content_type == content_type,
            )
        )


def types_read(connection: sa.Connection) -> frozenset[str]:
    """Asset types whose resources were read completely at least once, in at least one scope."""
    query = sa.select(coverage.c.asset_type).where(
        coverage.c.content_type == "RESOURCE", coverage.c.complete_read_ns.is_not(None)
    )
    return frozenset(connection.scalars(query.distinct()))


def summary(connection: sa.Connection, *, now: datetime, ttl: timedelta) -> Coverage:
    """The whole ledger in one `Coverage`. A row that no complete read proved within ``ttl`` counts as stale.

    A gap that was once read completely keeps serving the last good copy: it is ``partial`` until ``ttl``, then
        ``stale``.
    """
    rows = connection.execute(
        sa.select(coverage).order_by(coverage.c.scope, coverage.c.asset_type, coverage.c.content_type)
    ).all()
    counts = dict.fromkeys(CoverageStatus, 0)
    gaps: list[CoverageGap] = []
    oldest_fresh = to_ns(now - ttl)
    for row in rows:
        status = CoverageStatus(row.status)
        reason = Reason(row.reason) if row.reason else None
        detail, remedy = row.detail, row.remedy
        if row.complete_read_ns is not None and row.complete_read_ns < oldest_fresh:
            status = CoverageStatus.STALE
            reason = reason or Reason.TIMEOUT
            detail = detail or f"not read completely for {ttl}"
            remedy = remedy or "run 'lz-sync sync inventory' and look at its errors"
        counts[status] += 1
        if status is not CoverageStatus.COMPLETE:
            gaps.append(
                CoverageGap(
                    scope=row.scope,
                    asset_type=row.asset_type,
                    content_type=row.content_type,
                    status=status,
                    reason=reason or Reason.NOT_READ_YET,
                    detail=detail or "not read yet",
                    remedy=remedy or "run 'lz-sync sync inventory'",
                    since=row.since,
                )
            )
    return of_counts(counts, gaps)


def of_counts(counts: Mapping[CoverageStatus, int], gaps: list[CoverageGap]) -> Coverage:
    """A `Coverage` of rows that were counted by status, with its overall status."""
    return Coverage(
        status=_overall(counts),
        complete=counts[CoverageStatus.COMPLETE],
        partial=counts[CoverageStatus.PARTIAL],
        stale=counts[CoverageStatus.STALE],
        unknown=counts[CoverageStatus.UNKNOWN],
        gaps=gaps,
    )


def _overall(counts: Mapping[CoverageStatus, int]) -> CoverageStatus:
    total = sum(counts.values())
    if counts[CoverageStatus.UNKNOWN] == total:
        return CoverageStatus.UNKNOWN
    if counts[CoverageStatus.COMPLETE] == total:
        return CoverageStatus.COMPLETE
    if counts[CoverageStatus.STALE] == total:
        return CoverageStatus.STALE
    return CoverageStatus.PARTIAL
