"""Schedules of layers. A tick that finds its layer running, or switched off, is skipped and says so."""

from datetime import datetime

import dagster as dg

from lz_sync_dagster.config import Settings
from lz_sync_dagster.defs.configured import LAYER_TAG, TRIGGERED_BY_TAG
from lz_sync_dagster.layers import LayerId, layer
from lz_sync_dagster.sync.cadence import Cadence, cadence_of
from lz_sync_dagster.sync.store import Store
from lz_sync_dagster.sync.store.layer_runs import is_in_progress
from lz_sync_dagster.sync.timing import Clock

_UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def layer_schedule(layer_id: LayerId, settings: Settings) -> dg.ScheduleDefinition:
    """The schedule that keeps a layer at its configured cadence: ``git_six_hourly_schedule``."""
    cadence = cadence_of(layer_id, settings)
    if cadence is None:
        raise ValueError(f"layer {layer_id} has no cadence: it waits for a call")
    group = layer(layer_id).group
    name = f"{group}_{cadence.word}_schedule"

    @dg.schedule(
        name=name,
        job_name=f"{group}_job",
        cron_schedule=cadence.cron,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"{layer(layer_id).title}: every {cadence.every}, unless a sync of the layer is under way.",
    )
    def schedule(
        context: dg.ScheduleEvaluationContext,
        settings: dg.ResourceParam[Settings],
        store: dg.ResourceParam[Store],
        clock: dg.ResourceParam[Clock],
    ) -> dg.SkipReason | dg.RunRequest:
        reason = why_not(layer_id, cadence, context.scheduled_execution_time, settings, store, clock())
        reason = reason or why_not_yet(context.instance, f"{group}_job")
        if reason is not None:
            return dg.SkipReason(reason)
        return dg.RunRequest(
            run_key=context.scheduled_execution_time.isoformat(),
            tags={TRIGGERED_BY_TAG: f"schedule:{name}", LAYER_TAG: layer_id.value},
        )

    return schedule


def why_not(
    layer_id: LayerId, cadence: Cadence, tick: datetime, settings: Settings, store: Store, now: datetime
) -> str | None:
    """Why this tick starts no sync, or ``None`` if it does."""
    if layer_id in settings.disabled_layers:
        return f"layer {layer_id} is switched off in the configuration"
    if not cadence.is_due(tick):
        return f"layer {layer_id} is due at {cadence.after(tick).isoformat()}"
    if is_syncing(layer_id, store, now):
        return f"layer {layer_id} is syncing already"
    return None


def why_not_yet(instance: dg.DagsterInstance, job_name: str) -> str | None:
    """Names the run of this job that waits or runs, if there is one."""
    unfinished = instance.get_run_records(dg.RunsFilter(job_name=job_name, statuses=_UNFINISHED), limit=1)
    if not unfinished:
        return None
    run = unfinished[0].dagster_run
    return f"run {run.run_id[:8]} of {job_name} is {run.status.value.lower().replace('_', ' ')}"


def is_syncing(layer_id: LayerId, store: Store, now: datetime) -> bool:
    """Whether anybody is syncing the layer: a Dagster run or a ``lz-sync sync`` in a terminal."""
    with store.read() as connection:
        return is_in_progress(connection, layer_id, now)
