"""The mass-delete breaker: a loss that is too large to believe waits for a person, with the names of what vanished."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.state.reducer import Part
from lz_sync_dagster.sync.store import alerts
from lz_sync_dagster.sync.store.schema import audit_log, breaker_losses, breakers

#: The alert's name, and the action in the audit log.
ALERT = "MassDeletion"
CONFIRMED = "confirm_deletions"


@dataclass(frozen=True, slots=True)
class OpenBreaker:
    """``lost`` of ``known`` assets of a part vanished at once; the read of ``read_ns`` lacks them."""

    part: Part
    known: int
    lost: int
    read_ns: int
    opened_at: datetime


def open_breaker(
    connection: sa.Connection, part: Part, *, known: int, names: Sequence[str], read_ns: int, now: datetime
) -> None:
    """Open a part's breaker, or renew it with what a later read lacks, and raise the alert."""
    scope, asset_type, content_type = part
    key = {"scope": scope, "asset_type": asset_type, "content_type": content_type}
    figures = {"known": known, "lost": len(names), "read_ns": read_ns}
    if not connection.execute(breakers.update().where(_of(breakers, part)).values(**figures)).rowcount:
        connection.execute(breakers.insert().values(**key, **figures, opened_at=now))
    connection.execute(breaker_losses.delete().where(_of(breaker_losses, part)))
    if names:
        connection.execute(breaker_losses.insert(), [{**key, "name": name} for name in names])
    alerts.raise_alert(
        connection,
        ALERT,
        "/".join(part),
        severity="critical",
        message=(
            f"{len(names)} of {known} {asset_type} ({content_type}) in {scope} vanished at once; nothing was deleted; "
            "check whether the reader lost access; if the deletions were meant, confirm them with "
            f"'lz-sync breaker confirm {scope} {asset_type} {content_type}'"
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


def confirm(connection: sa.Connection, part: Part, *, actor: str, now: datetime) -> tuple[OpenBreaker, list[str]]:
    """Close an open breaker because a person says that the deletions were meant; the audit log says who.

    Returns:
        What was open, and the names of the assets that vanished.

    Raises:
        SyncError: no breaker is open for the part.
    """
    row = connection.execute(sa.select(breakers).where(_of(breakers, part))).one_or_none()
    if row is None:
        raise SyncError(
            "no deletions wait for a confirmation",
            where=" ".join(part),
            remedy="'lz-sync breaker list' shows what waits",
            reason=Reason.NOT_FOUND,
        )
    query = sa.select(breaker_losses.c.name).where(_of(breaker_losses, part)).order_by(breaker_losses.c.name)
    names = list(connection.scalars(query))
    connection.execute(
        audit_log.insert().values(
            at=now,
            actor=actor,
            action=CONFIRMED,
            target="/".join(part),
            details={"known": row.known, "lost": row.lost, "opened_at": row.opened_at.isoformat()},
        )
    )
    close_breaker(connection, part, now=now)
    return _breaker(row), names


def open_breakers(connection: sa.Connection) -> list[OpenBreaker]:
    """What waits for a person, the longest first."""
    rows = connection.execute(
        sa.select(breakers).order_by(breakers.c.opened_at, breakers.c.scope, breakers.c.asset_type)
    )
    return [_breaker(row) for row in rows]


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
    return OpenBreaker(part, row.known, row.lost, row.read_ns, row.opened_at)


def _of(table: sa.Table, part: Part) -> sa.ColumnElement[bool]:
    scope, asset_type, content_type = part
    return sa.and_(table.c.scope == scope, table.c.asset_type == asset_type, table.c.content_type == content_type)
