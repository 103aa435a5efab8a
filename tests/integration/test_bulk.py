"""The bulk path against the demo's Cloud Asset and Cloud Storage servers: exports, their manifests, and what is read
back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import orjson
import pytest
import sqlalchemy as sa

from demo.asset_server import AssetServer, start_asset_server
from demo.faults import FAULTS, Faults
from demo.organization import ORGANIZATION, Organization
from demo.relations import relations_of
from demo.storage_server import StorageServer, start_storage_server
from lz_sync_dagster.config import Settings
from lz_sync_dagster.sync.compliance.controls import load_controls
from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.inventory.bulk import Exporter, ExportPlan, Manifest, Running
from lz_sync_dagster.sync.inventory.bulk_path import BulkPath
from lz_sync_dagster.sync.inventory.decode_pool import DecodePool
from lz_sync_dagster.sync.inventory.export_bucket import ExportBucket
from lz_sync_dagster.sync.inventory.export_files import BulkReader, FileDestination
from lz_sync_dagster.sync.inventory.loading import PartLoader, PartReader
from lz_sync_dagster.sync.inventory.reader import AssetReader, make_client
from lz_sync_dagster.sync.inventory.taking import Loaded, Taker
from lz_sync_dagster.sync.inventory.types import ENDPOINTS, INSTANCE, plan_parts
from lz_sync_dagster.sync.state.reducer import Breaker, Part
from lz_sync_dagster.sync.store import Store
from lz_sync_dagster.sync.store.quota import Cancelled, Quota
from lz_sync_dagster.sync.store.schema import resource_contents, resources
from lz_sync_dagster.sync.timing import to_ns
from tests.conftest import NOW, SteppedClock

BUCKET_NAME = "lz-exports"
BUCKET, SQL = "storage.googleapis.com/Bucket", "sqladmin.googleapis.com/Instance"
CONTENTS = ("RESOURCE", "IAM_POLICY", "ORG_POLICY", "RELATIONSHIP")
PARTS = plan_parts([ORGANIZATION], list(ENDPOINTS), CONTENTS).parts
FOLDER = f"cai/{ORGANIZATION.replace('/', '-')}/RESOURCE"


FEW = (BUCKET, SQL, INSTANCE, "dns.googleapis.com/ManagedZone")


def wanted(content_type: str = "RESOURCE", *asset_types: str) -> ExportPlan:
    """An export of all that is read of a content; of resources a few types do."""
    all_types = tuple(part[1] for part in PARTS if part[2] == content_type)
    return ExportPlan(ORGANIZATION, content_type, asset_types or (FEW if content_type == "RESOURCE" else all_types))


def everything(content_type: str) -> ExportPlan:
    return wanted(content_type, *(part[1] for part in PARTS if part[2] == content_type))


class Calls:
    """Counts calls; the quota never ends."""

    def __init__(self) -> None:
        self.made: list[Quota] = []
        self.refused: list[Quota] = []

    def call(self, quota: Quota) -> None:
        self.made.append(quota)

    def throttled(self, quota: Quota, retry_after: float | None) -> None:
        self.refused.append(quota)


class World:
    """An organization, its inventory, a bucket, and an exporter of which everything is set by hand."""

    def __init__(self) -> None:
        self.clock = SteppedClock(NOW)
        self.organization = Organization(200)
        self.faults = Faults()
        self.storage: StorageServer = start_storage_server([BUCKET_NAME], clock=self.clock)
        self.assets: AssetServer = start_asset_server(
            self.organization, self.faults, clock=self.clock, storage=self.storage.storage, shard_bytes=50_000
        )
        self.client = make_client(self.assets.endpoint)
        self.bucket = ExportBucket(BUCKET_NAME, self.storage.endpoint, timeout_seconds=10, chunk=77_777)
        self.reset()

    def reset(self) -> None:
        self.clock.advance(timedelta(hours=2))
        self.calls = Calls()
        self.waits: list[float] = []
        self.stop_after = 1_000
        for item in self.storage.storage.objects(BUCKET_NAME):
            self.storage.storage.delete(BUCKET_NAME, item.name)
        for name in FAULTS:
            self.faults.off(name)

    def stop(self) -> None:
        self.bucket.close()
        self.client.transport.close()
        self.assets.stop()
        self.storage.stop()

    def wait(self, seconds: float) -> bool:
        """Time goes by, and Google gets on with its work."""
        self.assets.settle()
        self.waits.append(seconds)
        self.clock.advance(timedelta(seconds=seconds))
        return len(self.waits) >= self.stop_after

    def destination(self, bucket: str = BUCKET_NAME) -> FileDestination:
        if bucket == BUCKET_NAME:
            return FileDestination(self.bucket, "cai")
        return FileDestination(ExportBucket(bucket, self.storage.endpoint, timeout_seconds=10), "cai")

    def exporter(self, destination: Any = None) -> Exporter:
        return Exporter(
            self.client,
            destination or self.destination(),
            calls=self.calls,
            clock=self.clock,
            wait=self.wait,
            deadline=timedelta(minutes=10),
            timeout_seconds=10,
        )

    def export(self, plan: ExportPlan | None = None) -> Manifest:
        return self.exporter().export(plan or wanted())

    def reader(self, *manifests: Manifest) -> BulkReader:
        return BulkReader(self.bucket, {(item.scope, item.content_type): item for item in manifests})

    def names(self, prefix: str = "") -> list[str]:
        return [item.name.removeprefix("cai/") for item in self.storage.storage.objects(BUCKET_NAME, f"cai/{prefix}")]

    def marks(self) -> list[str]:
        """What lies in the bucket beside Google's own objects."""
        return [name.partition("/")[2] for name in self.names() if "/exports/" not in name]


