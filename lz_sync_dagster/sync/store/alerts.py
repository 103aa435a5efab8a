"""Alerts: what a person has to look at. One row stays open per (name, subject) until it is resolved."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime

import sqlalchemy as sa

from lz_sync_dagster.sync.store.schema import alerts


def raise_alert(
    connection: sa.Connection, name: str, subject: str, *, severity: str, message: str, now: datetime
) -> bool:
    """Open an alert, or renew the message of the open one. Returns whether it is new."""
    open_one = sa.and_(alerts.c.name == name, alerts.c.subject == subject, alerts.c.resolved_at.is_(None))
    renewed = connection.execute(alerts.update().where(open_one).values(severity=severity, message=message))
    if renewed.rowcount:
        return False
    connection.execute(
        alerts.insert().values(name=name, subject=subject, severity=severity, message=message, opened_at=now)
    )
    return True


def resolve_alert(connection: sa.Connection, name: str, subject: str, *, now: datetime) -> bool:
    """Resolve the open alert, if there is one. Returns whether there was."""
    open_one = sa.and_(alerts.c.name == name, alerts.c.subject == subject, alerts.c.resolved_at.is_(None))
    return bool(connection.execute(alerts.update().where(open_one).values(resolved_at=now)).rowcount)


@dataclass(frozen=True, slots=True)
class OpenAlert:
    """An alert that nobody and nothing has resolved."""

    name: str
    subject: str
    severity: str
    message: str
    opened_at: datetime


def open_alerts(connection: sa.Connection) -> list[OpenAlert]:
    """All open alerts, oldest first."""
    columns = [alerts.c[item.name] for item in fields(OpenAlert)]
    rows = connection.execute(sa.select(*columns).where(alerts.c.resolved_at.is_(None)).order_by(alerts.c.id))
    return [OpenAlert(*row) for row in rows]
