"""Reads of a part (scope × asset type × content): what one begins with, and what a complete one proves.

A read compares fingerprints of bytes with those of the rows, so an unchanged asset is neither decoded nor looked up.
Whether a complete read lacks something is counted, and what it lacks is found by one pass over the part's rows, both
outside of any write transaction; the writes that
follow are short, and each looks again at the rows that it changes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.errors import Reason
from lz_sync_dagster.sync.models import CoverageStatus, EventType
from lz_sync_dagster.sync.state.observation import Source
from lz_sync_dagster.sync.state.reducer import Breaker, Change, Ledger, Part
from lz_sync_dagster.sync.store import (
    assets,
    breakers,
    coverage,
    event_log,
    feed_freshness,
    findings,
    inbox,
    layer_runs,
)
from lz_sync_dagster.sync.store.coverage import CoverageMark
from lz_sync_dagster.sync.store.engine import Store, in_chunks
from lz_sync_dagster.sync.store.event_log import NewEvent
from lz_sync_dagster.sync.store.findings import Judged
from lz_sync_dagster.sync.store.schema import resource_versions, resources, snapshots
from lz_sync_dagster.sync.timing import Clock, format_ns, from_ns

_CHUNK = 500
#: How many complete and incomplete reads the ledger keeps per part.
_LEDGER_ROWS = 20


@dataclass(slots=True)
class Base:
    """What the store knew of a part when a read of it began.

    Attributes:
        seen: the fingerprint of each row that is there and that no read lacked since → whether this read saw it.
        rows: how many assets were there.
        written: the store's last write of resources; what is written later came beside the read.
        baseline: no read of the part ever reached its last page.
        elsewhere: fingerprints of rows that belong to scopes within this part's scope: it shows them, too.
    """

    part: Part
    seen: dict[bytes, bool]
    rows: int
    written: int
    baseline: bool
    elsewhere: frozenset[bytes] = frozenset()


@dataclass(frozen=True, slots=True)
class ReadResult:
    """What a complete read of one part changed. ``withheld``: the breaker is open and nothing was deleted."""

    deleted: int
    missing: int
    withheld: bool
    lost: int
    known: int


def ancestors_of(connection: sa.Connection, scopes: Sequence[str]) -> dict[str, list[str]]:
    """Of each scope that has resources, the ancestors of one of them: where the scope lies."""
    found: dict[str, list[str]] = {}
    for scope in scopes:
        sample = connection.scalar(sa.select(resources.c.ancestors).where(resources.c.scope == scope).limit(1))
        if sample:
            found[scope] = list(sample)
    return found


def base_of(connection: sa.Connection, part: Part, *, within: Sequence[str] = ()) -> Base:
    """What a read of a part begins with. Memory: some 200 bytes per asset of the part.

    Args:
        within: other scopes that are read and that lie within the part's scope, see `ancestors_of`.
    """
    known = connection.execute(
        sa.select(resources.c.fingerprint).where(
            _here(part), resources.c.absent_ns.is_(None), resources.c.fingerprint.is_not(None)
        )
    )
    seen: dict[bytes, bool] = {}
    for rows in known.partitions(10_000):
        seen.update((bytes(row[0]), False) for row in rows)
    count = connection.scalar(sa.select(sa.func.count()).select_from(resources).where(_here(part)))
    elsewhere: frozenset[bytes] = frozenset()
    if within:
        inner = sa.select(resources.c.fingerprint).where(
            resources.c.scope.in_(within),
            resources.c.asset_type == part[1],
            resources.c.content_type == part[2],
            resources.c.deleted.is_(False),
            resources.c.absent_ns.is_(None),
            resources.c.fingerprint.is_not(None),
        )
        elsewhere = frozenset(bytes(value) for value in connection.scalars(inner))
    return Base(part, seen, int(count or 0), assets.written(connection), not was_read(connection, part), elsewhere)


def finish_read(
    store: Store,
    base: Base,
    *,
    read_ns: int,
    names: set[str],
    total: int,
    layer: LayerId,
    clock: Clock,
    breaker: Breaker,
) -> ReadResult:
    """Say that a part was read completely: what it lacks is marked absent, and gone after the second time in a row.

    To be called after all of the read's observations were applied. Cut short, it leaves a state from which the next
    complete read of the part comes to the same end.

    Args:
        base: what the read began with; its ``seen`` says which fingerprints the read saw.
        read_ns: the snapshot's read time.
        names: the full resource names of the assets that were decoded, since their bytes were not known.
        total: how many assets the read holds.
        breaker: if it opens, the read does not count for absence, nothing is deleted, and an alert asks a person.
    """
    part = base.part
    confirmed = 0
    while True:
        with store.read() as connection:
            waiting = breakers.state(connection, part)
            ledger = assets.ledger_of(connection, part)
            looked_at = assets.written(connection)
            known, lacking = _lacking(connection, base, names, total)
        if waiting is not None and waiting.confirmed_at is not None:
            confirmed += apply_confirmed(store, part, clock=clock)
            continue
        marks, lost = _conclusions(lacking, ledger, read_ns)
        for chunk in in_chunks(
            marks, _CHUNK
        ):  # also of a read that is withheld: it counts as soon as a person confirms it
            with store.write(exclusive=assets.LOCK) as connection:
                _mark_absent(connection, part, chunk, written=looked_at)
        if not breaker.opens(known=known, lost=len(lost)):
            break
        with store.write(exclusive=assets.LOCK) as connection:
            if breakers.state(connection, part) != waiting:
                continue  # somebody confirmed it while this looked: what is left is looked at anew
            _record(connection, part, read_ns=read_ns, complete=False, total=total, now=clock())
            breakers.open_breaker(connection, part, known=known, names=lost, read_ns=read_ns, now=clock())
            reason = breakers.waiting(part, known=known, lost=len(lost))
            gap = CoverageMark(*part, CoverageStatus.PARTIAL, reason.reason, reason.what, reason.remedy)
            coverage.mark(connection, [gap], now=clock())
        return ReadResult(deleted=confirmed, missing=len(marks), withheld=True, lost=len(lost), known=known)
    with store.write(exclusive=assets.LOCK) as connection:
        breakers.close_breaker(connection, part, now=clock())
        _prove(connection, part, read_ns=read_ns, total=total, now=clock())
    deleted = _delete_absent(store, part, lost, read_ns=read_ns, layer=layer, clock=clock)
    deleted += _settle_elsewhere(store, part, read_ns=read_ns, layer=layer, clock=clock, breaker=breaker)
    return ReadResult(deleted=confirmed + deleted, missing=len(marks), withheld=False, lost=len(lost), known=known)


def _conclusions(lacking: Sequence[sa.Row[Any]], ledger: Ledger, read_ns: int) -> tuple[list[_Mark], list[str]]:
    """Of the assets that a read lacks: those that it is the first to lack, and the names of those that are gone."""
    later = ledger.with_read(read_ns)
    marks: list[_Mark] = []
    lost: list[str] = []
    for row in lacking:
        seen_ns, observed_ns = assets.effective(row, ledger)
        absent_ns, gone = later.absence(update_ns=row.update_ns, seen_ns=seen_ns, absent_ns=row.absent_ns)
        if gone:
            lost.append(row.name)
        elif absent_ns is not None and absent_ns != row.absent_ns:
            marks.append(_Mark(row.name, absent_ns, seen_ns, observed_ns))
    return marks, lost


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What became of a confirmation.

    Attributes:
        lost: how many assets had vanished.
        deleted: how many of them were deleted by now; those that came back since are not.
        remaining: how many are left to look at: the next sync deletes them.
    """

    lost: int
    deleted: int
    remaining: int


