"""Requests for an inventory sync: a change of Terraform that the git layer found is looked at without waiting for the
schedule."""

import dagster as dg

from lz_sync_dagster.config import Settings
from lz_sync_dagster.defs.layer_requests import look
from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.store import Store
from lz_sync_dagster.sync.timing import Clock


@dg.sensor(
    job_name="inventory_job",
    minimum_interval_seconds=5,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Requests one inventory sync for all changes of Terraform that wait for one.",
)
def inventory_requests_sensor(
    context: dg.SensorEvaluationContext,
    settings: dg.ResourceParam[Settings],
    store: dg.ResourceParam[Store],
    clock: dg.ResourceParam[Clock],
) -> dg.SensorResult | dg.SkipReason:
    if LayerId.API in settings.disabled_layers:
        return dg.SkipReason("api_sync is switched off in the configuration")
    asked = look(context.instance, context.cursor, LayerId.API, store, clock)
    if asked.plan is None:
        return dg.SkipReason(asked.why_nothing)
    return dg.SensorResult(run_requests=asked.requests, cursor=asked.plan.cursor)
