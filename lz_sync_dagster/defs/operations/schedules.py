"""Retention: a five-minute layer writes tens of megabytes a day into Dagster's event log, and nobody else removes them.

Ticks are Dagster's own to keep: see ``retention`` in ``dagster.yaml``.
"""

from datetime import datetime, timedelta

import dagster as dg
import sqlalchemy as sa

from lz_sync_dagster.sync.store import (
    Store,
    dead_letters,
    delivery_repairs,
    file_history,
    inbox,
    messages,
    source_findings,
)
from lz_sync_dagster.sync.store.schema import event_log
from lz_sync_dagster.sync.timing import Clock

_FINISHED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
_AT_ONCE = 500


class Retention(dg.Config):
    """Days to keep: Dagster's runs, the event log, the ids of handled messages (Pub/Sub redelivers for 31 days), dead
    letters, deliveries that are done or ignored, findings that are resolved, repairs of deliveries that are settled,
    moves of the landing zone's head."""

    runs: int = 7
    events: int = 90
    messages: int = 35
    dead_letters: int = 90
    deliveries: int = 90
    findings: int = 365
    repairs: int = 90
    head_moves: int = 365


@dg.op(description="Removes what is older than its retention from the store and from Dagster's own storage.")
def prune(
    context: dg.OpExecutionContext, config: Retention, store: dg.ResourceParam[Store], clock: dg.ResourceParam[Clock]
) -> dict[str, int]:
    now = clock()
    removed = {"messages": _forget_messages(store, before=now - timedelta(days=config.messages))}
    with store.write() as connection:
        removed |= {
            "dead_letters": dead_letters.prune(connection, before=now - timedelta(days=config.dead_letters)),
            "events": connection.execute(
                sa.delete(event_log).where(event_log.c.recorded_at < now - timedelta(days=config.events))
            ).rowcount,
            "deliveries": inbox.prune(connection, before=now - timedelta(days=config.deliveries)),
            "findings": source_findings.prune(connection, before=now - timedelta(days=config.findings)),
            "repairs": delivery_repairs.prune(connection, before=now - timedelta(days=config.repairs)),
            "head_moves": file_history.prune_moves(connection, before=now - timedelta(days=config.head_moves)),
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