@pytest.fixture(scope="module")
def started() -> Iterator[World]:
    world = World()
    yield world
    world.stop()


@pytest.fixture
def world(started: World) -> World:
    started.reset()
    return started


def load(world: World, store: Store, reader: PartReader, parts: Sequence[Part]) -> dict[Part, Loaded]:
    controls = load_controls()
    taker = Taker(store, controls.evaluate, clock=world.clock)
    with DecodePool(controls.evaluate, processes=0) as pool:
        ended = list(PartLoader(store, reader, pool, taker, Breaker(0.2, 50), clock=world.clock).load(parts))
    for error in (item.error for item in ended if item.error is not None):
        raise error
    return {item.part: item.loaded for item in ended}


def kept(store: Store) -> dict[tuple[str, str], Any]:
    """What the store says, but for the bytes and instants in which it was told."""
    query = sa.select(resources, resource_contents.c.data, resource_contents.c.redacted).join(
        resource_contents, resource_contents.c.id == resources.c.content_id
    )
    dull = {"fingerprint", "written", "changed_at", "observed_ns", "seen_ns", "content_id"}
    with store.read() as connection:
        return {
            (row.name, row.content_type): {key: value for key, value in row._mapping.items() if key not in dull}
            for row in connection.execute(query)
        }


# --- what is published


def test_an_export_is_published_with_every_type_and_read_back_whole(world: World) -> None:
    manifest = world.export()
    assert world.calls.made == [Quota.EXPORT_ASSETS]
    assert set(manifest.types) == set(wanted().asset_types)
    for asset_type in FEW:
        pages = list(world.reader(manifest).read((ORGANIZATION, asset_type, "RESOURCE")))
        assert {page.read_ns for page in pages} == {manifest.read_ns}
        assert [page.last for page in pages] == [False] * (len(pages) - 1) + [True]
        names = [orjson.loads(body)["name"] for page in pages for body in page.bodies]
        assert names == list(world.organization.names(asset_type))
        assert manifest.rows(asset_type) == len(names)
    assert len(manifest.types[INSTANCE]) > 1, "several objects"
    assert manifest.types["dns.googleapis.com/ManagedZone"] == ()
    assert world.marks() == [f"RESOURCE/manifests/{Running(wanted(), manifest.read_ns, NOW).stamp}.json"]


def test_the_newest_manifest_is_the_one_that_readers_follow(world: World) -> None:
    destination = world.destination()
    assert destination.latest(ORGANIZATION, "RESOURCE") is None
    first = world.export()
    world.clock.advance(timedelta(hours=1))
    second = world.export()
    assert destination.latest(ORGANIZATION, "RESOURCE") == second != first
    assert destination.latest(ORGANIZATION, "IAM_POLICY") is None


