"""Schema drift: which fields the contents of a type were seen to have, and which of them came later.

A new field, or another kind of value in a known one, is recorded and told. Nothing fails because of it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from lz_sync_dagster.sync.store.schema import data_fields, resource_contents, resources
from lz_sync_dagster.sync.timing import from_ns, to_ns

_NULL = "null"


class Drift(StrEnum):
    """What is new of a field: all of it, or a kind of value."""

    NEW_FIELD = "new_field"
    CHANGED_TYPE = "changed_type"


@dataclass(frozen=True, slots=True)
class DriftedField:
    """A field that the first reads of its type did not show as it is now. ``example``: a resource that has it."""

    asset_type: str
    content_type: str
    path: str
    kinds: tuple[str, ...]
    drift: Drift
    example: str
    first_seen: datetime
    drifted_at: datetime

    @property
    def place(self) -> tuple[int, str, str, str]:
        """Its place in `drifted`."""
        return (to_ns(self.drifted_at), self.asset_type, self.content_type, self.path)


class FieldCache:
    """What a process knows to be in the table of one store, so that a known shape costs no query."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], dict[str, frozenset[str]]] = {}

    def know(self, connection: sa.Connection, keys: Collection[tuple[str, str]]) -> None:
        """Make sure that what the table says of types is known: (asset type, content type) each, in one query."""
        unknown = set(keys) - self._known.keys()
        if not unknown:
            return
        table = data_fields
        query = sa.select(table.c.asset_type, table.c.content_type, table.c.path, table.c.kinds)
        known: dict[tuple[str, str], dict[str, frozenset[str]]] = {key: {} for key in unknown}
        for row in connection.execute(query.where(table.c.asset_type.in_(sorted({kind for kind, _ in unknown})))):
            if (row.asset_type, row.content_type) in known:
                known[row.asset_type, row.content_type][row.path] = frozenset(row.kinds)
        self._known |= known

    def forget(self, keys: Collection[tuple[str, str]]) -> None:
        """Ask the table again for types: something was written."""
        for key in keys:
            self._known.pop(key, None)

    def is_empty(self, key: tuple[str, str]) -> bool:
        """Whether nothing is known of a type."""
        return not self._known.get(key)

    def unrecorded(self, key: tuple[str, str], paths: Collection[str]) -> list[str]:
        """Which of the paths nothing is known of."""
        known = self._known.get(key, {})
        return [path for path in paths if path not in known]

    def news(self, key: tuple[str, str], fields: Mapping[str, frozenset[str]]) -> list[str]:
        """The paths of which not every kind is known."""
        known = self._known.get(key, {})
        return sorted(path for path, kinds in fields.items() if not kinds <= known.get(path, frozenset()))

    def learn(self, key: tuple[str, str], path: str, kinds: Collection[str]) -> None:
        """Take what the table says."""
        self._known.setdefault(key, {})[path] = frozenset(kinds)


