"""Checks of the inventory layer: how much of the organization is known, and did the mass-delete breaker open?"""

import dagster as dg
import sqlalchemy as sa

from lz_sync_dagster.defs.layer_checks import error, sync_check, warning
from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.store import Store, coverage
from lz_sync_dagster.sync.store.layer_runs import CACHE_TTL
from lz_sync_dagster.sync.store.schema import breakers
from lz_sync_dagster.sync.timing import Clock

sync_is_complete = sync_check(LayerId.API, ["inventory", "resources"])


@dg.asset_check(asset=["inventory", "coverage"], description="Every scope and asset type could be read.")
def coverage_is_complete(store: dg.ResourceParam[Store], clock: dg.ResourceParam[Clock]) -> dg.AssetCheckResult:
    with store.read() as connection:
        ledger = coverage.summary(connection, now=clock(), ttl=CACHE_TTL)
    figures = {"complete": ledger.complete, "partial": ledger.partial, "stale": ledger.stale, "unknown": ledger.unknown}
    if ledger.gaps:
        return warning(
            [
                f"{gap.scope}, {gap.asset_type} ({gap.content_type}): {gap.status}, {gap.reason}: "
                f"{gap.detail}; {gap.remedy}"
                for gap in ledger.gaps
            ],
            **figures,
        )
    if ledger.complete == 0:
        return warning(["nothing was read yet; check sync_layers.api_sync.scopes"], **figures)
    return dg.AssetCheckResult(passed=True, metadata=figures)


@dg.asset_check(
    asset=["inventory", "resources"],
    description="No asset type lost so many assets at once that deletions wait for a person.",
)
def breaker_is_closed(store: dg.ResourceParam[Store]) -> dg.AssetCheckResult:
    with store.read() as connection:
        rows = connection.execute(sa.select(breakers).order_by(breakers.c.opened_at)).all()
    if rows:
        return error(
            [
                f"{row.scope}, {row.asset_type} ({row.content_type}): {row.lost} of {row.known} assets are "
                f"missing since "
                f"{row.opened_at.isoformat()}; nothing was deleted; confirm the deletions or restore the "
                f"reader's access"
                for row in rows
            ],
            open=len(rows),
        )
    return dg.AssetCheckResult(passed=True, metadata={"open": 0})
