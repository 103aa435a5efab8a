"""The coverage ledger: for each scope × type × content, is it known, since when, and if not, why.

An error is written here as a row with its reason and remedy. It never becomes an absence of rows. `mark` and `forget`
also keep the ledger's history: the spans of a part follow one another without a gap, each with another status or reason
than the one before, and the newest, which has no end, is what the ledger says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa

from lz_sync_dagster.sync.errors import Reason
from lz_sync_dagster.sync.models import Coverage, CoverageGap, CoverageStatus
from lz_sync_dagster.sync.state.reducer import Part
from lz_sync_dagster.sync.store.schema import coverage, coverage_history, resources
from lz_sync_dagster.sync.timing import from_ns, to_ns

#: How long the last complete read may stand in for one that fails (section 7 of the architecture document).
TTL = timedelta(hours=1)

_KEY = ("scope", "asset_type", "content_type")
_CHUNK = 200


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


def mark(connection: sa.Connection, marks: Sequence[CoverageMark], *, now: datetime, ttl: timedelta = TTL) -> None:
    """Write marks, in their order, and the history with them: a handful of statements, however many marks there are.

    ``since`` keeps its value while status and reason stay the same. A part whose last complete read got older than
    ``ttl`` before ``now`` was stale meanwhile: the history says so.
    """
    if not marks:
        return
    rows = _rows(connection, {_part(item) for item in marks}, lock=True)
    states: dict[Part, dict[str, Any]] = {part: dict(row._mapping) for part, row in rows.items()}
    spans = _Spans()
    ended = _ended(connection, {_part(item) for item in marks} - rows.keys())
    for item in marks:
        part = _part(item)
        # A clock that was set back does not make a part that was forgotten overlap with what it was before.
        at = max(now, ended.get(part, now))
        states[part] = _marked(part, states.get(part), item, spans, now=at, ttl=ttl)
    changed = [states[part] for part in states if part in rows]
    new = [states[part] for part in states if part not in rows]
    if new:
        connection.execute(coverage.insert(), new)
    if changed:
        columns = [column.name for column in coverage.c if column.name not in _KEY]
        connection.execute(
            coverage.update()
            .where(*(coverage.c[name] == sa.bindparam(f"b_{name}") for name in _KEY))
            .values({name: sa.bindparam(f"b_{name}") for name in columns}),
            [{f"b_{name}": value for name, value in values.items()} for values in changed],
        )
    spans.write(connection)


def _marked(
    part: Part, before: dict[str, Any] | None, item: CoverageMark, spans: _Spans, *, now: datetime, ttl: timedelta
) -> dict[str, Any]:
    """The row of a part after a mark. What that does to the history goes to ``spans``."""
    at = now if before is None else max(now, before["since"])
    read_ns = None if before is None else before["complete_read_ns"]
    values: dict[str, Any] = {
        **dict(zip(_KEY, part, strict=True)),
        "status": item.status.value,
        "reason": item.reason.value if item.reason else None,
        "detail": item.detail,
        "remedy": item.remedy,
        "since": at if before is None else before["since"],
        "checked_at": now,
        "complete_read_ns": read_ns,
        "assets": None if before is None else before["assets"],
    }
    if item.complete_read_ns is not None and (read_ns is None or item.complete_read_ns >= read_ns):
        values |= {"complete_read_ns": item.complete_read_ns, "assets": item.assets}
    if before is None:
        spans.open(values)
        return values
    expired = None if read_ns is None else max(from_ns(read_ns) + ttl, before["since"])
    was_stale = before["status"] == CoverageStatus.COMPLETE.value and expired is not None and expired < at
    if was_stale or (before["status"], before["reason"]) != (values["status"], values["reason"]):
        values["since"] = at
        if was_stale and expired is not None:
            spans.close(part, expired, read_ns)
            spans.add(before, expired, at, detail=f"not read completely for {ttl}")
        else:
            spans.close(part, at, read_ns)
        spans.open(values)
    elif values["complete_read_ns"] != read_ns or values["detail"] != before["detail"]:
        spans.move(part, values)
    return values


class _Spans:
    """What is to be written to ``coverage_history``, gathered over the marks of one transaction."""

    def __init__(self) -> None:
        self._ended: dict[Part, dict[str, Any]] = {}
        self._moved: dict[Part, dict[str, Any]] = {}
        self._new: list[dict[str, Any]] = []
        self._open: dict[Part, dict[str, Any]] = {}

    def open(self, values: Mapping[str, Any]) -> None:
        """A span begins with what a row of the ledger says."""
        part = _key(values)
        names = (*_KEY, "status", "reason", "detail", "complete_read_ns", "since")
        self._open[part] = {name: values[name] for name in names} | {"until": None}
        self._new.append(self._open[part])

    def close(self, part: Part, until: datetime, read_ns: int | None) -> None:
        """The part's newest span ends."""
        if part in self._open:
            self._open.pop(part)["until"] = until
        else:
            self._ended[part] = _bound(part, until=until, complete_read_ns=read_ns)

    def add(self, before: Mapping[str, Any], since: datetime, until: datetime, *, detail: str) -> None:
        """A time through which the last complete read was too old."""
        self._new.append(
            {name: before[name] for name in (*_KEY, "complete_read_ns")}
            | {
                "status": CoverageStatus.STALE.value,
                "reason": Reason.TIMEOUT.value,
                "detail": detail,
                "since": since,
                "until": until,
            }
        )

    def move(self, part: Part, values: Mapping[str, Any]) -> None:
        """The part's newest span goes on, with another complete read or detail."""
        moved = {name: values[name] for name in ("complete_read_ns", "detail")}
        if part in self._open:
            self._open[part] |= moved
        else:
            self._moved[part] = _bound(part, **moved)

    def write(self, connection: sa.Connection) -> None:
        """Three statements at most."""
        holds = sa.and_(
            *(coverage_history.c[name] == sa.bindparam(f"b_{name}") for name in _KEY),
            coverage_history.c.until.is_(None),
        )
        moved = [values for part, values in self._moved.items() if part not in self._ended]
        for rows in (moved, list(self._ended.values())):
            if rows:
                columns = [key.removeprefix("b_") for key in rows[0] if key.removeprefix("b_") not in _KEY]
                connection.execute(
                    coverage_history.update()
                    .where(holds)
                    .values({name: sa.bindparam(f"b_{name}") for name in columns}),
                    rows,
                )
        if self._new:
            connection.execute(coverage_history.insert(), self._new)


