"""What is past its retention goes; what is inside it stays whole."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.errors import Reason
from lz_sync_dagster.sync.models import CoverageStatus, EventType
from lz_sync_dagster.sync.state.observation import Source, observe
from lz_sync_dagster.sync.store import Store, assets, audit, coverage, coverage_views, event_log, retention
from lz_sync_dagster.sync.store.event_log import NewEvent
from lz_sync_dagster.sync.store.schema import (
    audit_log,
    coverage_history,
    data_fields,
    feed_freshness,
    findings,
    layer_runs,
    metadata,
    resource_contents,
    resource_versions,
    resources,
    snapshots,
)
from lz_sync_dagster.sync.store.schema import event_log as log_table
from lz_sync_dagster.sync.timing import format_ns, to_ns
from tests.conftest import NOW

TYPE = "storage.googleapis.com/Bucket"
DAY = timedelta(days=1)


def observed(store: Store, name: str, at: datetime, *, deleted: bool = False, **data: Any) -> None:
    body: dict[str, Any] = {"name": name, "assetType": TYPE, "updateTime": format_ns(to_ns(at))}
    if not deleted:
        body["resource"] = {"data": data}
    item = observe(body, scope="organizations/1", observed_ns=to_ns(at), source=Source.FEED, deleted=deleted)
    with store.write(exclusive=assets.LOCK) as connection:
        assets.apply(connection, [item], layer=LayerId.PUBSUB, now=at, evaluate=lambda *_: [])


def rows(store: Store, table: sa.Table, *columns: str) -> list[Any]:
    with store.read() as connection:
        found = connection.execute(sa.select(*(table.c[name] for name in columns)).order_by(*table.primary_key)).all()
    return [row[0] if len(columns) == 1 else tuple(row) for row in found]


def put(store: Store, table: sa.Table, *values: dict[str, Any]) -> None:
    with store.write() as connection:
        connection.execute(table.insert(), list(values))


# --- versions and tombstones ------------------------------------------------------------------------------------------


def test_a_version_stays_as_long_as_it_held_at_an_instant_that_is_kept(store: Store) -> None:
    for day in (0, 10, 20, 30):
        observed(store, "//b/a", NOW + day * DAY, day=day)
    assert retention.prune_versions(store, before=NOW + 20 * DAY, chunk=1) == 2
    assert rows(store, resource_versions, "version") == [3]
    assert [data["day"] for data in rows(store, resource_contents, "data")] == [20, 30]


def test_before_what_was_pruned_the_past_is_unknown(store: Store) -> None:
    part = ("organizations/1", TYPE, "RESOURCE")
    observed(store, "//b/a", NOW, size=1)
    observed(store, "//b/a", NOW + 4 * DAY, size=2)
    with store.write() as connection:
        read = coverage.CoverageMark(*part, CoverageStatus.COMPLETE, complete_read_ns=to_ns(NOW + 9 * DAY), assets=1)
        coverage.mark(connection, [read], now=NOW)

    def status(at: datetime) -> list[tuple[CoverageStatus, Reason | None]]:
        with store.read() as connection:
            found = coverage_views.ledger_at(connection, to_ns(at), ttl=coverage.TTL)
        return [(row.status, row.reason) for row in found]

    assert retention.prune_versions(store, before=NOW + 2 * DAY) == 0
    assert status(NOW + DAY) == [(CoverageStatus.COMPLETE, None)]
    assert retention.prune_versions(store, before=NOW + 5 * DAY) == 1
    assert retention.prune_coverage_history(store, before=NOW + 5 * DAY) == 0
    assert status(NOW + DAY) == [(CoverageStatus.UNKNOWN, Reason.PRUNED)]
    assert status(NOW + 4 * DAY) == [(CoverageStatus.COMPLETE, None)]


def test_pruned_spans_of_the_ledger_move_the_mark_forward_only(store: Store) -> None:
    part = ("organizations/1", TYPE, "RESOURCE")
    for days, status in ((0, CoverageStatus.COMPLETE), (1, CoverageStatus.PARTIAL), (3, CoverageStatus.UNKNOWN)):
        with store.write() as connection:
            coverage.mark(connection, [coverage.CoverageMark(*part, status)], now=NOW + days * DAY)
    for before, until in ((2, 1), (9, 3), (2, 3)):
        retention.prune_coverage_history(store, before=NOW + before * DAY)
        with store.read() as connection:
            assert retention.pruned_until_ns(connection) == to_ns(NOW + until * DAY)


def test_a_tombstone_outlives_its_versions_and_its_retention(store: Store) -> None:
    observed(store, "//b/a", NOW, x=1)
    observed(store, "//b/a", NOW + DAY, deleted=True)
    observed(store, "//b/b", NOW, x=1)
    assert retention.prune_tombstones(store, before=NOW + 9 * DAY) == 0, "a version of it is kept"
    assert retention.prune_versions(store, before=NOW + 9 * DAY) == 1
    assert retention.prune_tombstones(store, before=NOW + DAY) == 0, "a redelivery could bring it back"
    assert retention.prune_tombstones(store, before=NOW + 9 * DAY) == 1
    assert rows(store, resources, "name") == ["//b/b"]
    assert len(rows(store, resource_contents, "id")) == 1
    observed(store, "//b/a", NOW + 10 * DAY, x=2)
    observed(store, "//b/a", NOW + 11 * DAY, x=3)
    assert rows(store, resource_versions, "name", "version") == [("//b/a", 1)]


steps = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 20), st.sampled_from(("change", "same", "delete", "prune", "bury"))),
    max_size=25,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps, st.integers(1, 3))
def test_a_content_that_something_refers_to_is_never_removed(
    store: Store, script: list[tuple[int, int, str]], chunk: int
) -> None:
    with store.write() as connection:
        for table in (resources, resource_versions, resource_contents):
            connection.execute(table.delete())
    now = NOW
    for count, (number, days, what) in enumerate(script):
        now += days * DAY + timedelta(seconds=1)
        name = f"//b/{number}"
        kept = now - 30 * DAY
        if what == "prune":
            inside = [
                row for row in rows(store, resource_versions, "name", "version", "valid_to_ns") if row[2] > to_ns(kept)
            ]
            retention.prune_versions(store, before=kept, chunk=chunk)
            assert rows(store, resource_versions, "name", "version", "valid_to_ns") == inside
        elif what == "bury":
            alive = rows(store, resources, "name", "deleted")
            retention.prune_tombstones(store, before=kept, chunk=chunk)
            assert set(rows(store, resources, "name", "deleted")) >= {row for row in alive if not row[1]}
        elif what == "delete":
            observed(store, name, now, deleted=True)
        else:
            observed(store, name, now, step=count if what == "change" else 0)
        referred = {*rows(store, resources, "content_id"), *rows(store, resource_versions, "content_id")} - {None}
        assert set(rows(store, resource_contents, "id")) == referred


# --- the other tables -------------------------------------------------------------------------------------------------


def test_the_ledgers_history_and_its_newest_reads_stay(store: Store) -> None:
    part = {"scope": "organizations/1", "asset_type": TYPE, "content_type": "RESOURCE"}
    put(
        store,
        coverage_history,
        {**part, "status": "complete", "since": NOW - 9 * DAY, "until": NOW - 8 * DAY},
        {**part, "status": "stale", "since": NOW - 8 * DAY, "until": NOW},
        {**part, "status": "complete", "since": NOW - 20 * DAY, "until": None},
    )
    assert retention.prune_coverage_history(store, before=NOW - DAY, chunk=1) == 1
    assert rows(store, coverage_history, "status") == ["stale", "complete"]

    reads = [(1, True), (2, True), (3, False), (4, True), (5, False)]
    put(
        store,
        snapshots,
        *({**part, "read_ns": ns, "complete": whole, "assets": 1, "finished_at": NOW - 9 * DAY} for ns, whole in reads),
    )
    assert retention.prune_snapshots(store, before=NOW, chunk=1) == 3
    assert rows(store, snapshots, "read_ns") == [2, 4]


def test_the_syncs_that_say_what_a_layer_is_now_stay(store: Store) -> None:
    def sync(days: int, status: str, changed: int = 0, layer: str = "api") -> dict[str, Any]:
        ended = None if status == "in_progress" else NOW - days * DAY
        shared = {"triggered_by": "t", "holder": "h", "errors": [], "details": {}}
        return shared | {
            "layer": layer,
            "status": status,
            "started_at": NOW - days * DAY,
            "finished_at": ended,
            "items_changed": changed,
        }

    put(
        store,
        layer_runs,
        sync(9, "success", 3),
        sync(8, "success", 5),
        sync(7, "success"),
        sync(6, "failed"),
        sync(5, "failed"),
        sync(9, "success", 0, "git"),
        sync(9, "in_progress", 0, "git"),
    )
    assert retention.prune_layer_runs(store, before=NOW - DAY) == 2
    assert rows(store, layer_runs, "id") == [2, 3, 5, 6, 7]


def test_open_violations_deeds_and_recent_hours_stay(store: Store) -> None:
    violation = dict.fromkeys(("control", "framework", "title", "severity", "source", "resource"), "x")
    violation |= dict.fromkeys(("content_type", "asset_type", "message"), "x")
    put(
        store,
        findings,
        *(violation | {"opened_at": NOW - 9 * DAY, "resolved_at": at} for at in (None, NOW, NOW - 8 * DAY)),
    )
    assert retention.prune_findings(store, before=NOW - DAY) == 1

    put(
        store,
        audit_log,
        *(
            {"at": NOW - 9 * DAY, "actor": "a", "action": action, "target": "t", "details": {}}
            for action in ("confirm_deletions", audit.REFUSED)
        ),
    )
    assert retention.prune_refusals(store, before=NOW - DAY) == 1
    assert rows(store, audit_log, "action") == ["confirm_deletions"]

    hours = {"asset_type": TYPE, "delivered": 1, "missed": 0, "source_delays": {}, "own_delays": {}}
    put(store, feed_freshness, *(hours | {"hour": NOW - days * DAY} for days in (9, 1)))
    assert retention.prune_feed_freshness(store, before=NOW - 2 * DAY) == 1


def test_the_fields_of_a_type_that_is_read_stay(store: Store) -> None:
    shared = {"content_type": "RESOURCE", "path": "a", "kinds": ["string"], "example": "e", "first_seen": NOW - 9 * DAY}
    put(store, data_fields, *(shared | {"asset_type": kind} for kind in (TYPE, "gone.googleapis.com/Type")))
    with store.write() as connection:
        known = coverage.CoverageMark("organizations/1", TYPE, "RESOURCE", coverage.CoverageStatus.COMPLETE)
        coverage.mark(connection, [known], now=NOW)
    assert retention.prune_data_fields(store, before=NOW) == 1
    assert rows(store, data_fields, "asset_type") == [TYPE]


def test_events_go_from_the_oldest_on_and_their_numbers_have_no_gaps(store: Store) -> None:
    for day in (0, 1, 2, 1, 3):
        with store.write() as connection:
            event = NewEvent(EventType.SYNC_STATUS, LayerId.API, NOW)
            event_log.append(connection, [event, event], recorded_at=NOW + day * DAY)
    assert retention.prune_events(store, before=NOW + 2 * DAY, chunk=3) == 4
    assert rows(store, log_table, "seq") == [5, 6, 7, 8, 9, 10]
    assert retention.prune_events(store, before=NOW + 9 * DAY, chunk=3) == 6
    assert retention.prune_events(store, before=NOW + 9 * DAY, chunk=3) == 0


def test_of_an_empty_store_nothing_is_removed(store: Store) -> None:
    prunes = [function for name, function in vars(retention).items() if name.startswith("prune_")]
    assert len(prunes) == 10
    assert [prune(store, before=NOW) for prune in prunes] == [0] * 10
    assert metadata.tables
