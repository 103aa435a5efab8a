"""Layer health and the record of syncs. `sync.runs` decides; this module reads and writes."""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from lz_sync_dagster.layers import LAYERS, Layer, LayerId
from lz_sync_dagster.sync.errors import Reason
from lz_sync_dagster.sync.models import Coverage, CoverageGap, CoverageStatus, EventType, Status, SyncStatus
from lz_sync_dagster.sync.store import coverage as coverage_ledger
from lz_sync_dagster.sync.store import daily_metrics, event_log, listeners
from lz_sync_dagster.sync.store.event_log import NewEvent
from lz_sync_dagster.sync.store.schema import layer_runs, layer_status

#: How long the last known state may stand in for a sync that fails.
CACHE_TTL = coverage_ledger.TTL


def statuses(
    connection: sa.Connection,
    *,
    now: datetime,
    disabled: Collection[LayerId] = (),
    ttl: timedelta = CACHE_TTL,
) -> list[SyncStatus]:
    """One `SyncStatus` per layer, in the order of the layers, as of ``now``."""
    rows = {row.layer: row for row in connection.execute(sa.select(layer_status))}
    ledger = coverage_ledger.summary(connection, now=now, ttl=ttl)
    marts = _marts_coverage(connection, now)
    finished = _last_finished(connection)
    heard = listeners.last_sign(connection)
    return [
        _status(layer, rows.get(layer.id), finished.get(layer.id), ledger, marts, now, layer.id in disabled, ttl, heard)
        for layer in LAYERS
    ]


def _status(
    layer: Layer,
    row: sa.Row[Any] | None,
    finished: Status | None,
    ledger: Coverage,
    marts: Coverage,
    now: datetime,
    disabled: bool,
    ttl: timedelta,
    heard: datetime | None,
) -> SyncStatus:
    if row is None:
        return SyncStatus(
            layer=layer.id,
            status=Status.DISABLED if disabled else Status.UNKNOWN,
            last_sync=None,
            items_synced=None,
            errors=[],
            next_sync=None,
            source=layer.source,
            coverage=_coverage(layer, Status.UNKNOWN, ledger, marts, known=False),
        )
    status, errors = Status(row.status), list(row.errors)
    basis = status
    if status is Status.IN_PROGRESS and not is_held(row, now):
        basis = status = Status.FAILED
        errors.append(f"the sync that started at {row.last_attempt.isoformat()} did not finish: its process is gone")
    if layer.id is LayerId.PUBSUB and status is Status.SUCCESS and heard is not None:
        vouched = row.as_of is not None and row.as_of > heard
        if now - heard > listeners.ALIVE_FOR and not vouched:
            status = Status.FAILED
            errors.append(f"the listener was last heard of at {heard.isoformat()}: start 'lz-sync listen' again")
    if disabled:
        status = Status.DISABLED
    elif row.as_of is not None:
        basis = finished or Status.UNKNOWN if status is Status.IN_PROGRESS else status
        allowed = ttl if basis is Status.FAILED else layer.stale_after
        if allowed is not None and now - row.as_of > allowed:
            basis = status = Status.STALE
    return SyncStatus(
        layer=layer.id,
        status=status,
        last_sync=row.last_sync,
        items_synced=None if row.as_of is None else row.items_synced,
        errors=errors,
        next_sync=row.next_sync,
        items_changed=None if row.as_of is None else row.items_changed,
        last_attempt=row.last_attempt,
        consecutive_failures=row.consecutive_failures,
        as_of=row.as_of,
        source=layer.source,
        coverage=_coverage(layer, basis, ledger, marts, known=row.as_of is not None),
    )


def is_in_progress(connection: sa.Connection, layer: LayerId, now: datetime) -> bool:
    """Whether somebody is syncing a layer, however old its data is."""
    row = connection.execute(sa.select(layer_status).where(layer_status.c.layer == layer.value)).one_or_none()
    return row is not None and row.status == Status.IN_PROGRESS.value and is_held(row, now)


def lease_holder(connection: sa.Connection, layer: LayerId, now: datetime) -> str | None:
    """Who holds the lease of a layer now."""
    row = connection.execute(sa.select(layer_status).where(layer_status.c.layer == layer.value)).one_or_none()
    return row.lease_holder if row is not None and is_held(row, now) else None


def is_held(row: sa.Row[Any], now: datetime) -> bool:
    """Whether somebody holds the lease in a row of ``layer_status``. A holder of this host has to be alive."""
    if row.lease_holder is None or row.lease_expires_at is None or row.lease_expires_at < now:
        return False
    host, _, rest = row.lease_holder.partition(":")
    pid = rest.partition(":")[0]
    return host != socket.gethostname() or not pid.isdigit() or _process_exists(int(pid))


def _process_exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _last_finished(connection: sa.Connection) -> dict[str, Status]:
    """How the last sync of each layer that ended did end."""
    newest = (
        sa.select(sa.func.max(layer_runs.c.id))
        .where(layer_runs.c.finished_at.is_not(None))
        .group_by(layer_runs.c.layer)
    )
    rows = connection.execute(sa.select(layer_runs.c.layer, layer_runs.c.status).where(layer_runs.c.id.in_(newest)))
    return {row.layer: Status(row.status) for row in rows}


