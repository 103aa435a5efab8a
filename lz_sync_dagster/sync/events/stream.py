"""What a Dagster sensor reports of the event log, batch by batch. Pure but for one query; knows nothing of Dagster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.models import EventType, FeedFrame
from lz_sync_dagster.sync.store import Store, event_log

#: Events that one report covers at most.
BATCH = 10_000


@dataclass(frozen=True, slots=True)
class Report:
    """A batch of events to record as one materialization of an asset of the group ``events``.

    Attributes:
        noun: ``feed_messages`` (what messages of the feed changed) or ``feed_events`` (all that was logged).
        count: how many events.
        first_seq, last_seq: the first and the last of them.
        types: how many of each ``event_type``.
        layers: how many of each layer.
    """

    noun: str
    count: int
    first_seq: int
    last_seq: int
    types: dict[str, int]
    layers: dict[str, int]

    @property
    def metadata(self) -> dict[str, Any]:
        """The figures, as JSON values."""
        return {
            "events": self.count,
            "first_seq": self.first_seq,
            "last_seq": self.last_seq,
            "types": self.types,
            "layers": self.layers,
        }


def read_batches(store: Store, seq: int, *, limit: int = BATCH) -> list[FeedFrame]:
    """The events after ``seq``, at most ``limit``, in order. The cursor moves on to the last one's ``seq``."""
    with store.read() as connection:
        return event_log.after(connection, seq, limit=limit)


def plan_reports(frames: Sequence[FeedFrame]) -> list[Report]:
    """One report per asset that the events belong to; none for no events."""
    told = [
        frame for frame in frames if frame.layer is LayerId.PUBSUB and frame.event_type is not EventType.SYNC_STATUS
    ]
    return [_report(noun, part) for noun, part in (("feed_messages", told), ("feed_events", frames)) if part]


def _report(noun: str, frames: Sequence[FeedFrame]) -> Report:
    return Report(
        noun=noun,
        count=len(frames),
        first_seq=frames[0].seq,
        last_seq=frames[-1].seq,
        types=dict(sorted(Counter(frame.event_type.value for frame in frames).items())),
        layers=dict(sorted(Counter(frame.layer.value for frame in frames).items())),
    )
