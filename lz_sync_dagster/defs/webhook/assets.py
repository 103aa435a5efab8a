"""Layer 1, webhook trigger: deliveries of the landing zone's repository, from acceptance to the sync that settled
them."""

import dagster as dg

from lz_sync_dagster.defs.layer_sync import layer_assets, layer_job
from lz_sync_dagster.layers import LayerId

webhook_assets = layer_assets(
    LayerId.WEBHOOK,
    specs=[
        dg.AssetSpec(
            ["webhook", "deliveries"],
            description=(
                "Signed deliveries (`push`, `repository_dispatch`, merged `pull_request`) in the durable inbox, and "
                "heads that polling found in their stead. One row per delivery. "
                "`webhook_deliveries_sensor` keeps account of them without a run; materializing does the same at once."
            ),
            kinds={"github", "webhook"},
            metadata={
                "store_table": "inbox",
                "grain": "one row per delivery",
                "endpoint": "POST /webhooks/github",
                "source": dg.MetadataValue.url("https://docs.github.com/en/webhooks"),
            },
        )
    ],
)

webhook_job = layer_job(LayerId.WEBHOOK)
