"""Retention: a five-minute layer writes tens of megabytes a day into Dagster's event log, and nobody else removes them.

Ticks are Dagster's own to keep: see ``retention`` in ``dagster.yaml``.
"""

from datetime import datetime, timedelta

import dagster as dg
from pydantic import Field

from lz_sync_dagster.sync.store import (
    Store,
    dead_letters,
    delivery_repairs,
    file_history,
    inbox,
    messages,
    quota,
    retention,
    source_findings,
)
from lz_sync_dagster.sync.timing import Clock

_FINISHED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
_AT_ONCE = 500


class Retention(dg.Config):
    """Days to keep: Dagster's runs, the event log, the ids of handled messages (Pub/Sub redelivers for 31 days), dead
    letters, deliveries that are done or ignored, findings that are resolved, repairs of deliveries that are settled,
    moves of the landing zone's head; superseded versions of resources, tombstones of deleted ones, ended spans of the
    coverage ledger, reads of the inventory, syncs, freshness of the feed, fields of types that are no longer read,
    refusals in the audit log."""

    runs: int = 7
    events: int = 90
    messages: int = 35
    dead_letters: int = 90
    deliveries: int = 90
    findings: int = 365
    repairs: int = 90
    head_moves: int = 365
    history: int = 400
    tombstones: int = Field(default=400, ge=retention.TOMBSTONE_DAYS)
    coverage_history: int = 400
    snapshots: int = 90
    syncs: int = 90
    feed_freshness: int = 90
    data_fields: int = 400
    refusals: int = 90


@dg.op(description="Removes what is older than its retention from the store and from Dagster's own storage.")
def prune(
    context: dg.OpExecutionContext, config: Retention, store: dg.ResourceParam[Store], clock: dg.ResourceParam[Clock]
) -> dict[str, int]:
    now = clock()

    def before(days: int) -> datetime:
        return now - timedelta(days=days)

    removed = {"messages": _forget_messages(store, before=before(config.messages))}
    with store.write() as connection:
        removed |= {
            "dead_letters": dead_letters.prune(connection, before=before(config.dead_letters)),
            "deliveries": inbox.prune(connection, before=before(config.deliveries)),
            "findings": source_findings.prune(connection, before=before(config.findings)),
            "repairs": delivery_repairs.prune(connection, before=before(config.repairs)),
            "head_moves": file_history.prune_moves(connection, before=before(config.head_moves)),
            "quota_usage": quota.prune(connection, now=now),
        }
    removed |= {
        "events": retention.prune_events(store, before=before(config.events)),
        "violations": retention.prune_findings(store, before=before(config.findings)),
        "history": retention.prune_versions(store, before=before(config.history)),
        "tombstones": retention.prune_tombstones(store, before=before(config.tombstones)),
        "coverage_history": retention.prune_coverage_history(store, before=before(config.coverage_history)),
        "snapshots": retention.prune_snapshots(store, before=before(config.snapshots)),
        "syncs": retention.prune_layer_runs(store, before=before(config.syncs)),
        "feed_freshness": retention.prune_feed_freshness(store, before=before(config.feed_freshness)),
        "data_fields": retention.prune_data_fields(store, before=before(config.data_fields)),
        "refusals": retention.prune_refusals(store, before=before(config.refusals)),
    }
    old = dg.RunsFilter(statuses=_FINISHED, created_before=now - timedelta(days=config.runs))
    runs = [record.dagster_run for record in context.instance.get_run_records(old, limit=_AT_ONCE, ascending=True)]
    kept = {_newest_success(context.instance, job) for job in {run.job_name for run in runs}}
    outdated = [run.run_id for run in runs if run.run_id not in kept]
    for run_id in outdated:
        context.instance.delete_run(run_id)
    removed["runs"] = len(outdated)
    context.log.info(", ".join(f"{what}: {count} removed" for what, count in removed.items()))
    return removed


def _forget_messages(store: Store, *, before: datetime) -> int:
    """A transaction per part, so that nobody waits long for the store's writer."""
    total = 0
    while True:
        with store.write() as connection:
            removed = messages.prune(connection, before=before)
        total += removed
        if removed < messages.PRUNE_LIMIT:
            return total


def _newest_success(instance: dg.DagsterInstance, job: str) -> str | None:
    """The run that says what the job's assets are now: without it they would look as if they were never made."""
    success = dg.RunsFilter(job_name=job, statuses=[dg.DagsterRunStatus.SUCCESS])
    newest = instance.get_run_records(success, limit=1)
    return newest[0].dagster_run.run_id if newest else None


@dg.job(description="Retention of the store and of Dagster's runs.")
def operations_job() -> None:
    prune()


operations_hourly_schedule = dg.ScheduleDefinition(
    name="operations_hourly_schedule",
    job=operations_job,
    cron_schedule="17 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Removes what is past its retention.",
)