@pytest.mark.parametrize("content_type", CONTENTS)
def test_whether_listed_or_exported_an_asset_is_the_same(world: World, store: Store, content_type: str) -> None:
    parts = [part for part in PARTS if part[2] == content_type]
    listed = AssetReader(world.client, page_size=100, timeout_seconds=10)
    load(world, store, listed, parts)
    before = kept(store)
    world.clock.advance(timedelta(minutes=5))
    exported = load(world, store, world.reader(world.export(everything(content_type))), parts)
    assert sum(item.applied.changed for item in exported.values()) == 0
    assert kept(store) == before
    assert len(before) == sum(item.assets for item in exported.values()) > 0
    if content_type != "RELATIONSHIP":
        world.clock.advance(timedelta(minutes=5))
        again = load(world, store, world.reader(world.export(everything(content_type))), parts)
        assert sum(item.decoded for item in again.values()) == 0, "unchanged assets are not decoded"
    world.clock.advance(timedelta(minutes=5))
    back = load(world, store, listed, parts)
    assert sum(item.applied.changed for item in back.values()) == 0
    assert kept(store) == before


def test_an_export_finds_what_changed_and_what_is_gone(world: World, sqlite_store: Store) -> None:
    part = (ORGANIZATION, BUCKET, "RESOURCE")
    load(world, sqlite_store, world.reader(world.export(wanted("RESOURCE", BUCKET))), [part])
    gone, changed, *_ = world.organization.names(BUCKET)
    asset = world.organization.get(changed)
    assert asset is not None
    asset["resource"]["data"]["touched"] = 2**60
    world.organization.upsert(asset, at=world.clock.advance(timedelta(minutes=1)))
    world.organization.delete(gone, at=world.clock())
    for _ in range(2):
        world.clock.advance(timedelta(minutes=1))
        found = load(world, sqlite_store, world.reader(world.export(wanted("RESOURCE", BUCKET))), [part])
    assert found[part].result is not None
    assert found[part].result.deleted == 1
    assert kept(sqlite_store)[changed, "RESOURCE"]["data"]["touched"] == float(2**60)
    world.organization.upsert(asset | {"name": gone}, at=world.clock())


# --- what goes wrong


def test_a_failed_export_publishes_nothing_and_names_what_it_left(world: World) -> None:
    world.faults.on("export_fails")
    with pytest.raises(SyncError, match=r"gs://lz-exports/cai/.*/exports/\S+/ was not published") as caught:
        world.export()
    assert caught.value.transient
    assert any("/exports/" in name for name in world.names()), "it did write something"
    (mark,) = world.marks()
    assert mark.startswith("RESOURCE/given_up/")
    assert world.destination().latest(ORGANIZATION, "RESOURCE") is None
    world.clock.advance(timedelta(minutes=1))
    assert world.export().rows(BUCKET) == world.organization.count(BUCKET)


def test_a_cut_off_object_publishes_nothing(world: World) -> None:
    world.faults.on("export_truncated")
    with pytest.raises(SyncError, match="is cut off"):
        world.export()
    assert world.destination().latest(ORGANIZATION, "RESOURCE") is None
    world.clock.advance(timedelta(minutes=1))
    assert world.export().rows(INSTANCE) == world.organization.count(INSTANCE)


def test_a_stop_leaves_the_export_running_and_the_next_process_waits_for_it(world: World) -> None:
    world.stop_after = 1
    with pytest.raises(Cancelled):
        world.export()
    running = world.destination().running(ORGANIZATION, "RESOURCE")
    assert running is not None
    assert world.marks() == ["RESOURCE/running.json"]
    manifest = world.export()
    assert (manifest.operation, manifest.read_ns) == (running.operation, running.read_ns)
    assert world.calls.made == [Quota.EXPORT_ASSETS], "no second one was begun"


def test_an_export_that_never_ends_is_given_up_at_its_deadline(world: World) -> None:
    world.faults.on("export_hangs")
    with pytest.raises(SyncError, match="did not end within 0:10:00") as caught:
        world.export()
    assert caught.value.reason is Reason.TIMEOUT
    assert world.waits[:6] == [2, 4, 8, 16, 30, 30]
    assert sum(world.waits) < timedelta(minutes=11).total_seconds()
    assert world.destination().running(ORGANIZATION, "RESOURCE") is None
    assert world.export().read_ns > 0


def test_an_export_that_google_has_not_named_is_given_up_by_the_next_process(world: World) -> None:
    world.destination().begin(Running(wanted(), to_ns(world.clock()), world.clock()))
    world.clock.advance(timedelta(minutes=1))
    manifest = world.export()
    assert [mark.split("/")[1] for mark in world.marks()] == ["given_up", "manifests"]
    assert manifest.read_ns == to_ns(world.clock.now) - int(sum(world.waits)) * 1_000_000_000


