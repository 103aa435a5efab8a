"""The streaming sensor: a tick that keeps reading the event log and reports what it finds at once, without a run.

Dagster starts ticks five seconds apart at best. This one lasts almost that long, so an event is on its asset's page
in a fraction of a second.
"""

import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime

import dagster as dg
import orjson

from lz_sync_dagster.config import Settings
from lz_sync_dagster.defs.configured import LAYER_TAG
from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.events.stream import Report, plan_reports, read_batches
from lz_sync_dagster.sync.store import Store, listeners
from lz_sync_dagster.sync.timing import Clock

#: Short enough to be done when the daemon looks again, five seconds after it started the tick.
TICK_SECONDS = 4.0
_POLL_SECONDS = 0.2
_CURSOR_VERSION = 1
#: A feed that has nothing to say is confirmed this often, as long as a listener is connected: silence is then
#: knowledge.
_CONFIRM_SECONDS = 150


@dg.sensor(
    minimum_interval_seconds=1,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Reads the event log for most of each tick and reports batches of events as they come, without a run.",
)
def events_feed_sensor(
    context: dg.SensorEvaluationContext,
    settings: dg.ResourceParam[Settings],
    store: dg.ResourceParam[Store],
    clock: dg.ResourceParam[Clock],
) -> dg.SkipReason:
    if LayerId.PUBSUB in settings.disabled_layers:
        return dg.SkipReason("pubsub is switched off in the configuration")
    seq, confirmed = read_cursor(context.cursor)
    events = 0
    for report in stream(store, seq, seconds=TICK_SECONDS, monotonic=time.monotonic, wait=threading.Event().wait):
        context.instance.report_runless_asset_event(materialization(report))
        events += report.count if report.noun == "feed_events" else 0
        seq, confirmed = report.last_seq, clock().timestamp()
        context.update_cursor(write_cursor(seq, confirmed))
    as_of = _listener_as_of(store, clock())
    if as_of is not None and clock().timestamp() - confirmed >= _CONFIRM_SECONDS:
        for noun in ("feed_messages", "feed_events"):
            context.instance.report_runless_asset_event(confirmation(noun, as_of))
        confirmed = clock().timestamp()
    context.update_cursor(write_cursor(seq, confirmed))
    return dg.SkipReason(f"reported {events} events without a run; the log is read up to seq {seq}")


def stream(
    store: Store, seq: int, *, seconds: float, monotonic: Callable[[], float], wait: Callable[[float], object]
) -> Iterator[Report]:
    """Reports of everything logged after ``seq``, as it comes, for about ``seconds``."""
    end = monotonic() + seconds
    while True:
        frames = read_batches(store, seq)
        yield from plan_reports(frames)
        if frames:
            seq = frames[-1].seq
        if monotonic() >= end:
            return
        if not frames:
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


def read_cursor(cursor: str | None) -> tuple[int, float]:
    """The last reported ``seq`` and the instant (Unix seconds) of the last report; zeros for none, or for another
    version's."""
    state = orjson.loads(cursor) if cursor else {}
    if state.get("version") != _CURSOR_VERSION:
        return 0, 0.0
    return int(state["seq"]), float(state["confirmed"])


def write_cursor(seq: int, confirmed: float) -> str:
    """The cursor of `read_cursor`."""
    return orjson.dumps({"version": _CURSOR_VERSION, "seq": seq, "confirmed": confirmed}).decode()


def _listener_as_of(store: Store, now: datetime) -> datetime | None:
    with store.read() as connection:
        listener = listeners.working(connection, now=now)
    return listener.as_of if listener else None
