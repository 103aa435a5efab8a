"""What a sensor reports of the event log."""

from __future__ import annotations

from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.events.stream import plan_reports, read_batches
from lz_sync_dagster.sync.models import EventType, FeedFrame
from lz_sync_dagster.sync.store import Store, event_log
from lz_sync_dagster.sync.store.event_log import NewEvent
from tests.conftest import NOW


def frame(seq: int, event_type: EventType, layer: LayerId = LayerId.PUBSUB) -> FeedFrame:
    return FeedFrame(seq=seq, event_type=event_type, timestamp=NOW, layer=layer, resource=None, data={})


def test_nothing_new_is_nothing_to_report() -> None:
    assert plan_reports([]) == []


def test_a_batch_is_one_report_per_asset() -> None:
    frames = [
        frame(4, EventType.RESOURCE_CREATED),
        frame(5, EventType.POLICY_VIOLATED),
        frame(6, EventType.SYNC_STATUS),
        frame(7, EventType.RESOURCE_CREATED, LayerId.API),
    ]
    messages, events = plan_reports(frames)
    assert (messages.noun, messages.count, messages.first_seq, messages.last_seq) == ("feed_messages", 2, 4, 5)
    assert (events.noun, events.count, events.first_seq, events.last_seq) == ("feed_events", 4, 4, 7)
    assert events.types == {"policy_violated": 1, "resource_created": 2, "sync_status": 1}
    assert events.layers == {"api": 1, "pubsub": 3}


def test_what_the_feed_did_not_cause_is_no_feed_message() -> None:
    (report,) = plan_reports([frame(1, EventType.SYNC_STATUS)])
    assert report.noun == "feed_events"


def test_events_are_read_after_the_cursor_up_to_a_limit(store: Store) -> None:
    events = [NewEvent(EventType.RESOURCE_UPDATED, LayerId.PUBSUB, NOW) for _ in range(5)]
    with store.write() as connection:
        event_log.append(connection, events, recorded_at=NOW)
    assert [item.seq for item in read_batches(store, 2, limit=2)] == [3, 4]
    assert [item.seq for item in read_batches(store, 4)] == [5]
    assert read_batches(store, 5) == []
