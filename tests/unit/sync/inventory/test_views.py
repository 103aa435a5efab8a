"""A zero has to be proven, and a list says when it is not whole."""

from __future__ import annotations

from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.errors import Reason
from lz_sync_dagster.sync.inventory.types import INSTANCE, PROJECT
from lz_sync_dagster.sync.inventory.views import infrastructure_state
from lz_sync_dagster.sync.models import CoverageStatus, LZInfrastructureState
from lz_sync_dagster.sync.state.observation import Source, observe
from lz_sync_dagster.sync.store import Store, assets, coverage
from lz_sync_dagster.sync.store.coverage import CoverageMark
from lz_sync_dagster.sync.timing import to_ns
from tests.conftest import NOW

SCOPE = "organizations/1"


def mark(store: Store, asset_type: str, *, proven: bool) -> None:
    if proven:
        row = CoverageMark(
            SCOPE, asset_type, "RESOURCE", CoverageStatus.COMPLETE, complete_read_ns=to_ns(NOW), assets=0
        )
    else:
        row = CoverageMark(SCOPE, asset_type, "RESOURCE", CoverageStatus.UNKNOWN, Reason.PERMISSION_DENIED)
    with store.write() as connection:
        coverage.mark(connection, [row], now=NOW)


def add(store: Store, asset_type: str, *names: str, **data: object) -> None:
    items = [
        observe(
            {"name": name, "assetType": asset_type, "resource": {"data": data}},
            scope=SCOPE,
            observed_ns=1,
            source=Source.SNAPSHOT,
        )
        for name in names
    ]
    with store.write(exclusive=assets.LOCK) as connection:
        assets.apply(connection, items, layer=LayerId.API, now=NOW, evaluate=lambda *_: [])


def state(store: Store, limit: int = 1000) -> LZInfrastructureState:
    with store.read() as connection:
        return infrastructure_state(connection, now=NOW, limit=limit)


def test_of_an_empty_store_nothing_is_known(store: Store) -> None:
    empty = state(store)
    assert set(empty.counts.values()) == {None}
    assert (empty.compliance_score, empty.as_of) == (None, None)
    assert empty.coverage.status is CoverageStatus.UNKNOWN


def test_a_zero_is_told_where_everything_was_read(store: Store) -> None:
    mark(store, INSTANCE, proven=True)
    assert state(store).counts["compute_instances"] == 0
    assert state(store).counts["projects"] is None


def test_one_gap_takes_the_proof_away(store: Store) -> None:
    mark(store, INSTANCE, proven=True)
    mark(store, PROJECT, proven=False)
    counts = state(store).counts
    assert (counts["compute_instances"], counts["projects"], counts["resources"]) == (0, None, None)


def test_a_list_that_is_cut_says_so(store: Store) -> None:
    add(store, PROJECT, "//p/1", "//p/2", "//p/3", projectId="p")
    cut = state(store, limit=2)
    assert (len(cut.projects), cut.counts["projects"], cut.truncated) == (2, 3, ["projects"])
    assert state(store).truncated == []


def test_a_field_that_the_inventory_does_not_carry_is_not_assumed(store: Store) -> None:
    add(store, INSTANCE, "//compute.googleapis.com/projects/p/zones/z/instances/i")
    (vm,) = state(store).compute_instances
    assert (vm.status, vm.machine_type, vm.external_ips, vm.project) == (None, None, None, "p")


def test_a_machine_is_shown_as_compute_engine_says(store: Store) -> None:
    add(
        store,
        INSTANCE,
        "//compute.googleapis.com/projects/p/zones/z/instances/i",
        status="TERMINATED",
        machineType="https://compute/v1/projects/p/zones/z/machineTypes/e2-small",
        networkInterfaces=[{"networkIP": "10.0.0.2", "accessConfigs": [{"natIP": "203.0.113.9"}]}],
    )
    (vm,) = state(store).compute_instances
    assert (vm.status, vm.machine_type) == ("TERMINATED", "e2-small")
    assert (vm.internal_ips, vm.external_ips) == (["10.0.0.2"], ["203.0.113.9"])
