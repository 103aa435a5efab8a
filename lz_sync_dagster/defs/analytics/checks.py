"""Checks of the analytics layer beside dbt's own tests, each of which is a check of its model."""

import dagster as dg
import sqlalchemy as sa

from lz_sync_dagster.defs.layer_checks import sync_check, warning
from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.store import Store
from lz_sync_dagster.sync.store.schema import daily_metrics

sync_is_complete = sync_check(LayerId.BIGQUERY, ["analytics", "daily_metrics"])


@dg.asset_check(asset=["analytics", "daily_metrics"], description="The newest day has costs and full coverage.")
def newest_day_is_whole(store: dg.ResourceParam[Store]) -> dg.AssetCheckResult:
    newest = sa.select(sa.func.max(daily_metrics.c.date)).scalar_subquery()
    with store.read() as connection:
        rows = connection.execute(sa.select(daily_metrics).where(daily_metrics.c.date == newest)).all()
    if not rows:
        return warning(["no day is published; run 'lz-sync sync inventory', then 'lz-sync sync analytics'"], rows=0)
    gaps = [
        f"{row.date}: coverage is {row.coverage}; see the check of inventory/coverage"
        for row in rows
        if row.coverage != "complete"
    ]
    if all(row.total_cost is None for row in rows):
        gaps.append(
            f"{rows[0].date}: costs are unknown; billing data comes a day or more late, or no export is configured"
        )
    if gaps:
        return warning(gaps, rows=len(rows))
    return dg.AssetCheckResult(passed=True, metadata={"rows": len(rows), "date": rows[0].date.isoformat()})
