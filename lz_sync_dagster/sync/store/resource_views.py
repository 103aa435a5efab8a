"""What the API, the pages and exports ask of the inventory: lists of resources, now or as of an instant, and their
counts. One resource in full is `resource_details`; what changed between two instants is `resource_history`.

An instant is asked for by the source's clock: what is current has held since ``valid_from_ns``, and a superseded
version from its ``valid_from_ns`` until just before its ``valid_to_ns``. So the state at an instant is two lists that
are merged: rows of ``resources``, and rows of ``resource_versions``.

Both engines order texts by code point, ignore the case of ASCII letters only where `ResourceFilter.q` says so, and put
what has no value last.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from lz_sync_dagster.sync.store.schema import findings, resource_versions, resources
from lz_sync_dagster.sync.timing import from_ns

#: Where a list goes on: the part of the list, the value that it is sorted by, and the name.
Place = tuple[int, str | int | None, str]

#: How many values of a facet are told by name unless told.
FACET_VALUES = 200


class Sort(StrEnum):
    """What a list is sorted by. Equal ones are sorted by name."""

    NAME = "name"
    ASSET_TYPE = "asset_type"
    PROJECT = "project"
    LOCATION = "location"
    UPDATED = "updated"
    VIOLATIONS = "violations"


@dataclass(frozen=True, slots=True)
class ResourceFilter:
    """Which resources are asked for. Every condition that is given has to hold; of several values, one.

    Attributes:
        content_type: which content of the assets the list is of: one row per asset that has it.
        asset_types: exact types, such as ``compute.googleapis.com/Instance``.
        projects: project ids.
        scopes: the configured scopes that the resources belong to.
        locations: regions, zones, multi-regions.
        q: a text that the full name or the display name contains. Upper and lower case are the same. Nothing in it is
            an operator.
        has_findings: whether any control found something on the resource, in whatever content of it.
        deleted: what is gone, instead of what is there.
        changed_since_ns: what has been what it is since then or later.
    """

    content_type: str = "RESOURCE"
    asset_types: tuple[str, ...] = ()
    projects: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    locations: tuple[str, ...] = ()
    q: str | None = None
    has_findings: bool | None = None
    deleted: bool = False
    changed_since_ns: int | None = None


@dataclass(frozen=True, slots=True)
class ResourceRow:
    """One content of a resource, as it was or is.

    Attributes:
        valid_from_ns: since when it is what it is, by the source's clock; nanoseconds since the epoch.
        valid_to_ns: until when (exclusive); ``None`` if it still is.
        update_ns: the source's last update time.
        observed_ns: when a source last told it.
        version: counts from 1.
        content_id: of its content; ``None`` if it has none.
        ancestors: nearest first.
        violations: controls that it did not meet, over all of its contents.
    """

    name: str
    content_type: str
    asset_type: str
    scope: str
    project: str | None
    location: str | None
    display_name: str | None
    deleted: bool
    resource_id: str | None
    update_ns: int
    observed_ns: int
    valid_from_ns: int
    valid_to_ns: int | None
    version: int
    digest: str
    source: str
    content_id: int | None
    ancestors: tuple[str, ...]
    violations: int = 0


@dataclass(frozen=True, slots=True)
class ResourcePage:
    """A page of a list.

    ``following`` is where the next one begins, ``None`` on the last one; ``preceding`` is where the one before ends,
    ``None`` on the first one.
    """

    items: list[ResourceRow]
    following: Place | None
    preceding: Place | None = None


@dataclass(frozen=True, slots=True)
class Facet:
    """How many resources have which value; ``None`` is no value. ``others``: how many have a value that is not told."""

    values: list[tuple[str | None, int]]
    others: int


_SHARED = (
    "name",
    "content_type",
    "asset_type",
    "scope",
    "project",
    "location",
    "display_name",
    "deleted",
    "resource_id",
    "update_ns",
    "observed_ns",
    "valid_from_ns",
    "version",
    "digest",
    "source",
    "content_id",
    "ancestors",
)


# --- lists ------------------------------------------------------------------------------------------------------------


def list_resources(
    connection: sa.Connection,
    where: ResourceFilter,
    *,
    sort: Sort = Sort.NAME,
    descending: bool = False,
    after: Place | None = None,
    before: Place | None = None,
    limit: int = 100,
    as_of_ns: int | None = None,
) -> ResourcePage:
    """A page of resources. A row that does not change its place between two pages is on exactly one of them.

    Args:
        descending: the other way round; what has no value still comes last.
        after: ``following`` of the page before, with everything else the same.
        before: ``preceding`` of the page after, instead of ``after``: the rows that end there.
        as_of_ns: as it was at that instant; by default as it is now. Violations are then those of that instant.
    """
    backward = before is not None
    # Backwards, the same list is read from its end: each part of it the other way round, the last part first.
    ask = _Ask(connection, where, as_of_ns, descending != backward)
    keyed: list[tuple[Place, ResourceRow]] = []
    for segment in _segments(sort, descending, before or after, backward=backward):
        keyed += ask.rows(sort, segment, limit + 1 - len(keyed))
        if len(keyed) > limit:
            break
    more, keyed = len(keyed) > limit, keyed[:limit]
    if backward:
        keyed.reverse()
    items = with_violations(connection, [row for _, row in keyed], as_of_ns)
    if not keyed:
        return ResourcePage([], None, None)
    first, last = keyed[0][0], keyed[-1][0]
    return ResourcePage(items, last if more or backward else None, first if (more and backward) or after else None)


@dataclass(frozen=True, slots=True)
class _Segment:
    """A stretch of a list that one index can serve.

    ``part``: 0 for what has a value, 1 for what has none (no violation counts as none). ``same``/``beyond``: those with
    this value, those with a later one. ``name``: those with a later name.
    """

    part: int
    same: str | int | None = None
    beyond: str | int | None = None
    name: str | None = None


#: Of how many resources with findings, per row that is wanted, a list by violations looks at first.
_AMONG = 5
_NULLABLE = frozenset({Sort.PROJECT, Sort.LOCATION})


def _segments(sort: Sort, descending: bool, after: Place | None, *, backward: bool) -> Iterator[_Segment]:
    if sort is Sort.NAME:
        yield _Segment(0, name=None if after is None else after[2])
        return
    parts = [0]
    if sort in _NULLABLE:
        parts = [0, 1]
    elif sort is Sort.VIOLATIONS:
        parts = [0, 1] if descending else [1, 0]
    if backward:
        parts.reverse()
    if after is not None:
        part, key, name = after
        parts = parts[parts.index(part) + 1 :] if part in parts else []
        if part == 0:
            yield _Segment(0, same=key, name=name)
            yield _Segment(0, beyond=key)
        else:
            yield _Segment(part, name=name)
    for part in parts:
        yield _Segment(part)


class _Ask:
    """Asks the rows that are current and, for an instant, those that were."""

    def __init__(
        self, connection: sa.Connection, where: ResourceFilter, as_of_ns: int | None, descending: bool = False
    ) -> None:
        self.connection = connection
        self.where = where
        self.as_of_ns = as_of_ns
        self.descending = descending

    def rows(self, sort: Sort, segment: _Segment, limit: int) -> list[tuple[Place, ResourceRow]]:
        if sort is Sort.VIOLATIONS and segment.part == 0:
            # Most often the first of what has findings are enough, and no other resource has to be looked at.
            found = self._merged(sort, segment, limit, among=_AMONG * limit)
            if len(found) == limit:
                return found
        return self._merged(sort, segment, limit)

    def _merged(
        self, sort: Sort, segment: _Segment, limit: int, among: int | None = None
    ) -> list[tuple[Place, ResourceRow]]:
        found = [self._rows_of(table, sort, segment, limit, among) for table in tables_at(self.as_of_ns)]
        merged = heapq.merge(*found, key=lambda pair: pair[0], reverse=self.descending) if len(found) > 1 else found[0]
        return [pair for pair, _ in zip(merged, range(limit), strict=False)]

    def _rows_of(
        self, table: sa.Table, sort: Sort, segment: _Segment, limit: int, among: int | None
    ) -> list[tuple[Place, ResourceRow]]:
        column = Columns(self.connection, table, _hidden(self.connection, table, self.where, sort, self.as_of_ns))
        query = sa.select(*columns_of(table)).where(*conditions(self.connection, column, self.where, self.as_of_ns))
        query, key = self._keyed(query, column, sort, segment, among)
        order: list[Any] = [column["name"]]
        if key is not None:
            # "deleted" is constant here: an index has it between type and name.
            order = [key, *([table.c.deleted] if sort is Sort.ASSET_TYPE else []), column["name"]]
            query = query.add_columns(key.label("sort_key"))
        if segment.name is not None:
            query = query.where(self._is_later(column["name"], segment.name))
        query = query.order_by(*[one.desc() if self.descending else one for one in order]).limit(limit)
        found = []
        for row in self.connection.execute(query):
            values = row._mapping
            found.append(((segment.part, values.get("sort_key"), row.name), row_of(values)))
        return found

    def _keyed(
        self, query: sa.Select[Any], column: Columns, sort: Sort, segment: _Segment, among: int | None
    ) -> tuple[sa.Select[Any], sa.ColumnElement[Any] | None]:
        if sort is Sort.NAME:
            return query, None
        if sort is Sort.VIOLATIONS:
            return self._by_violations(query, column, segment, among)
        key = column["valid_from_ns" if sort is Sort.UPDATED else sort.value]
        if segment.part == 1:
            return query.where(key.is_(None)), None
        return self._limited(query, key, segment, nullable=sort in _NULLABLE), key

    def _limited(
        self, query: sa.Select[Any], key: sa.ColumnElement[Any], segment: _Segment, *, nullable: bool
    ) -> sa.Select[Any]:
        if segment.same is not None:
            return query.where(key == segment.same)
        if segment.beyond is not None:
            return query.where(self._is_later(key, segment.beyond))
        return query.where(key.is_not(None)) if nullable else query

    def _by_violations(
        self, query: sa.Select[Any], column: Columns, segment: _Segment, among: int | None
    ) -> tuple[sa.Select[Any], sa.ColumnElement[Any] | None]:
        if segment.part == 1:
            return query.where(sa.not_(has_findings(self.connection, column, self.as_of_ns))), None
        number = sa.func.count()
        inner = (
            sa.select(findings.c.resource, number.label("violations"))
            .where(is_open(self.as_of_ns))
            .group_by(findings.c.resource)
        )
        if segment.same is not None:
            inner = inner.having(number == segment.same)
        if segment.beyond is not None:
            inner = inner.having(self._is_later(number, segment.beyond))
        if segment.name is not None:
            inner = inner.where(self._is_later(findings.c.resource, segment.name))
        if among is not None:
            order = (number, findings.c.resource)
            inner = inner.order_by(*[one.desc() if self.descending else one for one in order]).limit(among)
        counted = inner.subquery("counted")
        return query.join(counted, counted.c.resource == column.table.c.name), counted.c.violations

    def _is_later(self, key: sa.ColumnElement[Any], value: str | int) -> sa.ColumnElement[bool]:
        return key < value if self.descending else key > value


# --- columns ----------------------------------------------------------------------------------------------------------


class Columns:
    """The columns of a table, some of them hidden from its indexes."""

    def __init__(self, connection: sa.Connection, table: sa.Table, hidden: frozenset[str]) -> None:
        self.table = table
        self._sqlite = connection.dialect.name == "sqlite"
        self._hidden = hidden

    def __getitem__(self, name: str) -> sa.ColumnElement[Any]:
        column = self.table.c[name]
        if name not in self._hidden:
            return column
        if self._sqlite:
            return sa.UnaryExpression(column, operator=_PLUS, type_=column.type)
        if isinstance(column.type, sa.Boolean):
            return column
        return column + ("" if isinstance(column.type, sa.String) else 0)


_PLUS: Any = sa.sql.operators.custom_op("+")
_CONDITIONED = frozenset({"content_type", "deleted", "scope", "valid_from_ns", "valid_to_ns"})
_SORTED = frozenset({"name", "asset_type", "project", "location"})


#: So many rows SQLite may look up one by one through an index before it is quicker to read the table as it lies.
_FEW = 5_000


def _hidden(
    connection: sa.Connection, table: sa.Table, where: ResourceFilter, sort: Sort, as_of_ns: int | None
) -> frozenset[str]:
    """Columns that must not be looked up in an index. SQLite has no statistics: it takes a condition that nearly every
    row meets for a rare one, and reads the whole table row by row in the order of an index that is of no use.
    PostgreSQL cannot tell how rare a text is, and does the same in the hope of an early hit.

    A list is read in the order of its sort, and stops early; where few rows may fit, the table is read as it lies.
    """
    if where.asset_types or where.projects:
        return frozenset()
    if connection.dialect.name != "sqlite":
        return _SORTED | {"valid_from_ns"} if where.q else frozenset()
    if as_of_ns is not None and (narrow := _narrow(connection, table, as_of_ns)):
        return (_CONDITIONED | _SORTED) - {narrow}
    few = bool(where.q or where.locations or where.deleted or where.has_findings or where.changed_since_ns is not None)
    if few and sort is not Sort.VIOLATIONS:
        return _CONDITIONED | _SORTED
    if sort in (Sort.ASSET_TYPE, Sort.PROJECT):
        return _CONDITIONED - {"content_type", "deleted"}
    return _CONDITIONED - {"valid_from_ns" if sort is Sort.UPDATED else ""}


def _narrow(connection: sa.Connection, table: sa.Table, as_of_ns: int) -> str | None:
    """The column by which few rows of a table were there at an instant, if there is one."""
    limits = [("valid_from_ns", table.c.valid_from_ns <= as_of_ns)]
    if table is resource_versions:
        limits.append(("valid_to_ns", table.c.valid_to_ns > as_of_ns))
    for name, limit in limits:
        some = sa.select(sa.literal(1)).select_from(table).where(limit).limit(_FEW).subquery()
        if connection.execute(sa.select(sa.func.count()).select_from(some)).scalar_one() < _FEW:
            return name
    return None


def hidden_but(
    connection: sa.Connection, table: sa.Table, where: ResourceFilter, edge: str, from_ns: int, to_ns: int
) -> frozenset[str]:
    """Columns to hide so that rows are found by the time in which they began or ended (``edge``); if many did, by
    their type, or else by their names."""
    every = _CONDITIONED | _SORTED
    if connection.dialect.name != "sqlite":
        return frozenset()
    column = table.c[edge]
    some = sa.select(sa.literal(1)).select_from(table).where(column > from_ns, column <= to_ns).limit(_FEW).subquery()
    few = connection.execute(sa.select(sa.func.count()).select_from(some)).scalar_one() < _FEW
    if few:
        return every - {edge}
    if where.asset_types:
        return every - {"content_type", "asset_type", "deleted", "name"}
    return every if where.projects else every - {"name"}


def tables_at(as_of_ns: int | None) -> tuple[sa.Table, ...]:
    """The tables that have what was there at an instant (``None``: now)."""
    return (resources,) if as_of_ns is None else (resources, resource_versions)


def columns_of(table: sa.Table) -> list[sa.ColumnElement[Any]]:
    """The columns of a `ResourceRow`, of a current or of a superseded row."""
    until = table.c.valid_to_ns if table is resource_versions else sa.literal(None, sa.BigInteger).label("valid_to_ns")
    return [*(table.c[name] for name in _SHARED), until]


def row_of(values: sa.RowMapping) -> ResourceRow:
    """A `ResourceRow` of the columns of `columns_of`."""
    return ResourceRow(
        name=values["name"],
        content_type=values["content_type"],
        asset_type=values["asset_type"],
        scope=values["scope"],
        project=values["project"],
        location=values["location"],
        display_name=values["display_name"],
        deleted=values["deleted"],
        resource_id=values["resource_id"],
        update_ns=values["update_ns"],
        observed_ns=values["observed_ns"],
        valid_from_ns=values["valid_from_ns"],
        valid_to_ns=values["valid_to_ns"],
        version=values["version"],
        digest=values["digest"],
        source=values["source"],
        content_id=values["content_id"],
        ancestors=tuple(values["ancestors"] or ()),
    )


# --- conditions -------------------------------------------------------------------------------------------------------


def holds_at(column: Columns, as_of_ns: int | None) -> list[sa.ColumnElement[bool]]:
    """That a row of ``resources`` or ``resource_versions`` was what there was at an instant (``None``: now)."""
    if as_of_ns is None:
        return []
    begun = [column["valid_from_ns"] <= as_of_ns]
    return [*begun, column["valid_to_ns"] > as_of_ns] if column.table is resource_versions else begun


def conditions(
    connection: sa.Connection, column: Columns, where: ResourceFilter, as_of_ns: int | None, *, state: bool = True
) -> list[sa.ColumnElement[bool]]:
    """A filter at an instant, as conditions on a table of resources.

    Args:
        state: whether those are among them that are about an instant: deleted, changed since, with findings.
    """
    found: list[sa.ColumnElement[bool]] = [column["content_type"] == where.content_type]
    if state:
        found.append(column["deleted"] == sa.literal(where.deleted))
        found += holds_at(column, as_of_ns)
    for name, values in (
        ("asset_type", where.asset_types),
        ("project", where.projects),
        ("location", where.locations),
        ("scope", where.scopes),
    ):
        if len(values) == 1:
            found.append(column[name] == values[0])
        elif values:
            found.append(column[name].in_(values))
    if where.q:
        found.append(contains(connection, (column.table.c.name, column.table.c.display_name), where.q))
    if state and where.changed_since_ns is not None:
        found.append(column["valid_from_ns"] >= where.changed_since_ns)
    if state and where.has_findings is not None:
        any_finding = has_findings(connection, column, as_of_ns)
        found.append(any_finding if where.has_findings else sa.not_(any_finding))
    return found


def fits(where: ResourceFilter, row: ResourceRow) -> bool:
    """Whether a row meets the conditions of `conditions` without those on its state."""
    wanted = (
        (where.asset_types, row.asset_type),
        (where.projects, row.project),
        (where.locations, row.location),
        (where.scopes, row.scope),
    )
    if row.content_type != where.content_type or any(values and value not in values for values, value in wanted):
        return False
    return not where.q or any(folded(where.q) in folded(text) for text in (row.name, row.display_name) if text)


def folded(text: str) -> str:
    """A text as `contains` compares it."""
    return "".join(_cases(char)[0] for char in text)


def contains(connection: sa.Connection, columns: Sequence[sa.ColumnElement[Any]], text: str) -> sa.ColumnElement[bool]:
    """That one of the columns contains a text, in any case, and the same on both engines.

    The databases take ASCII letters alike; of other letters, those that the text has are lowered one by one.
    """
    cases = [_cases(char) for char in text]
    others = {case[-1]: case[0] for case in cases if len(case) == 2 and not case[0].isascii()}
    needle = "".join(case[0] for case in cases)

    def found_in(column: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
        lowered = column
        for upper, lower in others.items():
            lowered = sa.func.replace(lowered, upper, lower)
        if connection.dialect.name != "sqlite":
            return sa.func.strpos(sa.func.lower(lowered), needle) > 0
        # SQLite's LIKE ignores the case of ASCII letters, and is its fastest way to look.
        exact = lowered.contains(needle, autoescape=True)
        if not others:
            return exact
        if all(char in others.values() for char in needle):
            return exact
        shape = "".join("_" if char in others.values() else _literally(char) for char in needle)
        return sa.and_(column.like(f"%{shape}%", escape="/"), exact)

    return sa.or_(*map(found_in, columns))


def _cases(char: str) -> str:
    """A letter in lower and upper case; one that has no single other letter, and anything else, alone."""
    lower, upper = char.lower(), char.upper()
    one_each = len(lower) == len(upper) == 1 and char in (lower, upper) and lower != upper
    return lower + upper if one_each and lower.isascii() == upper.isascii() else char


def _literally(char: str) -> str:
    return f"/{char}" if char in "%_/" else char


def is_open(as_of_ns: int | None) -> sa.ColumnElement[bool]:
    """That a finding was open at an instant (``None``: is open now)."""
    if as_of_ns is None:
        return findings.c.resolved_at.is_(None)
    instant: datetime = from_ns(as_of_ns)
    return sa.and_(
        findings.c.opened_at <= instant, sa.or_(findings.c.resolved_at.is_(None), findings.c.resolved_at > instant)
    )


def has_findings(connection: sa.Connection, column: Columns, as_of_ns: int | None) -> sa.ColumnElement[bool]:
    """That any control found something on the resource of a row."""
    name = column.table.c.name
    if connection.dialect.name == "sqlite":  # the list of names is made once
        return name.in_(sa.select(findings.c.resource).where(is_open(as_of_ns)))
    return sa.exists().where(findings.c.resource == name, is_open(as_of_ns))


# --- figures ----------------------------------------------------------------------------------------------------------


def with_violations(connection: sa.Connection, rows: list[ResourceRow], as_of_ns: int | None) -> list[ResourceRow]:
    """The rows with their number of violations."""
    counts: Counter[str] = Counter()
    names = sorted({row.name for row in rows})
    for start in range(0, len(names), _NAMES):
        query = (
            sa.select(findings.c.resource, sa.func.count())
            .where(findings.c.resource.in_(names[start : start + _NAMES]), is_open(as_of_ns))
            .group_by(findings.c.resource)
        )
        counts.update({name: number for name, number in connection.execute(query)})  # noqa: C416
    return [replace(row, violations=counts[row.name]) if counts[row.name] else row for row in rows]


#: Names that one statement takes.
_NAMES = 1_000


class Dimension(StrEnum):
    """What resources are counted by."""

    ASSET_TYPE = "asset_type"
    PROJECT = "project"
    LOCATION = "location"


def count(connection: sa.Connection, where: ResourceFilter, *, as_of_ns: int | None = None) -> int:
    """How many resources a filter finds."""
    total = 0
    for table in tables_at(as_of_ns):
        column = Columns(connection, table, _hidden_in_counts(connection, where, as_of_ns))
        query = sa.select(sa.func.count()).select_from(table).where(*conditions(connection, column, where, as_of_ns))
        total += connection.execute(query).scalar_one()
    return total


def violations(connection: sa.Connection, where: ResourceFilter, *, as_of_ns: int | None = None) -> int:
    """How many findings were open on the resources that a filter finds."""
    total = 0
    for table in tables_at(as_of_ns):
        column = Columns(connection, table, _hidden_in_counts(connection, where, as_of_ns))
        names = sa.select(table.c.name).where(*conditions(connection, column, where, as_of_ns))
        query = sa.select(sa.func.count()).where(is_open(as_of_ns), findings.c.resource.in_(names))
        total += connection.execute(query.select_from(findings)).scalar_one()
    return total


def facet(
    connection: sa.Connection,
    where: ResourceFilter,
    by: Dimension,
    *,
    as_of_ns: int | None = None,
    values: int = FACET_VALUES,
) -> Facet:
    """How many resources have which type, project or location: of those that the filter would find without its own
    condition on that.

    Args:
        values: how many values are told; those with the most resources come first.
    """
    where = without(where, by)
    counts: Counter[str | None] = Counter()
    for table in tables_at(as_of_ns):
        column = Columns(connection, table, _hidden_in_counts(connection, where, as_of_ns))
        inner = conditions(connection, column, where, as_of_ns)
        query = sa.select(table.c[by.value], sa.func.count()).where(*inner).group_by(table.c[by.value])
        counts.update({value: number for value, number in connection.execute(query)})  # noqa: C416
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0] is None, pair[0] or ""))
    return Facet(ordered[:values], sum(number for _, number in ordered[values:]))


def without(where: ResourceFilter, by: Dimension) -> ResourceFilter:
    """A filter without its condition on one dimension."""
    if by is Dimension.ASSET_TYPE:
        return replace(where, asset_types=())
    return replace(where, projects=()) if by is Dimension.PROJECT else replace(where, locations=())


def _hidden_in_counts(connection: sa.Connection, where: ResourceFilter, as_of_ns: int | None) -> frozenset[str]:
    """Like `_hidden`: a count without other conditions reads a covering index, any other the table as it lies."""
    if connection.dialect.name != "sqlite" or where.asset_types or where.projects:
        return frozenset()
    plain = as_of_ns is None and not where.q and not where.locations and not where.scopes
    if plain and where.changed_since_ns is None and where.has_findings is None:
        return frozenset()
    return _CONDITIONED | _SORTED
