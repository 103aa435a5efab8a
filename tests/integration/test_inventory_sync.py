"""Layer 3 against a Cloud Asset server that speaks Google's protocol to Google's client."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NoReturn

import grpc
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from google.cloud.asset_v1 import Asset, ListAssetsRequest, ListAssetsResponse, Resource
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from demo.asset_server import start_asset_server
from demo.faults import Faults
from demo.organization import ORGANIZATION, Organization
from lz_sync_dagster.config import Settings, load_settings
from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.compliance.controls import Controls, parse_controls
from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.inventory import service, taking
from lz_sync_dagster.sync.inventory.service import sync_inventory
from lz_sync_dagster.sync.inventory.views import infrastructure_state
from lz_sync_dagster.sync.models import CoverageStatus, Status
from lz_sync_dagster.sync.picture import export_inventory
from lz_sync_dagster.sync.progress import silent
from lz_sync_dagster.sync.runs import LayerOutcome, LayerRun, RetryLater, attempt, new_holder, run_to_end
from lz_sync_dagster.sync.store import Store, coverage, event_log, inbox
from lz_sync_dagster.sync.store.quota import Cancelled
from lz_sync_dagster.sync.store.schema import dead_letters, layer_runs, resource_contents, resource_versions, resources
from lz_sync_dagster.sync.timing import utcnow

INSTANCE = "compute.googleapis.com/Instance"
NETWORK = "compute.googleapis.com/Network"
SUBNETWORK = "compute.googleapis.com/Subnetwork"
FIREWALL = "compute.googleapis.com/Firewall"
BUCKET = "storage.googleapis.com/Bucket"
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
            "LZ_SYNC_SYNC_LAYERS__API_SYNC__QUOTAS": '{"list_assets": 100000}',
            "LZ_SYNC_DATA_DIR": str(tmp_path),
        }
    )


class Patience:
    """A clock that waiting moves on, so that nobody has to wait."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    def __call__(self) -> datetime:
        return utcnow() + timedelta(seconds=sum(self.waits))


def sync(settings: Settings, store: Store, *, later: timedelta = timedelta(0)) -> tuple[LayerOutcome, list[float]]:
    """A sync with all its attempts, ``later`` than now."""
    clock = Patience()
    clock.waits.append(later.total_seconds())
    outcome = run_to_end(
        store,
        LayerId.API,
        lambda run: sync_inventory(settings, store, run, clock=clock, progress=silent),
        triggered_by="test",
        clock=clock,
        sleep=clock.waits.append,
    )
    return outcome, clock.waits[1:]


def picture_now(settings: Settings, store: Store) -> int:
    """Bring the day's picture up to date, as the analytics layer does; returns how many files were written."""
    judged = service.load_controls().kinds
    return export_inventory(store, settings.raw_dir, judged=judged, now=utcnow(), progress=silent)


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
    assert first.details["resources"]["missed_by_feed"] == 0, "a baseline misses nothing"
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
    assert outcome.details["resources"]["missed_by_feed"] == 1
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
    assert outcome.from_cache == {"resources", "findings", "infrastructure_state", "terraform_drift"}
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


def test_a_transient_error_is_retried_and_only_what_failed_is_read_again(
    world: World, settings: Settings, sqlite_store: Store
) -> None:
    world.faults.on("asset_unavailable")
    outcome, waits = sync(settings, sqlite_store)
    assert outcome.status is Status.SUCCESS
    assert waits
    there = len(existing(sqlite_store)) + len(existing(sqlite_store, "IAM_POLICY"))
    assert outcome.details["resources"]["read"] == there, "the second attempt read the rest, and both count"
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


def test_the_day_lands_as_parquet_once_and_is_brought_up_to_date_when_asked(
    world: World, settings: Settings, sqlite_store: Store
) -> None:
    sync(settings, sqlite_store)
    (file,) = Path(settings.raw_dir).glob("resources/snapshot_date=*/resources.parquet")
    table = pq.read_table(file)
    assert set(table["name"].to_pylist()) == existing(sqlite_store)
    assert set(table["coverage"].to_pylist()) == {"complete"}
    written = file.stat().st_mtime_ns
    again, _ = sync(settings, sqlite_store)
    assert again.details["resources"]["parquet_files_written"] == 0, "the day has its picture"
    world.organization.delete(next(world.organization.names(BUCKET)), at=datetime.now(UTC))
    sync(settings, sqlite_store)
    sync(settings, sqlite_store)
    assert file.stat().st_mtime_ns == written
    assert (picture_now(settings, sqlite_store), picture_now(settings, sqlite_store)) == (3, 1), (
        "then only the coverage"
    )
    assert set(pq.read_table(file)["name"].to_pylist()) == existing(sqlite_store)


