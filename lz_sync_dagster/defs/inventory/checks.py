"""Checks of the inventory layer: how much of the organization is known, and did the mass-delete breaker open?"""

import dagster as dg

from lz_sync_dagster.defs.layer_checks import error, sync_check, warning
from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.store import Store, breakers, coverage
from lz_sync_dagster.sync.store.layer_runs import CACHE_TTL
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
        waiting = breakers.open_breakers(connection)
    if waiting:
        return error(
            [
                f"{item.part[0]}, {item.part[1]} ({item.part[2]}): {item.lost} of {item.known} assets are missing "
                f"since {item.opened_at.isoformat()}; nothing was deleted; restore the reader's access or, if they "
                f"were deleted, confirm that with {breakers.command_of(item.part)}"
                for item in waiting
            ],
            open=len(waiting),
        )
    return dg.AssetCheckResult(passed=True, metadata={"open": 0})
