"""Publishes finished marts to the operational store, so that a page view never queries the warehouse."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import duckdb
import pyarrow as pa

from lz_sync_dagster.config import Settings
from lz_sync_dagster.sync.analytics import bigquery
from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.store import Store, daily_metrics
from lz_sync_dagster.sync.store.daily_metrics import DailyMetric

MART = "fct_daily_lz_metrics"
_COLUMNS = [
    "date",
    "source",
    "currency",
    "total_resources",
    "resources_with_violations",
    "total_cost",
    "avg_compliance",
    "coverage",
    "resource_coverage",
    "cost_coverage",
    "as_of",
]


@dataclass(frozen=True, slots=True)
class Published:
    """What a publication left behind: rows of the mart, how many of them changed the store, days, and the newest
    instant.
    """

    rows: int
    changed: int
    days: int
    days_without_cost: int
    as_of: datetime | None


def publish(settings: Settings, store: Store) -> Published:
    """Copy the mart of daily metrics to the store, changed rows only.

    Raises:
        SyncError: the mart was never built, or the warehouse cannot be read now.
    """
    if settings.warehouse.engine == "bigquery":
        rows = bigquery.read_rows(settings, bigquery.connect(settings), MART, _COLUMNS)
    else:
        rows = _read_duckdb(settings)
    metrics = [_metric(row) for row in rows]
    with store.write() as connection:
        changed = daily_metrics.publish(connection, metrics)
    days = {metric.date for metric in metrics}
    return Published(
        rows=len(metrics),
        changed=changed,
        days=len(days),
        days_without_cost=len(days - {metric.date for metric in metrics if metric.total_cost is not None}),
        as_of=max((metric.as_of for metric in metrics), default=None),
    )


def _read_duckdb(settings: Settings) -> list[dict[str, Any]]:
    path = settings.duckdb_path
    if not path.is_file():
        raise _not_built(str(path))
    query = f'select {", ".join(_COLUMNS)} from "{settings.sync_layers.bigquery.dataset}"."{MART}"'  # noqa: S608
    try:
        with duckdb.connect(str(path), read_only=True) as connection:
            mart: pa.Table = connection.sql(query).to_arrow_table()
    except duckdb.CatalogException as error:
        raise _not_built(f"{path} ({MART})") from error
    except duckdb.IOException as error:
        locked = "lock" in str(error)
        raise SyncError(
            f"cannot be read ({str(error).splitlines()[0]})",
            where=str(path),
            remedy=(
                "wait until the process that writes it is done"
                if locked
                else "move the file away, and run 'lz-sync sync analytics' to build it again from the raw data"
            ),
            reason=Reason.CONFLICT if locked else Reason.INVALID,
        ) from error
    rows: list[dict[str, Any]] = mart.to_pylist()
    return rows


def _not_built(where: str) -> SyncError:
    return SyncError(
        "holds no finished mart", where=where, remedy="run 'lz-sync sync analytics'", reason=Reason.NOT_FOUND
    )


def _metric(row: dict[str, Any]) -> DailyMetric:
    cost = row["total_cost"]
    return DailyMetric(
        **{**row, "total_cost": None if cost is None else float(cost), "as_of": row["as_of"].astimezone(UTC)}
    )