def confirm_losses(
    store: Store, part: Part, *, fingerprint: str, actor: str, clock: Clock, limit: int | None = None
) -> Confirmation:
    """Let the read that an open breaker withheld count after all: a person says that the deletions were meant.

    The confirmation is one transaction: audit log, alert, coverage, and a request for a sync. The deletions follow in
    steps; cut short, the next sync of the part makes the rest.

    Args:
        fingerprint: of what that person looked at, `breakers.OpenBreaker.fingerprint`.
        actor: who it is, for the audit log.
        limit: how many deletions to make now, at least (``None``: all).

    Raises:
        SyncError: no breaker is open for the part (`Reason.NOT_FOUND`), or others vanished than those that were looked
            at (`Reason.CONFLICT`).
    """
    with store.write(exclusive=assets.LOCK) as connection:
        now = clock()
        breaker, number = breakers.confirm(connection, part, fingerprint=fingerprint, actor=actor, now=now)
        read_ns = breaker.read_ns
        withheld = snapshots.delete().where(_is(part), snapshots.c.read_ns == read_ns).returning(snapshots.c.assets)
        totals = list(connection.scalars(withheld))
        total = totals[0] if totals else breaker.known - breaker.lost
        _prove(connection, part, read_ns=read_ns, total=total, now=now, only_gap=Reason.BREAKER_OPEN)
        inbox.request(
            connection,
            LayerId.API,
            key=f"breaker-{number}",
            event="breaker_confirmed",
            actor=actor,
            commit=None,
            now=now,
        )
    deleted = apply_confirmed(store, part, clock=clock, limit=limit)
    _settle_status(store, part, clock=clock)
    with store.read() as connection:
        remaining = breakers.remaining(connection, part)
    return Confirmation(breaker.lost, deleted, remaining)