def test_two_processes_do_not_export_the_same_at_once(world: World) -> None:
    begun = Running(wanted(), to_ns(world.clock()), world.clock())
    world.destination().begin(begun)
    with pytest.raises(SyncError, match="another export") as caught:
        world.destination().begin(replace(begun, read_ns=begun.read_ns + 1))
    assert caught.value.reason is Reason.CONFLICT


def test_a_process_that_died_after_publishing_publishes_no_second_time(world: World) -> None:
    class Dies(FileDestination):
        def publish(self, running: Running, manifest: Manifest) -> None:
            kept = self._bucket.delete
            self._bucket.delete = lambda *_: None  # type: ignore[method-assign]
            try:
                super().publish(running, manifest)
            finally:
                self._bucket.delete = kept  # type: ignore[method-assign]

    first = world.exporter(Dies(world.bucket, "cai")).export(wanted())
    assert "RESOURCE/running.json" in world.marks()
    world.clock.advance(timedelta(minutes=3))
    second = world.export()
    assert (second.read_ns, second.types) == (first.read_ns, first.types)
    assert world.destination().latest(ORGANIZATION, "RESOURCE") == first
    assert "RESOURCE/running.json" not in world.marks()


def test_an_operation_that_google_forgot_is_given_up(world: World) -> None:
    destination = world.destination()
    running = destination.begin(Running(wanted(), to_ns(world.clock()), world.clock()))
    destination.named(replace(running, operation="organizations/1/operations/ExportAssets/RESOURCE/gone"))
    with pytest.raises(SyncError, match="does not know the operation"):
        world.export()
    assert destination.running(ORGANIZATION, "RESOURCE") is None


def test_a_denied_export_names_the_role_and_leaves_nothing(world: World) -> None:
    world.faults.on("asset_denied")
    with pytest.raises(SyncError, match=r"grant roles/cloudasset.viewer \(it has cloudasset.assets.exportResource\)"):
        world.export()
    assert world.names() == []


def test_a_bucket_that_google_may_not_write_names_the_service_agent(world: World) -> None:
    class Elsewhere(FileDestination):
        def output_config(self, running: Running) -> Any:
            config = super().output_config(running)
            config.gcs_destination.uri_prefix = config.gcs_destination.uri_prefix.replace(BUCKET_NAME, "not-there")
            return config

    with pytest.raises(SyncError, match=r"grant the service agent service-\d+@gcp-sa-cloudasset\S+ roles/storage"):
        world.exporter(Elsewhere(world.bucket, "cai")).export(wanted())


def test_a_bucket_that_is_not_there_is_said(world: World) -> None:
    with pytest.raises(SyncError, match="destination") as caught:
        world.destination("not-there").latest(ORGANIZATION, "RESOURCE")
    assert caught.value.reason is Reason.NOT_FOUND


def test_a_quota_that_is_used_up_is_told_to_all_and_begins_nothing(world: World) -> None:
    world.faults.on("asset_quota", calls=1)
    with pytest.raises(SyncError) as caught:
        world.export()
    assert (caught.value.reason, world.calls.refused) == (Reason.QUOTA, [Quota.EXPORT_ASSETS])
    assert world.names() == []


def test_a_type_that_google_does_not_know_begins_nothing(world: World) -> None:
    world.faults.on("asset_unknown_type")
    with pytest.raises(SyncError) as caught:
        world.export(everything("RESOURCE"))
    assert caught.value.reason is Reason.UNKNOWN_TYPE
    assert world.names() == []


def test_what_was_changed_after_it_was_published_is_an_error_of_its_part_alone(
    world: World, sqlite_store: Store
) -> None:
    manifest = world.export()
    (output, *_) = manifest.types[BUCKET]
    content = world.storage.storage.get(BUCKET_NAME, output.name)
    assert content is not None
    world.storage.storage.put(BUCKET_NAME, output.name, [content.path.read_bytes()])
    with pytest.raises(SyncError, match="is not there"):
        load(world, sqlite_store, world.reader(manifest), [(ORGANIZATION, BUCKET, "RESOURCE")])
    loaded = load(world, sqlite_store, world.reader(manifest), [(ORGANIZATION, SQL, "RESOURCE")])
    assert loaded[ORGANIZATION, SQL, "RESOURCE"].result is not None


