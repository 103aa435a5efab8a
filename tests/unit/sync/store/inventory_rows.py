"""Rows of the inventory for tests of what asks it, and a plain answer to every question, made from the rows in Python.

The texts are awkward on purpose: letters of other alphabets and cases, percent signs, underscores, backslashes, quotes,
nothing at all, and many ties.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from lz_sync_dagster.sync.state.observation import digest_of
from lz_sync_dagster.sync.store import Store, schema
from lz_sync_dagster.sync.store.resource_views import Dimension, ResourceFilter, Sort
from lz_sync_dagster.sync.timing import from_ns, to_ns
from tests.conftest import NOW

HOUR = 3_600 * 10**9
START = to_ns(NOW - timedelta(days=2))
END = to_ns(NOW)

TYPES = ("compute.googleapis.com/Disk", "compute.googleapis.com/Instance", "storage.googleapis.com/Bucket")
PROJECTS = (None, "Z-proj", "a-proj", "a_proj", "ünî")
LOCATIONS = (None, "Europe", "europe-west1", "us%east", "us_east")
SCOPES = ("folders/1", "organizations/1")
LEAVES = (
    "Alpha", "alpha", "ALPHA_2", "al%pha", "al_pha", "back\\slash", "quo'te", "Größe", "GRÖSSE", "größe", "straße",
    "Ωmega", "ωmega", "日本", "[x]", "a*b?c", "^caret", "sp ace", "~tilde", "!bang",
)  # fmt: skip
TEXTS = (
    "alpha",
    "ALPHA",
    "%",
    "_",
    "\\",
    "'",
    "größe",
    "GRÖ",
    "ß",
    "ω",
    "日",
    "[",
    "*",
    "?",
    "^",
    " ",
    "a_p",
    "zzz",
    "//",
)


@dataclass(frozen=True)
class Row:
    """One version of one content, as the tables have it."""

    values: dict[str, Any]
    until_ns: int | None

    def __getattr__(self, name: str) -> Any:
        return self.values[name]


@dataclass
class Inventory:
    """What the tables have."""

    rows: list[Row] = field(default_factory=list)
    findings: list[dict[str, Any]] = field(default_factory=list)
    contents: dict[int, dict[str, Any]] = field(default_factory=dict)

    def at(self, as_of_ns: int | None) -> list[Row]:
        """What there was at an instant."""
        if as_of_ns is None:
            return [row for row in self.rows if row.until_ns is None]
        return [
            row
            for row in self.rows
            if row.valid_from_ns <= as_of_ns and (row.until_ns is None or row.until_ns > as_of_ns)
        ]

    def violations(self, as_of_ns: int | None) -> Counter[str]:
        """Open findings by resource."""
        at = None if as_of_ns is None else from_ns(as_of_ns)
        return Counter(
            item["resource"]
            for item in self.findings
            if (item["resolved_at"] is None or (at is not None and item["resolved_at"] > at))
            and (at is None or item["opened_at"] <= at)
        )

    def found(self, where: ResourceFilter, as_of_ns: int | None, without: Dimension | None = None) -> list[Row]:
        """What a filter finds."""
        counts = self.violations(as_of_ns)
        return [row for row in self.at(as_of_ns) if fits(row, where, counts, without)]

    def listed(self, where: ResourceFilter, sort: Sort, descending: bool, as_of_ns: int | None) -> list[str]:
        """The names of a list, in its order."""
        counts = self.violations(as_of_ns)

        def key(row: Row) -> Any:
            if sort is Sort.NAME:
                return ""
            if sort is Sort.VIOLATIONS:
                return counts[row.name]
            return row.values["valid_from_ns" if sort is Sort.UPDATED else sort.value]

        rows = self.found(where, as_of_ns)
        valued = sorted((row for row in rows if key(row) is not None), key=lambda row: (key(row), row.name))
        empty = sorted((row for row in rows if key(row) is None), key=lambda row: row.name)
        if descending:
            valued.reverse()
            empty.reverse()
        return [row.name for row in valued + empty]


def fits(row: Row, where: ResourceFilter, counts: Counter[str], without: Dimension | None = None) -> bool:
    """Whether a row meets a filter."""
    dimensions = {
        Dimension.ASSET_TYPE: (where.asset_types, row.asset_type),
        Dimension.PROJECT: (where.projects, row.project),
        Dimension.LOCATION: (where.locations, row.location),
    }
    return (
        row.content_type == where.content_type
        and row.deleted == where.deleted
        and all(not wanted or value in wanted for by, (wanted, value) in dimensions.items() if by is not without)
        and (not where.scopes or row.scope in where.scopes)
        and (
            not where.q or lowered(where.q) in lowered(row.name) or lowered(where.q) in lowered(row.display_name or "")
        )
        and (where.has_findings is None or where.has_findings == (counts[row.name] > 0))
        and (where.changed_since_ns is None or row.valid_from_ns >= where.changed_since_ns)
    )


def lowered(text: str) -> str:
    """In lower case, letter by letter."""
    return "".join(char.lower() if len(char.lower()) == 1 and len(char.upper()) == 1 else char for char in text)


def make(seed: int, resources: int = 60) -> Inventory:
    """A random inventory."""
    rng = random.Random(seed)
    made = Inventory()
    numbers = iter(range(1, 10**6))
    for index in range(resources):
        leaf = LEAVES[index % len(LEAVES)] + ("" if index < len(LEAVES) else f"-{index // len(LEAVES)}")
        name = f"//{rng.choice(('compute', 'Storage'))}.googleapis.com/{leaf}"
        for content_type in ("RESOURCE", "IAM_POLICY")[: 1 if rng.random() < 0.7 else 2]:
            _versions(made, rng, name, leaf, content_type, numbers)
        for control in range(rng.choice((0, 0, 1, 2))):
            opened = from_ns(rng.randrange(START, END))
            made.findings.append(finding(name, control, opened, NOW if rng.random() < 0.4 else None))
    return made


def _versions(made: Inventory, rng: random.Random, name: str, leaf: str, content_type: str, numbers: Any) -> None:
    # Few instants, so that many resources change at the same one.
    instants = sorted(rng.sample(range(START, END, HOUR), rng.choice((1, 1, 2, 4))))
    fixed = {"asset_type": rng.choice(TYPES), "scope": rng.choice(SCOPES), "display_name": rng.choice((leaf, None))}
    place = {"project": rng.choice(PROJECTS), "location": rng.choice(LOCATIONS)}
    gone = False
    for version, at in enumerate(instants, 1):
        gone = not gone and version > 1 and rng.random() < 0.3
        if rng.random() < 0.2:
            place = {"project": rng.choice(PROJECTS), "location": rng.choice(LOCATIONS)}
        data = {"size": rng.randrange(3), "labels": {"a.b": rng.choice("xy")}, "nested": [{"name": "n", "v": version}]}
        number = next(numbers)
        made.contents[number] = data
        values = {
            "name": name,
            "content_type": content_type,
            **fixed,
            **place,
            "deleted": gone,
            "resource_id": rng.choice(("1", "2", None)),
            "update_ns": at,
            "observed_ns": at,
            "valid_from_ns": at,
            "version": version,
            "digest": digest_of(data),
            "content_id": number,
            "source": "snapshot",
            "ancestors": ["projects/1", "organizations/1"],
            "changed_at": NOW,
        }
        until = instants[version] if version < len(instants) else None
        made.rows.append(Row(values, until))


def finding(resource: str, control: int, opened: datetime, resolved: datetime | None) -> dict[str, Any]:
    """A finding's row."""
    return {
        "control": f"1.{control}",
        "framework": "cis-v1.2",
        "title": "t",
        "severity": "high",
        "source": "cis",
        "resource": resource,
        "content_type": "RESOURCE",
        "asset_type": TYPES[0],
        "project": None,
        "message": "m",
        "opened_at": opened,
        "resolved_at": resolved,
        "resolution": "fixed" if resolved else None,
    }


def insert(store: Store, inventory: Inventory) -> None:
    """Put an inventory into the tables."""
    with store.write() as connection:
        _insert(connection, schema.resource_contents, contents_of(inventory))
        _insert(connection, schema.resources, (current(row) for row in inventory.rows if row.until_ns is None))
        old = (row for row in inventory.rows if row.until_ns is not None)
        _insert(connection, schema.resource_versions, ({**row.values, "valid_to_ns": row.until_ns} for row in old))
        _insert(connection, schema.findings, inventory.findings)


def contents_of(inventory: Inventory) -> Iterable[dict[str, Any]]:
    """The rows of ``resource_contents``."""
    return ({"id": number, "data": data, "redacted": []} for number, data in inventory.contents.items())


def current(row: Row) -> dict[str, Any]:
    """A row of ``resources``."""
    return {**row.values, "seen_ns": END, "written": 1}


def _insert(connection: sa.Connection, table: sa.Table, rows: Iterable[dict[str, Any]]) -> None:
    listed = list(rows)
    if listed:
        connection.execute(table.insert(), listed)
