"""One foreground sync of the layer: everything that waits on the subscription is handled, then it ends.

The live path is the listener. While one works, this reports its figures and leaves the subscription to it.
"""

from __future__ import annotations

import time
from datetime import datetime

import structlog
from google.api_core import exceptions

from lz_sync_dagster.config import Settings
from lz_sync_dagster.sync.compliance.controls import load_controls
from lz_sync_dagster.sync.events.handler import BATCH, BatchResult, ReceivedMessage, figures, handle_batch
from lz_sync_dagster.sync.events.subscription import (
    CALL_TIMEOUT_SECONDS,
    Subscription,
    google_errors,
    open_subscription,
)
from lz_sync_dagster.sync.models import Status
from lz_sync_dagster.sync.progress import Progress
from lz_sync_dagster.sync.runs import LayerOutcome, LayerRun
from lz_sync_dagster.sync.store import Store, listeners
from lz_sync_dagster.sync.timing import Clock

#: A pull that waits this long for a first message and gets none says "empty"; two in a row are believed.
PULL_SECONDS = 2.0
EMPTY_PULLS = 2
#: A subscription that is not empty after this long needs the listener.
DRAIN_LIMIT_SECONDS = 300.0

log = structlog.get_logger(__name__)


def sync_events(settings: Settings, store: Store, run: LayerRun, *, clock: Clock, progress: Progress) -> LayerOutcome:
    """Handle what waits on the subscription until it is empty.

    Returns:
        ``items_synced``: messages handled in total; ``items_changed``: assets that this sync changed.

    Raises:
        SyncError: the subscription is missing or cannot be read.
    """
    config = settings.sync_layers.pubsub
    path = f"projects/{config.project}/subscriptions/{config.subscription}"
    with store.read() as connection:
        listener = listeners.working(connection, now=clock(), subscription=path)
        known = figures(connection, path)
    if listener is not None and listener.as_of is not None:
        details = {**known.details, "feed_messages": {**known.details["feed_messages"], "listener": listener.holder}}
        log.info("listener_works", run=run.number, listener=listener.holder)
        return LayerOutcome(known.total, 0, listener.as_of, details=details)

    subscription = open_subscription(settings)
    try:
        started = clock()
        result, empty, newest = _drain(settings, store, subscription, clock=clock, progress=progress)
    finally:
        subscription.close()
    with store.read() as connection:
        known = figures(connection, path)
    details = {
        "feed_messages": {
            **known.details["feed_messages"],
            "new": result.handled,
            "duplicates": result.duplicates,
            "new_dead": result.dead,
        },
        "feed_events": {
            **known.details["feed_events"],
            "events": result.state.events,
            "created": result.state.created,
            "updated": result.state.updated,
            "deleted": result.state.deleted,
        },
    }
    if empty:
        return LayerOutcome(known.total, result.applied, started, details=details)
    line = (
        f"subscription {path}: is not empty after {DRAIN_LIMIT_SECONDS:.0f} s; start 'lz-sync listen', which keeps up"
    )
    return LayerOutcome(known.total, result.applied, newest or started, Status.PARTIAL, (line,), details)


def _drain(
    settings: Settings, store: Store, subscription: Subscription, *, clock: Clock, progress: Progress
) -> tuple[BatchResult, bool, datetime | None]:
    """What was handled, whether the subscription is empty now, and when the newest message was published."""
    evaluate = load_controls().evaluate
    scopes = settings.sync_layers.api_sync.scopes
    total = BatchResult()
    newest: datetime | None = None
    empty = 0
    deadline = time.monotonic() + DRAIN_LIMIT_SECONDS
    while empty < EMPTY_PULLS:
        if time.monotonic() > deadline:
            return total, False, newest
        ack_ids, received = _pull(subscription)
        if not received:
            empty += 1
            continue
        empty = 0
        total += handle_batch(store, subscription.path, received, scopes=scopes, evaluate=evaluate, clock=clock)
        newest = max((item.publish_time for item in received if item.publish_time), default=newest)
        with google_errors(subscription.path):
            subscription.client.acknowledge(
                subscription=subscription.path, ack_ids=ack_ids, timeout=CALL_TIMEOUT_SECONDS
            )
        progress("handling feed messages", total.messages, None)
    return total, True, newest


def _pull(subscription: Subscription) -> tuple[list[str], list[ReceivedMessage]]:
    with google_errors(subscription.path):
        try:
            answer = subscription.client.pull(
                subscription=subscription.path, max_messages=BATCH, retry=None, timeout=PULL_SECONDS
            )
        except exceptions.DeadlineExceeded:
            return [], []
    received = [
        ReceivedMessage(
            item.message.message_id, item.message.data, item.message.publish_time, dict(item.message.attributes)
        )
        for item in answer.received_messages
    ]
    return [item.ack_id for item in answer.received_messages], received