def apply_confirmed(store: Store, part: Part, *, clock: Clock, limit: int | None = None) -> int:
    """Make the deletions of a part that a person has confirmed, a chunk per transaction; several may do it at once.

    Returns:
        How many assets were deleted: those that are still missing.
    """
    deleted = done = 0
    while limit is None or done < limit:
        with store.write(exclusive=assets.LOCK) as connection:
            row = breakers.state(connection, part)
            if row is None or row.confirmed_at is None:
                break
            names = breakers.take_confirmed(connection, part, limit=_CHUNK)
            if not names:
                breakers.close_breaker(connection, part, now=clock())
                break
            done += len(names)
            deleted += _delete_gone(connection, part, names, read_ns=row.read_ns, layer=LayerId.API, now=clock())
    return deleted


def _settle_status(store: Store, part: Part, *, clock: Clock) -> None:
    """Take what the last sync said of the breaker off the layer's status: it no longer holds."""
    with store.read() as connection:
        count = sum(assets.count_existing(connection).values())
        as_of = coverage.proven_since(connection)
    with store.write(exclusive=f"layer:{LayerId.API}") as connection:
        layer_runs.settle_error(
            connection, LayerId.API, breakers.command_of(part), items_synced=count, as_of=as_of, now=clock()
        )


def was_read(connection: sa.Connection, part: Part) -> bool:
    """Whether a read of the part reached its last page before, whatever became of its assets."""
    return connection.scalar(sa.select(snapshots.c.id).where(_is(part)).limit(1)) is not None


def newest_reads_of(connection: sa.Connection, parts: Collection[Part]) -> dict[Part, int]:
    """The newest read time of each part whose last page was reached, whatever became of its assets."""
    query = sa.select(
        snapshots.c.scope, snapshots.c.asset_type, snapshots.c.content_type, sa.func.max(snapshots.c.read_ns)
    ).group_by(snapshots.c.scope, snapshots.c.asset_type, snapshots.c.content_type)
    found = {(scope, asset_type, content): ns for scope, asset_type, content, ns in connection.execute(query)}
    return {part: found[part] for part in parts if part in found}


