"""Layer 3 against a Cloud Asset server that speaks Google's protocol to Google's client."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from google.cloud.asset_v1 import Asset, ContentType, ListAssetsRequest, ListAssetsResponse, Resource

from demo.asset_server import start_asset_server
from demo.faults import Faults
from demo.organization import ORGANIZATION, Organization
from lz_sync_dagster.config import GoogleCloudConfig, Settings, load_settings
from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.inventory.service import sync_inventory
from lz_sync_dagster.sync.inventory.views import infrastructure_state
from lz_sync_dagster.sync.models import CoverageStatus, Status
from lz_sync_dagster.sync.progress import silent
from lz_sync_dagster.sync.runs import LayerOutcome, attempt, run_to_end
from lz_sync_dagster.sync.store import Store, coverage, event_log
from lz_sync_dagster.sync.store.schema import dead_letters, resource_versions, resources
from lz_sync_dagster.sync.timing import utcnow

INSTANCE = "compute.googleapis.com/Instance"
NETWORK = "compute.googleapis.com/Network"
SQL = "sqladmin.googleapis.com/Instance"


class World:
    """An organization, its server, and the faults that can be switched."""

    def __init__(self) -> None:
        self.organization = Organization(300)
        self.faults = Faults()
        self.server = start_asset_server(self.organization, self.faults)


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.server.stop()


@pytest.fixture
def settings(world: World, tmp_path: Path) -> Settings:
    return load_settings(
        environ={
            "LZ_SYNC_GOOGLE_CLOUD__ASSET_ENDPOINT": world.server.endpoint,
            "LZ_SYNC_SYNC_LAYERS__API_SYNC__SCOPES": f'["{ORGANIZATION}"]',
            "LZ_SYNC_DATA_DIR": str(tmp_path),
        }
    )


def sync(settings: Settings, store: Store) -> tuple[LayerOutcome, list[float]]:
    waits: list[float] = []
    outcome = run_to_end(
        store,
        LayerId.API,
        lambda run: sync_inventory(settings, store, run, clock=utcnow, progress=silent),
        triggered_by="test",
        clock=utcnow,
        sleep=waits.append,
    )
    return outcome, waits


def existing(store: Store, content_type: str = "RESOURCE") -> set[str]:
    with store.read() as connection:
        return set(
            connection.scalars(
                sa.select(resources.c.name).where(
                    resources.c.deleted.is_(False), resources.c.content_type == content_type
                )
            )
        )


def truth(world: World, asset_types: set[str]) -> set[str]:
    return {name for asset_type in asset_types for name in world.organization.names(asset_type)}


def read_types(settings: Settings) -> set[str]:
    from lz_sync_dagster.sync.inventory.types import ENDPOINTS

    return {kind for endpoint in settings.sync_layers.api_sync.endpoints for kind in ENDPOINTS[endpoint]}


def ledger(store: Store):
    with store.read() as connection:
        return coverage.summary(connection, now=utcnow(), ttl=timedelta(hours=1))


def count(store: Store, table: sa.Table) -> int:
    with store.read() as connection:
        return connection.scalar(sa.select(sa.func.count()).select_from(table))


def test_a_full_read_is_the_organization_and_a_second_one_changes_nothing(
    world: World, settings: Settings, store: Store
) -> None:
    first, _ = sync(settings, store)
    assert first.status is Status.SUCCESS
    assert existing(store) == truth(world, read_types(settings))
    assert ledger(store).status is CoverageStatus.COMPLETE

    again, _ = sync(settings, store)
    assert (again.status, again.items_changed, again.items_synced) == (Status.SUCCESS, 0, first.items_synced)
    assert count(store, resource_versions) == 0
    with store.read() as connection:
        kinds = [frame.event_type for frame in event_log.after(connection, 0, limit=100)]
    assert kinds == ["sync_status"], "a baseline is no news, and an unchanged read neither"


def test_what_the_feed_missed_becomes_a_synthetic_event(world: World, settings: Settings, sqlite_store: Store) -> None:
    sync(settings, sqlite_store)
    name = next(world.organization.names(INSTANCE))
    instance = world.organization.get(name, "RESOURCE")
    instance["resource"]["data"]["status"] = "TERMINATED"
    world.organization.upsert(instance, content_type="RESOURCE", at=datetime.now(UTC))
    outcome, _ = sync(settings, sqlite_store)
    assert outcome.items_changed == 1
    with sqlite_store.read() as connection:
        frames = event_log.after(connection, 0, limit=100)
        state = infrastructure_state(connection, now=utcnow())
    (told,) = [frame for frame in frames if frame.event_type == "resource_updated"]
    assert told.resource is not None
    assert (told.resource["name"], told.data["synthetic"]) == (name, True)
    assert told.data["changed_fields"] == ["status"]
    assert "TERMINATED" in {vm.status for vm in state.compute_instances}


def test_an_asset_is_gone_after_the_second_complete_read(world: World, settings: Settings, sqlite_store: Store) -> None:
    sync(settings, sqlite_store)
    name = next(world.organization.names(INSTANCE))
    world.organization.delete(name, content_type="RESOURCE", at=datetime.now(UTC))
    sync(settings, sqlite_store)
    assert name in existing(sqlite_store)
    sync(settings, sqlite_store)
    assert existing(sqlite_store) == truth(world, read_types(settings))


def test_a_denied_type_is_partial_names_the_role_and_deletes_nothing(
    world: World, settings: Settings, store: Store
) -> None:
    sync(settings, store)
    before = existing(store)
    world.faults.on("asset_denied")
    started = utcnow()
    for _ in range(3):
        outcome, waits = sync(settings, store)
        assert outcome.status is Status.PARTIAL
        assert waits == [], "a denied permission does not pass by waiting"
        assert "roles/cloudasset.viewer" in outcome.errors[0]
    assert existing(store) == before
    assert outcome.from_cache == {"resources", "findings", "infrastructure_state"}
    assert outcome.as_of < started, "what is served from the last good copy is as old as that"
    gaps = {gap.asset_type: gap for gap in ledger(store).gaps}
    assert gaps[SQL].reason is Reason.PERMISSION_DENIED
    assert gaps[SQL].status is CoverageStatus.PARTIAL
    world.faults.off("asset_denied")
    assert sync(settings, store)[0].status is Status.SUCCESS
    assert ledger(store).status is CoverageStatus.COMPLETE


def test_what_was_never_read_is_unknown_not_empty(world: World, settings: Settings, sqlite_store: Store) -> None:
    world.faults.on("asset_denied")
    outcome, _ = sync(settings, sqlite_store)
    assert {gap.status for gap in ledger(sqlite_store).gaps} == {CoverageStatus.UNKNOWN}
    assert outcome.from_cache == frozenset(), "there is no copy of what was never read"


def test_an_unknown_type_is_quarantined_and_the_others_are_read(
    world: World, settings: Settings, sqlite_store: Store
) -> None:
    world.faults.on("asset_unknown_type")
    outcome, _ = sync(settings, sqlite_store)
    assert outcome.status is Status.PARTIAL
    (gap,) = [gap for gap in ledger(sqlite_store).gaps if gap.content_type == "RESOURCE"]
    assert gap.reason is Reason.UNKNOWN_TYPE
    assert existing(sqlite_store) == truth(world, read_types(settings) - {gap.asset_type})


@pytest.mark.parametrize("fault", ["asset_quota", "asset_unavailable"])
def test_a_transient_error_is_retried_and_only_what_failed_is_read_again(
    fault: str, world: World, settings: Settings, sqlite_store: Store
) -> None:
    world.faults.on(fault)
    outcome, waits = sync(settings, sqlite_store)
    assert outcome.status is Status.SUCCESS
    assert waits
    assert outcome.details["resources"]["read"] < len(existing(sqlite_store)), "the second attempt read the rest"
    assert existing(sqlite_store) == truth(world, read_types(settings))


def test_an_expired_page_token_starts_the_part_over(world: World, settings: Settings, sqlite_store: Store) -> None:
    settings = settings.model_copy(
        update={
            "sync_layers": settings.sync_layers.model_copy(
                update={"api_sync": settings.sync_layers.api_sync.model_copy(update={"page_size": 10})}
            )
        }
    )
    world.faults.on("asset_expired_token")
    outcome, waits = sync(settings, sqlite_store)
    assert (outcome.status, waits) == (Status.SUCCESS, [])
    assert existing(sqlite_store) == truth(world, read_types(settings))


def test_without_a_server_it_fails_with_a_remedy(settings: Settings, sqlite_store: Store, world: World) -> None:
    world.server.stop()
    with pytest.raises(SyncError) as caught:
        attempt(
            sqlite_store,
            LayerId.API,
            lambda run: sync_inventory(settings, sqlite_store, replace(run, attempt=9), clock=utcnow, progress=silent),
            triggered_by="test",
            clock=utcnow,
            holder="host:1:a",
            waits=(),
        )
    assert caught.value.reason in (Reason.UNAVAILABLE, Reason.TIMEOUT)
    assert ledger(sqlite_store).status is CoverageStatus.UNKNOWN


def test_no_scope_is_a_mistake_of_the_configuration(tmp_path: Path, sqlite_store: Store) -> None:
    with pytest.raises(SyncError, match="names no scope to read; list organizations/NUMBER"):
        sync(load_settings(environ={"LZ_SYNC_DATA_DIR": str(tmp_path)}), sqlite_store)


def test_the_day_lands_as_parquet_and_only_news_is_written(
    world: World, settings: Settings, sqlite_store: Store
) -> None:
    sync(settings, sqlite_store)
    (file,) = Path(settings.raw_dir).glob("resources/snapshot_date=*/resources.parquet")
    table = pq.read_table(file)
    assert set(table["name"].to_pylist()) == existing(sqlite_store)
    assert set(table["coverage"].to_pylist()) == {"complete"}
    written = file.stat().st_mtime_ns
    again, _ = sync(settings, sqlite_store)
    assert file.stat().st_mtime_ns == written
    assert again.details["resources"]["parquet_files_written"] == 1, "coverage alone"


@pytest.fixture
def nameless() -> Iterator[str]:
    """A server that has one good network and one without a name; the endpoint."""

    def list_assets(request: ListAssetsRequest, _context: grpc.ServicerContext) -> ListAssetsResponse:
        response = ListAssetsResponse(read_time=datetime.now(UTC))
        if list(request.asset_types) == [NETWORK] and request.content_type == ContentType.RESOURCE:
            body = Resource(data={"password": "correct-horse"})
            response.assets = [
                Asset(name=f"//n/{name}" if name else "", asset_type=NETWORK, resource=body) for name in ("a", "")
            ]
        return response

    handler = grpc.unary_unary_rpc_method_handler(
        list_assets, ListAssetsRequest.deserialize, ListAssetsResponse.serialize
    )
    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool)
        handlers = grpc.method_handlers_generic_handler("google.cloud.asset.v1.AssetService", {"ListAssets": handler})
        server.add_generic_rpc_handlers((handlers,))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"http://127.0.0.1:{port}"
        server.stop(0).wait()


def test_an_asset_without_a_name_is_a_dead_letter_and_the_others_are_kept(
    nameless: str, settings: Settings, store: Store
) -> None:
    settings = settings.model_copy(update={"google_cloud": GoogleCloudConfig(asset_endpoint=nameless)})
    for _ in range(2):
        outcome, _ = sync(settings, store)
        assert outcome.status is Status.PARTIAL
        assert outcome.errors[0].startswith(f"{NETWORK} in {ORGANIZATION}: 1 assets could not be used")
        assert existing(store) == {"//n/a"}
    (gap,) = ledger(store).gaps
    assert (gap.asset_type, gap.reason, gap.status) == (NETWORK, Reason.INVALID, CoverageStatus.PARTIAL)
    with store.read() as connection:
        (letter,) = connection.execute(sa.select(dead_letters))
    assert "has no name" in letter.reason
    assert "correct-horse" not in letter.payload


def test_no_secret_reaches_the_store(world: World, settings: Settings, sqlite_store: Store) -> None:
    sync(settings, sqlite_store)
    with sqlite_store.read() as connection:
        rows = connection.execute(sa.select(resources.c.data, resources.c.redacted)).all()
    assert sum(bool(row.redacted) for row in rows) > 0
    text = "\n".join(str(row.data) for row in rows)
    for planted in ("DB_PASSWORD=", "ssh-rsa AAAA", "ssh-ed25519 AAAA", "'value': 'demo-"):
        assert planted not in text
