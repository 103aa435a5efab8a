"""Checks of the webhook layer: does a delivery wait longer than it may?"""

from datetime import timedelta

import dagster as dg

from lz_sync_dagster.config import Settings
from lz_sync_dagster.defs.layer_checks import error, sync_check
from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.store import Store, inbox
from lz_sync_dagster.sync.timing import Clock

sync_is_complete = sync_check(LayerId.WEBHOOK, ["webhook", "deliveries"])


@dg.asset_check(
    asset=["webhook", "deliveries"], description="No delivery waits longer than `sync_layers.webhook.timeout_seconds`."
)
def none_waits_too_long(
    settings: dg.ResourceParam[Settings], store: dg.ResourceParam[Store], clock: dg.ResourceParam[Clock]
) -> dg.AssetCheckResult:
    allowed = timedelta(seconds=settings.sync_layers.webhook.timeout_seconds)
    with store.read() as connection:
        counts = inbox.counts(connection)
    waited = clock() - counts.oldest_pending if counts.oldest_pending else timedelta()
    figures = {"pending": counts.pending, "oldest_waits_seconds": waited.total_seconds()}
    if waited > allowed:
        return error(
            [f"a delivery has waited for {waited} (allowed: {allowed}); look at the newest runs of git_job"], **figures
        )
    return dg.AssetCheckResult(passed=True, metadata=figures)