def record(
    connection: sa.Connection,
    asset_type: str,
    content_type: str,
    fields: Mapping[str, frozenset[str]],
    *,
    example: str,
    now: datetime,
    baseline: bool,
    cache: FieldCache,
) -> list[DriftedField]:
    """Take the fields of a content (`sync.state.fields.fields_of`) into the table, and say what drifted.

    Args:
        connection: a transaction that runs alone among those that record.
        example: the full name of the resource that has them.
        now: the instant of the transaction, the same for all of its calls.
        baseline: the type is read for the first time: what it has is no drift. Nor is it if nothing of it is known.
        cache: of this store; it takes what other transactions have written, so that a rollback cannot deceive it.
    """
    key = (asset_type, content_type)
    paths = cache.news(key, fields)
    if not paths:
        return []
    table = data_fields
    of_type = sa.and_(table.c.asset_type == asset_type, table.c.content_type == content_type)
    known: dict[str, sa.Row[Any]] = {}
    for start in range(0, len(paths), 1_000):
        query = sa.select(table).where(of_type, table.c.path.in_(paths[start : start + 1_000]))
        known |= {row.path: row for row in connection.execute(query)}
    for row in known.values():
        if row.first_seen < now and (row.drifted_at is None or row.drifted_at < now):
            cache.learn(key, row.path, row.kinds)
    if not baseline and len(known) < len(paths):
        baseline = connection.scalar(sa.select(table.c.path).where(of_type).limit(1)) is None
    drifts: list[DriftedField] = []
    inserts: list[dict[str, Any]] = []
    for path in paths:
        kinds, entry = fields[path], known.get(path)
        if entry is None:
            drift = None if baseline else Drift.NEW_FIELD
            values = _values(key, path, kinds, drift, example, now, now)
            inserts.append(values)
        elif not kinds <= set(entry.kinds):
            before = set(entry.kinds)
            retyped = bool(before - {_NULL}) and bool(kinds - before - {_NULL})
            drift = Drift.CHANGED_TYPE if retyped and not baseline else None
            values = _values(key, path, kinds | before, drift, example, entry.first_seen, now)
            connection.execute(table.update().where(of_type, table.c.path == path).values(**_update(values)))
        else:
            continue
        if drift is not None:
            drifts.append(DriftedField(*key, path, tuple(values["kinds"]), drift, example, values["first_seen"], now))
    if inserts:
        insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
        connection.execute(insert(table).on_conflict_do_nothing(), inserts)
    return drifts


def was_there(connection: sa.Connection, asset_type: str, content_type: str, path: str, *, written: int) -> bool:
    """Whether some content of a type that was written no later than the write of that number has a key of this name: a
    field that the first look at the type may have missed. It reads the contents of the type, so ask for news only."""
    key = path.replace("[]", "").rstrip(".").rpartition(".")[2]
    text = sa.cast(resource_contents.c.data, sa.Text)
    query = (
        sa.select(resources.c.name)
        .join(resource_contents, resource_contents.c.id == resources.c.content_id)
        .where(
            resources.c.asset_type == asset_type,
            resources.c.content_type == content_type,
            resources.c.deleted.is_(False),
            resources.c.written <= written,
            text.contains(f"{orjson.dumps(key).decode()}:", autoescape=True),
        )
        .limit(1)
    )
    return connection.execute(query).first() is not None


def _values(
    key: tuple[str, str],
    path: str,
    kinds: Collection[str],
    drift: Drift | None,
    example: str,
    first_seen: datetime,
    now: datetime,
) -> dict[str, Any]:
    return {
        "asset_type": key[0],
        "content_type": key[1],
        "path": path,
        "kinds": sorted(kinds),
        "drift": drift.value if drift else None,
        "example": example,
        "first_seen": first_seen,
        "drifted_at": now if drift else None,
    }


def _update(values: Mapping[str, Any]) -> dict[str, Any]:
    """A further kind that is no drift leaves an earlier drift as it was told."""
    if values["drift"] is None:
        return {"kinds": values["kinds"]}
    return {name: values[name] for name in ("kinds", "drift", "example", "drifted_at")}


def drifted(
    connection: sa.Connection,
    *,
    asset_types: Collection[str] = (),
    after: tuple[int, str, str, str] | None = None,
    limit: int = 100,
) -> list[DriftedField]:
    """Drifted fields, the newest first; ``after``: the place of the last one of the page before."""
    table = data_fields
    place = (table.c.asset_type, table.c.content_type, table.c.path)
    query = sa.select(table).where(table.c.drifted_at.is_not(None))
    if asset_types:
        query = query.where(table.c.asset_type.in_(asset_types))
    if after is not None:
        at = from_ns(after[0])
        later = sa.and_(table.c.drifted_at == at, sa.tuple_(*place) > sa.tuple_(*map(sa.literal, after[1:])))
        query = query.where(sa.or_(table.c.drifted_at < at, later))
    query = query.order_by(table.c.drifted_at.desc(), *place).limit(limit)
    return [
        DriftedField(
            row.asset_type,
            row.content_type,
            row.path,
            tuple(row.kinds),
            Drift(row.drift),
            row.example,
            row.first_seen,
            row.drifted_at,
        )
        for row in connection.execute(query)
    ]
