"""Layer 5, data pipeline: raw billing → dbt models on the warehouse → the mart that the portal shows. Three steps,
one sync of the layer."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import dagster as dg

from lz_sync_dagster.config import Settings
from lz_sync_dagster.defs.dbt import (
    DagsterDbtTranslator,
    DagsterDbtTranslatorSettings,
    Dbt,
    DbtCliInvocation,
    dbt_assets,
)
from lz_sync_dagster.defs.layer_sync import attempt_layer, layer_job, materializations
from lz_sync_dagster.layers import LayerId, layer
from lz_sync_dagster.sync.analytics import transform
from lz_sync_dagster.sync.errors import SyncError
from lz_sync_dagster.sync.progress import Progress
from lz_sync_dagster.sync.runs import LayerOutcome, LayerRun
from lz_sync_dagster.sync.store import Store
from lz_sync_dagster.sync.timing import Clock

_GROUP = layer(LayerId.BIGQUERY).group
_RAW_BILLING = dg.AssetKey([_GROUP, "raw_billing"])
_DAILY_METRICS = dg.AssetKey([_GROUP, "daily_metrics"])
_CHANGED_DAYS = "changed_days"


class Translator(DagsterDbtTranslator):
    """One rule for all models: ``analytics/<model>``. Sources say in dbt which asset they are
    (``meta.dagster.asset_key``)."""

    def get_asset_key(self, dbt_resource_props: Mapping[str, Any]) -> dg.AssetKey:
        if dbt_resource_props["resource_type"] == "source":
            return super().get_asset_key(dbt_resource_props)
        return dg.AssetKey([_GROUP, dbt_resource_props["name"]])

    def get_group_name(self, dbt_resource_props: Mapping[str, Any]) -> str | None:
        return None if dbt_resource_props["resource_type"] == "source" else _GROUP

    def get_description(self, dbt_resource_props: Mapping[str, Any]) -> str:
        return " ".join(dbt_resource_props["description"].split())


@dg.asset(
    key=_RAW_BILLING,
    group_name=_GROUP,
    description=(
        "Google's detailed billing export, flattened to typed columns. One row per line of the export; one "
        "Parquet file per day of usage."
    ),
    kinds={"bigquery", "parquet"},
    output_required=False,
    metadata={
        "grain": "one row per line of the billing export",
        "source": dg.MetadataValue.url(
            "https://cloud.google.com/billing/docs/how-to/export-data-bigquery-tables/detailed-usage"
        ),
    },
)
def raw_billing(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    store: dg.ResourceParam[Store],
    clock: dg.ResourceParam[Clock],
) -> Iterator[dg.MaterializeResult[Any]]:
    def land(settings: Settings, store: Store, _run: LayerRun, *, clock: Clock, progress: Progress) -> LayerOutcome:
        from lz_sync_dagster.sync.analytics import service  # loads pyarrow and duckdb: only a run needs them

        landing = service.land_billing(settings, store, clock=clock, progress=progress)
        return LayerOutcome(
            items_synced=landing.lines,
            items_changed=landing.changed_days,
            as_of=landing.as_of or clock(),
            details={"raw_billing": service.billing_details(settings, landing)},
        )

    last = _is_last(context, _DAILY_METRICS)
    outcome = attempt_layer(context, LayerId.BIGQUERY, land, settings=settings, store=store, clock=clock, last=last)
    if outcome is not None:
        yield from materializations(LayerId.BIGQUERY, [_RAW_BILLING], outcome, store=store)


#: The days of resources and the versions of resources are two sources that come from one asset.
_TRANSLATOR = Translator(DagsterDbtTranslatorSettings(enable_duplicate_source_asset_keys=True))


@dbt_assets(manifest=transform.manifest_path(), dagster_dbt_translator=_TRANSLATOR, name="analytics_dbt")
def analytics_models(
    context: dg.AssetExecutionContext,
    dbt: dg.ResourceParam[Dbt],
    settings: dg.ResourceParam[Settings],
    store: dg.ResourceParam[Store],
    clock: dg.ResourceParam[Clock],
) -> Iterator[Any]:
    events: list[Any] = []

    def build(settings: Settings, store: Store, _run: LayerRun, *, clock: Clock, progress: Progress) -> LayerOutcome:
        from lz_sync_dagster.sync.analytics import service  # loads pyarrow and duckdb: only a run needs them

        service.load_warehouse(settings, store, clock=clock, progress=progress)
        target = transform.target_path(settings)
        settings.duckdb_path.parent.mkdir(parents=True, exist_ok=True)
        invocation = dbt.cli(["build"], context=context, target_path=target, raise_on_error=False)
        events.extend(invocation.stream())
        if not invocation.is_successful():
            raise dbt_error(invocation)
        return LayerOutcome(items_synced=len(context.selected_asset_keys), items_changed=0, as_of=clock())

    last = _is_last(context, _DAILY_METRICS)
    try:
        attempt_layer(context, LayerId.BIGQUERY, build, settings=settings, store=store, clock=clock, last=last)
    except dg.Failure:
        yield from events  # the models that were built, and the tests that say what is wrong
        raise
    yield from events


@dg.asset(
    key=_DAILY_METRICS,
    group_name=_GROUP,
    deps=[[_GROUP, "fct_daily_lz_metrics"]],
    description=(
        "The finished mart, copied to the store for the portal's pages: total_resources, "
        "resources_with_violations, total_cost, "
        "avg_compliance. One row per date, source and currency."
    ),
    kinds={"duckdb"},
    output_required=False,
    metadata={"store_table": "daily_metrics", "grain": "one row per (date, source, currency)"},
)
def daily_metrics(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    store: dg.ResourceParam[Store],
    clock: dg.ResourceParam[Clock],
) -> Iterator[dg.MaterializeResult[Any]]:
    def publish(settings: Settings, store: Store, _run: LayerRun, *, clock: Clock, progress: Progress) -> LayerOutcome:
        from lz_sync_dagster.sync.analytics import service  # loads pyarrow and duckdb: only a run needs them

        published = service.publish_marts(settings, store, progress=progress)
        landing = service.land_billing(
            settings, store, clock=clock
        )  # changes nothing any more, and knows what was refused
        return service.outcome(settings, replace(landing, changed_days=_changed_days(context)), published, clock=clock)

    outcome = attempt_layer(context, LayerId.BIGQUERY, publish, settings=settings, store=store, clock=clock)
    if outcome is not None:
        yield from materializations(LayerId.BIGQUERY, [_DAILY_METRICS], outcome, store=store)


analytics_job = layer_job(LayerId.BIGQUERY)


def _is_last(context: dg.AssetExecutionContext, final: dg.AssetKey) -> bool:
    """Whether this run ends without the final step: somebody chose some of the layer's assets by hand."""
    return final not in context.job_def.asset_layer.selected_asset_keys


def _changed_days(context: dg.AssetExecutionContext) -> int:
    """How many days of billing this run landed, as its first step recorded."""
    event = context.instance.get_latest_materialization_event(_RAW_BILLING)
    if event is None or event.run_id != context.run.run_id or event.asset_materialization is None:
        return 0
    return int(str(event.asset_materialization.metadata[_CHANGED_DAYS].value))


def dbt_error(invocation: DbtCliInvocation) -> SyncError:
    """The first model or test that failed, as `transform.failure` tells it."""
    try:
        results = invocation.get_artifact("run_results.json")["results"]
    except (FileNotFoundError, json.JSONDecodeError):
        results = []
    failed = [result for result in results if result["status"] in ("error", "fail", "runtime error")]
    if not failed:
        return transform.failure("dbt ended early", where="dbt build", output=str(invocation.get_error()))
    what = f"{failed[0]['status']}: {failed[0]['message']}"
    return transform.failure(what, where=failed[0]["unique_id"], output="")
