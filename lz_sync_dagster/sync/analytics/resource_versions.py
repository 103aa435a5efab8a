"""Lands the versions of resources as raw Parquet: what was written since the landing before, at a cost that follows it.

A landing is one file that holds the writes after one number up to another (`sync.store.assets.written`), and says
both in its name: ``resource_versions/exported_date=DAY/FROM-TO.parquet``. The newest file is the cursor, so file and
cursor cannot differ, and a landing that was cut short was none. A resource that was written brings its current
version and those that were superseded since the landing before, with some of what was landed already: who reads takes
the row with the greatest ``exported_number`` of each version.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import sqlalchemy as sa

from lz_sync_dagster.sync.analytics.raw import RESOURCE_VERSIONS, Folder
from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.store import Store, assets
from lz_sync_dagster.sync.store.schema import resource_versions, resources
from lz_sync_dagster.sync.timing import from_ns

_BATCH = 20_000
_NAME = re.compile(r"(\d{20})-(\d{20})\.parquet$")
#: Versions that became current so long before the landing before are not told again. It makes up for clocks of
#: processes that differ, and for transactions that were under way.
_OVERLAP = timedelta(hours=1)

#: Columns that a current version and a superseded one have alike.
_SAME = (
    *("name", "content_type", "version", "asset_type", "scope", "project", "location", "display_name", "resource_id"),
    *("deleted", "digest", "source", "update_ns", "valid_from_ns", "changed_at"),
)


@dataclass(frozen=True, slots=True)
class LandedVersions:
    """What a landing wrote: the file, or ``None`` if nothing was written since, and its rows."""

    file: str | None
    rows: int


def land_versions(store: Store, raw_dir: str, *, now: datetime) -> LandedVersions:
    """Write what was written to ``resources`` since the newest file below ``raw_dir``.

    Raises:
        SyncError: the folder cannot be accessed, or is another store's.
    """
    folder = Folder(f"{raw_dir}/{RESOURCE_VERSIONS.folder}")
    begin, newest = 0, ""
    for file in folder.files(partition=RESOURCE_VERSIONS.partition):
        numbers = _NAME.search(file.path)
        if numbers is not None and int(numbers[2]) > begin:
            begin, newest = int(numbers[2]), file.path
    since = None if not newest else pc.max(folder.read_table(newest, ["exported_at"])["exported_at"]).as_py()
    with store.read() as connection:
        end = assets.written(connection)
        if end < begin:
            raise SyncError(
                f"holds versions up to write {begin}, and the store has had {end} writes: it is another store's",
                where=folder.location,
                remedy="move the folder away, and rebuild dim_resources with 'dbt build --full-refresh'",
                reason=Reason.CONFLICT,
            )
        if end == begin:
            return LandedVersions(None, 0)
        sink, rows = pa.BufferOutputStream(), 0
        with pq.ParquetWriter(sink, RESOURCE_VERSIONS.schema, compression="zstd") as writer:
            for batch in _batches(connection, begin, end, since):
                table = _table(batch, exported_number=end, exported_at=now)
                writer.write_table(table)
                rows += table.num_rows
    if not rows:
        return LandedVersions(None, 0)
    day = now.astimezone(UTC).date().isoformat()
    name = f"{RESOURCE_VERSIONS.partition}={day}/{begin:020d}-{end:020d}.parquet"
    folder.write(name, sink.getvalue())
    return LandedVersions(name, rows)


def _batches(
    connection: sa.Connection, begin: int, end: int, since: datetime | None
) -> Iterator[Sequence[sa.Row[Any]]]:
    written = sa.and_(resources.c.written > begin, resources.c.written <= end)
    current = sa.select(
        *(resources.c[name] for name in _SAME),
        sa.case(
            (resources.c.seen_ns > resources.c.observed_ns, resources.c.seen_ns), else_=resources.c.observed_ns
        ).label("seen_ns"),
        sa.literal(None, sa.BigInteger).label("valid_to_ns"),
    ).where(written)
    old = resource_versions
    superseded = (
        sa.select(*(old.c[name] for name in _SAME), old.c.observed_ns.label("seen_ns"), old.c.valid_to_ns)
        .join(resources, sa.and_(resources.c.name == old.c.name, resources.c.content_type == old.c.content_type))
        .where(written)
    )
    if since is not None:
        known = old.alias("known")
        newest_known = (
            sa.select(sa.func.max(known.c.version))
            .where(
                known.c.name == old.c.name,
                known.c.content_type == old.c.content_type,
                known.c.changed_at < since - _OVERLAP,
            )
            .scalar_subquery()
        )
        superseded = superseded.where(old.c.version >= sa.func.coalesce(newest_known, 0))
    for query in (superseded, current):
        yield from connection.execute(query.execution_options(yield_per=_BATCH)).partitions()


def _table(rows: Sequence[sa.Row[Any]], *, exported_number: int, exported_at: datetime) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {
                "exported_number": exported_number,
                "exported_at": exported_at,
                "name": row.name,
                "content_type": row.content_type,
                "version": row.version,
                "asset_type": row.asset_type,
                "scope": row.scope,
                "project": row.project,
                "location": row.location,
                "display_name": row.display_name,
                "resource_id": row.resource_id,
                "is_deleted": row.deleted,
                "digest": row.digest,
                "source": row.source,
                "updated_at": from_ns(row.update_ns),
                "valid_from": from_ns(row.valid_from_ns),
                "valid_to": None if row.valid_to_ns is None else from_ns(row.valid_to_ns),
                "first_seen_at": row.changed_at,
                "last_seen_at": from_ns(max(row.seen_ns, 0)),
            }
            for row in rows
        ],
        schema=RESOURCE_VERSIONS.schema,
    )
