"""The code location: loads ``defs/`` and gives it its resources. Nothing is declared here."""

import warnings
from collections.abc import Mapping
from pathlib import Path

import dagster as dg

from lz_sync_dagster.config import Settings, load_settings
from lz_sync_dagster.defs.configured import as_configured
from lz_sync_dagster.defs.resources import resources


def build_defs(
    settings: Settings | None = None, *, resource_overrides: Mapping[str, object] | None = None
) -> dg.Definitions:
    """All definitions. A test swaps a resource with ``resource_overrides={"store": store}``.

    Args:
        settings: whose owners and cadences the assets show (default: `load_settings`).
        resource_overrides: resources by name, in place of those of `lz_sync_dagster.defs.resources`.
    """
    shown = settings or load_settings()
    tree = dg.ComponentTree.for_project(Path(__file__).parent)
    loaded = _load(tree)
    assets = [asset for asset in loaded.assets or () if isinstance(asset, dg.AssetsDefinition)]
    return dg.Definitions(
        assets=dg.map_asset_specs(lambda spec: as_configured(spec, shown), assets),
        asset_checks=loaded.asset_checks,
        jobs=loaded.jobs,
        schedules=loaded.schedules,
        sensors=loaded.sensors,
        resources={**resources(), **(resource_overrides or {})},
        executor=dg.in_process_executor,
        metadata=loaded.metadata,
        component_tree=tree,
    )


def _load(tree: dg.ComponentTree) -> dg.Definitions:
    """What `dg.load_from_defs_folder` does, without a look at the components that each installed library offers: it
    would import them all, in the process of every run."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return tree.build_defs(Path())


@dg.definitions
def defs() -> dg.Definitions:
    return build_defs()
