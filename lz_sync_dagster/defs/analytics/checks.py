"""Checks of the analytics layer beside dbt's own tests, each of which is a check of its model."""

from datetime import timedelta

import dagster as dg
import sqlalchemy as sa

from lz_sync_dagster.config import Settings
from lz_sync_dagster.defs.layer_checks import sync_check, warning
from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.store import Store
from lz_sync_dagster.sync.store.schema import daily_metrics
from lz_sync_dagster.sync.timing import Clock

#: Google exports the last costs of a day up to a day after it ended.
_COSTS_TAKE = timedelta(days=2)

sync_is_complete = sync_check(LayerId.BIGQUERY, ["analytics", "daily_metrics"])


@dg.asset_check(
    asset=["analytics", "daily_metrics"],
    description="The newest day has full coverage of resources, and the newest day that is due has costs.",
)
def newest_day_is_whole(
    settings: dg.ResourceParam[Settings], store: dg.ResourceParam[Store], clock: dg.ResourceParam[Clock]
) -> dg.AssetCheckResult:
    newest = sa.select(sa.func.max(daily_metrics.c.date))
    due = newest.where(daily_metrics.c.date <= (clock() - _COSTS_TAKE).date())
    with store.read() as connection:
        rows, due_rows = (
            connection.execute(sa.select(daily_metrics).where(daily_metrics.c.date == day.scalar_subquery())).all()
            for day in (newest, due)
        )
    if not rows:
        return warning(["no day is published; run 'lz-sync sync inventory', then 'lz-sync sync analytics'"], rows=0)
    gaps = []
    if rows[0].resource_coverage != "complete":
        gaps.append(f"{rows[0].date}: resources are {rows[0].resource_coverage}; see the check of inventory/coverage")
    if due_rows and settings.sync_layers.bigquery.billing_export is not None:
        gaps += sorted(
            {
                f"{row.date}: costs are {row.cost_coverage}; see analytics/raw_billing"
                for row in due_rows
                if row.cost_coverage != "complete"
            }
        )
    if gaps:
        return warning(gaps, rows=len(rows))
    return dg.AssetCheckResult(passed=True, metadata={"rows": len(rows), "date": rows[0].date.isoformat()})
