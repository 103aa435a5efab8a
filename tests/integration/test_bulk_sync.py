"""Syncs of the inventory that read by export: the same end as by listing, whatever becomes of an export."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from demo.organization import ORGANIZATION
from lz_sync_dagster.config import Settings
from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.inventory.requests import request_full_read
from lz_sync_dagster.sync.inventory.service import sync_inventory
from lz_sync_dagster.sync.models import CoverageStatus, Status
from lz_sync_dagster.sync.progress import Progress, silent
from lz_sync_dagster.sync.runs import LayerOutcome, run_to_end
from lz_sync_dagster.sync.store import Store, coverage, inbox, open_store, quota
from lz_sync_dagster.sync.store.quota import Quota
from lz_sync_dagster.sync.store.schema import findings, part_reads
from tests.integration.test_bulk import BUCKET, BUCKET_NAME, World, kept

QUOTAS = {item.value: 1_000_000 for item in Quota}
FIRESTORE = "firestore.googleapis.com/Database"


@pytest.fixture(scope="module")
def started() -> Iterator[World]:
    world = World()
    yield world
    world.stop()


@pytest.fixture
def world(started: World) -> World:
    started.reset()
    return started


def settings_of(world: World, folder: Path, *, bulk: bool = True, **changed: Any) -> Settings:
    wanted = {"enabled": bulk, "destination": f"gs://{BUCKET_NAME}/cai", "from_assets": 0, "deadline_minutes": 10}
    return Settings(
        google_cloud={"asset_endpoint": world.assets.endpoint, "storage_endpoint": world.storage.endpoint},
        data_dir=folder,
        sync_layers={
            "api_sync": {
                "scopes": [ORGANIZATION],
                "endpoints": ["/databases", "/storage"],
                "quotas": QUOTAS,
                "bulk": wanted | changed,
            }
        },
    )


def sync(
    world: World, settings: Settings, store: Store, progress: Progress = silent
) -> tuple[LayerOutcome, list[float]]:
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        world.clock.advance(timedelta(seconds=seconds))

    outcome = run_to_end(
        store,
        LayerId.API,
        lambda run: sync_inventory(settings, store, run, clock=world.clock, progress=progress, wait=world.wait),
        triggered_by="test",
        clock=world.clock,
        sleep=sleep,
    )
    return outcome, waits


def calls(world: World, store: Store) -> dict[Quota, int]:
    with store.read() as connection:
        usage = quota.usage(connection, dict.fromkeys(Quota, 1), now=world.clock())
    return {name: item.calls_per_day for name, item in usage.items()}


def known(world: World, store: Store) -> tuple[Any, ...]:
    """State, coverage and findings, but for the instants."""
    with store.read() as connection:
        ledger = coverage.summary(connection, now=world.clock(), ttl=timedelta(hours=1))
        query = sa.select(findings.c.control, findings.c.resource, findings.c.resolved_at.is_(None))
        found = sorted(tuple(row) for row in connection.execute(query))
    return kept(store), ledger.status, ledger.complete, found


def gaps(world: World, store: Store) -> set[tuple[CoverageStatus, Reason]]:
    with store.read() as connection:
        ledger = coverage.summary(connection, now=world.clock(), ttl=timedelta(hours=1))
    return {(gap.status, gap.reason) for gap in ledger.gaps}


def test_by_export_or_by_listing_the_end_is_the_same_and_switching_changes_nothing(
    world: World, store: Store, sqlite_template: Path, tmp_path: Path
) -> None:
    exports, lists = settings_of(world, tmp_path), settings_of(world, tmp_path, bulk=False)
    other = tmp_path / "other.db"
    other.write_bytes(sqlite_template.read_bytes())
    with open_store(f"sqlite:///{other}", migrate=False) as listed_store:
        listed, _ = sync(world, lists, listed_store)
        exported, waits = sync(world, exports, store)
        assert (listed.status, exported.status, waits) == (Status.SUCCESS, Status.SUCCESS, [])
        assert exported.items_synced == listed.items_synced > 0
        assert known(world, store) == known(world, listed_store)
    assert (exported.details["coverage"]["read_by_export"], exported.details["coverage"]["read_in_full"]) == (
        exported.details["coverage"]["complete"],
        0,
    )
    assert calls(world, store)[Quota.LIST_ASSETS] == 0
    assert calls(world, store)[Quota.EXPORT_ASSETS] == exported.details["coverage"]["calls"] == 2
    with store.read() as connection:
        assert set(connection.scalars(sa.select(part_reads.c.full_calls))) == {None}, "what listing takes is not known"
    before = known(world, store)
    for settings in (lists, exports):
        world.clock.advance(timedelta(hours=2))
        outcome, _ = sync(world, settings, store)
        assert (outcome.status, outcome.items_changed) == (Status.SUCCESS, 0)
        assert outcome.details["resources"]["decoded"] in (0, outcome.details["resources"]["read"])
        assert known(world, store) == before


def test_between_exports_deltas_find_what_changes_and_nothing_is_listed(
    world: World, sqlite_store: Store, tmp_path: Path
) -> None:
    settings = settings_of(world, tmp_path)
    sync(world, settings, sqlite_store)
    name = next(iter(world.organization.names(BUCKET)))
    asset = world.organization.get(name)
    assert asset is not None
    before = dict(asset["resource"]["data"])
    asset["resource"]["data"]["touched"] = True
    world.organization.upsert(asset, at=world.clock.advance(timedelta(minutes=1)))
    world.clock.advance(timedelta(minutes=4))
    outcome, _ = sync(world, settings, sqlite_store)
    assert (outcome.status, outcome.items_changed, outcome.from_cache) == (Status.SUCCESS, 1, frozenset())
    assert calls(world, sqlite_store)[Quota.LIST_ASSETS] == 0
    assert calls(world, sqlite_store)[Quota.EXPORT_ASSETS] == 2
    asset["resource"]["data"] = before
    world.organization.upsert(asset, at=world.clock.advance(timedelta(minutes=1)))


def test_small_scopes_are_listed(world: World, sqlite_store: Store, tmp_path: Path) -> None:
    settings = settings_of(world, tmp_path, from_assets=10_000)
    outcome, _ = sync(world, settings, sqlite_store)
    assert outcome.status is Status.SUCCESS
    assert calls(world, sqlite_store)[Quota.EXPORT_ASSETS] == 0
    assert world.names() == []
    world.clock.advance(timedelta(hours=2))
    large = settings_of(world, tmp_path, from_assets=outcome.items_synced)
    assert sync(world, large, sqlite_store)[0].details["coverage"]["read_by_export"] > 0


@pytest.mark.parametrize("fault", ["export_fails", "export_truncated"])
def test_an_export_that_fails_is_tried_again_as_any_read(
    world: World, sqlite_store: Store, tmp_path: Path, fault: str
) -> None:
    world.faults.on(fault)
    outcome, waits = sync(world, settings_of(world, tmp_path), sqlite_store)
    assert (outcome.status, waits) == (Status.SUCCESS, [5])
    assert calls(world, sqlite_store)[Quota.EXPORT_ASSETS] == 3, "what was published is not exported again"


def test_while_exports_fail_the_last_good_copy_is_served_and_nothing_is_deleted(
    world: World, sqlite_store: Store, tmp_path: Path
) -> None:
    settings = settings_of(world, tmp_path)
    sync(world, settings, sqlite_store)
    before = kept(sqlite_store)
    world.clock.advance(timedelta(hours=2))
    world.faults.on("export_fails", calls=100)
    outcome, waits = sync(world, settings, sqlite_store)
    assert (outcome.status, waits) == (Status.PARTIAL, [5, 30, 300])
    assert outcome.from_cache
    assert kept(sqlite_store) == before
    assert gaps(world, sqlite_store) == {(CoverageStatus.STALE, Reason.UNAVAILABLE)}
    with sqlite_store.read() as connection:
        failures = sa.select(part_reads.c.failures).where(part_reads.c.content_type == "RESOURCE")
        assert set(connection.scalars(failures)) == {1}, "once per sync"
    world.faults.off("export_fails")
    world.clock.advance(timedelta(minutes=5))
    assert sync(world, settings, sqlite_store)[0].status is Status.SUCCESS


def test_an_export_that_takes_long_is_under_way_and_the_next_sync_waits_for_it(
    world: World, sqlite_store: Store, tmp_path: Path
) -> None:
    settings = settings_of(world, tmp_path, deadline_minutes=12)
    sync(world, settings, sqlite_store)
    world.clock.advance(timedelta(minutes=30))
    world.faults.on("export_hangs")
    began = world.clock()
    outcome, waits = sync(world, settings, sqlite_store)
    words = f"an export of RESOURCE in {ORGANIZATION} is under way since {began:%Y-%m-%d %H:%M} UTC"
    assert outcome.details["coverage"]["exports_under_way"] == [words]
    assert (outcome.status, outcome.errors, waits) == (Status.SUCCESS, (), []), "their proof is good as yet"
    assert world.clock() - began <= timedelta(minutes=5), "it does not wait beyond its cadence"
    assert calls(world, sqlite_store)[Quota.SEARCH_ALL_RESOURCES] == 1, "changes are looked for meanwhile"
    again, _ = sync(world, settings, sqlite_store)
    assert again.details["coverage"]["exports_under_way"] == [words]
    late, waits = sync(world, settings, sqlite_store)
    assert (late.status, waits) == (Status.SUCCESS, [5]), "given up after twelve minutes, and made anew"
    assert late.details["coverage"]["exports_under_way"] == []
    assert calls(world, sqlite_store)[Quota.EXPORT_ASSETS] == 5


def test_what_was_never_read_is_no_success_while_its_export_is_under_way(
    world: World, sqlite_store: Store, tmp_path: Path
) -> None:
    settings = settings_of(world, tmp_path)
    world.faults.on("export_hangs", calls=2)
    outcome, waits = sync(world, settings, sqlite_store)
    assert (outcome.status, waits, outcome.as_of) == (Status.PARTIAL, [], None)
    assert "is under way since" in outcome.errors[0]
    assert gaps(world, sqlite_store) == {(CoverageStatus.UNKNOWN, Reason.NOT_READ_YET)}
    with sqlite_store.read() as connection:
        assert list(connection.scalars(sa.select(part_reads.c.failures))) == [], "it did not fail"


class Stopped(SystemExit):
    """The process is told to end."""


def test_a_sync_that_is_stopped_while_it_waits_is_resumed_by_the_next_one(
    world: World, sqlite_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(world, tmp_path)
    goes_on, put = threading.Event(), world.storage.storage.put

    def put_later(bucket: str, name: str, *content: Any, **options: Any) -> Any:
        if "/exports/" in name:
            goes_on.wait(20)
        return put(bucket, name, *content, **options)

    def stop(_: float) -> bool:
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(world.storage.storage, "put", put_later)
        patch.setattr(world, "wait", stop)
        with pytest.raises(Stopped):
            sync(world, settings, sqlite_store)
    goes_on.set()
    world.clock.advance(timedelta(seconds=5))
    outcome, _ = sync(world, settings, sqlite_store)
    assert outcome.status is Status.SUCCESS
    assert calls(world, sqlite_store)[Quota.EXPORT_ASSETS] == 2, "no second export was begun"


def test_a_sync_that_is_stopped_while_it_reads_goes_on_with_the_same_export(
    world: World, sqlite_store: Store, tmp_path: Path
) -> None:
    settings = settings_of(world, tmp_path)
    read: list[str] = []

    def stop_at_buckets(what: str, *_: object) -> None:
        read.append(what)
        if BUCKET in what:
            raise Stopped

    with pytest.raises(Stopped):
        sync(world, settings, sqlite_store, stop_at_buckets)
    world.clock.advance(timedelta(minutes=1))
    again: list[str] = []
    outcome, _ = sync(world, settings, sqlite_store, lambda what, *_: again.append(what))
    assert outcome.status is Status.SUCCESS
    assert calls(world, sqlite_store)[Quota.EXPORT_ASSETS] == 2
    of_export = [{line for line in lines if "of the export" in line} for lines in (read, again)]
    assert len(of_export[0] & of_export[1]) == 2, "only what was cut short, and what was being taken in meanwhile"


def test_a_type_that_google_does_not_know_is_listed_once_and_left_out_of_exports(
    world: World, sqlite_store: Store, tmp_path: Path
) -> None:
    settings = settings_of(world, tmp_path)
    world.faults.on("asset_unknown_type")
    first, _ = sync(world, settings, sqlite_store)
    assert first.status is Status.PARTIAL
    assert gaps(world, sqlite_store) == {(CoverageStatus.UNKNOWN, Reason.UNKNOWN_TYPE)}
    listed = calls(world, sqlite_store)[Quota.LIST_ASSETS]
    assert listed > 0
    world.clock.advance(timedelta(minutes=5))
    second, _ = sync(world, settings, sqlite_store)
    assert FIRESTORE in second.errors[0]
    assert len(second.errors) == 1
    assert calls(world, sqlite_store)[Quota.LIST_ASSETS] == listed, "the others are exported by now"
    manifest = world.destination().latest(ORGANIZATION, "RESOURCE")
    assert manifest is not None
    assert FIRESTORE not in manifest.types
    world.faults.off("asset_unknown_type")
    world.clock.advance(timedelta(hours=25))
    sync(world, settings, sqlite_store)
    assert gaps(world, sqlite_store) == set(), "asked again by listing when its quarantine is over"


def test_a_bucket_that_cannot_be_read_fails_its_parts_with_the_remedy(
    world: World, sqlite_store: Store, tmp_path: Path
) -> None:
    settings = settings_of(world, tmp_path, destination="gs://not-there/cai")
    with pytest.raises(SyncError, match=r"check sync_layers.api_sync.bulk.destination"):
        sync(world, settings, sqlite_store)
    assert gaps(world, sqlite_store) == {(CoverageStatus.UNKNOWN, Reason.NOT_FOUND)}
    assert calls(world, sqlite_store)[Quota.EXPORT_ASSETS] == 0


def test_a_part_that_an_export_was_made_without_is_listed(world: World, sqlite_store: Store, tmp_path: Path) -> None:
    settings = settings_of(world, tmp_path)
    sync(world, settings, sqlite_store)
    api = settings.sync_layers.api_sync.model_copy(update={"endpoints": ["/databases", "/storage", "/gke"]})
    more = settings.model_copy(update={"sync_layers": settings.sync_layers.model_copy(update={"api_sync": api})})
    world.clock.advance(timedelta(minutes=5))
    outcome, _ = sync(world, more, sqlite_store)
    assert (outcome.status, outcome.details["coverage"]["read_in_full"]) == (Status.SUCCESS, 2)
    assert calls(world, sqlite_store)[Quota.EXPORT_ASSETS] == 2


def test_a_read_of_everything_is_an_export_made_now(world: World, sqlite_store: Store, tmp_path: Path) -> None:
    settings = settings_of(world, tmp_path)
    sync(world, settings, sqlite_store)
    now = world.clock.advance(timedelta(minutes=5))
    with sqlite_store.write() as connection:
        request_full_read(connection, actor="ada", key="full", now=now)
    sync(world, settings, sqlite_store)
    assert calls(world, sqlite_store)[Quota.EXPORT_ASSETS] == 4
    with sqlite_store.read() as connection:
        assert inbox.pending(connection, LayerId.API) == []