def record_incomplete(connection: sa.Connection, part: Part, *, read_ns: int, assets: int, now: datetime) -> None:
    """Say that a read reached the last page with assets that could not be used: it proves no absence.

    It takes the place of the incomplete read before it, but for one that a breaker withheld: a person may say that it
    counts.
    """
    waiting = breakers.state(connection, part)
    withheld_ns = -1 if waiting is None else waiting.read_ns
    connection.execute(
        snapshots.delete().where(_is(part), snapshots.c.complete.is_(False), snapshots.c.read_ns != withheld_ns)
    )
    _record(connection, part, read_ns=read_ns, complete=False, total=assets, now=now)


@dataclass(frozen=True, slots=True)
class _Mark:
    """An asset that the newest complete read lacks."""

    name: str
    absent_ns: int
    seen_ns: int
    observed_ns: int


def _here(part: Part) -> sa.ColumnElement[bool]:
    scope, asset_type, content_type = part
    return sa.and_(
        resources.c.scope == scope,
        resources.c.content_type == content_type,
        resources.c.asset_type == asset_type,
        resources.c.deleted.is_(False),
    )


def _is(part: Part) -> sa.ColumnElement[bool]:
    scope, asset_type, content_type = part
    return sa.and_(
        snapshots.c.scope == scope, snapshots.c.asset_type == asset_type, snapshots.c.content_type == content_type
    )


def _lacking(connection: sa.Connection, base: Base, names: set[str], total: int) -> tuple[int, list[sa.Row[Any]]]:
    """How many assets of the part are there now, and the rows of those that a read of so many did not show."""
    known = _known_if_nothing_lacks(connection, base, names, total)
    if known is not None:
        return known, []
    columns = (resources.c.name, resources.c.fingerprint, resources.c.absent_ns, resources.c.written)
    query = sa.select(*columns).where(_here(base.part)).execution_options(yield_per=5000)
    seen, known = base.seen, 0
    unseen: list[str] = []
    beside: list[str] = []
    for name, fingerprint, absent_ns, written in connection.execute(query):
        known += 1
        if absent_ns is None and fingerprint is not None and seen.get(bytes(fingerprint)):
            continue
        if name not in names:
            (beside if written > base.written else unseen).append(name)
    unseen += _not_seen_before(connection, base, beside)
    return known, [row for chunk in in_chunks(unseen, _CHUNK) for row in _rows(connection, base.part, chunk, _DATES)]


def _known_if_nothing_lacks(connection: sa.Connection, base: Base, names: set[str], total: int) -> int | None:
    """How many assets of the part are there now, if counting tells that the read showed them all; ``None`` if each has
    to be looked at.

    What was written of the type since the read began, here, elsewhere or as a deletion, is what it decoded and nothing
    else. Then the rows that were not written are all seen if they are as many as the fingerprints that were. Both are
    found by an index alone.
    """
    seen = sum(base.seen.values())
    if total != seen + len(names):
        return None
    written = 0
    scope, *kind = base.part
    later = sa.select(*_PLACE).where(resources.c.written > base.written).execution_options(yield_per=5000)
    for name, deleted, its_scope, *its_kind in connection.execute(later):
        if its_kind == kind:
            if name not in names:
                return None
            written += its_scope == scope and not deleted
    known = int(connection.scalar(sa.select(sa.func.count()).select_from(resources).where(_here(base.part))) or 0)
    return known if known == seen + written else None


#: What says whether a row is of a part, and there.
_PLACE = tuple(resources.c[name] for name in ("name", "deleted", "scope", "asset_type", "content_type"))


def _not_seen_before(connection: sa.Connection, base: Base, names: list[str]) -> Iterator[str]:
    """Names that changed beside the read, and that it did not show in the version of before either."""
    content_type = base.part[2]
    for chunk in in_chunks(names, _CHUNK):
        before: dict[str, bytes] = {}
        query = (
            sa.select(resource_versions.c.name, resource_versions.c.fingerprint)
            .where(
                resource_versions.c.content_type == content_type,
                resource_versions.c.name.in_(chunk),
                resource_versions.c.fingerprint.is_not(None),
            )
            .order_by(resource_versions.c.version)
        )
        for name, fingerprint in connection.execute(query):
            before[name] = bytes(fingerprint)
        for name in chunk:
            if not base.seen.get(before.get(name, b"")):
                yield name


