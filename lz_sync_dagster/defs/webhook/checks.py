"""Checks of the webhook layer: does a delivery wait longer than it may?"""

from datetime import timedelta

import dagster as dg

from lz_sync_dagster.config import Settings
from lz_sync_dagster.defs.layer_checks import error, evaluation, newest_sync, sync_check
from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.store import Store, inbox
from lz_sync_dagster.sync.timing import Clock

_DELIVERIES = ["webhook", "deliveries"]

sync_is_complete = sync_check(LayerId.WEBHOOK, _DELIVERIES)


@dg.asset_check(asset=_DELIVERIES, description="No delivery waits longer than `sync_layers.webhook.timeout_seconds`.")
def none_waits_too_long(
    settings: dg.ResourceParam[Settings], store: dg.ResourceParam[Store], clock: dg.ResourceParam[Clock]
) -> dg.AssetCheckResult:
    return longest_wait(settings, store, clock)


def evaluations(settings: Settings, store: Store, clock: Clock) -> list[dg.AssetCheckEvaluation]:
    """Both checks, for the sensor that accounts for the layer without a run."""
    return [
        evaluation(_DELIVERIES, "none_waits_too_long", longest_wait(settings, store, clock)),
        evaluation(_DELIVERIES, "sync_is_complete", newest_sync(LayerId.WEBHOOK, store)),
    ]


def longest_wait(settings: Settings, store: Store, clock: Clock) -> dg.AssetCheckResult:
    """The rule of `none_waits_too_long`."""
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
