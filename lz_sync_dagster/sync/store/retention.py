"""What is past its retention leaves the store, some thousand rows per transaction, so that nobody waits for the writer.

What is inside its retention stays whole: a version that held at the oldest instant that is kept, the content that any
row refers to, and a tombstone for as long as a redelivery could bring its asset back or a version of it is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from lz_sync_dagster.sync.models import Status
from lz_sync_dagster.sync.store import assets, audit
from lz_sync_dagster.sync.store.engine import Store, in_chunks
from lz_sync_dagster.sync.store.schema import (
    audit_log,
    counters,
    coverage,
    coverage_history,
    data_fields,
    event_log,
    feed_freshness,
    findings,
    layer_runs,
    resource_contents,
    resource_versions,
    resources,
    snapshots,
)
from lz_sync_dagster.sync.timing import to_ns

#: Rows that one transaction removes at most.
CHUNK = 2_000
#: Days that a tombstone is kept at least: Pub/Sub redelivers for 31.
TOMBSTONE_DAYS = 36

_PARAMETERS = 400


def prune_versions(store: Store, *, before: datetime, chunk: int = CHUNK) -> int:
    """Remove versions that had been superseded by an instant, and their contents unless something else has them.

    The lock keeps a row from moving into the history while its content is judged to be nobody's.
    """
    key = (resource_versions.c.name, resource_versions.c.content_type, resource_versions.c.version)

    def step() -> int:
        with store.write(exclusive=assets.LOCK) as connection:
            rows = connection.execute(
                sa.select(*key, resource_versions.c.content_id, resource_versions.c.valid_to_ns)
                .where(resource_versions.c.valid_to_ns <= to_ns(before))
                .order_by(resource_versions.c.valid_to_ns)
                .limit(chunk)
            ).all()
            for some in in_chunks(rows, _PARAMETERS):
                wanted = [(row.name, row.content_type, row.version) for row in some]
                connection.execute(resource_versions.delete().where(sa.tuple_(*key).in_(wanted)))
            _drop_contents(connection, rows)
            if rows:
                _mark_pruned(connection, max(row.valid_to_ns for row in rows))
        return len(rows)

    return _repeat(step, chunk)


#: The counter that says up to when history is not whole any more.
_PRUNED = "history_pruned_ns"


def pruned_until_ns(connection: sa.Connection) -> int | None:
    """Before this instant (exclusive) the past is not whole: a version or a span of coverage that held then was
    removed. ``None``: nothing was."""
    return connection.scalar(sa.select(counters.c.value).where(counters.c.name == _PRUNED))


def _mark_pruned(connection: sa.Connection, until_ns: int) -> None:
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    row = insert(counters).values(name=_PRUNED, value=until_ns)
    later = row.excluded.value > counters.c.value
    connection.execute(
        row.on_conflict_do_update(index_elements=[counters.c.name], set_={"value": row.excluded.value}, where=later)
    )


def prune_tombstones(store: Store, *, before: datetime, chunk: int = CHUNK) -> int:
    """Remove resources that were deleted before an instant and of which no version is kept any more: versions are
    numbered on from the tombstone's."""
    r, v = resources.c, resource_versions.c
    old = sa.and_(
        r.deleted.is_(True),
        r.changed_at < before,
        ~sa.exists().where(v.name == r.name, v.content_type == r.content_type),
    )

    def step() -> int:
        with store.read() as connection:
            found = connection.execute(sa.select(r.name, r.content_type).where(old).limit(chunk)).all()
        if not found:
            return 0
        with store.write(exclusive=assets.LOCK) as connection:
            for some in in_chunks(found, _PARAMETERS):
                wanted = [(row.name, row.content_type) for row in some]
                mine = sa.tuple_(r.name, r.content_type).in_(wanted)
                gone = connection.execute(
                    resources.delete().where(mine, old).returning(r.name, r.content_type, r.content_id)
                ).all()
                _drop_contents(connection, gone)
        return len(found)

    return _repeat(step, chunk)


def prune_coverage_history(store: Store, *, before: datetime, chunk: int = CHUNK) -> int:
    """Remove spans of the coverage ledger that ended before an instant."""
    old = coverage_history.c.until < before
    with store.write() as connection:
        newest = connection.scalar(sa.select(sa.func.max(coverage_history.c.until)).where(old))
        if newest is not None:
            _mark_pruned(connection, to_ns(newest))
    return _by_key(store, coverage_history.c.id, old, chunk)


def prune_snapshots(store: Store, *, before: datetime, chunk: int = CHUNK) -> int:
    """Remove reads that ended before an instant, save the two newest complete ones of each part: they decide what is
    gone."""
    rank = sa.func.row_number().over(
        partition_by=(snapshots.c.scope, snapshots.c.asset_type, snapshots.c.content_type),
        order_by=snapshots.c.read_ns.desc(),
    )
    ranked = sa.select(snapshots.c.id, rank.label("rank")).where(snapshots.c.complete.is_(True)).subquery()
    kept = sa.select(ranked.c.id).where(ranked.c.rank <= 2)
    old = sa.and_(snapshots.c.finished_at < before, snapshots.c.id.not_in(kept))
    return _by_key(store, snapshots.c.id, old, chunk, exclusive=assets.LOCK)


