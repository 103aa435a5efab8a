"""From a batch of messages to the store: log, state, findings and the messages' ids in one transaction.

Whoever received the messages acknowledges them after that, never before: what was not committed comes again, and what
comes again is known by its id.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
import structlog

from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.compliance.verdict import Evaluator, Outcome, Verdict
from lz_sync_dagster.sync.events.message import BadMessage, Welcome, parse_message, printable
from lz_sync_dagster.sync.state.observation import Observation, Source, observe
from lz_sync_dagster.sync.store import Store, assets, dead_letters, event_log, feed_freshness, messages
from lz_sync_dagster.sync.store.assets import Applied
from lz_sync_dagster.sync.store.dead_letters import DeadLetter
from lz_sync_dagster.sync.store.feed_freshness import Delivery
from lz_sync_dagster.sync.store.messages import HandledMessage, MessageOutcome
from lz_sync_dagster.sync.timing import Clock, to_ns

#: Messages that one transaction takes.
BATCH = 500
#: Classes of PostgreSQL's error codes that are about what is stored: data exceptions, and limits that it exceeds.
_DATA_STATES = ("22", "54")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ReceivedMessage:
    """A message as Pub/Sub delivered it. ``publish_time`` is Pub/Sub's clock."""

    id: str
    data: bytes
    publish_time: datetime | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What became of a batch, in messages: each one is counted once.

    Attributes:
        observed: said something of an asset, be it news or not.
        welcome: were a feed's welcome.
        duplicates: had been handled before, or came twice in the batch.
        dead: could not be used; they are in the dead letters.
        state: what the observations changed, in assets.
    """

    observed: int = 0
    welcome: int = 0
    duplicates: int = 0
    dead: int = 0
    state: Applied = field(default_factory=Applied)

    @property
    def messages(self) -> int:
        """How many messages there were."""
        return self.observed + self.welcome + self.duplicates + self.dead

    @property
    def handled(self) -> int:
        """How many were handled for the first time."""
        return self.observed + self.welcome + self.dead

    @property
    def applied(self) -> int:
        """How many assets changed."""
        return self.state.changed

    def __add__(self, other: BatchResult) -> BatchResult:
        return BatchResult(
            self.observed + other.observed,
            self.welcome + other.welcome,
            self.duplicates + other.duplicates,
            self.dead + other.dead,
            self.state + other.state,
        )


def handle_batch(
    store: Store,
    subscription: str,
    received: Sequence[ReceivedMessage],
    *,
    scopes: Sequence[str],
    evaluate: Evaluator,
    clock: Clock,
) -> BatchResult:
    """Take a batch of messages into the store. When this returns, all of them may be acknowledged.

    It is one transaction. Only if what a message says cannot be stored (a number that no column holds, a value of a
    type that no column takes, a defect of a control), the batch is halved until that message is found. If it fails
    once more while the store takes another, it becomes a dead letter.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the store does not work; nothing may be acknowledged.
    """
    try:
        return _handle(store, subscription, received, scopes=scopes, evaluate=evaluate, clock=clock)
    except Exception as error:
        if not received or not _is_about_data(error):
            raise
        if len(received) == 1:
            if not _store_works(store, subscription, clock=clock):
                raise
            return _handle_once_more(store, subscription, received[0], scopes=scopes, evaluate=evaluate, clock=clock)
        middle = len(received) // 2
        log.warning("batch_is_halved", messages=len(received), error=_kind(error))
        halves = (received[:middle], received[middle:])
        first, second = (
            handle_batch(store, subscription, half, scopes=scopes, evaluate=evaluate, clock=clock) for half in halves
        )
        return first + second


def _handle(
    store: Store,
    subscription: str,
    received: Sequence[ReceivedMessage],
    *,
    scopes: Sequence[str],
    evaluate: Evaluator,
    clock: Clock,
) -> BatchResult:
    result = BatchResult()
    with store.write(exclusive=assets.LOCK) as connection:
        now = clock()
        done = messages.known(connection, subscription, (message.id for message in received))
        observations: list[Observation] = []
        handled: list[HandledMessage] = []
        letters: list[DeadLetter] = []
        deliveries: list[Delivery] = []
        for message in received:
            if message.id in done:
                result = replace(result, duplicates=result.duplicates + 1)
                continue
            done.add(message.id)
            try:
                meaning = parse_message(message.data, message.attributes, scopes=scopes)
            except BadMessage as error:
                outcome = MessageOutcome.DEAD
                letters.append(_letter(subscription, message, error.line))
                result = replace(result, dead=result.dead + 1)
            else:
                if isinstance(meaning, Welcome):
                    outcome = MessageOutcome.WELCOME
                    result = replace(result, welcome=result.welcome + 1)
                else:
                    outcome = MessageOutcome.OBSERVED
                    observations += meaning
                    deliveries.append(_delivery(meaning[0], message))
                    result = replace(result, observed=result.observed + 1)
            handled.append(HandledMessage(message.id, outcome, message.publish_time))
        state = assets.apply(connection, observations, layer=LayerId.PUBSUB, now=now, evaluate=evaluate)
        dead_letters.add(connection, letters, now=now)
        messages.record(connection, subscription, handled, now=now)
        feed_freshness.record_delivered(connection, deliveries, committed_at=clock())
    return replace(result, state=state)


def _delivery(observation: Observation, message: ReceivedMessage) -> Delivery:
    """An update says when it was; a deletion, when its window began at the latest."""
    return Delivery(observation.asset_type, observation.update_ns, message.publish_time)


def _is_about_data(error: Exception) -> bool:
    """Whether it may be the data that fails, and not the store. What the driver refuses never reached the server."""
    if isinstance(error, sa.exc.DBAPIError):
        if error.connection_invalidated:
            return False
        state = getattr(error.orig, "pgcode", None)
        if state is not None:
            return str(state).startswith(_DATA_STATES)
        return isinstance(error, sa.exc.DataError | sa.exc.ProgrammingError | sa.exc.InterfaceError)
    if isinstance(error, sa.exc.SQLAlchemyError):
        return isinstance(error, sa.exc.StatementError)
    return not isinstance(error, MemoryError)


class _Undone(Exception):
    """Ends a transaction that was only tried."""


def _store_works(store: Store, subscription: str, *, clock: Clock) -> bool:
    """Whether the store takes a harmless message. Nothing of it stays."""
    now = clock()
    at = now.isoformat()
    asset = {"name": "//probe", "assetType": "probe/Probe", "updateTime": at, "resource": {"data": {}}}
    observation = observe(asset, scope="probe", observed_ns=to_ns(now), source=Source.FEED)
    verdict = Verdict("0", "probe", "probe", "low", "probe", Outcome.FAIL, "probe")
    try:
        with store.write(exclusive=assets.LOCK) as connection:
            messages.known(connection, subscription, ["probe"])
            assets.apply(connection, [observation], layer=LayerId.PUBSUB, now=now, evaluate=lambda *_: [verdict])
            dead_letters.add(connection, [DeadLetter(LayerId.PUBSUB, "probe", "probe", "probe", "")], now=now)
            handled = HandledMessage("probe", MessageOutcome.OBSERVED, None)
            messages.record(connection, "probe", [handled], now=now)
            raise _Undone
    except _Undone:
        return True
    except Exception as error:
        log.error("store_does_not_work", error=_kind(error))
        return False


def _handle_once_more(
    store: Store,
    subscription: str,
    message: ReceivedMessage,
    *,
    scopes: Sequence[str],
    evaluate: Evaluator,
    clock: Clock,
) -> BatchResult:
    try:
        return _handle(store, subscription, [message], scopes=scopes, evaluate=evaluate, clock=clock)
    except Exception as error:
        if not _is_about_data(error):
            raise
        return _bury(store, subscription, message, error, clock=clock)


def _kind(error: Exception) -> str:
    """What an error is and where it arose; its text may quote the data."""
    cause = getattr(error, "orig", None) or error
    last = traceback.extract_tb(error.__traceback__)[-1:]
    return type(cause).__name__ + "".join(f" in {frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in last)


def _bury(store: Store, subscription: str, message: ReceivedMessage, error: Exception, *, clock: Clock) -> BatchResult:
    reason = f"feed message cannot be stored: {_kind(error)}"
    log.error("message_cannot_be_stored", subscription=subscription, message=message.id, error=_kind(error))
    with store.write(exclusive=assets.LOCK) as connection:
        now = clock()
        if messages.known(connection, subscription, [message.id]):
            return BatchResult(duplicates=1)
        dead_letters.add(connection, [_letter(subscription, message, reason)], now=now)
        handled = HandledMessage(message.id, MessageOutcome.DEAD, message.publish_time)
        messages.record(connection, subscription, [handled], now=now)
    return BatchResult(dead=1)


def _letter(subscription: str, message: ReceivedMessage, reason: str) -> DeadLetter:
    return DeadLetter(LayerId.PUBSUB, subscription, message.id, reason, printable(message.data))


@dataclass(frozen=True, slots=True)
class Figures:
    """What the layer can say of itself: messages handled in total, and its figures by asset noun."""

    total: int
    details: dict[str, dict[str, Any]]


def figures(connection: sa.Connection, subscription: str) -> Figures:
    """The layer's figures as they are in the store."""
    counts = messages.counts(connection, subscription)
    total = sum(counts.values())
    return Figures(
        total,
        {
            "feed_messages": {"handled": total, **{outcome.value: count for outcome, count in counts.items()}},
            "feed_events": {"last_seq": event_log.last_seq(connection)},
        },
    )
