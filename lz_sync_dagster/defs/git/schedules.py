"""When the git layer syncs by itself: at the configured cadence, six-hourly by default. Webhooks come on top."""

import dagster as dg

from lz_sync_dagster.config import load_settings
from lz_sync_dagster.defs.layer_schedule import layer_schedule
from lz_sync_dagster.layers import LayerId


@dg.definitions
def defs() -> dg.Definitions:
    return dg.Definitions(schedules=[layer_schedule(LayerId.GIT, load_settings())])
