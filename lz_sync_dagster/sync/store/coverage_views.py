"""The coverage ledger as the API and the pages show it: row by row, restricted to what a question is about, and as it
was at an instant."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from lz_sync_dagster.sync.errors import Reason
from lz_sync_dagster.sync.models import Coverage, CoverageGap, CoverageStatus
from lz_sync_dagster.sync.store import retention
from lz_sync_dagster.sync.store.coverage import of_counts, standing, unlisted
from lz_sync_dagster.sync.store.schema import coverage, coverage_history, resources
from lz_sync_dagster.sync.timing import format_ns, from_ns


@dataclass(frozen=True, slots=True)
class Parts:
    """Which parts (scope × asset type × content type) a question is about. Nothing given: all."""

    scopes: tuple[str, ...] = ()
    asset_types: tuple[str, ...] = ()
    content_types: tuple[str, ...] = ()

    def conditions(self, table: sa.Table) -> list[sa.ColumnElement[bool]]:
        """As conditions on a table that has the three columns."""
        return [
            table.c[column].in_(values)
            for column, values in (
                ("scope", self.scopes),
                ("asset_type", self.asset_types),
                ("content_type", self.content_types),
            )
            if values
        ]

    def has(self, part: tuple[str, str, str]) -> bool:
        """Whether a part is meant."""
        wanted = (self.scopes, self.asset_types, self.content_types)
        return all(not values or value in values for value, values in zip(part, wanted, strict=True))


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """What is known of one part, with its age taken into account.

    Attributes:
        since: since when status and reason are what they are.
        checked_at: when it was last tried; ``None`` in the past.
        complete_read_ns: its newest complete read, ``None`` if there was none.
        assets: how many that read had.
    """

    scope: str
    asset_type: str
    content_type: str
    status: CoverageStatus
    reason: Reason | None
    detail: str | None
    remedy: str | None
    since: datetime
    checked_at: datetime | None
    complete_read_ns: int | None
    assets: int | None

    @property
    def part(self) -> tuple[str, str, str]:
        """Scope, asset type, content type."""
        return (self.scope, self.asset_type, self.content_type)


@dataclass(frozen=True, slots=True)
class Span:
    """A time through which a part had one status for one reason. ``until``: ``None`` if it still has."""

    id: int
    scope: str
    asset_type: str
    content_type: str
    status: CoverageStatus
    reason: Reason | None
    detail: str | None
    complete_read_ns: int | None
    since: datetime
    until: datetime | None


def ledger(connection: sa.Connection, *, now: datetime, ttl: timedelta, only: Parts | None = None) -> list[LedgerRow]:
    """The ledger's rows in the order of scope, asset type and content type.

    One that no complete read proved within ``ttl`` is stale, as in `coverage.summary`; what is kept of parts that have
    no row is `coverage.unlisted`, among them.
    """
    query = sa.select(coverage).order_by(coverage.c.scope, coverage.c.asset_type, coverage.c.content_type)
    rows = []
    for row in connection.execute(query.where(*(only or Parts()).conditions(coverage))):
        now_so = standing(row, now=now, ttl=ttl)
        rows.append(
            LedgerRow(
                row.scope,
                row.asset_type,
                row.content_type,
                now_so.status,
                now_so.reason,
                now_so.detail,
                now_so.remedy,
                now_so.since,
                row.checked_at,
                row.complete_read_ns,
                row.assets,
            )
        )
    wanted = only or Parts()
    for gap in unlisted(connection):
        part = (gap.scope, gap.asset_type, gap.content_type)
        if wanted.has(part):
            rows.append(LedgerRow(*part, gap.status, gap.reason, gap.detail, gap.remedy, gap.since, None, None, None))
    return sorted(rows, key=lambda row: row.part)


def ledger_at(
    connection: sa.Connection, instant_ns: int, *, ttl: timedelta, only: Parts | None = None
) -> list[LedgerRow]:
    """What the ledger knew at an instant of the past, of every part that it ever spoke of.

    A part without a complete read by then is ``unknown``: what is shown of it is what had not changed until it was
    read, and what was deleted before is missing. So is every part before the instant up to which history was pruned.
    """
    instant = from_ns(instant_ns)
    where = (only or Parts()).conditions(coverage_history)
    history = coverage_history
    first = sa.select(
        history.c.scope, history.c.asset_type, history.c.content_type, sa.func.min(history.c.since).label("first")
    )
    begun = {
        (row.scope, row.asset_type, row.content_type): row.first
        for row in connection.execute(
            first.where(*where).group_by(history.c.scope, history.c.asset_type, history.c.content_type)
        )
    }
    holding = (
        sa.select(history)
        .where(*where, history.c.since <= instant, sa.or_(history.c.until.is_(None), history.c.until > instant))
        .order_by(history.c.id)
    )
    rows: dict[tuple[str, str, str], LedgerRow] = {}
    for span in connection.execute(holding):
        known = _known_at(span, instant_ns, ttl)
        rows[known.part] = known
    for part, since in begun.items():
        if part not in rows:
            rows[part] = _unread(part, since) if since > instant else _unconfigured(part, since)
    pruned_ns = retention.pruned_until_ns(connection)
    if pruned_ns is not None and instant_ns < pruned_ns:
        rows = {part: _pruned(row, pruned_ns) for part, row in rows.items()}
    return [rows[part] for part in sorted(rows)]


def _pruned(row: LedgerRow, pruned_ns: int) -> LedgerRow:
    return replace(
        row,
        status=CoverageStatus.UNKNOWN,
        reason=Reason.PRUNED,
        detail=f"history is whole from {format_ns(pruned_ns)} on: what had ended by then was removed",
        remedy="choose a later instant; to keep more from now on, raise history and coverage_history of the op prune",
        complete_read_ns=None,
    )


def _unconfigured(part: tuple[str, str, str], since: datetime) -> LedgerRow:
    """No span holds, and one began before: no read was asked for."""
    return _unread(part, since, Reason.NOT_CONFIGURED.value, "no read of it was configured then")


def known_since(connection: sa.Connection) -> datetime | None:
    """The earliest instant that the ledger's history speaks of: of what was before, nothing is known. ``None``: it
    speaks of none."""
    since: datetime | None = connection.scalar(sa.select(sa.func.min(coverage_history.c.since)))
    return since


def _known_at(span: sa.Row[tuple[object, ...]], instant_ns: int, ttl: timedelta) -> LedgerRow:
    part = (span.scope, span.asset_type, span.content_type)
    status = CoverageStatus(span.status)
    read_ns = span.complete_read_ns
    if status is not CoverageStatus.COMPLETE and (read_ns is None or read_ns > instant_ns):
        return _unread(part, span.since, span.reason, span.detail)
    reason, detail = (Reason(span.reason) if span.reason else None), span.detail
    # A span tells its last complete read only: one that is later than the instant says nothing about the age then.
    if read_ns is not None and read_ns < instant_ns - ttl // timedelta(microseconds=1) * 1_000:
        status, reason = CoverageStatus.STALE, reason or Reason.TIMEOUT
        detail = detail or f"had not been read completely for {ttl}"
    known_ns = None if read_ns is None or read_ns > instant_ns else read_ns
    return LedgerRow(*part, status, reason, detail, _REMEDY_OF_PAST, span.since, None, known_ns, None)


_REMEDY_OF_PAST = "none: what was not read then cannot be read any more; choose a later instant"


def _unread(
    part: tuple[str, str, str], since: datetime, reason: str | None = None, detail: str | None = None
) -> LedgerRow:
    return LedgerRow(
        *part,
        CoverageStatus.UNKNOWN,
        Reason(reason) if reason else Reason.NOT_READ_YET,
        detail or "had not been read completely by then: what was deleted before the first read is not known",
        _REMEDY_OF_PAST,
        since,
        None,
        None,
        None,
    )


def of_rows(rows: Iterable[LedgerRow]) -> Coverage:
    """The rows in one `Coverage`."""
    counts = dict.fromkeys(CoverageStatus, 0)
    gaps = []
    for row in rows:
        counts[row.status] += 1
        if row.status is not CoverageStatus.COMPLETE:
            gaps.append(
                CoverageGap(
                    scope=row.scope,
                    asset_type=row.asset_type,
                    content_type=row.content_type,
                    status=row.status,
                    reason=row.reason or Reason.NOT_READ_YET,
                    detail=row.detail or "not read yet",
                    remedy=row.remedy or "run 'lz-sync sync inventory'",
                    since=row.since,
                )
            )
    return of_counts(counts, gaps)


def history(
    connection: sa.Connection,
    *,
    now: datetime,
    ttl: timedelta,
    limit: int,
    before: int | None = None,
    only: Parts | None = None,
) -> list[Span]:
    """Spans of the ledger, the newest first: those with an id less than ``before``. A part that was not read completely
    for ``ttl`` is complete no more, though no sync has written it down yet."""
    table = coverage_history
    query = sa.select(table).where(*(only or Parts()).conditions(table)).order_by(table.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(table.c.id < before)
    return [
        Span(
            row.id,
            row.scope,
            row.asset_type,
            row.content_type,
            CoverageStatus(row.status),
            Reason(row.reason) if row.reason else None,
            row.detail,
            row.complete_read_ns,
            row.since,
            row.until if row.until is not None else _expired(row, now, ttl),
        )
        for row in connection.execute(query)
    ]


def _expired(row: sa.Row[Any], now: datetime, ttl: timedelta) -> datetime | None:
    """Since when a span that goes on says too much; ``None`` if it does not."""
    if row.status != CoverageStatus.COMPLETE.value or row.complete_read_ns is None:
        return None
    expired: datetime = max(row.since, from_ns(row.complete_read_ns) + ttl)
    return expired if expired < now else None


def known_assets(connection: sa.Connection, only: Parts) -> dict[tuple[str, str, str], int]:
    """How many assets of each part are kept and not gone."""
    by = (resources.c.scope, resources.c.asset_type, resources.c.content_type)
    query = sa.select(*by, sa.func.count()).where(*only.conditions(resources), resources.c.deleted == sa.false())
    return {
        (scope, asset_type, content_type): number
        for scope, asset_type, content_type, number in connection.execute(query.group_by(*by))
    }
