"""What every asset gets from the configuration and its layer: owners, the layer's tag, and how fresh it has to be."""

from datetime import timedelta

import dagster as dg

from lz_sync_dagster.config import Settings
from lz_sync_dagster.layers import Layer, layer_of_group

LAYER_TAG = "lz_sync/layer"
TRIGGERED_BY_TAG = "lz_sync/triggered_by"

#: Dagster cannot watch a shorter window. The two-second promise of the live feed is kept, and measured, outside of
#: Dagster.
_SHORTEST_WINDOW = timedelta(minutes=5)


def as_configured(spec: dg.AssetSpec, settings: Settings) -> dg.AssetSpec:
    """The spec with its owners, its layer's tag and freshness policy. A spec without a group (an upstream stub) stays
    as it is."""
    if spec.group_name is None:
        return spec
    layer = layer_of_group(spec.group_name)
    return spec.replace_attributes(
        owners=list(settings.owners),
        tags={**spec.tags, LAYER_TAG: layer.id.value},
        freshness_policy=freshness_policy(layer, settings),
    )


def freshness_policy(layer: Layer, settings: Settings) -> dg.FreshnessPolicy:
    """Warn at the target, fail at twice. The target is the configured cadence, or else the layer's own.

    A layer that waits for a call is confirmed by its sensor twice within the target, so silence is not staleness.
    """
    warn = settings.cadence(layer.id) or max(layer.target, _SHORTEST_WINDOW)
    return dg.FreshnessPolicy.time_window(warn_window=warn, fail_window=2 * warn)