def test_an_object_that_nobody_asked_for_publishes_nothing(world: World) -> None:
    running = Running(wanted(), to_ns(world.clock()), world.clock())
    world.storage.storage.put(BUCKET_NAME, f"{FOLDER}/exports/{running.stamp}/made.up/Thing/0", [b"{}\n"])
    with pytest.raises(SyncError, match="nobody asked for"):
        world.export()


def test_a_missing_object_among_the_others_publishes_nothing(world: World) -> None:
    running = Running(wanted(), to_ns(world.clock()), world.clock())
    world.storage.storage.put(BUCKET_NAME, f"{FOLDER}/exports/{running.stamp}/{BUCKET}/99", [b'{"name":"x"}\n'])
    with pytest.raises(SyncError, match="is missing among the others"):
        world.export()


def test_a_part_that_no_export_holds_is_not_read_as_empty(world: World) -> None:
    reader = world.reader(world.export(wanted("RESOURCE", BUCKET)))
    part = (ORGANIZATION, SQL, "RESOURCE")
    assert not reader.has(part)
    with pytest.raises(SyncError, match="no export holds it"):
        next(reader.read(part))


# --- relations


def test_relations_of_one_asset_on_two_pages_are_one_set_and_a_lost_one_is_noticed(world: World, store: Store) -> None:
    part = (ORGANIZATION, INSTANCE, "RELATIONSHIP")
    listed = AssetReader(world.client, page_size=1, timeout_seconds=10)
    load(world, store, listed, [part])
    expected = {
        asset["name"]: relations
        for asset in world.organization.assets_of(INSTANCE)
        if (relations := relations_of(asset))
    }
    found = {name: row["data"]["relations"] for (name, _), row in kept(store).items()}
    assert {name: len(told) for name, told in found.items()} == {name: len(told) for name, told in expected.items()}
    assert max(len(told) for told in found.values()) > 1

    name = next(name for name, told in expected.items() if len(told) > 1)
    asset = world.organization.get(name)
    assert asset is not None
    disks = asset["resource"]["data"].pop("disks")
    world.organization.upsert(asset, at=world.clock.advance(timedelta(minutes=1)))
    world.clock.advance(timedelta(minutes=1))
    loaded = load(world, store, listed, [part])[part]
    assert loaded.applied.updated == 1
    assert len(kept(store)[name, "RELATIONSHIP"]["data"]["relations"]) == len(expected[name]) - 1
    asset["resource"]["data"]["disks"] = disks
    world.organization.upsert(asset, at=world.clock.advance(timedelta(minutes=1)))
    assert load(world, store, listed, [part])[part].applied.updated == 1


# --- as configured


def test_the_configured_path_exports_what_is_due_and_reads_it(world: World, sqlite_store: Store) -> None:
    settings = Settings(
        google_cloud={"asset_endpoint": world.assets.endpoint, "storage_endpoint": world.storage.endpoint},
        sync_layers={
            "api_sync": {
                "scopes": [ORGANIZATION],
                "bulk": {"enabled": True, "destination": f"gs://{BUCKET_NAME}/cai", "from_assets": 200},
            }
        },
    )
    parts = [part for part in PARTS if part[1] in FEW and part[2] in ("RESOURCE", "IAM_POLICY")]
    with BulkPath(settings, world.client, calls=world.calls, clock=world.clock, wait=world.wait) as bulk:
        assert bulk.feeds_store
        plans = bulk.due(parts, bulk.newest(parts))
        assert [(plan.scope, plan.content_type) for plan in plans] == [
            (ORGANIZATION, "RESOURCE"),
            (ORGANIZATION, "IAM_POLICY"),
        ]
        manifests = [bulk.export(plan) for plan in plans]
        newest = bulk.newest(parts)
        assert list(newest.values()) == manifests
        assert bulk.due(parts, newest) == [], "not before every_minutes have gone by"
        assert bulk.due(parts, newest, asked_ns=manifests[0].read_ns + 1)[0] == plans[0], "unless somebody asks"
        loaded = load(world, sqlite_store, bulk.reader(manifests), parts)
    assert sum(item.assets for item in loaded.values()) == sum(
        manifest.rows(name) for manifest in manifests for name in manifest.types
    )