def prune_layer_runs(store: Store, *, before: datetime, chunk: int = CHUNK) -> int:
    """Remove syncs that ended before an instant, save the newest of each layer, and the newest that succeeded and that
    changed something: they say what the layer is now."""
    kept: list[sa.ColumnElement[bool]] = []
    for condition in (
        layer_runs.c.finished_at.is_not(None),
        layer_runs.c.status == Status.SUCCESS.value,
        layer_runs.c.items_changed > 0,
    ):
        newest = sa.select(sa.func.max(layer_runs.c.id)).where(condition).group_by(layer_runs.c.layer)
        kept.append(layer_runs.c.id.not_in(newest))
    return _by_key(store, layer_runs.c.id, sa.and_(layer_runs.c.finished_at < before, *kept), chunk)


def prune_findings(store: Store, *, before: datetime, chunk: int = CHUNK) -> int:
    """Remove violations that were resolved before an instant."""
    return _by_key(store, findings.c.id, findings.c.resolved_at < before, chunk)


def prune_refusals(store: Store, *, before: datetime, chunk: int = CHUNK) -> int:
    """Remove refusals from the audit log. What somebody did stays for good."""
    old = sa.and_(audit_log.c.action == audit.REFUSED, audit_log.c.at < before)
    return _by_key(store, audit_log.c.id, old, chunk)


def prune_events(store: Store, *, before: datetime, chunk: int = CHUNK) -> int:
    """Remove events that were recorded before an instant, from the oldest on; the first that is newer ends it."""

    def step() -> int:
        with store.read() as connection:
            rows = connection.execute(
                sa.select(event_log.c.seq, event_log.c.recorded_at).order_by(event_log.c.seq).limit(chunk)
            ).all()
        old = [row.seq for row in rows if row.recorded_at < before]
        newer = [row.seq for row in rows if row.recorded_at >= before]
        last = (newer[0] - 1) if newer else (old[-1] if old else 0)
        with store.write() as connection:
            return connection.execute(event_log.delete().where(event_log.c.seq <= last)).rowcount if old else 0

    return _repeat(step, chunk)


def prune_feed_freshness(store: Store, *, before: datetime) -> int:
    """Remove the hours before an instant: a row per asset type and hour, so a day of them is little."""
    with store.write(exclusive=assets.LOCK) as connection:
        return connection.execute(feed_freshness.delete().where(feed_freshness.c.hour < before)).rowcount


def prune_data_fields(store: Store, *, before: datetime) -> int:
    """Forget the fields of types that are no longer read, if they were first seen before an instant. Those of a type
    that is read are what a new field is told by."""
    read = sa.select(coverage.c.asset_type).distinct()
    old = sa.and_(data_fields.c.first_seen < before, data_fields.c.asset_type.not_in(read))
    with store.write() as connection:
        return connection.execute(data_fields.delete().where(old)).rowcount


def _drop_contents(connection: sa.Connection, rows: Sequence[sa.Row[Any]]) -> None:
    """Remove the contents of rows that are gone, but for those that another row of the same asset still has: versions
    of one asset share a content, different assets never do."""
    loose = {row.content_id for row in rows if row.content_id is not None}
    for some in in_chunks(sorted({(row.name, row.content_type) for row in rows}), _PARAMETERS):
        for table in (resources, resource_versions):
            query = sa.select(table.c.content_id).where(
                sa.tuple_(table.c.name, table.c.content_type).in_(some), table.c.content_id.is_not(None)
            )
            loose.difference_update(connection.scalars(query))
    for ids in in_chunks(sorted(loose), _PARAMETERS):
        connection.execute(resource_contents.delete().where(resource_contents.c.id.in_(ids)))


def _by_key(
    store: Store,
    key: sa.ColumnElement[Any],
    old: sa.ColumnElement[bool],
    chunk: int,
    *,
    exclusive: str | None = None,
) -> int:
    table = key.table

    def step() -> int:
        with store.read() as connection:
            keys = list(connection.scalars(sa.select(key).where(old).order_by(key).limit(chunk)))
        if keys:
            with store.write(exclusive=exclusive) as connection:
                for some in in_chunks(keys, _PARAMETERS):
                    connection.execute(table.delete().where(key.in_(some), old))
        return len(keys)

    return _repeat(step, chunk)


def _repeat(step: Callable[[], int], chunk: int) -> int:
    """Steps until one finds less than a whole chunk. Returns the rows of all."""
    total = 0
    while True:
        done = step()
        total += done
        if done < chunk:
            return total