class Served:
    """A Cloud Asset server that answers what it is told to, for the networks of an organization."""

    def __init__(self) -> None:
        self.assets: dict[str, list[Asset]] = {}
        self.refusals: dict[str, status_pb2.Status] = {}
        self.calls: list[str] = []

    def answer(self, request: ListAssetsRequest, context: grpc.ServicerContext) -> ListAssetsResponse:
        (asset_type,) = request.asset_types
        self.calls.append(asset_type)
        if asset_type in self.refusals:
            context.abort_with_status(rpc_status.to_status(self.refusals[asset_type]))
        return ListAssetsResponse(read_time=datetime.now(UTC), assets=self.assets.get(asset_type, []))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Served, Settings]]:
    served = Served()
    handler = grpc.unary_unary_rpc_method_handler(
        served.answer, ListAssetsRequest.deserialize, ListAssetsResponse.serialize
    )
    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool)
        handlers = grpc.method_handlers_generic_handler("google.cloud.asset.v1.AssetService", {"ListAssets": handler})
        server.add_generic_rpc_handlers((handlers,))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield (
            served,
            load_settings(
                environ={
                    "LZ_SYNC_GOOGLE_CLOUD__ASSET_ENDPOINT": f"http://127.0.0.1:{port}",
                    "LZ_SYNC_SYNC_LAYERS__API_SYNC__SCOPES": f'["{ORGANIZATION}"]',
                    "LZ_SYNC_SYNC_LAYERS__API_SYNC__ENDPOINTS": '["/vpcs"]',
                    "LZ_SYNC_SYNC_LAYERS__API_SYNC__CONTENT_TYPES": '["RESOURCE"]',
                    "LZ_SYNC_DATA_DIR": str(tmp_path),
                }
            ),
        )
        server.stop(0).wait()


def network(name: str, /, seconds: int = 1, **data: object) -> Asset:
    body = Resource(data=data)
    return Asset(name=name, asset_type=NETWORK, resource=body, update_time=Timestamp(seconds=seconds))


def refusal(code: int, message: str, retry_after: int = 0) -> status_pb2.Status:
    status = status_pb2.Status(code=code, message=message)
    if retry_after:
        delay = error_details_pb2.RetryInfo()
        delay.retry_delay.seconds = retry_after
        status.details.add().Pack(delay)
    return status


def kinds(store: Store) -> list[str]:
    with store.read() as connection:
        frames = event_log.after(connection, 0, limit=100)
    return [frame.event_type.value for frame in frames if frame.event_type != "sync_status"]


def gaps(store: Store) -> dict[str, tuple[CoverageStatus, Reason]]:
    return {gap.asset_type: (gap.status, gap.reason) for gap in ledger(store).gaps}


def test_an_asset_without_a_name_is_a_dead_letter_and_the_others_are_kept(
    served: tuple[Served, Settings], store: Store
) -> None:
    server, settings = served
    server.assets[NETWORK] = [network("//n/a"), network("", password="correct-horse")]
    for _ in range(2):
        outcome, _ = sync(settings, store)
        assert outcome.status is Status.PARTIAL
        assert outcome.errors[0].startswith(f"{NETWORK} in {ORGANIZATION}: 1 assets could not be used")
        assert existing(store) == {"//n/a"}
    assert gaps(store) == {NETWORK: (CoverageStatus.PARTIAL, Reason.INVALID)}
    with store.read() as connection:
        (letter,) = connection.execute(sa.select(dead_letters))
    assert "has no name" in letter.reason
    assert "correct-horse" not in letter.payload


def test_from_the_second_pass_on_news_is_told_even_if_an_asset_is_never_usable(
    served: tuple[Served, Settings], sqlite_store: Store
) -> None:
    server, settings = served
    server.assets[NETWORK] = [network("//n/a"), network("")]
    sync(settings, sqlite_store)
    assert kinds(sqlite_store) == []
    server.assets[NETWORK].append(network("//n/b"))
    sync(settings, sqlite_store)
    assert kinds(sqlite_store) == ["resource_created"]


