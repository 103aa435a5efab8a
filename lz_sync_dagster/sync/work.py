"""What each layer does, by layer: the one place where the five packages meet."""

from __future__ import annotations

from typing import Protocol

from lz_sync_dagster.config import Settings
from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.analytics.service import sync_analytics
from lz_sync_dagster.sync.events.service import sync_events
from lz_sync_dagster.sync.git.service import sync_git
from lz_sync_dagster.sync.inventory.service import sync_inventory
from lz_sync_dagster.sync.progress import Progress
from lz_sync_dagster.sync.runs import LayerOutcome, LayerRun
from lz_sync_dagster.sync.store import Store
from lz_sync_dagster.sync.timing import Clock
from lz_sync_dagster.sync.webhook.service import sync_webhook


class LayerWork(Protocol):
    """One sync of one layer. Raises `SyncError`; what it returns is recorded by `runs.attempt`."""

    def __call__(
        self, settings: Settings, store: Store, run: LayerRun, *, clock: Clock, progress: Progress
    ) -> LayerOutcome:
        """Do the sync."""


WORK: dict[LayerId, LayerWork] = {
    LayerId.WEBHOOK: sync_webhook,
    LayerId.GIT: sync_git,
    LayerId.API: sync_inventory,
    LayerId.PUBSUB: sync_events,
    LayerId.BIGQUERY: sync_analytics,
}
