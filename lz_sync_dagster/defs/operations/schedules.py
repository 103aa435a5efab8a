"""Retention: a five-minute layer writes tens of megabytes a day into Dagster's event log, and nobody else removes them.

Ticks are Dagster's own to keep: see ``retention`` in ``dagster.yaml``.
"""

from datetime import timedelta

import dagster as dg
import sqlalchemy as sa

from lz_sync_dagster.sync.store import Store, dead_letters, messages
from lz_sync_dagster.sync.store.schema import event_log
from lz_sync_dagster.sync.timing import Clock

_FINISHED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
_AT_ONCE = 500


class Retention(dg.Config):
    """Days to keep: Dagster's runs, the event log, the ids of handled messages (Pub/Sub redelivers for 31 days), dead
    letters."""

    runs: int = 7
    events: int = 90
    messages: int = 35
    dead_letters: int = 90


@dg.op(description="Removes what is older than its retention from the store and from Dagster's own storage.")
def prune(
    context: dg.OpExecutionContext, config: Retention, store: dg.ResourceParam[Store], clock: dg.ResourceParam[Clock]
) -> dict[str, int]:
    now = clock()
    with store.write() as connection:
        removed = {
            "messages": messages.prune(connection, before=now - timedelta(days=config.messages)),
            "dead_letters": dead_letters.prune(connection, before=now - timedelta(days=config.dead_letters)),
            "events": connection.execute(
                sa.delete(event_log).where(event_log.c.recorded_at < now - timedelta(days=config.events))
            ).rowcount,
        }
    old = dg.RunsFilter(statuses=_FINISHED, created_before=now - timedelta(days=config.runs))
    runs = context.instance.get_run_records(old, limit=_AT_ONCE, ascending=True)
    for record in runs:
        context.instance.delete_run(record.dagster_run.run_id)
    removed["runs"] = len(runs)
    context.log.info(", ".join(f"{what}: {count} removed" for what, count in removed.items()))
    return removed


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
