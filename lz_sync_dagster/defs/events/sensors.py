"""The streaming sensor: a tick that waits for events and reports what it finds at once, without a run.

Dagster starts ticks five seconds apart at best. This one lasts almost that long, so the first event after a silence is
on its asset's page in a fraction of a second. A tick that has reported ends: Dagster keeps each report for ever, so a
busy feed makes one per asset and tick, however many events it has.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime

import dagster as dg

from lz_sync_dagster.config import Settings
from lz_sync_dagster.defs.configured import LAYER_TAG
from lz_sync_dagster.defs.events.checks import evaluations
from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync import cursor as sync_cursor
from lz_sync_dagster.sync.events.stream import Report, plan_reports, read_batches
from lz_sync_dagster.sync.models import FeedFrame
from lz_sync_dagster.sync.store import Store, listeners
from lz_sync_dagster.sync.timing import Clock

#: Short enough to be done when the daemon looks again, five seconds after it started the tick.
TICK_SECONDS = 4.0
_POLL_SECONDS = 0.2
_NOUNS = ("feed_messages", "feed_events")
_CURSOR_VERSION = 2
#: A feed that has nothing to say is confirmed this often, as long as a listener is connected: silence is then
#: knowledge. The checks are made as often, beside a report.
_CONFIRM_SECONDS = 150


@dataclass(frozen=True, slots=True)
class Cursor:
    """What was reported: the last ``seq``, and the instants (Unix seconds) of the last report of both assets and
    of the last checks."""

    seq: int = 0
    confirmed: float = 0.0
    checked: float = 0.0


@dg.sensor(
    minimum_interval_seconds=1,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Waits for events for most of each tick, and reports those that came as one batch, without a run.",
)
def events_feed_sensor(
    context: dg.SensorEvaluationContext,
    settings: dg.ResourceParam[Settings],
    store: dg.ResourceParam[Store],
    clock: dg.ResourceParam[Clock],
) -> dg.SkipReason:
    if LayerId.PUBSUB in settings.disabled_layers:
        return dg.SkipReason("pubsub is switched off in the configuration")
    cursor = read_cursor(context.cursor)
    frames = wait_for_events(
        store, cursor.seq, seconds=TICK_SECONDS, monotonic=time.monotonic, wait=threading.Event().wait
    )
    reports = plan_reports(frames)
    silent = [noun for noun in _NOUNS if noun not in {report.noun for report in reports}]
    events: list[dg.AssetMaterialization | dg.AssetCheckEvaluation] = [materialization(report) for report in reports]
    now = clock()
    if frames:
        cursor = replace(cursor, seq=frames[-1].seq)
    if not silent:
        cursor = replace(cursor, confirmed=now.timestamp())
    elif now.timestamp() - cursor.confirmed >= _CONFIRM_SECONDS and (as_of := _listener_as_of(store, now)):
        events += [confirmation(noun, as_of) for noun in silent]
        cursor = replace(cursor, confirmed=now.timestamp())
    if events and now.timestamp() - cursor.checked >= _CONFIRM_SECONDS:
        events += evaluations(store, clock)
        cursor = replace(cursor, checked=now.timestamp())
    for event in events:
        context.instance.report_runless_asset_event(event)
    context.update_cursor(write_cursor(cursor))
    return dg.SkipReason(f"reported {len(frames)} events without a run; the log is read up to seq {cursor.seq}")


def wait_for_events(
    store: Store, seq: int, *, seconds: float, monotonic: Callable[[], float], wait: Callable[[float], object]
) -> list[FeedFrame]:
    """What was logged after ``seq``, as soon as there is something; nothing after about ``seconds`` of silence."""
    end = monotonic() + seconds
    while True:
        frames = read_batches(store, seq)
        if frames or monotonic() >= end:
            return frames
        wait(_POLL_SECONDS)


def materialization(report: Report) -> dg.AssetMaterialization:
    """A report as Dagster records it. Metadata names the range of ``seq``, so that a repeated report is seen as one."""
    return dg.AssetMaterialization(
        asset_key=["events", report.noun],
        description=f"{report.count} events, seq {report.first_seq} to {report.last_seq}",
        metadata={**report.metadata, "status": "success"},
        tags={LAYER_TAG: LayerId.PUBSUB.value},
    )


def confirmation(noun: str, as_of: datetime) -> dg.AssetMaterialization:
    """Nothing happened, and a connected listener vouches for that up to ``as_of``."""
    return dg.AssetMaterialization(
        asset_key=["events", noun],
        description="no events; a connected listener has handled everything it was sent",
        metadata={"events": 0, "as_of": dg.MetadataValue.timestamp(as_of), "status": "success"},
        tags={LAYER_TAG: LayerId.PUBSUB.value},
    )


def read_cursor(cursor: str | None) -> Cursor:
    """A sensor's cursor; the first one for none, or for another version's."""
    return Cursor(**sync_cursor.read_cursor(cursor, _CURSOR_VERSION))


def write_cursor(cursor: Cursor) -> str:
    """The text that `read_cursor` reads."""
    return sync_cursor.write_cursor(_CURSOR_VERSION, **asdict(cursor))


def _listener_as_of(store: Store, now: datetime) -> datetime | None:
    with store.read() as connection:
        listener = listeners.working(connection, now=now)
    return listener.as_of if listener else None
