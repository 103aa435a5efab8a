"""What differs between two instants is, on both engines, what plain Python makes of the same rows; and what is not
known is not told as known."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lz_sync_dagster.sync.errors import Reason
from lz_sync_dagster.sync.models import CoverageStatus
from lz_sync_dagster.sync.store import Store, coverage_views, schema
from lz_sync_dagster.sync.store.coverage_views import Parts
from lz_sync_dagster.sync.store.resource_history import ChangeKind, ResourceChange, diff, versions
from lz_sync_dagster.sync.store.resource_views import ResourceFilter
from lz_sync_dagster.sync.timing import from_ns, to_ns
from tests.conftest import NOW
from tests.unit.sync.store import inventory_rows
from tests.unit.sync.store.inventory_rows import END, HOUR, PROJECTS, START, TEXTS, TYPES, Inventory, Row

TTL = timedelta(hours=1)
quick = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(params=[1, 2])
def inventory(request: pytest.FixtureRequest, store: Store) -> Inventory:
    made = inventory_rows.make(request.param)
    inventory_rows.insert(store, made)
    return made


def all_changes(store: Store, from_ns: int, until_ns: int, where: ResourceFilter, limit: int) -> list[ResourceChange]:
    found: list[ResourceChange] = []
    after: str | None = None
    with store.read() as connection:
        while True:
            page = diff(connection, from_ns, until_ns, where, ttl=TTL, after=after, limit=limit)
            found += page.items
            assert len(page.items) == limit or page.following is None
            if page.following is None:
                return found
            after = page.following


def expected(inventory: Inventory, from_ns: int, until_ns: int, where: ResourceFilter) -> dict[str, str]:
    def by_name(instant: int) -> dict[str, Row]:
        return {row.name: row for row in inventory.at(instant) if row.content_type == where.content_type}

    before, after = by_name(from_ns), by_name(until_ns)
    changes = {}
    for name in sorted(before.keys() | after.keys()):
        ends = [row for row in (before.get(name), after.get(name)) if row is not None]
        plain = ResourceFilter(where.content_type, where.asset_types, where.projects, q=where.q)
        if not any(
            inventory_rows.fits(Row({**row.values, "deleted": False}, None), plain, inventory.violations(None))
            for row in ends
        ):
            continue
        was = name in before and not before[name].deleted
        remains = name in after and not after[name].deleted
        if was and remains:
            ids = {before[name].resource_id, after[name].resource_id}
            if None not in ids and len(ids) == 2:
                changes[name] = "recreated"
            elif before[name].digest != after[name].digest:
                changes[name] = "updated"
        elif was:
            changes[name] = "deleted"
        elif remains:
            changes[name] = "created" if name in before else "first_seen"
    return changes


@quick
@given(
    edges=st.tuples(st.integers(START - HOUR, END), st.integers(START - HOUR, END)).map(sorted),
    types=st.sampled_from(((), TYPES[:1], TYPES[:2])),
    projects=st.sampled_from(((), ("a-proj",), tuple(name for name in PROJECTS if name))),
    q=st.none() | st.sampled_from(TEXTS),
    content_type=st.sampled_from(("RESOURCE", "IAM_POLICY")),
    limit=st.integers(1, 70),
)
def test_a_difference_is_what_is_not_the_same_at_both_ends(
    store: Store,
    inventory: Inventory,
    edges: list[int],
    types: tuple[str, ...],
    projects: tuple[str, ...],
    q: str | None,
    content_type: str,
    limit: int,
) -> None:
    where = ResourceFilter(content_type, types, projects, q=q)
    found = all_changes(store, *edges, where, limit)
    wanted = expected(inventory, *edges, where)
    assert [(item.name, item.change.value) for item in found] == list(wanted.items())
    for item in found:
        if item.change is ChangeKind.UPDATED:
            assert item.diff.changes
            assert item.versions >= 1


def part(
    store: Store, since: int, until: int | None, status: str, read_ns: int | None, reason: str | None = None
) -> None:
    row: dict[str, Any] = {
        "scope": "organizations/1",
        "asset_type": TYPES[0],
        "content_type": "RESOURCE",
        "status": status,
        "reason": reason,
        "detail": None,
        "complete_read_ns": read_ns,
        "since": from_ns(since),
        "until": None if until is None else from_ns(until),
    }
    with store.write() as connection:
        connection.execute(schema.coverage_history.insert().values(**row))


def one(store: Store, **data: Any) -> None:
    """A disk that was last changed at START + 10 h."""
    at = START + 10 * HOUR
    values = {
        "name": "//d/1",
        "content_type": "RESOURCE",
        "asset_type": TYPES[0],
        "scope": "organizations/1",
        "deleted": False,
        "update_ns": at,
        "observed_ns": at,
        "valid_from_ns": at,
        "version": 1,
        "digest": "x",
        "content_id": 1,
        "source": "snapshot",
        "ancestors": [],
        "changed_at": NOW,
        "seen_ns": END,
        "written": 1,
    }
    with store.write() as connection:
        connection.execute(schema.resource_contents.insert().values(id=1, data=data, redacted=[]))
        connection.execute(schema.resources.insert().values(**values))


def kind_of_the_one(store: Store) -> str:
    (item,) = all_changes(store, START + 5 * HOUR, START + 15 * HOUR, ResourceFilter(), 5)
    return item.change.value


def test_what_was_not_read_before_may_have_been_there(store: Store) -> None:
    one(store)
    part(store, START + 12 * HOUR, None, "complete", END)
    assert kind_of_the_one(store) == "first_seen"


def test_what_a_complete_read_did_not_have_was_created_since(store: Store) -> None:
    one(store)
    part(store, START, None, "complete", END)
    assert kind_of_the_one(store) == "created"


@pytest.mark.parametrize(("hours", "kind"), [(7, "created"), (1, "first_seen")])
def test_the_creation_time_in_the_data_decides(store: Store, hours: int, kind: str) -> None:
    one(store, creationTimestamp=from_ns(START + hours * HOUR).isoformat())
    part(store, START, None, "complete", END)
    assert kind_of_the_one(store) == kind


def ledger_at(store: Store, instant: int) -> list[tuple[str, str | None]]:
    with store.read() as connection:
        rows = coverage_views.ledger_at(connection, instant, ttl=TTL, only=Parts(content_types=("RESOURCE",)))
    return [(row.status.value, row.reason.value if row.reason else None) for row in rows]


def test_the_ledger_of_the_past_is_what_was_known_then(store: Store) -> None:
    part(store, START + 10 * HOUR, START + 20 * HOUR, "complete", START + 20 * HOUR)
    part(store, START + 20 * HOUR, None, "partial", START + 20 * HOUR, "permission_denied")
    assert ledger_at(store, START + 5 * HOUR) == [("unknown", Reason.NOT_READ_YET.value)]
    assert ledger_at(store, START + 15 * HOUR) == [("complete", None)]
    assert ledger_at(store, START + 20 * HOUR + HOUR // 2) == [("partial", "permission_denied")]
    assert ledger_at(store, START + 22 * HOUR) == [("stale", "permission_denied")]


def test_a_part_that_failed_before_its_first_complete_read_is_unknown_with_its_reason(store: Store) -> None:
    part(store, START, START + 10 * HOUR, "partial", None, "quota")
    part(store, START + 10 * HOUR, None, "complete", END)
    assert ledger_at(store, START + HOUR) == [("unknown", "quota")]


def test_versions_are_told_newest_first_with_what_differs(store: Store, inventory: Inventory) -> None:
    name, content_type = max(
        ((row.name, row.content_type) for row in inventory.rows), key=lambda key: sum(
            (row.name, row.content_type) == key for row in inventory.rows
        )
    )  # fmt: skip
    mine = sorted(
        (row for row in inventory.rows if (row.name, row.content_type) == (name, content_type)),
        key=lambda row: -row.version,
    )
    with store.read() as connection:
        found = versions(connection, name, content_type)
        first = versions(connection, name, content_type, limit=2)
        rest = versions(connection, name, content_type, before=first[-1].row.version)
    assert [item.row.version for item in found] == [row.version for row in mine]
    assert [item.row.version for item in first + rest] == [row.version for row in mine]
    assert found[-1].change is ChangeKind.FIRST_SEEN
    assert found[-1].diff is None
    for item, row in zip(found[:-1], mine, strict=False):
        assert (item.change is ChangeKind.DELETED) == row.deleted
        assert item.diff is not None
        assert item.diff.changes


def test_the_ledger_row_by_row_agrees_with_its_summary(store: Store) -> None:
    values = {"asset_type": TYPES[0], "content_type": "RESOURCE", "since": NOW, "checked_at": NOW}
    with store.write() as connection:
        connection.execute(
            schema.coverage.insert(),
            [
                {**values, "scope": "a", "status": "complete", "complete_read_ns": to_ns(NOW), "assets": 3},
                {**values, "scope": "B", "status": "complete", "complete_read_ns": START, "assets": 3},
            ],
        )
    with store.read() as connection:
        rows = coverage_views.ledger(connection, now=NOW, ttl=TTL)
    assert [(row.scope, row.status) for row in rows] == [("B", CoverageStatus.STALE), ("a", CoverageStatus.COMPLETE)]
    summary = coverage_views.of_rows(rows)
    assert (summary.status, summary.complete, summary.stale) == (CoverageStatus.PARTIAL, 1, 1)


def test_what_began_after_a_pruned_instant_may_have_been_there(store: Store) -> None:
    one(store)
    part(store, START, None, "complete", END)
    assert kind_of_the_one(store) == "created"
    with store.write() as connection:
        connection.execute(schema.counters.insert().values(name="history_pruned_ns", value=START + 6 * HOUR))
    assert kind_of_the_one(store) == "first_seen"
