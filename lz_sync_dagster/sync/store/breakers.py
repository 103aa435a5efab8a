"""The mass-delete breaker: a loss that is too large to believe waits for a person, with the names of what vanished.

A person confirms what they looked at, by the fingerprint of the names: a later read may have renewed the breaker with
others. What is confirmed is then deleted by `sync.store.reads`, in steps; the row stays until the last one, so that a
process that is killed leaves the rest to the next sync.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.state.reducer import Part
from lz_sync_dagster.sync.store import alerts, audit
from lz_sync_dagster.sync.store.schema import breaker_losses, breakers
from lz_sync_dagster.sync.timing import format_ns

#: The alert's name, and the action in the audit log.
ALERT = "MassDeletion"
CONFIRMED = "confirm_deletions"

_CHUNK = 5_000


@dataclass(frozen=True, slots=True)
class OpenBreaker:
    """``lost`` of ``known`` assets of a part vanished at once; the read of ``read_ns`` lacks them.

    Attributes:
        fingerprint: of the names of what vanished. It stays the same for as long as later reads lack the same assets.
    """

    part: Part
    known: int
    lost: int
    read_ns: int
    fingerprint: str
    opened_at: datetime


def fingerprint_of(names: Sequence[str]) -> str:
    """What a set of names is recognised by."""
    digest = hashlib.sha256()
    for name in sorted(names):
        digest.update(name.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()[:32]


def command_of(part: Part) -> str:
    """The command that confirms a part's deletions, in quotes, as messages name it."""
    return f"'lz-sync breaker confirm {' '.join(part)}'"


def waiting(part: Part, *, known: int, lost: int) -> SyncError:
    """What a sync says of a part whose breaker is open."""
    return SyncError(
        f"{lost} of {known} assets vanished at once; nothing was deleted",
        where=f"{part[1]} in {part[0]}",
        remedy=f"check the reader's access; if the deletion was meant, confirm it with {command_of(part)}",
        reason=Reason.BREAKER_OPEN,
    )


def open_breaker(
    connection: sa.Connection, part: Part, *, known: int, names: Sequence[str], read_ns: int, now: datetime
) -> None:
    """Open a part's breaker, or renew it with what a later read lacks, and raise the alert."""
    scope, asset_type, content_type = part
    key = {"scope": scope, "asset_type": asset_type, "content_type": content_type}
    fingerprint = fingerprint_of(names)
    before = state(connection, part)
    figures = {"known": known, "lost": len(names), "read_ns": read_ns, "fingerprint": fingerprint}
    if before is None:
        connection.execute(breakers.insert().values(**key, **figures, opened_at=now))
    else:
        connection.execute(
            breakers.update().where(_of(breakers, part)).values(**figures, confirmed_by=None, confirmed_at=None)
        )
    if before is None or before.fingerprint != fingerprint or before.confirmed_at is not None:
        connection.execute(breaker_losses.delete().where(_of(breaker_losses, part)))
        for start in range(0, len(names), _CHUNK):
            connection.execute(
                breaker_losses.insert(), [{**key, "name": name} for name in names[start : start + _CHUNK]]
            )
    alerts.raise_alert(
        connection,
        ALERT,
        "/".join(part),
        severity="critical",
        message=(
            f"{len(names)} of {known} {asset_type} ({content_type}) in {scope} vanished at once; nothing was deleted; "
            f"check whether the reader lost access; if the deletions were meant, confirm them with {command_of(part)}"
        ),
        now=now,
    )


def close_breaker(connection: sa.Connection, part: Part, *, now: datetime) -> bool:
    """Close a part's breaker, if it is open, and resolve its alert. Returns whether it was open."""
    closed = connection.execute(breakers.delete().where(_of(breakers, part)))
    if closed.rowcount:
        connection.execute(breaker_losses.delete().where(_of(breaker_losses, part)))
        alerts.resolve_alert(connection, ALERT, "/".join(part), now=now)
    return bool(closed.rowcount)


def find(connection: sa.Connection, part: Part) -> OpenBreaker:
    """What waits for a person in a part.

    Raises:
        SyncError: nothing does (`Reason.NOT_FOUND`).
    """
    row = state(connection, part)
    if row is None or row.confirmed_at is not None:
        raise SyncError(
            "no deletions wait for a confirmation",
            where=" ".join(part),
            remedy="'lz-sync breaker list' shows what waits",
            reason=Reason.NOT_FOUND,
        )
    return _breaker(row)