def _bound(part: Part, **values: Any) -> dict[str, Any]:
    return {f"b_{name}": value for name, value in (*zip(_KEY, part, strict=True), *values.items())}


def forget(connection: sa.Connection, parts: Iterable[Part], *, now: datetime | None = None) -> None:
    """Drop the rows of parts (scope, asset type, content type) that are no longer asked for; their history ends at
    ``now`` (``None``: when they were last looked at) and stays."""
    gone = _rows(connection, set(parts), lock=True)
    spans = _Spans()
    for part, row in gone.items():
        spans.close(part, max(now or row.checked_at, row.since), row.complete_read_ns)
    spans.write(connection)
    if gone:
        connection.execute(
            coverage.delete().where(*(coverage.c[name] == sa.bindparam(f"b_{name}") for name in _KEY)),
            [_bound(part) for part in gone],
        )


def row_of(connection: sa.Connection, part: Part) -> sa.Row[Any] | None:
    """The ledger's row of a part."""
    return _rows(connection, {part}).get(part)


def proven_since(connection: sa.Connection) -> datetime | None:
    """The oldest of the newest complete reads: the instant that all figures together are true at."""
    oldest = connection.scalar(sa.select(sa.func.min(coverage.c.complete_read_ns)))
    return None if oldest is None else from_ns(oldest)


