"""Pub/Sub messages that were handled: by its id a redelivery is recognised, whatever became of it the first time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import sqlalchemy as sa

from lz_sync_dagster.sync.store.schema import handled_messages

_CHUNK = 500


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
    """Remember messages. None of them may be known."""
    if handled:
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


def counts(connection: sa.Connection, subscription: str | None = None) -> dict[MessageOutcome, int]:
    """How many of the remembered messages ended in which way (of one subscription, or of all)."""
    query = sa.select(handled_messages.c.outcome, sa.func.count()).group_by(handled_messages.c.outcome)
    if subscription is not None:
        query = query.where(handled_messages.c.subscription == subscription)
    found = dict.fromkeys(MessageOutcome, 0)
    for outcome, count in connection.execute(query):
        found[MessageOutcome(outcome)] = count
    return found


def prune(connection: sa.Connection, *, before: datetime) -> int:
    """Forget what was handled before an instant: further back than any redelivery or seek. Returns how many."""
    return connection.execute(handled_messages.delete().where(handled_messages.c.handled_at < before)).rowcount
