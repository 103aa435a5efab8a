"""The ledger of reads: which parts were read to their last page, completely or not."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from lz_sync_dagster.sync.state.reducer import Part
from lz_sync_dagster.sync.store.schema import snapshots


def was_read(connection: sa.Connection, part: Part) -> bool:
    """Whether a read of the part reached its last page before, whatever became of its assets."""
    return connection.scalar(sa.select(snapshots.c.id).where(_is(part)).limit(1)) is not None


def record_incomplete(connection: sa.Connection, part: Part, *, read_ns: int, assets: int, now: datetime) -> None:
    """Say that a read reached the last page with assets that could not be used: it proves no absence.

    It takes the place of the incomplete read before it.
    """
    scope, asset_type, content_type = part
    connection.execute(snapshots.delete().where(_is(part), snapshots.c.complete.is_(False)))
    connection.execute(
        snapshots.insert().values(
            scope=scope,
            asset_type=asset_type,
            content_type=content_type,
            read_ns=read_ns,
            complete=False,
            assets=assets,
            finished_at=now,
        )
    )


def _is(part: Part) -> sa.ColumnElement[bool]:
    scope, asset_type, content_type = part
    return sa.and_(
        snapshots.c.scope == scope, snapshots.c.asset_type == asset_type, snapshots.c.content_type == content_type
    )