#: What decides on absence.
_DATES = tuple(
    resources.c[name] for name in ("name", "deleted", "update_ns", "observed_ns", "seen_ns", "absent_ns", "written")
)


def _rows(
    connection: sa.Connection,
    part: Part,
    names: Sequence[str],
    columns: Sequence[sa.ColumnElement[Any]] = tuple(resources.c),
) -> Iterator[sa.Row[Any]]:
    for chunk in in_chunks(names, _CHUNK):
        yield from connection.execute(sa.select(*columns).where(_here(part), resources.c.name.in_(chunk)))


def _mark_absent(connection: sa.Connection, part: Part, marks: Sequence[_Mark], *, written: int) -> None:
    """Mark rows, but for those that were written since they were looked at."""
    rows = {row.name: row for row in _rows(connection, part, [mark.name for mark in marks])}
    changes = [
        {
            "b_name": mark.name,
            "b_content_type": part[2],
            "b_absent_ns": mark.absent_ns,
            "b_seen_ns": mark.seen_ns,
            "b_observed_ns": mark.observed_ns,
        }
        for mark in marks
        if mark.name in rows and rows[mark.name].written <= written and rows[mark.name].absent_ns != mark.absent_ns
    ]
    if changes:
        assets.update(connection, changes)


def _record(connection: sa.Connection, part: Part, *, read_ns: int, complete: bool, total: int, now: datetime) -> None:
    scope, asset_type, content_type = part
    connection.execute(
        snapshots.insert().values(
            scope=scope,
            asset_type=asset_type,
            content_type=content_type,
            read_ns=read_ns,
            complete=complete,
            assets=total,
            finished_at=now,
        )
    )
    here = _is(part)
    newest = sa.select(snapshots.c.id).where(here).order_by(snapshots.c.id.desc()).limit(_LEDGER_ROWS)
    kept = sa.select(snapshots.c.id).where(here, snapshots.c.complete.is_(True)).order_by(snapshots.c.read_ns.desc())
    connection.execute(
        snapshots.delete().where(here, snapshots.c.id.not_in(newest), snapshots.c.id.not_in(kept.limit(2)))
    )


def _prove(
    connection: sa.Connection,
    part: Part,
    *,
    read_ns: int,
    total: int,
    now: datetime,
    only_gap: Reason | None = None,
) -> None:
    """Write a complete read down. With ``only_gap``, a gap for another reason than this one stays: it came later."""
    _record(connection, part, read_ns=read_ns, complete=True, total=total, now=now)
    proven = CoverageMark(*part, CoverageStatus.COMPLETE, complete_read_ns=read_ns, assets=total)
    before = coverage.row_of(connection, part)
    if only_gap is not None and before is not None and before.reason not in (None, only_gap.value):
        proven = replace(
            proven,
            status=CoverageStatus(before.status),
            reason=Reason(before.reason),
            detail=before.detail,
            remedy=before.remedy,
        )
    coverage.mark(connection, [proven], now=now)


def _delete_absent(
    store: Store, part: Part, names: Sequence[str], *, read_ns: int, layer: LayerId, clock: Clock
) -> int:
    """Delete those of the assets that are gone by the ledger, a chunk per transaction. Returns how many were."""
    deleted = 0
    for chunk in in_chunks(names, _CHUNK):
        with store.write(exclusive=assets.LOCK) as connection:
            deleted += _delete_gone(connection, part, chunk, read_ns=read_ns, layer=layer, now=clock())
    return deleted


def _delete_gone(
    connection: sa.Connection, part: Part, names: Sequence[str], *, read_ns: int, layer: LayerId, now: datetime
) -> int:
    ledger = assets.ledger_of(connection, part)
    rows = [row for row in _rows(connection, part, names) if _is_gone(row, ledger)]
    if rows:
        _delete(connection, rows, read_ns=read_ns, layer=layer, now=now)
    return len(rows)


