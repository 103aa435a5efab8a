"""The webhook layer's sync: account for every delivery. `sync.git` settles them; this says whether it did in time."""

from __future__ import annotations

from datetime import timedelta

import sqlalchemy as sa

from lz_sync_dagster.config import Settings
from lz_sync_dagster.sync.models import Status
from lz_sync_dagster.sync.progress import Progress
from lz_sync_dagster.sync.runs import LayerOutcome, LayerRun
from lz_sync_dagster.sync.store import Store, inbox
from lz_sync_dagster.sync.store.schema import layer_status
from lz_sync_dagster.sync.timing import Clock


def sync_webhook(settings: Settings, store: Store, run: LayerRun, *, clock: Clock, progress: Progress) -> LayerOutcome:
    """Count deliveries. Partial if one has waited longer than ``sync_layers.webhook.timeout_seconds``.

    ``items_synced``: deliveries that are settled (done or ignored). ``items_changed``: those settled since this
    layer's last sync.
    """
    now = clock()
    with store.read() as connection:
        counts = inbox.counts(connection)
        before = connection.scalar(sa.select(layer_status.c.as_of).where(layer_status.c.layer == run.layer.value))
        changed = inbox.finished_since(connection, before)
    progress("counting deliveries", counts.received, counts.received)
    errors: tuple[str, ...] = ()
    allowed = timedelta(seconds=settings.sync_layers.webhook.timeout_seconds)
    if counts.oldest_pending is not None and now - counts.oldest_pending > allowed:
        waited = int((now - counts.oldest_pending).total_seconds())
        errors = (
            f"inbox: {counts.pending} deliveries wait for a git sync, the oldest for {waited} s (allowed: "
            f"{int(allowed.total_seconds())} s); look at the errors of the git layer, then run 'lz-sync sync git'",
        )
    return LayerOutcome(
        items_synced=counts.done + counts.ignored,
        items_changed=changed,
        as_of=now,
        status=Status.PARTIAL if errors else Status.SUCCESS,
        errors=errors,
        details={
            "deliveries": {
                "received": counts.received,
                "pending": counts.pending,
                "done": counts.done,
                "ignored": counts.ignored,
                "newly_settled": changed,
            }
        },
    )
