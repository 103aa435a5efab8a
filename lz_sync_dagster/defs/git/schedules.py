"""When the git layer syncs by itself: at the configured cadence, six-hourly by default. Webhooks come on top.
The audit is daily."""

import dagster as dg

from lz_sync_dagster.config import load_settings
from lz_sync_dagster.defs.layer_schedule import layer_schedule
from lz_sync_dagster.layers import LayerId

git_daily_audit_schedule = dg.ScheduleDefinition(
    name="git_daily_audit_schedule",
    job_name="git_audit_job",
    cron_schedule="17 3 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Compares the landing zone, the portal's repository, its manifest and the store, file by file.",
)


@dg.definitions
def defs() -> dg.Definitions:
    return dg.Definitions(schedules=[layer_schedule(LayerId.GIT, load_settings()), git_daily_audit_schedule])
