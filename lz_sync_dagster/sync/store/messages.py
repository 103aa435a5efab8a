"""Pub/Sub messages that were handled: by its id a redelivery is recognised, whatever became of it the first time.

How many there were is counted beside them: a count is asked for every few seconds, and survives that ids are forgotten.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from lz_sync_dagster.sync.store.schema import handled_messages, message_counts

_CHUNK = 500
#: Ids that one call of `prune` forgets at most: a transaction of well under a second.
PRUNE_LIMIT = 20_000


class MessageOutcome(StrEnum):
    """What became of a message."""

    OBSERVED = "observed"
    WELCOME = "welcome"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class HandledMessage:
    """A message that is done with."""

    message_id: str
    outcome: MessageOutcome
    published_at: datetime | None


def known(connection: sa.Connection, subscription: str, message_ids: Iterable[str]) -> set[str]:
    """Those of ``message_ids`` that were handled before."""
    found: set[str] = set()
    wanted = list(dict.fromkeys(message_ids))
    for start in range(0, len(wanted), _CHUNK):
        query = sa.select(handled_messages.c.message_id).where(
            handled_messages.c.subscription == subscription,
            handled_messages.c.message_id.in_(wanted[start : start + _CHUNK]),
        )
        found.update(connection.scalars(query))
    return found


def record(connection: sa.Connection, subscription: str, handled: Sequence[HandledMessage], *, now: datetime) -> None:
    """Remember messages, and count them. None of them may be known."""
    if not handled:
        return
    connection.execute(
        handled_messages.insert(),
        [
            {
                "subscription": subscription,
                "message_id": item.message_id,
                "outcome": item.outcome.value,
                "published_at": item.published_at,
                "handled_at": now,
            }
            for item in handled
        ],
    )
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    for outcome, count in sorted(Counter(item.outcome.value for item in handled).items()):
        statement = insert(message_counts).values(subscription=subscription, outcome=outcome, messages=count)
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=["subscription", "outcome"],
                set_={"messages": message_counts.c.messages + statement.excluded.messages},
            )
        )


def counts(connection: sa.Connection, subscription: str | None = None) -> dict[MessageOutcome, int]:
    """How many messages ever ended in which way (of one subscription, or of all)."""
    query = sa.select(message_counts.c.outcome, message_counts.c.messages)
    if subscription is not None:
        query = query.where(message_counts.c.subscription == subscription)
    found = dict.fromkeys(MessageOutcome, 0)
    for outcome, count in connection.execute(query):
        found[MessageOutcome(outcome)] += count
    return found


def prune(connection: sa.Connection, *, before: datetime, limit: int = PRUNE_LIMIT) -> int:
    """Forget what was handled before an instant: further back than any redelivery or seek.

    Returns:
        How many, at most ``limit``: as many as that means that there may be more, for another transaction.
    """
    key = sa.tuple_(handled_messages.c.subscription, handled_messages.c.message_id)
    old = (
        sa.select(handled_messages.c.subscription, handled_messages.c.message_id)
        .where(handled_messages.c.handled_at < before)
        .order_by(handled_messages.c.handled_at)
        .limit(limit)
    )
    return connection.execute(handled_messages.delete().where(key.in_(old))).rowcount
