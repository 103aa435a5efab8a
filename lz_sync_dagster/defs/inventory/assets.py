"""Layer 3, API sync: the landing zone as Cloud Asset Inventory reports it, and how much of it is known."""

import dagster as dg

from lz_sync_dagster.defs.layer_sync import layer_assets, layer_job
from lz_sync_dagster.layers import LayerId

_CAI_DOCS = dg.MetadataValue.url("https://cloud.google.com/asset-inventory/docs/overview")
_RESOURCES = dg.AssetKey(["inventory", "resources"])
_COVERAGE = dg.AssetKey(["inventory", "coverage"])
_FINDINGS = dg.AssetKey(["inventory", "findings"])

inventory_assets = layer_assets(
    LayerId.API,
    specs=[
        dg.AssetSpec(
            _RESOURCES,
            description=(
                "The newest known version of every resource and policy. One row per full resource name and "
                "content type."
            ),
            deps=[["git", "terraform_blocks"]],
            kinds={"googlecloud"},
            metadata={"store_table": "resources", "grain": "one row per (name, content type)", "source": _CAI_DOCS},
        ),
        dg.AssetSpec(
            _COVERAGE,
            description=(
                "What of the organization could be read, and why the rest could not. One row per scope, asset "
                "type and content."
            ),
            kinds={"googlecloud"},
            metadata={"store_table": "coverage", "grain": "one row per (scope, asset type, content type)"},
        ),
        dg.AssetSpec(
            _FINDINGS,
            description="Controls that a resource does not meet, open and resolved. One row per finding.",
            deps=[_RESOURCES, ["git", "enforcement_gates"]],
            kinds={"googlecloud"},
            metadata={"store_table": "findings", "grain": "one row per (control, resource, opened_at)"},
        ),
        dg.AssetSpec(
            ["inventory", "terraform_drift"],
            description=(
                "What terraform says for certain against what exists: matched, changed, missing, or unresolved with "
                "the reason. One row per resource block or instance of it."
            ),
            deps=[_RESOURCES, _COVERAGE, ["git", "terraform_blocks"]],
            kinds={"googlecloud", "terraform"},
            metadata={
                "store_table": "terraform_drift",
                "grain": "one row per resource block or instance of it",
                "endpoint": "/api/v1/terraform-drift",
            },
        ),
        dg.AssetSpec(
            ["inventory", "infrastructure_state"],
            description="The landing zone as the portal shows it: `GET /api/v1/sync/infrastructure-state`.",
            deps=[_RESOURCES, _COVERAGE, _FINDINGS, ["events", "feed_events"]],
            kinds={"googlecloud", "api"},
            metadata={"endpoint": "/api/v1/sync/infrastructure-state"},
        ),
    ],
)

inventory_job = layer_job(LayerId.API)