@pytest.mark.parametrize(
    "odd",
    [
        network("//n/odd", seconds=10_413_792_000),
        network("//n/odd", seconds=10**18),
        network("//n/odd" + "d" * 2000),
        network("//n/odd\x00"),
    ],
    ids=["year 2300", "no year", "long name", "NUL in the name"],
)
def test_an_odd_asset_costs_its_own_part_only(odd: Asset, served: tuple[Served, Settings], store: Store) -> None:
    server, settings = served
    server.assets[NETWORK] = [network("//n/a"), odd, network("//n/b")]
    outcome, _ = sync(settings, store)
    assert outcome.details["resources"]["unusable"] == 1
    assert existing(store) == {"//n/a", "//n/b"}
    assert gaps(store) == {NETWORK: (CoverageStatus.PARTIAL, Reason.INVALID)}
    assert server.calls[-1] == FIREWALL
    assert count(store, dead_letters) == 1


def test_what_the_store_refuses_is_found_among_the_others(served: tuple[Served, Settings], store: Store) -> None:
    odd = network("".join(chr(0x10000 + 7919 * n % 60000) for n in range(950)))  # more than an index entry holds
    server, settings = served
    server.assets[NETWORK] = [network(f"//n/{number}") for number in range(9)] + [odd]
    outcome, _ = sync(settings, store)
    refused = store.dialect == "postgresql"
    assert outcome.status is (Status.PARTIAL if refused else Status.SUCCESS)
    assert len(existing(store)) == 10 - refused
    assert count(store, dead_letters) == refused
    assert outcome.details["resources"]["created"] == 10 - refused


def test_a_number_that_no_integer_holds_stays_one(served: tuple[Served, Settings], store: Store) -> None:
    server, settings = served
    server.assets[NETWORK] = [network("//n/a", huge=2.0**64)]
    assert sync(settings, store)[0].status is Status.SUCCESS
    again, _ = sync(settings, store)
    assert (again.status, again.items_changed) == (Status.SUCCESS, 0)


