"""What is kept of a part that no row of the ledger stands for is a gap, and never covered by the others' coverage."""

from __future__ import annotations

import random

import pytest

from lz_sync_dagster.sync.errors import Reason
from lz_sync_dagster.sync.models import CoverageStatus
from lz_sync_dagster.sync.store import Store, coverage, coverage_views
from lz_sync_dagster.sync.store.coverage import CoverageMark
from lz_sync_dagster.sync.store.coverage_views import Parts
from lz_sync_dagster.sync.timing import to_ns
from tests.conftest import NOW
from tests.unit.sync.store import inventory_rows

Part = tuple[str, str, str]


def complete(part: Part) -> CoverageMark:
    return CoverageMark(*part, CoverageStatus.COMPLETE, complete_read_ns=to_ns(NOW), assets=1)


@pytest.mark.parametrize("seed", range(4))
def test_every_part_that_exists_without_a_row_is_unknown(store: Store, seed: int) -> None:
    inventory = inventory_rows.make(seed)
    inventory_rows.insert(store, inventory)
    existing = {(row.scope, row.asset_type, row.content_type) for row in inventory.at(None) if not row.deleted}
    listed = {part for part in sorted(existing) if random.Random(f"{seed}{part}").random() < 0.5}
    with store.write() as connection:
        coverage.mark(connection, [complete(part) for part in sorted(listed)], now=NOW)

    with store.read() as connection:
        told = coverage.summary(connection, now=NOW, ttl=coverage.TTL)
        rows = coverage_views.ledger(connection, now=NOW, ttl=coverage.TTL)
        one = coverage_views.ledger(connection, now=NOW, ttl=coverage.TTL, only=Parts(scopes=("folders/1",)))

    assert {(gap.scope, gap.asset_type, gap.content_type) for gap in told.gaps} == existing - listed
    assert {gap.reason for gap in told.gaps} <= {Reason.NOT_CONFIGURED}
    assert (told.complete, told.unknown) == (len(listed), len(existing - listed))
    assert [row.part for row in rows] == sorted(existing | listed)
    assert coverage_views.of_rows(rows).status is told.status
    assert [row.part for row in one] == [row.part for row in rows if row.scope == "folders/1"]


def test_a_part_that_left_the_configuration_is_a_gap_since_then(store: Store) -> None:
    inventory = inventory_rows.make(1)
    inventory_rows.insert(store, inventory)
    existing = sorted({(row.scope, row.asset_type, row.content_type) for row in inventory.at(None) if not row.deleted})
    with store.write() as connection:
        coverage.mark(connection, [complete(part) for part in existing], now=NOW)
        assert coverage.summary(connection, now=NOW, ttl=coverage.TTL).status is CoverageStatus.COMPLETE
        coverage.forget(connection, existing[:1], now=NOW)
        told = coverage.summary(connection, now=NOW, ttl=coverage.TTL)

    assert told.status is CoverageStatus.PARTIAL
    assert [(gap.scope, gap.asset_type, gap.content_type, gap.since) for gap in told.gaps] == [(*existing[0], NOW)]


def test_what_the_feed_told_before_any_read_is_not_read_yet(store: Store) -> None:
    inventory_rows.insert(store, inventory_rows.make(1))
    with store.read() as connection:
        told = coverage.summary(connection, now=NOW, ttl=coverage.TTL)
    assert told.status is CoverageStatus.UNKNOWN
    assert {gap.reason for gap in told.gaps} == {Reason.NOT_READ_YET}
