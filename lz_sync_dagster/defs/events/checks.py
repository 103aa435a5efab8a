"""Checks of the events layer: is the feed listened to, and could every message be used?"""

from datetime import timedelta

import dagster as dg
import sqlalchemy as sa

from lz_sync_dagster.defs.layer_checks import evaluation, warning
from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.models import Status
from lz_sync_dagster.sync.store import Store
from lz_sync_dagster.sync.store.layer_runs import statuses
from lz_sync_dagster.sync.store.schema import dead_letters
from lz_sync_dagster.sync.timing import Clock

_NEW = timedelta(days=1)
_MESSAGES = ["events", "feed_messages"]


@dg.asset_check(asset=_MESSAGES, description="The feed is read: by a listener, or by a sync that left nothing out.")
def sync_is_complete(store: dg.ResourceParam[Store], clock: dg.ResourceParam[Clock]) -> dg.AssetCheckResult:
    return health(store, clock)


@dg.asset_check(asset=_MESSAGES, description="No message of the last day ended in the dead-letter table.")
def no_new_dead_letters(store: dg.ResourceParam[Store], clock: dg.ResourceParam[Clock]) -> dg.AssetCheckResult:
    return recent_dead_letters(store, clock)


def evaluations(store: Store, clock: Clock) -> list[dg.AssetCheckEvaluation]:
    """Both checks, for the sensor that reports the layer without a run."""
    return [
        evaluation(_MESSAGES, "no_new_dead_letters", recent_dead_letters(store, clock)),
        evaluation(_MESSAGES, "sync_is_complete", health(store, clock)),
    ]


def health(store: Store, clock: Clock) -> dg.AssetCheckResult:
    """The rule of `sync_is_complete`: the layer's health, which a listener writes without a sync of its own."""
    with store.read() as connection:
        status = next(one for one in statuses(connection, now=clock()) if one.layer is LayerId.PUBSUB)
    if status.status in (Status.SUCCESS, Status.IN_PROGRESS):
        return dg.AssetCheckResult(passed=True, metadata={"status": status.status.value})
    return warning(status.errors or [f"the layer is {status.status}; start 'lz-sync listen'"])


def recent_dead_letters(store: Store, clock: Clock) -> dg.AssetCheckResult:
    """The rule of `no_new_dead_letters`."""
    new = sa.select(dead_letters.c.key, dead_letters.c.reason).where(
        dead_letters.c.layer == LayerId.PUBSUB.value, dead_letters.c.received_at >= clock() - _NEW
    )
    with store.read() as connection:
        rows = connection.execute(new.order_by(dead_letters.c.id.desc()).limit(100)).all()
    if rows:
        return warning(
            [f"message {row.key}: {row.reason}; its payload is in the table dead_letters" for row in rows],
            new=len(rows),
        )
    return dg.AssetCheckResult(passed=True, metadata={"new": 0})
