"""What the read planner knows of each part (scope × asset type × content): when it was proven, at what cost, and how
its reads failed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from lz_sync_dagster.sync.errors import Reason
from lz_sync_dagster.sync.state.reducer import Part
from lz_sync_dagster.sync.store.engine import in_chunks
from lz_sync_dagster.sync.store.schema import coverage, part_reads, resources


@dataclass(frozen=True, slots=True)
class PartState:
    """What is known of earlier reads of a part.

    Attributes:
        complete_read_ns: read time of the newest complete read; ``None``: never.
        full_calls: calls that its last full read took.
        assets: how many it had.
        delta_read_ns: up to when a delta read looked for changes.
        failures: syncs in a row in which its full read failed; ``failed_at``: the last time.
        quarantined_until: the inventory does not know the type.
        missing_once: one complete read lacked an asset; the next one settles whether it is gone.
    """

    part: Part
    complete_read_ns: int | None = None
    full_calls: int | None = None
    assets: int | None = None
    delta_read_ns: int | None = None
    failures: int = 0
    failed_at: datetime | None = None
    quarantined_until: datetime | None = None
    missing_once: bool = False


@dataclass(frozen=True, slots=True)
class KnownVersion:
    """The newest version of a content that the store knows: when it changed, and when it was last seen."""

    update_ns: int
    seen_ns: int


def states(connection: sa.Connection, parts: Sequence[Part]) -> list[PartState]:
    """The state of each part, in the order of ``parts``."""
    proven = {_part(row): row for row in connection.execute(sa.select(coverage))}
    read = {_part(row): row for row in connection.execute(sa.select(part_reads))}
    missing = {
        _part(row)
        for row in connection.execute(
            sa.select(resources.c.scope, resources.c.asset_type, resources.c.content_type)
            .where(resources.c.absent_ns.is_not(None), resources.c.deleted.is_(False))
            .distinct()
        )
    }
    return [_state(part, proven.get(part), read.get(part), part in missing) for part in parts]


def _state(part: Part, proven: Any, read: Any, missing_once: bool) -> PartState:
    return PartState(
        part=part,
        complete_read_ns=proven.complete_read_ns if proven else None,
        full_calls=read.full_calls if read else None,
        assets=proven.assets if proven else None,
        delta_read_ns=read.delta_read_ns if read else None,
        failures=read.failures if read else 0,
        failed_at=read.failed_at if read else None,
        quarantined_until=read.quarantined_until if read else None,
        missing_once=missing_once,
    )


def record_full(connection: sa.Connection, part: Part, *, calls: int | None) -> None:
    """A full read of a part came to its end and proved it; it took so many calls (``None``: it was read from an export,
    which says nothing of what listing it would take)."""
    values: dict[str, Any] = {"failures": 0, "failed_at": None, "quarantined_until": None}
    _write(connection, part, values if calls is None else values | {"full_calls": calls})


def record_failure(
    connection: sa.Connection, part: Part, reason: Reason, *, now: datetime, quarantine: timedelta
) -> None:
    """A full read of a part proved nothing. To be called once per sync, not per attempt: the planner waits longer the
    more syncs fail. A type that the inventory does not know is not asked for again until its quarantine ends."""
    if reason is Reason.UNKNOWN_TYPE:
        _write(connection, part, {"quarantined_until": now + quarantine, "failed_at": now})
        return
    _write(connection, part, {"failures": part_reads.c.failures + 1, "failed_at": now}, new={"failures": 1})


def record_delta(connection: sa.Connection, parts: Iterable[Part], *, until_ns: int) -> None:
    """A delta read has looked for changes of parts up to an instant."""
    rows = [
        {"scope": scope, "asset_type": asset_type, "content_type": content_type, "delta_read_ns": until_ns}
        for scope, asset_type, content_type in parts
    ]
    if rows:
        insert = (sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert)(part_reads)
        connection.execute(
            insert.on_conflict_do_update(
                index_elements=list(part_reads.primary_key), set_={"delta_read_ns": insert.excluded.delta_read_ns}
            ),
            rows,
        )


def forget(connection: sa.Connection, parts: Iterable[Part]) -> None:
    """Drop what is known of parts that are no longer asked for."""
    for part in parts:
        connection.execute(part_reads.delete().where(_of(part)))


def known_versions(connection: sa.Connection, names: Sequence[str], content_type: str) -> dict[str, KnownVersion]:
    """The newest version that the store knows of each of the assets, as far as it knows them; deleted ones too."""
    found: dict[str, KnownVersion] = {}
    for chunk in in_chunks(names):
        query = sa.select(resources.c.name, resources.c.update_ns, resources.c.seen_ns).where(
            resources.c.name.in_(chunk), resources.c.content_type == content_type
        )
        found |= {row.name: KnownVersion(row.update_ns, row.seen_ns) for row in connection.execute(query)}
    return found


def _write(connection: sa.Connection, part: Part, values: dict[str, Any], *, new: dict[str, Any] | None = None) -> None:
    if not connection.execute(part_reads.update().where(_of(part)).values(**values)).rowcount:
        scope, asset_type, content_type = part
        key = {"scope": scope, "asset_type": asset_type, "content_type": content_type}
        connection.execute(part_reads.insert().values(**key, **(values | (new or {}))))


def _part(row: Any) -> Part:
    return (row.scope, row.asset_type, row.content_type)


def _of(part: Part) -> sa.ColumnElement[bool]:
    scope, asset_type, content_type = part
    return sa.and_(
        part_reads.c.scope == scope, part_reads.c.asset_type == asset_type, part_reads.c.content_type == content_type
    )