def _rows(connection: sa.Connection, parts: set[Part], *, lock: bool = False) -> dict[Part, sa.Row[Any]]:
    """Rows of parts; with ``lock`` nobody else writes them until the transaction ends."""
    key = sa.tuple_(*(coverage.c[name] for name in _KEY))
    found: dict[Part, sa.Row[Any]] = {}
    wanted = sorted(parts)
    for start in range(0, len(wanted), _CHUNK):
        query = sa.select(coverage).where(key.in_(wanted[start : start + _CHUNK]))
        if lock:
            query = query.with_for_update()
        for row in connection.execute(query):
            found[row.scope, row.asset_type, row.content_type] = row
    return found


def _ended(connection: sa.Connection, parts: set[Part]) -> dict[Part, datetime]:
    """When the history of parts without a row ended, as far as they have one."""
    if not parts:
        return {}
    key = sa.tuple_(*(coverage_history.c[name] for name in _KEY))
    columns = [coverage_history.c[name] for name in _KEY]
    found: dict[Part, datetime] = {}
    wanted = sorted(parts)
    for start in range(0, len(wanted), _CHUNK):
        query = sa.select(*columns, sa.func.max(coverage_history.c.until)).where(
            key.in_(wanted[start : start + _CHUNK]), coverage_history.c.until.is_not(None)
        )
        for *part, until in connection.execute(query.group_by(*columns)):
            scope, asset_type, content_type = part
            found[scope, asset_type, content_type] = until
    return found


def _part(item: CoverageMark) -> Part:
    return (item.scope, item.asset_type, item.content_type)


def _key(values: Mapping[str, Any]) -> Part:
    return (values["scope"], values["asset_type"], values["content_type"])


def types_read(connection: sa.Connection) -> frozenset[str]:
    """Asset types whose resources were read completely at least once, in at least one scope."""
    query = sa.select(coverage.c.asset_type).where(
        coverage.c.content_type == "RESOURCE", coverage.c.complete_read_ns.is_not(None)
    )
    return frozenset(connection.scalars(query.distinct()))


class Standing(NamedTuple):
    """How a part stands at an instant."""

    status: CoverageStatus
    reason: Reason | None
    detail: str | None
    remedy: str | None
    since: datetime


def standing(row: sa.Row[Any], *, now: datetime, ttl: timedelta) -> Standing:
    """How the part of a row of the ledger stands: what no complete read proved within ``ttl`` is stale."""
    status, reason = CoverageStatus(row.status), Reason(row.reason) if row.reason else None
    if row.complete_read_ns is None or row.complete_read_ns >= to_ns(now - ttl):
        return Standing(status, reason, row.detail, row.remedy, row.since)
    read_at = from_ns(row.complete_read_ns)
    return Standing(
        CoverageStatus.STALE,
        reason or Reason.TIMEOUT,
        row.detail or f"not read completely since {read_at:%Y-%m-%d %H:%M:%S} UTC",
        row.remedy or "run 'lz-sync sync inventory' and look at its errors",
        max(row.since, read_at + ttl) if status is CoverageStatus.COMPLETE else row.since,
    )


def summary(connection: sa.Connection, *, now: datetime, ttl: timedelta) -> Coverage:
    """The whole ledger in one `Coverage`. A row that no complete read proved within ``ttl`` counts as stale.

    A gap that was once read completely keeps serving the last good copy: it is ``partial`` until ``ttl``, then
        ``stale``. What is kept of a part that has no row is a gap too: see `unlisted`.
    """
    rows = connection.execute(
        sa.select(coverage).order_by(coverage.c.scope, coverage.c.asset_type, coverage.c.content_type)
    ).all()
    counts = dict.fromkeys(CoverageStatus, 0)
    gaps: list[CoverageGap] = []
    for row in rows:
        status, reason, detail, remedy, since = standing(row, now=now, ttl=ttl)
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
                    since=since,
                )
            )
    for gap in unlisted(connection):
        counts[gap.status] += 1
        gaps.append(gap)
    return of_counts(counts, gaps)


