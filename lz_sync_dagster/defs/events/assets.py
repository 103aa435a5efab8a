"""Layer 4, real-time events: what the asset feed said, and the event log that it became."""

import dagster as dg

from lz_sync_dagster.defs.layer_sync import layer_assets, layer_job
from lz_sync_dagster.layers import LayerId

events_assets = layer_assets(
    LayerId.PUBSUB,
    specs=[
        dg.AssetSpec(
            ["events", "feed_messages"],
            description=(
                "Messages of the Cloud Asset feeds on Pub/Sub. `lz-sync listen` handles them within two "
                "seconds and Dagster is not "
                "on that path: `events_feed_sensor` records here, in batches and without a run, what they changed."
            ),
            kinds={"pubsub"},
            metadata={
                "store_table": "handled_messages",
                "grain": "one row per message",
                "source": dg.MetadataValue.url("https://cloud.google.com/asset-inventory/docs/monitor-asset-changes"),
            },
        ),
        dg.AssetSpec(
            ["events", "feed_events"],
            description="The event log that the portal's live feed sends, in the order of commit. One row per event.",
            deps=[["events", "feed_messages"]],
            kinds={"pubsub", "websocket"},
            metadata={"store_table": "event_log", "grain": "one row per event", "endpoint": "/api/v1/sync/events"},
        ),
    ],
)

events_job = layer_job(LayerId.PUBSUB)
