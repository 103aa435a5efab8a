"""What resources were: the versions of one, and what differs between two instants.

The cost follows the change: only what begins to be or ceases to be between the instants is looked at.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from lz_sync_dagster.sync.models import CoverageStatus
from lz_sync_dagster.sync.state.authorship import changed_by, created_at
from lz_sync_dagster.sync.state.json_diff import JsonDiff, json_diff
from lz_sync_dagster.sync.store import coverage_views
from lz_sync_dagster.sync.store.coverage_views import Parts
from lz_sync_dagster.sync.store.resource_views import (
    Columns,
    ResourceFilter,
    ResourceRow,
    columns_of,
    conditions,
    fits,
    hidden_but,
    row_of,
)
from lz_sync_dagster.sync.store.schema import resource_contents, resource_versions, resources
from lz_sync_dagster.sync.timing import parse_ns

#: Field-level differences that are told of one resource.
FIELDS = 50
#: Versions that a resource's history tells at once.
VERSIONS = 50


class ChangeKind(StrEnum):
    """What became of a resource. ``first_seen``: it is known since then, and may have been there before."""

    CREATED = "created"
    UPDATED = "updated"
    DELETED = "deleted"
    RECREATED = "recreated"
    FIRST_SEEN = "first_seen"


@dataclass(frozen=True, slots=True)
class Version:
    """One version of one content of a resource.

    Attributes:
        change: what it is, seen from the version before; ``first_seen`` of the first one that is kept.
        recorded_at: when it was written here.
        diff: what differs from the version before; ``None`` if that is not kept.
        who: who made it, where the data says so.
    """

    row: ResourceRow
    change: ChangeKind
    recorded_at: datetime
    diff: JsonDiff | None
    who: str | None


@dataclass(frozen=True, slots=True)
class ResourceChange:
    """What differs in a resource between two instants.

    Attributes:
        before, after: what it was at either; ``None`` if it was not there, or not known.
        changed_ns: since when it is what it is at the later instant, by the source's clock.
        versions: how many times it changed in between.
        who: who made the last of the changes, where the data says so.
    """

    name: str
    content_type: str
    change: ChangeKind
    before: ResourceRow | None
    after: ResourceRow | None
    changed_ns: int
    versions: int
    diff: JsonDiff
    who: str | None

    @property
    def row(self) -> ResourceRow:
        """What it is, or was last."""
        found = self.after or self.before
        assert found is not None
        return found


@dataclass(frozen=True, slots=True)
class DiffPage:
    """A page of changes in the order of names; ``following`` is where the next one begins."""

    items: list[ResourceChange]
    following: str | None


# --- contents ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Content:
    """What a resource says, and the paths in it whose value was removed."""

    data: dict[str, Any]
    redacted: tuple[str, ...]


def contents(connection: sa.Connection, ids: Collection[int | None]) -> dict[int, Content]:
    """Contents by id."""
    wanted = sorted({number for number in ids if number is not None})
    found: dict[int, Content] = {}
    for start in range(0, len(wanted), 1_000):
        query = sa.select(resource_contents).where(resource_contents.c.id.in_(wanted[start : start + 1_000]))
        for row in connection.execute(query):
            found[row.id] = Content(row.data, tuple(row.redacted or ()))
    return found


# --- one resource -----------------------------------------------------------------------------------------------------


def versions(
    connection: sa.Connection,
    name: str,
    content_type: str,
    *,
    limit: int = VERSIONS,
    before: int | None = None,
) -> list[Version]:
    """The versions of one content of a resource, the newest first: those below number ``before``."""
    rows: list[tuple[ResourceRow, datetime]] = []
    for table in (resources, resource_versions):
        query = sa.select(*columns_of(table), table.c.changed_at).where(
            table.c.name == name, table.c.content_type == content_type
        )
        if before is not None:
            query = query.where(table.c.version < before)
        query = query.order_by(table.c.version.desc()).limit(limit + 1)
        rows += [(row_of(row._mapping), row.changed_at) for row in connection.execute(query)]
    data = contents(connection, {row.content_id for row, _ in rows if not row.deleted})
    found = []
    for place, (row, recorded_at) in enumerate(rows[:limit]):
        previous = rows[place + 1][0] if place + 1 < len(rows) else None
        found.append(
            Version(
                row,
                _step(previous, row),
                recorded_at,
                None if previous is None else _difference(previous, row, data),
                changed_by(_data(row, data), first=row.version == 1),
            )
        )
    return found


def _step(previous: ResourceRow | None, row: ResourceRow) -> ChangeKind:
    if row.deleted:
        return ChangeKind.DELETED
    if previous is None:
        return ChangeKind.FIRST_SEEN
    if previous.deleted:
        return ChangeKind.CREATED
    return ChangeKind.RECREATED if _is_another(previous, row) else ChangeKind.UPDATED


def _is_another(one: ResourceRow, other: ResourceRow) -> bool:
    return None not in (one.resource_id, other.resource_id) and one.resource_id != other.resource_id


def _difference(before: ResourceRow | None, after: ResourceRow | None, data: Mapping[int, Content]) -> JsonDiff:
    return json_diff(_data(before, data), _data(after, data), limit=FIELDS)


def _data(row: ResourceRow | None, data: Mapping[int, Content]) -> dict[str, Any] | None:
    if row is None or row.deleted or row.content_id is None or row.content_id not in data:
        return None
    return data[row.content_id].data


# --- between two instants ---------------------------------------------------------------------------------------------


def diff(
    connection: sa.Connection,
    from_ns: int,
    to_ns: int,
    where: ResourceFilter,
    *,
    ttl: timedelta,
    after: str | None = None,
    limit: int = 100,
) -> DiffPage:
    """What is not the same at two instants, by name: what was there or is there, and fits the filter at either.

    What was in between and is gone again, and what changed and changed back, is no difference. The filter's conditions
    on findings, on deletion and on the time of the change are left out of account.

    Args:
        ttl: how old a complete read may be that proves that something was not there before.
    """
    found: list[ResourceChange] = []
    for names in _candidates(connection, from_ns, to_ns, where, after, limit + 1):
        found += _changes(connection, from_ns, to_ns, where, names, ttl)
        if len(found) > limit:
            return DiffPage(_with_fields(connection, found[:limit]), found[limit - 1].name)
    return DiffPage(_with_fields(connection, found), None)


def _candidates(
    connection: sa.Connection, from_ns: int, to_ns: int, where: ResourceFilter, after: str | None, size: int
) -> Iterator[list[str]]:
    """Names of what a row of began or ended in the time, in batches, in order."""
    while True:
        found: list[list[str]] = []
        for table, edge in (
            (resources, "valid_from_ns"),
            (resource_versions, "valid_from_ns"),
            (resource_versions, "valid_to_ns"),
        ):
            column = Columns(connection, table, hidden_but(connection, table, where, edge, from_ns, to_ns))
            query = sa.select(column["name"].label("name")).where(
                *conditions(connection, column, where, None, state=False), column[edge] > from_ns, column[edge] <= to_ns
            )
            if after is not None:
                query = query.where(column["name"] > after)
            query = query.distinct().order_by(sa.literal_column("1")).limit(size)
            found.append(list(connection.scalars(query)))
        names = list(dict.fromkeys(heapq.merge(*found)))[:size]
        if not names:
            return
        yield names
        if len(names) < size:
            return
        after = names[-1]


def _changes(
    connection: sa.Connection, from_ns: int, to_ns: int, where: ResourceFilter, names: list[str], ttl: timedelta
) -> list[ResourceChange]:
    rows: dict[str, list[ResourceRow]] = {name: [] for name in names}
    for table in (resource_versions, resources):
        query = sa.select(*columns_of(table)).where(
            table.c.name.in_(names), table.c.content_type == where.content_type, table.c.valid_from_ns <= to_ns
        )
        if table is resource_versions:
            query = query.where(table.c.valid_to_ns > from_ns)
        for row in connection.execute(query.order_by(table.c.name, table.c.version)):
            rows[row.name].append(row_of(row._mapping))
    found = []
    for name, known in rows.items():
        before, after = _at(known, from_ns), _at(known, to_ns)
        if not any(row is not None and fits(where, row) for row in (before, after)):
            continue
        kind = _kind(before, after)
        if kind is not None:
            begun = [row for row in known if row.valid_from_ns > from_ns]
            last = after or begun[-1]
            found.append(
                ResourceChange(
                    name,
                    where.content_type,
                    kind,
                    _present(before),
                    _present(after),
                    last.valid_from_ns,
                    len(begun),
                    JsonDiff((), False),
                    None,
                )
            )
    return _told_from_first_seen(connection, from_ns, found, ttl)


def _at(rows: list[ResourceRow], instant_ns: int) -> ResourceRow | None:
    for row in rows:
        if row.valid_from_ns <= instant_ns and (row.valid_to_ns is None or row.valid_to_ns > instant_ns):
            return row
    return None


def _present(row: ResourceRow | None) -> ResourceRow | None:
    return None if row is None or row.deleted else row


def _kind(before: ResourceRow | None, after: ResourceRow | None) -> ChangeKind | None:
    was, remains = _present(before), _present(after)
    if was is None:
        if remains is None:
            return None
        return ChangeKind.FIRST_SEEN if before is None else ChangeKind.CREATED
    if remains is None:
        return ChangeKind.DELETED
    if _is_another(was, remains):
        return ChangeKind.RECREATED
    return ChangeKind.UPDATED if was.digest != remains.digest else None


def _told_from_first_seen(
    connection: sa.Connection, from_ns: int, found: list[ResourceChange], ttl: timedelta
) -> list[ResourceChange]:
    """What was not there at the first instant was created since, if the part was known then or the data says so."""
    unsure = [item for item in found if item.change is ChangeKind.FIRST_SEEN]
    if not unsure:
        return found
    only = Parts(
        scopes=tuple(sorted({item.row.scope for item in unsure})),
        asset_types=tuple(sorted({item.row.asset_type for item in unsure})),
        content_types=tuple(sorted({item.content_type for item in unsure})),
    )
    known = {
        row.part
        for row in coverage_views.ledger_at(connection, from_ns, ttl=ttl, only=only)
        if row.status is CoverageStatus.COMPLETE
    }
    data = contents(connection, {item.row.content_id for item in unsure})
    told = []
    for item in found:
        if item.change is ChangeKind.FIRST_SEEN:
            born_ns = _born_ns(_data(item.row, data))
            proven = (item.row.scope, item.row.asset_type, item.content_type) in known
            if born_ns > from_ns if born_ns is not None else proven:
                item = replace(item, change=ChangeKind.CREATED)
        told.append(item)
    return told


def _born_ns(data: dict[str, Any] | None) -> int | None:
    written = created_at(data)
    try:
        return None if written is None else parse_ns(written)
    except ValueError:
        return None


def _with_fields(connection: sa.Connection, found: list[ResourceChange]) -> list[ResourceChange]:
    ids = {row.content_id for item in found for row in (item.before, item.after) if row is not None}
    data = contents(connection, ids)
    return [
        replace(
            item,
            diff=_difference(item.before, item.after, data),
            who=changed_by(_data(item.after, data), first=item.change is not ChangeKind.UPDATED),
        )
        for item in found
    ]
