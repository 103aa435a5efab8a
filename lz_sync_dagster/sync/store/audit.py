"""The audit log: what people did here, and what was refused to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from lz_sync_dagster.sync.store.engine import Store
from lz_sync_dagster.sync.store.schema import audit_log

#: Refusals that are written down per hour, so that nobody fills the store by knocking.
REFUSALS_PER_HOUR = 60
#: The action of a line that says that something was refused; its details say what.
REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class AuditLine:
    """Who (``cli:ada``, ``api:ada``) did what to what."""

    id: int
    at: datetime
    actor: str
    action: str
    target: str
    details: dict[str, Any]


def record(
    connection: sa.Connection, *, actor: str, action: str, target: str, details: Mapping[str, Any], now: datetime
) -> int:
    """Write a line. Returns its number."""
    line = audit_log.insert().values(
        at=now, actor=_text(actor, 200), action=action, target=_text(target, 1024), details=dict(details)
    )
    return int(connection.execute(line.returning(audit_log.c.id)).scalar_one())


def record_refusal(
    store: Store, *, actor: str, action: str, target: str, details: Mapping[str, Any], now: datetime
) -> bool:
    """Write down that ``action`` was refused. Returns ``False`` if there were too many within the hour.

    The bound is looked at without the store's writer, so that a flood of refusals keeps nobody waiting.
    """
    with store.read() as connection:
        query = sa.select(sa.func.count()).where(
            audit_log.c.at > now - timedelta(hours=1), audit_log.c.action == REFUSED
        )
        if (connection.scalar(query) or 0) >= REFUSALS_PER_HOUR:
            return False
    with store.write() as connection:
        record(connection, actor=actor, action=REFUSED, target=target, details={"action": action, **details}, now=now)
    return True


def recent(
    connection: sa.Connection, *, limit: int, before: int | None = None, action: str | None = None
) -> list[AuditLine]:
    """The newest lines, newest first; with ``before``, only those with a smaller number."""
    query = sa.select(audit_log).order_by(audit_log.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(audit_log.c.id < before)
    if action is not None:
        query = query.where(audit_log.c.action == action)
    return [
        AuditLine(row.id, row.at, row.actor, row.action, row.target, row.details) for row in connection.execute(query)
    ]


def _text(value: str, length: int) -> str:
    return value.replace("\0", "")[:length]
