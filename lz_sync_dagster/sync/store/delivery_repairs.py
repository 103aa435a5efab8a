"""Deliveries that GitHub could not deliver, and what became of them: one row each, from the first time that it was
asked to send one again."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import sqlalchemy as sa

from lz_sync_dagster.sync.store.schema import delivery_repairs, inbox


class RepairOutcome(StrEnum):
    """``requested``: GitHub was asked to send it again. ``delivered``: it came. ``given_up``: it is not asked for any
    more."""

    REQUESTED = "requested"
    DELIVERED = "delivered"
    GIVEN_UP = "given_up"


@dataclass(frozen=True, slots=True)
class Repair:
    """The repair of one delivery. ``failure``: what GitHub says of its newest attempt; ``attempts``: how often it was
    asked for again, at last at ``requested_at``."""

    delivery_id: str
    event: str
    delivered_at: datetime
    failure: str
    attempts: int
    requested_at: datetime
    outcome: RepairOutcome
    settled_at: datetime | None = None


def since(connection: sa.Connection, delivered_at: datetime) -> dict[str, Repair]:
    """The repairs of deliveries since an instant, and all that are not settled, by delivery id."""
    rows = connection.execute(
        sa.select(delivery_repairs).where(
            sa.or_(
                delivery_repairs.c.delivered_at >= delivered_at,
                delivery_repairs.c.outcome == RepairOutcome.REQUESTED.value,
            )
        )
    )
    return {row.delivery_id: _repair(row) for row in rows}


def put(connection: sa.Connection, repairs: Iterable[Repair]) -> None:
    """Write repairs, each in place of what is known of its delivery."""
    for repair in repairs:
        values = {
            "delivery_id": repair.delivery_id,
            "event": repair.event,
            "delivered_at": repair.delivered_at,
            "failure": repair.failure,
            "attempts": repair.attempts,
            "requested_at": repair.requested_at,
            "outcome": repair.outcome.value,
            "settled_at": repair.settled_at,
        }
        mine = delivery_repairs.c.delivery_id == repair.delivery_id
        if not connection.execute(delivery_repairs.update().where(mine).values(values)).rowcount:
            connection.execute(delivery_repairs.insert().values(values))


def prune(connection: sa.Connection, *, before: datetime) -> int:
    """Forget what was settled before an instant. Returns how many."""
    return connection.execute(delivery_repairs.delete().where(delivery_repairs.c.settled_at < before)).rowcount


def arrived(connection: sa.Connection, delivery_ids: Collection[str]) -> frozenset[str]:
    """Those of the deliveries that the inbox has."""
    ids, found = sorted(delivery_ids), set[str]()
    for start in range(0, len(ids), 500):
        query = sa.select(inbox.c.delivery_id).where(inbox.c.delivery_id.in_(ids[start : start + 500]))
        found |= set(connection.scalars(query))
    return frozenset(found)


def _repair(row: sa.Row[tuple[object, ...]]) -> Repair:
    return Repair(
        delivery_id=row.delivery_id,
        event=row.event,
        delivered_at=row.delivered_at,
        failure=row.failure,
        attempts=row.attempts,
        requested_at=row.requested_at,
        outcome=RepairOutcome(row.outcome),
        settled_at=row.settled_at,
    )
