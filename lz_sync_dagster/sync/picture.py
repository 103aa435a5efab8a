"""Writes the day's picture of the inventory as Parquet: raw material for the warehouse, one partition per day.

The inventory layer lands each day's first picture, so that no day is without one; the analytics layer brings it up to
date before it builds on it. Between them a sync costs what changed, and not what is there. A partition is written when
its content would differ from the file that is there (the file carries a fingerprint), and always as a whole under a new
name first: a reader sees the old file or the new one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import sqlalchemy as sa

from lz_sync_dagster.sync.models import CoverageStatus
from lz_sync_dagster.sync.progress import Progress
from lz_sync_dagster.sync.store import Store
from lz_sync_dagster.sync.store import coverage as coverage_ledger
from lz_sync_dagster.sync.store.layer_runs import CACHE_TTL
from lz_sync_dagster.sync.store.schema import coverage, findings, policy_sets, resources

#: Rows that are read at once, and that a row group has at least.
_BATCH, _ROW_GROUP = 2_000, 20_000
_FINGERPRINT = b"lz_sync.fingerprint"
_INSTANT = pa.timestamp("us", tz="UTC")


def _required(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=False)


RESOURCES = pa.schema(
    [
        _required("as_of", _INSTANT),
        _required("name", pa.string()),
        _required("asset_type", pa.string()),
        pa.field("project", pa.string()),
        pa.field("location", pa.string()),
        pa.field("display_name", pa.string()),
        _required("controls_decided", pa.int64()),
        _required("controls_failed", pa.int64()),
        _required("controls_unknown", pa.int64()),
        _required("violation_count", pa.int64()),
        pa.field("compliance_score", pa.float64()),
        _required("coverage", pa.string()),
    ]
)
COVERAGE = pa.schema(
    [
        _required("as_of", _INSTANT),
        _required("scope", pa.string()),
        _required("asset_type", pa.string()),
        _required("content_type", pa.string()),
        _required("status", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("assets", pa.int64()),
    ]
)
FINDINGS = pa.schema(
    [
        _required("as_of", _INSTANT),
        _required("control", pa.string()),
        _required("framework", pa.string()),
        _required("severity", pa.string()),
        _required("source", pa.string()),
        _required("resource", pa.string()),
        _required("asset_type", pa.string()),
        pa.field("project", pa.string()),
        _required("opened_at", _INSTANT),
    ]
)


def export_inventory(
    store: Store, raw_dir: str, *, judged: Collection[tuple[str, str]], now: datetime, progress: Progress
) -> int:
    """Write the partitions ``{resources,coverage,findings}/snapshot_date=<today>`` below ``raw_dir``.

    Args:
        raw_dir: a folder or a ``gs://`` prefix.
        judged: the (asset type, content type) that controls are about: a resource's figures rest on all of its type.
        now: the instant of the export; its day (UTC) names the partition. Coverage is small and always written.

    Returns:
        How many files were written; 0 if the inventory was never looked at.
    """
    filesystem, base = open_folder(raw_dir)
    day = now.astimezone(UTC).date().isoformat()
    with store.read() as connection:
        statuses = _statuses(connection, now)
        if not statuses:
            return 0
        tables: list[tuple[str, pa.Schema, Iterable[pa.Table]]] = [
            ("coverage", COVERAGE, _tables(COVERAGE, _coverage_rows(connection, statuses, now)))
        ]
        fingerprint = _fingerprint(connection, statuses, judged)
        if _fingerprint_of(filesystem, _path(base, "findings", day)) != fingerprint:
            tables += [
                ("resources", RESOURCES, _resource_rows(connection, statuses, judged)),
                ("findings", FINDINGS, _tables(FINDINGS, _finding_rows(connection, now))),
            ]
        for done, (name, schema, rows) in enumerate(tables):
            progress(f"writing {name} to Parquet", done, len(tables))
            marked = schema.with_metadata({_FINGERPRINT: fingerprint})
            _write(filesystem, _path(base, name, day), marked, rows)
    return len(tables)


def is_landed(raw_dir: str, *, now: datetime) -> bool:
    """Whether the day of ``now`` has a picture, however old."""
    filesystem, base = open_folder(raw_dir)
    day = now.astimezone(UTC).date().isoformat()
    return _fingerprint_of(filesystem, _path(base, "findings", day)) is not None


def open_folder(place: str) -> tuple[pafs.FileSystem, str]:
    """The file system and path of a folder or a URI such as ``gs://bucket/prefix``."""
    if "://" in place:
        filesystem, path = pafs.FileSystem.from_uri(place)
        return filesystem, path
    return pafs.LocalFileSystem(), place