def unlisted(connection: sa.Connection) -> list[CoverageGap]:
    """Parts of which something is kept as existing, though no row of the ledger stands for them: nothing reads them.

    Such is what a scope or type leaves behind that was taken out of the configuration, and what the feed tells of a
    type that no read asks for. It costs a few steps in an index per part, however many resources there are.
    """
    found = connection.execute(_UNLISTED).all()
    if not found:
        return []
    begun = connection.scalar(sa.select(sa.exists().where(coverage.c.scope.is_not(None))))
    reason = Reason.NOT_CONFIGURED if begun else Reason.NOT_READ_YET
    return [
        CoverageGap(
            scope=row.scope,
            asset_type=row.asset_type,
            content_type=row.content_type,
            status=CoverageStatus.UNKNOWN,
            reason=reason,
            detail=_NOT_CONFIGURED if begun else "told by the feed, and no read has begun yet",
            remedy=_CONFIGURE if begun else "run 'lz-sync sync inventory'",
            since=row.since,
        )
        for row in sorted(found)
    ]


_NOT_CONFIGURED = "no longer configured, or never: what is kept of it is not read, and may be gone since"
_CONFIGURE = "add the scope, the endpoint or the content type to sync_layers.api_sync; what is kept stays until then"


def walked_scopes() -> sa.CTE:
    """The scopes of all resources, and at last ``NULL``, each found from the one before it: neither engine skips
    through an index by itself, so a ``DISTINCT`` would look at every row."""
    scope = resources.c.scope
    scopes = sa.select(sa.func.min(scope).label("scope")).cte("scopes", recursive=True)
    beyond = sa.select(sa.func.min(scope)).where(scope > scopes.c.scope).correlate(scopes).scalar_subquery()
    return scopes.union_all(sa.select(beyond).where(scopes.c.scope.is_not(None)))


def _unlisted() -> sa.Select[Any]:
    """Each level of the key is walked from one value to the next, like `walked_scopes`."""
    r = resources.c
    scopes = walked_scopes()
    first = sa.select(sa.func.min(r.content_type)).where(r.scope == scopes.c.scope).correlate(scopes)
    contents = sa.select(scopes.c.scope, first.scalar_subquery().label("content_type")).where(
        scopes.c.scope.is_not(None)
    )
    walked = contents.cte("contents", recursive=True)
    later = sa.select(sa.func.min(r.content_type)).where(
        r.scope == walked.c.scope, r.content_type > walked.c.content_type
    )
    walked = walked.union_all(
        sa.select(walked.c.scope, later.correlate(walked).scalar_subquery()).where(walked.c.content_type.is_not(None))
    )
    mine = (r.scope == walked.c.scope, r.content_type == walked.c.content_type)
    start = sa.select(sa.func.min(r.asset_type)).where(*mine).correlate(walked).scalar_subquery()
    parts = (
        sa.select(walked.c.scope, walked.c.content_type, start.label("asset_type"))
        .where(walked.c.content_type.is_not(None))
        .cte("parts", recursive=True)
    )
    after = sa.select(sa.func.min(r.asset_type)).where(
        r.scope == parts.c.scope, r.content_type == parts.c.content_type, r.asset_type > parts.c.asset_type
    )
    parts = parts.union_all(
        sa.select(parts.c.scope, parts.c.content_type, after.correlate(parts).scalar_subquery()).where(
            parts.c.asset_type.is_not(None)
        )
    )
    listed = sa.exists().where(*(coverage.c[name] == parts.c[name] for name in _KEY)).correlate(parts)
    kept = sa.exists().where(*(r[name] == parts.c[name] for name in _KEY), r.deleted.is_(False)).correlate(parts)
    ended = sa.select(sa.func.max(coverage_history.c.until)).where(
        *(coverage_history.c[name] == parts.c[name] for name in _KEY)
    )
    # Of a part that never had a row, one of its resources says since when: to look for the first would be to read all.
    told = sa.select(r.changed_at).where(*(r[name] == parts.c[name] for name in _KEY), r.deleted.is_(False)).limit(1)
    since = sa.func.coalesce(ended.correlate(parts).scalar_subquery(), told.correlate(parts).scalar_subquery())
    return sa.select(
        *(parts.c[name] for name in _KEY), sa.type_coerce(since, coverage_history.c.until.type).label("since")
    ).where(parts.c.asset_type.is_not(None), ~listed, kept)


_UNLISTED = _unlisted()


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