def _marts_coverage(connection: sa.Connection, now: datetime) -> Coverage:
    """What the newest published figures rest on: one row for resources, one for costs."""
    words = dict(zip(("resources", "costs"), daily_metrics.newest_coverages(connection), strict=True))
    statuses = {subject: CoverageStatus(word or CoverageStatus.UNKNOWN) for subject, word in words.items()}
    remedies = {
        "resources": "look at the coverage of the API sync; the next daily build takes in what it finds",
        "costs": "set sync_layers.bigquery.billing_export, and look at the refused billing lines",
    }
    gaps = [
        CoverageGap(
            scope="marts",
            asset_type=subject,
            content_type="DAILY_METRICS",
            status=status,
            reason=Reason.NOT_READ_YET if status is CoverageStatus.UNKNOWN else Reason.INVALID,
            detail=f"the newest daily figures of {subject} rest on {status} data",
            remedy=remedies[subject],
            since=now,
        )
        for subject, status in statuses.items()
        if status is not CoverageStatus.COMPLETE
    ]
    return coverage_ledger.of_counts({status: list(statuses.values()).count(status) for status in CoverageStatus}, gaps)


def _coverage(layer: Layer, status: Status, ledger: Coverage, marts: Coverage, *, known: bool) -> Coverage:
    if layer.id in (LayerId.API, LayerId.PUBSUB):
        return ledger
    if layer.id is LayerId.BIGQUERY:
        return marts
    if not known:
        return Coverage(status=CoverageStatus.UNKNOWN, unknown=1)
    if status is Status.SUCCESS:
        return Coverage(status=CoverageStatus.COMPLETE, complete=1)
    if status is Status.PARTIAL:
        return Coverage(status=CoverageStatus.PARTIAL, partial=1)
    if status in (Status.STALE, Status.FAILED):
        return Coverage(status=CoverageStatus.STALE, stale=1)
    return Coverage(status=CoverageStatus.UNKNOWN, unknown=1)


def recent(
    connection: sa.Connection, *, limit: int, layer: LayerId | None = None, before: int | None = None
) -> list[sa.Row[tuple[object, ...]]]:
    """The newest rows of ``layer_runs``, newest first; with ``before``, only those with a smaller ``id``."""
    query = sa.select(layer_runs).order_by(layer_runs.c.id.desc()).limit(limit)
    if layer is not None:
        query = query.where(layer_runs.c.layer == layer.value)
    if before is not None:
        query = query.where(layer_runs.c.id < before)
    return list(connection.execute(query))


def record_health(
    connection: sa.Connection,
    layer: LayerId,
    *,
    status: Status,
    now: datetime,
    items_synced: int,
    items_changed: int,
    as_of: datetime | None = None,
    errors: Sequence[str] = (),
    details: Mapping[str, Any] | None = None,
) -> bool:
    """Write the health of a layer that works all the time, without a run of its own (the listener).

    A sync that holds the layer's lease is the one that writes its row: then nothing is written, and the answer is
    ``False``. A status that differs from the one before becomes a ``sync_status`` event. Call inside
    ``store.write(exclusive=f"layer:{layer}")``, the lock of the lease.

    Args:
        as_of: up to when the layer's data is true; ``None`` keeps what is known.
    """
    row = connection.execute(sa.select(layer_status).where(layer_status.c.layer == layer.value)).one_or_none()
    if row is not None and row.lease_expires_at is not None and row.lease_expires_at >= now:
        return False
    before = None if row is None else row.status
    failed = status is Status.FAILED
    values: dict[str, Any] = {
        "status": status.value,
        "last_attempt": now,
        "items_synced": items_synced,
        "items_changed": items_changed,
        "errors": list(errors),
        "details": dict(details or {}),
        "lease_holder": None,
        "lease_expires_at": None,
    }
    if status is Status.SUCCESS:
        values["last_sync"] = now
    if as_of is not None:
        values["as_of"] = as_of
    if row is None:
        connection.execute(layer_status.insert().values(layer=layer.value, consecutive_failures=int(failed), **values))
    else:
        values["consecutive_failures"] = row.consecutive_failures + (before != status.value) if failed else 0
        connection.execute(layer_status.update().where(layer_status.c.layer == layer.value).values(**values))
    if before != status.value:
        data = {
            "status": status.value,
            "items_changed": items_changed,
            "errors": list(errors),
            "triggered_by": "listener",
        }
        event_log.append(connection, [NewEvent(EventType.SYNC_STATUS, layer, now, data=data)], recorded_at=now)
    return True


def settle_error(
    connection: sa.Connection,
    layer: LayerId,
    marker: str,
    *,
    items_synced: int,
    as_of: datetime | None,
    now: datetime,
) -> bool:
    """Drop the errors with ``marker`` from a layer's status, since what they tell was settled after its last sync. If
    they were all that kept it from success, it is a success now. Returns whether anything changed.

    A sync that is under way writes the status itself. Call inside ``store.write(exclusive=f"layer:{layer}")``.
    """
    row = connection.execute(sa.select(layer_status).where(layer_status.c.layer == layer.value)).one_or_none()
    if row is None or is_held(row, now):
        return False
    errors = [error for error in row.errors if marker not in error]
    if len(errors) == len(row.errors):
        return False
    values: dict[str, Any] = {"errors": errors, "items_synced": items_synced, "as_of": as_of or row.as_of}
    whole = not errors and row.status == Status.PARTIAL.value
    if whole:
        values |= {"status": Status.SUCCESS.value, "last_sync": now}
    connection.execute(layer_status.update().where(layer_status.c.layer == layer.value).values(**values))
    if whole:
        data = {
            "status": Status.SUCCESS.value,
            "items_changed": row.items_changed,
            "errors": errors,
            "triggered_by": "operator",
        }
        event_log.append(connection, [NewEvent(EventType.SYNC_STATUS, layer, now, data=data)], recorded_at=now)
    return True