@pytest.mark.parametrize("defect", [RuntimeError, ValueError])
def test_a_defect_costs_its_own_part_only(
    defect: type[Exception],
    served: tuple[Served, Settings],
    sqlite_store: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def evaluate(self: Controls, *asset: object) -> NoReturn:
        raise defect("oops")

    monkeypatch.setattr(Controls, "evaluate", evaluate)
    server, settings = served
    server.assets[NETWORK] = [network(f"//n/{number}") for number in range(25)]
    outcome, _ = sync(settings, sqlite_store)
    assert outcome.status is Status.PARTIAL
    assert "please report this as a defect" in outcome.errors[0]
    assert gaps(sqlite_store) == {NETWORK: (CoverageStatus.UNKNOWN, Reason.INTERNAL)}
    assert count(sqlite_store, dead_letters) == 0


def test_a_used_up_quota_ends_the_sync_and_its_wait_is_honoured(
    served: tuple[Served, Settings], sqlite_store: Store
) -> None:
    server, settings = served
    server.refusals = {
        NETWORK: refusal(code_pb2.UNAVAILABLE, "try again"),
        SUBNETWORK: refusal(code_pb2.RESOURCE_EXHAUSTED, "quota", retry_after=90),
    }
    with pytest.raises(SyncError):
        sync(settings, sqlite_store)
    with sqlite_store.read() as connection:
        attempts = connection.scalar(sa.select(layer_runs.c.attempts))
    assert attempts == 4
    assert server.calls == [NETWORK, SUBNETWORK] * 4, "what comes after the quota is not asked for"
    assert gaps(sqlite_store)[FIREWALL] == (CoverageStatus.UNKNOWN, Reason.QUOTA)

    server.refusals = {}
    assert sync(settings, sqlite_store, later=timedelta(minutes=20))[0].status is Status.SUCCESS
    server.refusals = {SUBNETWORK: refusal(code_pb2.RESOURCE_EXHAUSTED, "quota", retry_after=90)}
    outcome, waits = sync(settings, sqlite_store, later=timedelta(minutes=30))
    assert (outcome.status, waits) == (Status.PARTIAL, [90, 90, 300])
    assert gaps(sqlite_store) == {SUBNETWORK: (CoverageStatus.PARTIAL, Reason.QUOTA)}


def test_the_longest_wait_that_is_asked_for_counts(served: tuple[Served, Settings], sqlite_store: Store) -> None:
    server, settings = served
    server.refusals = {
        NETWORK: refusal(code_pb2.UNAVAILABLE, "try again"),
        SUBNETWORK: refusal(code_pb2.RESOURCE_EXHAUSTED, "quota", retry_after=90),
    }
    with pytest.raises(RetryLater) as later:
        attempt(
            sqlite_store,
            LayerId.API,
            lambda run: sync_inventory(settings, sqlite_store, run, clock=utcnow, progress=silent),
            triggered_by="test",
            clock=utcnow,
            holder="host:1:a",
        )
    assert later.value.wait == 90


def test_what_an_earlier_attempt_changed_counts(served: tuple[Served, Settings], sqlite_store: Store) -> None:
    server, settings = served
    sync(settings, sqlite_store)
    server.assets[NETWORK] = [network("//n/a")]
    server.refusals[SUBNETWORK] = refusal(code_pb2.UNAVAILABLE, "try again")
    outcome = run_to_end(
        sqlite_store,
        LayerId.API,
        lambda run: sync_inventory(settings, sqlite_store, run, clock=utcnow, progress=silent),
        triggered_by="test",
        clock=utcnow,
        sleep=lambda _: server.refusals.clear(),
    )
    assert (outcome.items_changed, outcome.details["resources"]["created"]) == (1, 1)


def test_changed_controls_judge_what_did_not_change(
    served: tuple[Served, Settings], sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, settings = served
    server.assets[NETWORK] = [network("//n/a", name="plain", autoCreateSubnetworks=False)]
    sync(settings, sqlite_store)
    (file,) = Path(settings.raw_dir).glob("resources/snapshot_date=*/resources.parquet")
    assert pq.read_table(file)["violation_count"].to_pylist() == [0]
    policy = f"""
framework: house-rules
source: gate
controls:
  - id: "1.1"
    title: Networks have good names
    severity: low
    asset_types: [{NETWORK}]
    needs: [name]
    passes: data.name != "plain"
    message: "{{name}} has a plain name"
"""
    monkeypatch.setattr(service, "load_controls", lambda: parse_controls({"house.yaml": policy}))
    sync(settings, sqlite_store)
    assert kinds(sqlite_store) == ["policy_violated"]
    picture_now(settings, sqlite_store)
    assert pq.read_table(file)["violation_count"].to_pylist() == [1]


def test_figures_rest_on_every_content_that_controls_look_at(
    world: World, settings: Settings, sqlite_store: Store
) -> None:
    world.faults.denied_types, world.faults.denied_contents = ("storage.googleapis.com/",), ("IAM_POLICY",)
    world.faults.on("asset_denied")
    sync(settings, sqlite_store)
    (file,) = Path(settings.raw_dir).glob("resources/snapshot_date=*/resources.parquet")
    coverages = {(row["asset_type"], row["coverage"]) for row in pq.read_table(file).to_pylist()}
    assert {status for kind, status in coverages if kind == BUCKET} == {"partial"}
    assert {status for kind, status in coverages if kind != BUCKET} == {"complete"}


def test_a_sync_that_fails_altogether_leaves_its_coverage_behind(
    served: tuple[Served, Settings], sqlite_store: Store
) -> None:
    server, settings = served
    sync(settings, sqlite_store)
    for asset_type in (NETWORK, SUBNETWORK, FIREWALL):
        server.refusals[asset_type] = refusal(code_pb2.PERMISSION_DENIED, "no")
    with pytest.raises(SyncError):
        sync(settings, sqlite_store)
    picture_now(settings, sqlite_store)
    (file,) = Path(settings.raw_dir).glob("coverage/snapshot_date=*/coverage.parquet")
    assert pq.read_table(file)["status"].to_pylist() == ["partial"] * 3


def test_a_scope_that_is_named_twice_is_read_once(served: tuple[Served, Settings], sqlite_store: Store) -> None:
    server, settings = served
    layers = settings.sync_layers
    twice = layers.api_sync.model_copy(update={"scopes": [ORGANIZATION, ORGANIZATION]})
    settings = settings.model_copy(update={"sync_layers": layers.model_copy(update={"api_sync": twice})})
    sync(settings, sqlite_store)
    assert server.calls == [NETWORK, SUBNETWORK, FIREWALL]


def test_no_secret_reaches_the_store(world: World, settings: Settings, sqlite_store: Store) -> None:
    sync(settings, sqlite_store)
    with sqlite_store.read() as connection:
        rows = connection.execute(sa.select(resource_contents.c.data, resource_contents.c.redacted)).all()
    assert sum(bool(row.redacted) for row in rows) > 0
    text = "\n".join(str(row.data) for row in rows)
    for planted in ("DB_PASSWORD=", "ssh-rsa AAAA", "ssh-ed25519 AAAA", "'value': 'demo-"):
        assert planted not in text


# --- requests ---------------------------------------------------------------------------------------------------------


def ask(store: Store, key: str, at: datetime) -> None:
    with store.write() as connection:
        inbox.request(connection, LayerId.API, key=key, event="terraform_change", actor=None, commit=None, now=at)


def waiting(store: Store) -> list[str]:
    with store.read() as connection:
        return [request.delivery_id for request in inbox.pending(connection, LayerId.API)]


def test_a_sync_settles_the_requests_from_before_it_began(settings: Settings, sqlite_store: Store) -> None:
    ask(sqlite_store, "before", utcnow())

    def work(run: LayerRun) -> LayerOutcome:
        ask(sqlite_store, "after", utcnow())
        return sync_inventory(settings, sqlite_store, run, clock=utcnow, progress=silent)

    attempt(sqlite_store, LayerId.API, work, triggered_by="test", clock=utcnow, holder=new_holder())
    assert waiting(sqlite_store) == ["after"]
    sync(settings, sqlite_store)
    assert waiting(sqlite_store) == []


def test_a_sync_that_fails_settles_nothing(world: World, settings: Settings, sqlite_store: Store) -> None:
    ask(sqlite_store, "before", utcnow())
    world.server.stop()
    with pytest.raises(SyncError):
        sync(settings, sqlite_store)
    assert waiting(sqlite_store) == ["before"]


def test_a_change_of_terraform_waits_while_nobody_looked_at_what_it_may_have_changed(
    served: tuple[Served, Settings], sqlite_store: Store
) -> None:
    server, settings = served
    sync(settings, sqlite_store)
    ask(sqlite_store, "change", utcnow())
    server.refusals = {SUBNETWORK: refusal(code_pb2.UNAVAILABLE, "try again")}
    assert sync(settings, sqlite_store)[0].status is Status.PARTIAL
    assert waiting(sqlite_store) == ["change"], "subnetworks may be what it is about"
    server.refusals = {SUBNETWORK: refusal(code_pb2.PERMISSION_DENIED, "no")}
    sync(settings, sqlite_store, later=timedelta(hours=1))
    assert waiting(sqlite_store) == [], "no other sync would come to more"


def test_a_stop_while_a_call_waits_for_its_quota_is_no_defect(
    served: tuple[Served, Settings], sqlite_store: Store
) -> None:
    layers = served[1].sync_layers
    small = layers.api_sync.model_copy(update={"quotas": layers.api_sync.quotas.model_copy(update={"list_assets": 1})})
    settings = served[1].model_copy(update={"sync_layers": layers.model_copy(update={"api_sync": small})})

    def work(run: LayerRun) -> LayerOutcome:
        return sync_inventory(settings, sqlite_store, run, clock=utcnow, progress=silent, wait=lambda _: True)

    with pytest.raises(Cancelled):
        attempt(sqlite_store, LayerId.API, work, triggered_by="test", clock=utcnow, holder=new_holder())
    with sqlite_store.read() as connection:
        [errors] = connection.scalars(sa.select(layer_runs.c.errors)).all()
    assert errors == ["layer api: was interrupted; the next sync begins anew"]
    assert gaps(sqlite_store).keys() == {SUBNETWORK, FIREWALL}, "what was read stays"


def test_a_store_that_is_away_for_a_moment_is_no_defect_of_a_part(
    served: tuple[Served, Settings], sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, settings = served
    server.assets[NETWORK] = [network("//n/a")]
    failing, insert_new = [True], taking.insert_new

    def away(*arguments: object, **options: object) -> object:
        if failing.pop() if failing else False:
            raise sa.exc.OperationalError("insert", {}, Exception("disk I/O error"))
        return insert_new(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(taking, "insert_new", away)
    outcome, waits = sync(settings, sqlite_store)
    assert (outcome.status, outcome.items_changed, waits) == (Status.SUCCESS, 1, [5])