def _path(base: str, name: str, day: str) -> str:
    return f"{base}/{name}/snapshot_date={day}/{name}.parquet"


def _fingerprint(connection: sa.Connection, statuses: Mapping[Any, Any], judged: Collection[tuple[str, str]]) -> bytes:
    """What the picture depends on: the newest change of a resource, the controls, and the coverage."""
    changed_at = connection.scalar(sa.select(sa.func.max(resources.c.written)))
    controls = connection.scalars(sa.select(policy_sets.c.fingerprint)).all()
    picture = repr((changed_at, controls, sorted(judged), sorted(statuses.items())))
    return hashlib.sha256(picture.encode()).hexdigest().encode()


def _fingerprint_of(filesystem: pafs.FileSystem, path: str) -> bytes | None:
    """The fingerprint that a file carries; ``None`` if there is no file, or one that was not written to its end."""
    if filesystem.get_file_info(path).type != pafs.FileType.File:
        return None
    try:
        with filesystem.open_input_file(path) as source:
            metadata: dict[bytes, bytes] = pq.read_schema(source).metadata or {}
    except pa.ArrowInvalid:
        return None
    return metadata.get(_FINGERPRINT)


def _write(filesystem: pafs.FileSystem, path: str, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
    filesystem.create_dir(path.rsplit("/", 1)[0], recursive=True)
    partial = f"{path}.partial"
    with filesystem.open_output_stream(partial) as sink, pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        for group in _row_groups(tables):
            writer.write_table(group.cast(schema))
    filesystem.move(partial, path)


def _row_groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Tables put together to row groups: rows take many times the memory of columns, so few are read at once."""
    group: list[pa.Table] = []
    for table in tables:
        group.append(table)
        if sum(part.num_rows for part in group) >= _ROW_GROUP:
            yield pa.concat_tables(group)
            group = []
    if group:
        yield pa.concat_tables(group)


def _tables(schema: pa.Schema, rows: Iterable[dict[str, Any]]) -> Iterator[pa.Table]:
    batch: list[dict[str, Any]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _BATCH:
            yield pa.Table.from_pylist(batch, schema=schema)
            batch = []
    yield pa.Table.from_pylist(batch, schema=schema)


def _statuses(connection: sa.Connection, now: datetime) -> dict[tuple[str, str, str], tuple[str, str | None]]:
    """Status and reason of each part, with age taken into account."""
    gaps = {
        (gap.scope, gap.asset_type, gap.content_type): (gap.status.value, gap.reason.value)
        for gap in coverage_ledger.summary(connection, now=now, ttl=CACHE_TTL).gaps
    }
    rows = connection.execute(sa.select(coverage.c.scope, coverage.c.asset_type, coverage.c.content_type))
    return {tuple(row): gaps.get(tuple(row), ("complete", None)) for row in rows}


def _coverage_rows(
    connection: sa.Connection, statuses: dict[tuple[str, str, str], tuple[str, str | None]], now: datetime
) -> Iterator[dict[str, Any]]:
    for row in connection.execute(sa.select(coverage)):
        status, reason = statuses[row.scope, row.asset_type, row.content_type]
        yield {
            "as_of": now,
            "scope": row.scope,
            "asset_type": row.asset_type,
            "content_type": row.content_type,
            "status": status,
            "reason": reason,
            "assets": row.assets,
        }


def _figures_coverage(
    statuses: Mapping[tuple[str, str, str], tuple[str, str | None]], judged: Collection[tuple[str, str]]
) -> dict[tuple[str, str], str]:
    """By (scope, asset type): whether all that the figures of a resource rest on is known, of what is to be read."""
    parts: dict[tuple[str, str], list[CoverageStatus]] = {}
    for (scope, asset_type, content_type), (status, _) in statuses.items():
        if content_type == "RESOURCE" or (asset_type, content_type) in judged:
            parts.setdefault((scope, asset_type), []).append(CoverageStatus(status))
    return {
        key: coverage_ledger.of_counts({status: found.count(status) for status in CoverageStatus}, []).status.value
        for key, found in parts.items()
    }


def _resource_rows(
    connection: sa.Connection,
    statuses: dict[tuple[str, str, str], tuple[str, str | None]],
    judged: Collection[tuple[str, str]],
) -> Iterator[pa.Table]:
    coverages = _figures_coverage(statuses, judged)
    read_times = {
        (row.scope, row.asset_type): row.complete_read_ns
        for row in connection.execute(sa.select(coverage).where(coverage.c.content_type == "RESOURCE"))
    }
    named = [resources.c[name] for name in ("name", "asset_type", "scope", "project", "location", "display_name")]
    counted = [resources.c[name] for name in ("controls_decided", "controls_failed", "controls_unknown")]
    query = (
        sa.select(*named, resources.c.observed_ns, *counted, resources.c.content_type)
        .where(resources.c.deleted.is_(False))
        .order_by(resources.c.name, resources.c.content_type)
        .execution_options(yield_per=_BATCH)
    )
    for rows in _with_other_contents(connection.execute(query).partitions()):
        yield _resource_table(rows, coverages, read_times)


def _with_other_contents(partitions: Iterable[Sequence[sa.Row[Any]]]) -> Iterator[list[tuple[Any, ...]]]:
    """The rows of resources themselves, with the verdicts on their other contents (policies, relations) counted in.

    Args:
        partitions: rows that end with three counts and the content type, ordered by name and content type: that of a
            resource itself is the last one.
    """
    name, others = None, (0, 0, 0)
    for partition in partitions:
        rows: list[tuple[Any, ...]] = []
        for row in partition:
            *fields, decided, failed, unknown, content_type = row
            if fields[0] != name:
                name, others = fields[0], (0, 0, 0)
            counts = (decided + others[0], failed + others[1], unknown + others[2])
            if content_type == "RESOURCE":
                rows.append((*fields, *counts))
            else:
                others = counts
        if rows:
            yield rows


def _resource_table(
    rows: Sequence[tuple[Any, ...]],
    coverages: Mapping[tuple[str, str], str],
    read_times: Mapping[tuple[str, str], int | None],
) -> pa.Table:
    names, asset_types, scopes, projects, locations, display_names, observed, *counts = zip(*rows, strict=True)
    kinds = list(zip(scopes, asset_types, strict=True))
    moments = [max(read_times.get(kind) or 0, ns) // 1000 for kind, ns in zip(kinds, observed, strict=True)]
    decided, failed, unknown = (pa.array(column, pa.int64()) for column in counts)
    passed = pc.cast(pc.subtract(decided, failed), pa.float64())
    nothing = pc.equal(decided, 0)
    score = pc.if_else(nothing, pa.scalar(None, pa.float64()), pc.divide(passed, pc.cast(decided, pa.float64())))
    columns = {
        "as_of": pa.array(moments, pa.int64()).cast(_INSTANT),
        "name": names,
        "asset_type": asset_types,
        "project": projects,
        "location": locations,
        "display_name": display_names,
        "controls_decided": decided,
        "controls_failed": failed,
        "controls_unknown": unknown,
        "violation_count": failed,
        "compliance_score": score,
        "coverage": [coverages.get(kind, "unknown") for kind in kinds],
    }
    return pa.Table.from_arrays(
        [
            column if isinstance(column, pa.Array | pa.ChunkedArray) else pa.array(column, RESOURCES.field(name).type)
            for name, column in columns.items()
        ],
        schema=RESOURCES,
    )


def _finding_rows(connection: sa.Connection, now: datetime) -> Iterator[dict[str, Any]]:
    query = sa.select(findings).where(findings.c.resolved_at.is_(None)).order_by(findings.c.id)
    fields = ("control", "framework", "severity", "source", "resource", "asset_type", "project", "opened_at")
    for row in connection.execute(query.execution_options(yield_per=_BATCH)):
        yield {"as_of": now} | {field: getattr(row, field) for field in fields}
