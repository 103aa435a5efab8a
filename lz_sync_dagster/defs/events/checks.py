"""Checks of the events layer: could every message be used?"""

from datetime import timedelta

import dagster as dg
import sqlalchemy as sa

from lz_sync_dagster.defs.layer_checks import sync_check, warning
from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.store import Store
from lz_sync_dagster.sync.store.schema import dead_letters
from lz_sync_dagster.sync.timing import Clock

_NEW = timedelta(days=1)

sync_is_complete = sync_check(LayerId.PUBSUB, ["events", "feed_messages"])


@dg.asset_check(
    asset=["events", "feed_messages"], description="No message of the last day ended in the dead-letter table."
)
def no_new_dead_letters(store: dg.ResourceParam[Store], clock: dg.ResourceParam[Clock]) -> dg.AssetCheckResult:
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
