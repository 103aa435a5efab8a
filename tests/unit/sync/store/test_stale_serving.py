"""While syncs of the inventory fail for hours: what is known is served, says how old it is, and never gets younger."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.inventory.types import INSTANCE, PROJECT
from lz_sync_dagster.sync.inventory.views import infrastructure_state
from lz_sync_dagster.sync.models import CoverageStatus, LZInfrastructureState, Status, SyncStatus
from lz_sync_dagster.sync.runs import LayerOutcome, LayerRun, attempt, new_holder
from lz_sync_dagster.sync.state.observation import Source, observe
from lz_sync_dagster.sync.store import Store, assets, coverage, coverage_views, layer_runs
from lz_sync_dagster.sync.store.coverage import CoverageMark
from lz_sync_dagster.sync.timing import to_ns
from tests.conftest import NOW, SteppedClock

SCOPE = "organizations/1"
MINUTES = timedelta(minutes=1)
DENIED = SyncError("no", where="there", remedy="grant a role", reason=Reason.PERMISSION_DENIED)


class Layer:
    """The inventory's layer: syncs that read one project and no instance, or fail."""

    def __init__(self, store: Store, clock: SteppedClock) -> None:
        self.store = store
        self.clock = clock

    def succeed(self) -> None:
        def work(_: LayerRun) -> LayerOutcome:
            now = self.clock()
            name = "//cloudresourcemanager.googleapis.com/projects/7"
            body = {"name": name, "assetType": PROJECT, "resource": {"data": {"projectId": "p-7"}}}
            seen = observe(body, scope=SCOPE, observed_ns=to_ns(now), source=Source.SNAPSHOT)
            with self.store.write(exclusive=assets.LOCK) as connection:
                assets.apply(connection, [seen], layer=LayerId.API, now=now, evaluate=lambda *_: [])
                parts = [(PROJECT, 1), (INSTANCE, 0)]
                marks = [
                    CoverageMark(
                        SCOPE, kind, "RESOURCE", CoverageStatus.COMPLETE, complete_read_ns=to_ns(now), assets=count
                    )
                    for kind, count in parts
                ]
                coverage.mark(connection, marks, now=now)
            return LayerOutcome(1, 1, now)

        attempt(self.store, LayerId.API, work, triggered_by="t", clock=self.clock, holder=new_holder(), waits=())

    def fail(self, *, says_why: bool = True) -> None:
        """``says_why``: the sync came as far as to write the reason into the ledger."""

        def work(_: LayerRun) -> LayerOutcome:
            if says_why:
                with self.store.write() as connection:
                    gaps = [
                        CoverageMark(SCOPE, kind, "RESOURCE", CoverageStatus.PARTIAL, DENIED.reason, "no", "grant")
                        for kind in (PROJECT, INSTANCE)
                    ]
                    coverage.mark(connection, gaps, now=self.clock())
            raise DENIED

        with pytest.raises(SyncError):
            attempt(self.store, LayerId.API, work, triggered_by="t", clock=self.clock, holder=new_holder(), waits=())

    def status(self) -> SyncStatus:
        with self.store.read() as connection:
            found = layer_runs.statuses(connection, now=self.clock())
        return next(status for status in found if status.layer is LayerId.API)

    def state(self) -> LZInfrastructureState:
        with self.store.read() as connection:
            return infrastructure_state(connection, now=self.clock())


@pytest.fixture
def layer(store: Store, clock: SteppedClock) -> Layer:
    layer = Layer(store, clock)
    layer.succeed()
    return layer


def age(layer: Layer) -> tuple[datetime | None, datetime | None, int | None]:
    status = layer.status()
    return status.as_of, status.last_sync, status.items_synced


@pytest.mark.parametrize("says_why", [True, False])
def test_figures_are_served_for_hours_and_are_stale_after_the_first(layer: Layer, says_why: bool) -> None:
    seen: list[tuple[Status, CoverageStatus]] = []
    for _ in range(6):
        layer.clock.advance(30 * MINUTES)
        layer.fail(says_why=says_why)
        assert age(layer) == (NOW, NOW, 1), "a failure makes nothing younger"
        seen.append((layer.status().status, layer.status().coverage.status))
        state = layer.state()
        assert [project.project_id for project in state.projects] == ["p-7"]
        assert (state.as_of, state.sync_metadata.status) == (NOW, layer.status().status)
        assert state.counts["projects"] == 1
    meanwhile = CoverageStatus.PARTIAL if says_why else CoverageStatus.COMPLETE
    assert seen[:2] == [(Status.FAILED, meanwhile)] * 2
    assert seen[2:] == [(Status.STALE, CoverageStatus.STALE)] * 4
    assert layer.status().consecutive_failures == 6


def test_a_zero_that_has_become_old_is_no_longer_proven(layer: Layer) -> None:
    assert layer.state().counts["compute_instances"] == 0
    layer.clock.advance(61 * MINUTES)
    assert layer.state().counts["compute_instances"] is None


def test_every_gap_of_a_stale_copy_has_its_cause_and_remedy(layer: Layer) -> None:
    layer.clock.advance(90 * MINUTES)
    layer.fail()
    gaps = layer.status().coverage.gaps
    assert {gap.status for gap in gaps} == {CoverageStatus.STALE}
    assert {(gap.reason, gap.remedy) for gap in gaps} == {(Reason.PERMISSION_DENIED, "grant")}


def test_without_any_sync_it_gets_stale_by_itself(layer: Layer) -> None:
    layer.clock.advance(60 * MINUTES)
    assert layer.status().status is Status.SUCCESS
    layer.clock.advance(MINUTES)
    status = layer.status()
    assert (status.status, status.coverage.status) == (Status.STALE, CoverageStatus.STALE)
    assert all(gap.remedy for gap in status.coverage.gaps)


def test_a_success_makes_it_fresh_and_the_history_says_that_it_was_stale(layer: Layer) -> None:
    layer.clock.advance(180 * MINUTES)
    layer.fail(says_why=False)
    layer.clock.advance(5 * MINUTES)
    layer.succeed()
    status = layer.status()
    assert (status.status, status.as_of, status.coverage.status) == (
        Status.SUCCESS,
        layer.clock(),
        CoverageStatus.COMPLETE,
    )
    assert status.consecutive_failures == 0

    def known(minutes: int) -> set[CoverageStatus]:
        with layer.store.read() as connection:
            instant = to_ns(NOW + minutes * MINUTES)
            return {row.status for row in coverage_views.ledger_at(connection, instant, ttl=coverage.TTL)}

    assert [known(minutes) for minutes in (0, 59, 60, 184, 185)] == [
        {CoverageStatus.COMPLETE},
        {CoverageStatus.COMPLETE},
        {CoverageStatus.STALE},
        {CoverageStatus.STALE},
        {CoverageStatus.COMPLETE},
    ]
