"""The event log: everything that happened, in the order it was committed. The live feed is this table.

``seq`` is taken from a counter row inside the transaction that writes the events. The row lock is held until the
commit, so on SQLite and PostgreSQL alike a reader that saw ``seq`` n has seen, or can see, all of 1 … n: no gaps, no
late arrivals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.models import EventType, FeedFrame
from lz_sync_dagster.sync.store.schema import counters, event_log

_COUNTER = "event_log"


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event that is about to be logged. ``synthetic``: found by a snapshot, not told by the feed."""

    event_type: EventType
    layer: LayerId
    timestamp: datetime
    resource: dict[str, Any] | None = None
    data: dict[str, Any] = field(default_factory=dict)
    synthetic: bool = False


def append(connection: sa.Connection, events: Sequence[NewEvent], *, recorded_at: datetime) -> int:
    """Append events in order, inside the caller's transaction. Returns the last ``seq`` of the log."""
    last = take(connection, _COUNTER, len(events))
    if events:
        first = last - len(events) + 1
        connection.execute(
            event_log.insert(),
            [
                {
                    "seq": first + offset,
                    "event_type": event.event_type.value,
                    "layer": event.layer.value,
                    "timestamp": event.timestamp,
                    "resource": event.resource,
                    "data": event.data,
                    "synthetic": event.synthetic,
                    "recorded_at": recorded_at,
                }
                for offset, event in enumerate(events)
            ],
        )
    return last


def take(connection: sa.Connection, counter: str, count: int) -> int:
    """Add ``count`` to a counter and return its new value. The counter stays locked until the transaction ends."""
    if count == 0:
        return connection.scalar(sa.select(counters.c.value).where(counters.c.name == counter)) or 0
    add = counters.update().where(counters.c.name == counter).values(value=counters.c.value + count)
    value = connection.scalar(add.returning(counters.c.value))
    if value is None:
        raise LookupError(f"counter {counter!r} is missing: run 'lz-sync db migrate'")
    return int(value)


def last_seq(connection: sa.Connection) -> int:
    """``seq`` of the newest event ever logged, 0 if none."""
    return take(connection, _COUNTER, 0)


def oldest_seq(connection: sa.Connection) -> int | None:
    """``seq`` of the oldest event still kept, ``None`` if the log is empty."""
    oldest: int | None = connection.scalar(sa.select(sa.func.min(event_log.c.seq)))
    return oldest


def after(connection: sa.Connection, seq: int, *, limit: int) -> list[FeedFrame]:
    """At most ``limit`` events with a greater ``seq``, in order."""
    rows = connection.execute(sa.select(event_log).where(event_log.c.seq > seq).order_by(event_log.c.seq).limit(limit))
    return [
        FeedFrame(
            seq=row.seq,
            event_type=EventType(row.event_type),
            timestamp=row.timestamp,
            layer=LayerId(row.layer),
            resource=row.resource,
            data={**row.data, "synthetic": True} if row.synthetic else row.data,
        )
        for row in rows
    ]
