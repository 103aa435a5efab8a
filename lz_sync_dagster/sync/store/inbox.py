"""The inbox: webhook deliveries until a sync has settled them. `sync.webhook` decides; this module reads and writes.

A delivery is known by its id and by the hash of its body, for as long as the inbox keeps it: the id is not signed, so
a captured body that comes again under another id is the same delivery. It asks for a sync again only `ASK_AGAIN_AFTER`
it last did: a sync is idempotent, and whoever replays a body starts no more than that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from lz_sync_dagster.sync.store.schema import inbox

#: How soon after it last asked for a sync the same body may ask for another one.
ASK_AGAIN_AFTER = timedelta(minutes=3)


class DeliveryStatus(StrEnum):
    """``pending``: waits for a sync. ``done``: a sync that started after it has ended. ``ignored``: asks for
    nothing."""

    PENDING = "pending"
    DONE = "done"
    IGNORED = "ignored"


@dataclass(frozen=True, slots=True)
class NewDelivery:
    """A delivery as it arrives. ``commit_claim`` is what the caller says; ``reason`` says why it is ignored."""

    delivery_id: str
    body_hash: str
    event: str
    repository: str
    action: str | None = None
    ref: str | None = None
    commit_claim: str | None = None
    actor: str | None = None
    status: DeliveryStatus = DeliveryStatus.PENDING
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivery in the inbox. ``id`` counts up in the order of arrival; ``asked_at``: when it last asked for a
    sync."""

    id: int
    delivery_id: str
    event: str
    repository: str
    commit_claim: str | None
    actor: str | None
    status: DeliveryStatus
    received_at: datetime
    asked_at: datetime


@dataclass(frozen=True, slots=True)
class InboxCounts:
    """How many deliveries there are: ``received`` = ``pending`` + ``done`` + ``ignored``. ``oldest_pending``: its
    arrival."""

    received: int
    pending: int
    done: int
    ignored: int
    oldest_pending: datetime | None


def insert(connection: sa.Connection, delivery: NewDelivery, *, now: datetime) -> bool:
    """Keep a delivery. Returns ``False`` if it is known by its id or its body.

    A known body becomes pending again, and counts as new, if it was ignored and is not any more (the configuration was
    changed), or if it is done and comes under another id `ASK_AGAIN_AFTER` it last asked: some events have nothing of
    their own in their body. One that is still pending asks again after the same time, and stays the delivery it is.
    """
    values = {
        "delivery_id": delivery.delivery_id,
        "body_hash": delivery.body_hash,
        "event": delivery.event,
        "action": delivery.action,
        "repository": delivery.repository,
        "ref": delivery.ref,
        "commit_claim": delivery.commit_claim,
        "actor": delivery.actor,
        "status": delivery.status.value,
        "reason": delivery.reason,
        "received_at": now,
        "asked_at": now,
        "finished_at": now if delivery.status is DeliveryStatus.IGNORED else None,
    }
    statement: sqlite.Insert | postgresql.Insert
    if connection.dialect.name == "postgresql":
        statement = postgresql.insert(inbox).values(values).on_conflict_do_nothing()
    else:
        statement = sqlite.insert(inbox).values(values).on_conflict_do_nothing()
    if connection.execute(statement.returning(inbox.c.id)).first() is not None:
        return True
    if delivery.status is not DeliveryStatus.PENDING:
        return False
    known = inbox.c.body_hash == delivery.body_hash
    is_due = inbox.c.asked_at <= now - ASK_AGAIN_AFTER
    connection.execute(
        inbox.update().where(known, inbox.c.status == DeliveryStatus.PENDING.value, is_due).values(asked_at=now)
    )
    id_is_free = ~sa.exists(sa.select(inbox.c.id).where(inbox.c.delivery_id == delivery.delivery_id).correlate(None))
    revived = connection.execute(
        inbox.update()
        .where(
            known,
            sa.or_(
                inbox.c.status == DeliveryStatus.IGNORED.value,
                sa.and_(inbox.c.status == DeliveryStatus.DONE.value, is_due, id_is_free),
            ),
        )
        .values(
            status=DeliveryStatus.PENDING.value,
            reason=None,
            run_id=None,
            finished_at=None,
            received_at=now,
            asked_at=now,
            delivery_id=sa.case((id_is_free, delivery.delivery_id), else_=inbox.c.delivery_id),
        )
    )
    return revived.rowcount > 0


def pending(connection: sa.Connection, *, limit: int = 10_000) -> list[Delivery]:
    """The deliveries that wait for a sync, oldest first."""
    rows = connection.execute(
        sa.select(inbox).where(inbox.c.status == DeliveryStatus.PENDING.value).order_by(inbox.c.id).limit(limit)
    )
    return [_delivery(row) for row in rows]


def recent(connection: sa.Connection, *, limit: int) -> list[Delivery]:
    """The newest deliveries of any status, newest first."""
    return [_delivery(row) for row in connection.execute(sa.select(inbox).order_by(inbox.c.id.desc()).limit(limit))]


def finish(connection: sa.Connection, deliveries: Sequence[Delivery], *, run_id: str, now: datetime) -> int:
    """Mark pending deliveries as done by a run. Returns how many were: one that has asked again since it was read
    stays pending."""
    finished = 0
    for start in range(0, len(deliveries), 500):
        asked = [(delivery.id, delivery.asked_at) for delivery in deliveries[start : start + 500]]
        result = connection.execute(
            inbox.update()
            .where(sa.tuple_(inbox.c.id, inbox.c.asked_at).in_(asked), inbox.c.status == DeliveryStatus.PENDING.value)
            .values(status=DeliveryStatus.DONE.value, run_id=run_id, finished_at=now)
        )
        finished += result.rowcount
    return finished


def counts(connection: sa.Connection) -> InboxCounts:
    """How many deliveries of each status the inbox keeps."""
    grouped = connection.execute(sa.select(inbox.c.status, sa.func.count()).group_by(inbox.c.status)).all()
    by_status = {str(row[0]): int(row[1]) for row in grouped}
    oldest = connection.scalar(
        sa.select(inbox.c.received_at)
        .where(inbox.c.status == DeliveryStatus.PENDING.value)
        .order_by(inbox.c.received_at)
        .limit(1)
    )
    return InboxCounts(
        received=sum(by_status.values()),
        pending=by_status.get(DeliveryStatus.PENDING.value, 0),
        done=by_status.get(DeliveryStatus.DONE.value, 0),
        ignored=by_status.get(DeliveryStatus.IGNORED.value, 0),
        oldest_pending=oldest,
    )


def finished_since(connection: sa.Connection, since: datetime | None) -> int:
    """How many deliveries became done or ignored after an instant (``None``: ever)."""
    query = sa.select(sa.func.count()).where(inbox.c.status != DeliveryStatus.PENDING.value)
    if since is not None:
        query = query.where(inbox.c.finished_at > since)
    return connection.scalar(query) or 0


def _delivery(row: sa.Row[tuple[object, ...]]) -> Delivery:
    return Delivery(
        id=row.id,
        delivery_id=row.delivery_id,
        event=row.event,
        repository=row.repository,
        commit_claim=row.commit_claim,
        actor=row.actor,
        status=DeliveryStatus(row.status),
        received_at=row.received_at,
        asked_at=row.asked_at,
    )