def _settle_elsewhere(store: Store, part: Part, *, read_ns: int, layer: LayerId, clock: Clock, breaker: Breaker) -> int:
    """Delete assets that other scopes lack, and that this read would have shown if they had moved here. What is too
    much to believe is left to the next read of its own part, which opens the breaker."""
    scope, asset_type, content_type = part
    deleted = 0
    with store.read() as connection:
        key = {"asset_type": asset_type, "content_type": content_type}
        found: dict[Part, tuple[int, list[str]]] = {}
        for other in connection.scalars(_SCOPES_THAT_LACK, key).all():
            if other == scope:
                continue
            there = (other, asset_type, content_type)
            ledger = assets.ledger_of(connection, there)
            rows = connection.execute(sa.select(*_DATES).where(_here(there), resources.c.absent_ns.is_not(None)))
            lost = [row.name for row in rows if _is_gone(row, ledger)]
            known = connection.scalar(sa.select(sa.func.count()).select_from(resources).where(_here(there)))
            found[there] = (int(known or 0), lost)
    for there, (known, lost) in found.items():
        if lost and not breaker.opens(known=known, lost=len(lost)):
            deleted += _delete_absent(store, there, lost, read_ns=read_ns, layer=layer, clock=clock)
    return deleted


def _scopes_that_lack() -> sa.Select[Any]:
    scopes = coverage.walked_scopes()
    lacks = sa.exists().where(
        resources.c.scope == scopes.c.scope,
        *(resources.c[name] == sa.bindparam(name) for name in ("asset_type", "content_type")),
        resources.c.absent_ns.is_not(None),
        resources.c.deleted.is_(False),
    )
    return sa.select(scopes.c.scope).where(scopes.c.scope.is_not(None), lacks)


#: The scopes with a resource of a type and content that a read of theirs lacked.
_SCOPES_THAT_LACK = _scopes_that_lack()


def _is_gone(row: sa.Row[Any], ledger: Ledger) -> bool:
    if row.absent_ns is None:
        return False
    return ledger.absence(update_ns=row.update_ns, seen_ns=row.seen_ns, absent_ns=row.absent_ns)[1]


def _delete(
    connection: sa.Connection, rows: Sequence[sa.Row[Any]], *, read_ns: int, layer: LayerId, now: datetime
) -> None:
    since = {row.name: max(row.valid_from_ns, row.absent_ns) for row in rows}
    assets.keep_versions(connection, [(row, since[row.name]) for row in rows])
    written = assets.next_write(connection)
    assets.update(
        connection,
        [
            {
                "b_name": row.name,
                "b_content_type": row.content_type,
                "b_deleted": True,
                "b_valid_from_ns": since[row.name],
                "b_version": row.version + 1,
                "b_source": Source.SNAPSHOT.value,
                "b_controls_decided": 0,
                "b_controls_failed": 0,
                "b_controls_unknown": 0,
                "b_written": written,
                "b_changed_at": now,
            }
            for row in rows
        ],
    )
    gone = [Judged(row.name, row.content_type, row.asset_type, row.project, None) for row in rows]
    events = [
        NewEvent(
            event_type=EventType.RESOURCE_DELETED,
            layer=layer,
            timestamp=from_ns(read_ns),
            resource=assets.resource_of(row._mapping),
            data={
                "change": Change.DELETED.value,
                "version": row.version + 1,
                "source": Source.SNAPSHOT.value,
                "observed_at": format_ns(read_ns),
            },
            synthetic=True,
        )
        for row in rows
    ]
    events += [assets.finding_event(change, layer, now) for change in findings.record(connection, gone, now=now)]
    event_log.append(connection, events, recorded_at=now)
    feed_freshness.record_missed(connection, [(row.asset_type, row.absent_ns) for row in rows], found_at=now)
