"""When the marts are built: daily at 01:00 UTC, or weekly on Mondays."""

import dagster as dg

from lz_sync_dagster.config import load_settings
from lz_sync_dagster.defs.layer_schedule import layer_schedule
from lz_sync_dagster.layers import LayerId


@dg.definitions
def defs() -> dg.Definitions:
    return dg.Definitions(schedules=[layer_schedule(LayerId.BIGQUERY, load_settings())])
