"""The inbox: what asks for a sync, until one has settled it. `sync.webhook` decides; this module reads and writes.

Most rows are webhook deliveries. A head that polling found (`insert_head`) is one too, for the git layer; `request` is
for what another layer has to look at. Only `pending` and `finish` know of layers; every count is of the git layer's.

A delivery is known by its id and by the hash of its body, for as long as the inbox keeps it: the id is not signed, so
a captured body that comes again under another id is the same delivery. It asks for a sync again only `ASK_AGAIN_AFTER`
it last did: a sync is idempotent, and whoever replays a body starts no more than that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.models import Status
from lz_sync_dagster.sync.store.schema import delivery_repairs, git_state, head_moves, inbox, layer_runs

#: How soon after it last asked for a sync the same body may ask for another one.
ASK_AGAIN_AFTER = timedelta(minutes=3)
#: The ``event`` of a head that polling found before a delivery told of it.
HEAD_POLL = "head_poll"


class DeliveryStatus(StrEnum):
    """``pending``: waits for a sync. ``done``: a sync that started after it has ended. ``ignored``: asks for
    nothing."""

    PENDING = "pending"
    DONE = "done"
    IGNORED = "ignored"


@dataclass(frozen=True, slots=True)
class NewDelivery:
    """A request as it arrives. ``commit_claim`` is what the caller says; ``reason`` says why it is ignored.

    ``touched``: every path that a push changed; ``None`` if that is not known, which counts as touching everything.
    """

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
    layer: LayerId = LayerId.GIT
    touched: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """A request in the inbox. ``id`` counts up in the order of arrival; ``asked_at``: when it last asked for a
    sync; ``layer``: whose."""

    id: int
    delivery_id: str
    event: str
    repository: str
    commit_claim: str | None
    actor: str | None
    status: DeliveryStatus
    received_at: datetime
    asked_at: datetime
    layer: LayerId = LayerId.GIT


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
        "layer": delivery.layer.value,
        "event": delivery.event,
        "action": delivery.action,
        "repository": delivery.repository,
        "ref": delivery.ref,
        "commit_claim": delivery.commit_claim,
        "touched": None if delivery.touched is None else list(delivery.touched),
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
            resolved_sha=None,
            claim=None,
            finished_at=None,
            received_at=now,
            asked_at=now,
            delivery_id=sa.case((id_is_free, delivery.delivery_id), else_=inbox.c.delivery_id),
        )
    )
    return revived.rowcount > 0


def request(
    connection: sa.Connection,
    layer: LayerId,
    *,
    key: str,
    event: str,
    actor: str | None,
    commit: str | None,
    now: datetime,
) -> bool:
    """Ask for a sync of another layer. Returns ``False`` if this ``key`` has asked before.

    Args:
        key: names the request for as long as it is kept (see `prune`), e.g. ``inventory-<sha>``; no more than 128
            characters.
        event: why, e.g. ``terraform_change``.
        commit: the commit that gave rise to it.
    """
    digest = hashlib.sha256(f"{layer}:{key}".encode()).hexdigest()
    wanted = NewDelivery(key, digest, event, "", commit_claim=commit, actor=actor, layer=layer)
    return insert(connection, wanted, now=now)


_BRIEF = [column for column in inbox.c if column.name not in ("touched", "reason")]


def pending(connection: sa.Connection, layer: LayerId = LayerId.GIT, *, limit: int = 10_000) -> list[Delivery]:
    """What waits for a sync of a layer, oldest first."""
    rows = connection.execute(
        sa.select(*_BRIEF)
        .where(inbox.c.status == DeliveryStatus.PENDING.value, inbox.c.layer == layer.value)
        .order_by(inbox.c.id)
        .limit(limit)
    )
    return [_delivery(row) for row in rows]


def finish(
    connection: sa.Connection,
    deliveries: Sequence[Delivery],
    *,
    run_id: str,
    now: datetime,
    head: str | None = None,
    absent: Collection[str] = frozenset(),
) -> int:
    """Mark pending requests as done by a run. Returns how many were: one that has asked again since it was read
    stays pending.

    Args:
        head: the commit that the run synced. With it, each request also says what became of the commit that it
            claims: ``reached``, or ``absent``.
        absent: claimed commits that ``head`` does not reach.
    """
    finished = 0
    for start in range(0, len(deliveries), 500):
        part = deliveries[start : start + 500]
        asked = [(delivery.id, delivery.asked_at) for delivery in part]
        lost = sorted({delivery.commit_claim or "" for delivery in part} & set(absent))
        claim = sa.case(
            (inbox.c.commit_claim.is_(None), sa.null()), (inbox.c.commit_claim.in_(lost), "absent"), else_="reached"
        )
        values = {"status": DeliveryStatus.DONE.value, "run_id": run_id, "finished_at": now, "resolved_sha": head}
        result = connection.execute(
            inbox.update()
            .where(sa.tuple_(inbox.c.id, inbox.c.asked_at).in_(asked), inbox.c.status == DeliveryStatus.PENDING.value)
            .values(**values, claim=claim if head is not None else None)
        )
        finished += result.rowcount
    return finished


# --- accounts of the git layer's requests -----------------------------------------------------------------------------

_OF_GIT = inbox.c.layer == LayerId.GIT.value


def counts(connection: sa.Connection) -> InboxCounts:
    """How many deliveries of each status the inbox keeps."""
    grouped = connection.execute(
        sa.select(inbox.c.status, sa.func.count()).where(_OF_GIT).group_by(inbox.c.status)
    ).all()
    by_status = {str(row[0]): int(row[1]) for row in grouped}
    oldest = connection.scalar(
        sa.select(inbox.c.received_at)
        .where(_OF_GIT, inbox.c.status == DeliveryStatus.PENDING.value)
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
    query = sa.select(sa.func.count()).where(_OF_GIT, inbox.c.status != DeliveryStatus.PENDING.value)
    if since is not None:
        query = query.where(inbox.c.finished_at > since)
    return connection.scalar(query) or 0


@dataclass(frozen=True, slots=True)
class Repair:
    """GitHub could not deliver it, and was asked to try again. ``outcome``: requested, delivered, given_up."""

    outcome: str
    failure: str
    attempts: int


@dataclass(frozen=True, slots=True)
class DeliveryRecord:
    """All that is known of a request.

    Attributes:
        touched: the paths that a push changed; ``None`` if they are not known.
        resolved_sha: the head of the sync that settled it.
        claim: what became of ``commit_claim``: ``reached`` by that head, or ``absent``.
        missed: polling found this head, and no delivery has told of it to this day.
        late: how long after polling had found a head a delivery told of it, on the row of either; else ``None``.
        repair: what was done about a delivery that GitHub could not deliver.
    """

    id: int
    layer: LayerId
    delivery_id: str
    event: str
    action: str | None
    repository: str
    ref: str | None
    commit_claim: str | None
    actor: str | None
    touched: tuple[str, ...] | None
    status: DeliveryStatus
    reason: str | None
    received_at: datetime
    finished_at: datetime | None
    resolved_sha: str | None
    claim: str | None
    missed: bool
    late: timedelta | None
    repair: Repair | None


#: The arrival of the first delivery that told of a head after polling had found it.
_TOLD = inbox.alias("told")
_TOLD_AT = (
    sa.select(sa.func.min(_TOLD.c.received_at))
    .where(
        inbox.c.event == HEAD_POLL,
        _TOLD.c.commit_claim == inbox.c.commit_claim,
        _TOLD.c.layer == LayerId.GIT.value,
        _TOLD.c.event != HEAD_POLL,
        _TOLD.c.received_at >= inbox.c.received_at,
    )
    .scalar_subquery()
)
#: When polling had found the head that a delivery tells of.
_FOUND = inbox.alias("found")
_FOUND_AT = (
    sa.select(sa.func.max(_FOUND.c.received_at))
    .where(
        inbox.c.event != HEAD_POLL,
        inbox.c.layer == LayerId.GIT.value,
        _FOUND.c.commit_claim == inbox.c.commit_claim,
        _FOUND.c.event == HEAD_POLL,
        _FOUND.c.received_at <= inbox.c.received_at,
    )
    .scalar_subquery()
)
_REPAIR = (delivery_repairs.c.outcome, delivery_repairs.c.failure, delivery_repairs.c.attempts)


def records(connection: sa.Connection, *, limit: int, before: int | None = None) -> list[DeliveryRecord]:
    """The newest requests of any layer and status, newest first; with ``before``, only those with a smaller ``id``."""
    known_at = (_TOLD_AT.label("told_at"), _FOUND_AT.label("found_at"))
    query = (
        sa.select(inbox, *known_at, *(column.label(f"repair_{column.name}") for column in _REPAIR))
        .outerjoin(delivery_repairs, delivery_repairs.c.delivery_id == inbox.c.delivery_id)
        .order_by(inbox.c.id.desc())
        .limit(limit)
    )
    if before is not None:
        query = query.where(inbox.c.id < before)
    return [_record(row) for row in connection.execute(query)]


def missed(connection: sa.Connection, since: datetime | None = None) -> int:
    """How many heads polling has found (after an instant) that no delivery has told of to this day."""
    query = sa.select(sa.func.count()).where(inbox.c.event == HEAD_POLL, _TOLD_AT.is_(None))
    if since is not None:
        query = query.where(inbox.c.received_at > since)
    return connection.scalar(query.select_from(inbox)) or 0


# --- polling ----------------------------------------------------------------------------------------------------------


def is_news(connection: sa.Connection, head: str) -> bool:
    """Whether the landing zone's ``head`` is one that no sync has seen last and no delivery tells of.

    Nothing is news as long as no sync has seen any head. A delivery that is done does not count: its sync has seen
    another head, so the remote has come back to this one. One that asks for nothing, since it touches nothing that is
    synced, counts until a sync has begun after it.
    """
    seen = set(connection.scalars(sa.select(git_state.c.source_commit)))
    seen |= set(connection.scalars(sa.select(head_moves.c.new_sha).order_by(head_moves.c.id.desc()).limit(1)))
    if not seen or head in seen:
        return False
    last_sync = connection.scalar(
        sa.select(sa.func.max(layer_runs.c.started_at)).where(
            layer_runs.c.layer == LayerId.GIT.value,
            layer_runs.c.status.in_([Status.SUCCESS.value, Status.PARTIAL.value]),
        )
    )
    left_alone = sa.and_(inbox.c.status == DeliveryStatus.IGNORED.value, inbox.c.touched.is_not(None))
    if last_sync is not None:
        left_alone = sa.and_(left_alone, inbox.c.received_at >= last_sync)
    told = sa.select(inbox.c.id).where(
        _OF_GIT,
        inbox.c.commit_claim == head,
        sa.or_(inbox.c.status == DeliveryStatus.PENDING.value, left_alone),
    )
    return connection.execute(told.limit(1)).first() is None


def insert_head(connection: sa.Connection, head: str, *, repository: str, ref: str, now: datetime) -> str | None:
    """Keep a head that polling found, if it `is_news`. Returns the row's ``delivery_id``: ``poll-<sha>``, and
    ``poll-<sha>-2`` … when the remote comes back to it."""
    if not is_news(connection, head):
        return None
    before = connection.scalar(
        sa.select(sa.func.count()).where(inbox.c.event == HEAD_POLL, inbox.c.commit_claim == head)
    )
    key = f"poll-{head}" if not before else f"poll-{head}-{before + 1}"
    found = NewDelivery(
        key, hashlib.sha256(key.encode()).hexdigest(), HEAD_POLL, repository, ref=ref, commit_claim=head
    )
    return key if insert(connection, found, now=now) else None


def prune(connection: sa.Connection, *, before: datetime) -> int:
    """Forget what was done or ignored before an instant. Returns how many.

    A head that polling found stays for as long as a later row of the same head: `insert_head` numbers by them.
    """
    newer = inbox.alias("newer")
    is_numbered = sa.and_(
        inbox.c.event == HEAD_POLL,
        sa.exists().where(
            newer.c.event == HEAD_POLL,
            newer.c.commit_claim == inbox.c.commit_claim,
            newer.c.id > inbox.c.id,
            sa.or_(newer.c.finished_at.is_(None), newer.c.finished_at >= before),
        ),
    )
    old = sa.and_(inbox.c.status != DeliveryStatus.PENDING.value, inbox.c.finished_at < before)
    return connection.execute(inbox.delete().where(old, ~is_numbered)).rowcount


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
        layer=LayerId(row.layer),
    )


def _record(row: sa.Row[tuple[object, ...]]) -> DeliveryRecord:
    late = None
    if row.told_at is not None:
        late = row.told_at - row.received_at
    elif row.found_at is not None:
        late = row.received_at - row.found_at
    return DeliveryRecord(
        id=row.id,
        layer=LayerId(row.layer),
        delivery_id=row.delivery_id,
        event=row.event,
        action=row.action,
        repository=row.repository,
        ref=row.ref,
        commit_claim=row.commit_claim,
        actor=row.actor,
        touched=None if row.touched is None else tuple(row.touched),
        status=DeliveryStatus(row.status),
        reason=row.reason,
        received_at=row.received_at,
        finished_at=row.finished_at,
        resolved_sha=row.resolved_sha,
        claim=row.claim,
        missed=row.event == HEAD_POLL and row.told_at is None,
        late=late,
        repair=Repair(row.repair_outcome, row.repair_failure, row.repair_attempts) if row.repair_outcome else None,
    )