def confirm(
    connection: sa.Connection, part: Part, *, fingerprint: str, actor: str, now: datetime
) -> tuple[OpenBreaker, int]:
    """Say that the deletions were meant. The alert is resolved, and the audit log says who it was.

    Args:
        fingerprint: of what that person looked at (`OpenBreaker.fingerprint`).

    Returns:
        What was open, and the number of the line in the audit log.

    Raises:
        SyncError: no breaker is open for the part (`Reason.NOT_FOUND`), or a later read lacks others than those that
            were looked at (`Reason.CONFLICT`). Nothing is changed then.
    """
    breaker = find(connection, part)
    if breaker.fingerprint != fingerprint:
        raise changed(breaker)
    number = audit.record(
        connection,
        actor=actor,
        action=CONFIRMED,
        target="/".join(part),
        details={
            "known": breaker.known,
            "lost": breaker.lost,
            "fingerprint": breaker.fingerprint,
            "read_at": format_ns(breaker.read_ns),
            "opened_at": breaker.opened_at.isoformat(),
        },
        now=now,
    )
    connection.execute(breakers.update().where(_of(breakers, part)).values(confirmed_by=actor, confirmed_at=now))
    alerts.resolve_alert(connection, ALERT, "/".join(part), now=now)
    return breaker, number


def changed(breaker: OpenBreaker) -> SyncError:
    """The refusal of a confirmation of something else than what waits now."""
    return SyncError(
        f"what vanished has changed since you looked: now {breaker.lost} of {breaker.known} assets, by the read of "
        f"{format_ns(breaker.read_ns)}; nothing was deleted",
        where=" ".join(breaker.part),
        remedy=f"look again with 'lz-sync breaker show {' '.join(breaker.part)}', then confirm what it shows",
        reason=Reason.CONFLICT,
        transient=False,
    )


def take_confirmed(connection: sa.Connection, part: Part, *, limit: int) -> list[str]:
    """Take names whose deletion was confirmed off the list, to delete them in this transaction."""
    row = state(connection, part)
    if row is None or row.confirmed_at is None:
        return []
    names = losses(connection, part, limit=limit)
    if names:
        last = names[-1]
        connection.execute(breaker_losses.delete().where(_of(breaker_losses, part), breaker_losses.c.name <= last))
    return names


def remaining(connection: sa.Connection, part: Part) -> int:
    """How many names of a part are on the list, waiting or confirmed."""
    query = sa.select(sa.func.count()).select_from(breaker_losses).where(_of(breaker_losses, part))
    return int(connection.scalar(query) or 0)


def state(connection: sa.Connection, part: Part) -> sa.Row[Any] | None:
    """The row of a part, whether it waits for a person or a person has confirmed it."""
    return connection.execute(sa.select(breakers).where(_of(breakers, part))).one_or_none()


def open_breakers(connection: sa.Connection) -> list[OpenBreaker]:
    """What waits for a person, the longest first."""
    rows = connection.execute(
        sa.select(breakers)
        .where(breakers.c.confirmed_at.is_(None))
        .order_by(breakers.c.opened_at, breakers.c.scope, breakers.c.asset_type, breakers.c.content_type)
    )
    return [_breaker(row) for row in rows]


def confirmed(connection: sa.Connection) -> list[Part]:
    """The parts whose deletions were confirmed and are not all made."""
    rows = connection.execute(sa.select(breakers).where(breakers.c.confirmed_at.is_not(None)))
    return [(row.scope, row.asset_type, row.content_type) for row in rows]


def losses(connection: sa.Connection, part: Part, *, limit: int, after: str = "") -> list[str]:
    """Names of a part's assets that vanished, in their order."""
    query = (
        sa.select(breaker_losses.c.name)
        .where(_of(breaker_losses, part), breaker_losses.c.name > after)
        .order_by(breaker_losses.c.name)
        .limit(limit)
    )
    return list(connection.scalars(query))


def _breaker(row: sa.Row[Any]) -> OpenBreaker:
    part = (row.scope, row.asset_type, row.content_type)
    return OpenBreaker(part, row.known, row.lost, row.read_ns, row.fingerprint, row.opened_at)


def _of(table: sa.Table, part: Part) -> sa.ColumnElement[bool]:
    scope, asset_type, content_type = part
    return sa.and_(table.c.scope == scope, table.c.asset_type == asset_type, table.c.content_type == content_type)
