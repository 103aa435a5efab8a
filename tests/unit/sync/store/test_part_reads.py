"""What the planner knows of each part, as the store keeps it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.errors import Reason
from lz_sync_dagster.sync.models import CoverageStatus
from lz_sync_dagster.sync.state.observation import Source, observe
from lz_sync_dagster.sync.state.reducer import Breaker
from lz_sync_dagster.sync.store import Store, assets, coverage, part_reads, reads
from lz_sync_dagster.sync.store.coverage import CoverageMark
from lz_sync_dagster.sync.store.part_reads import KnownVersion, PartState
from lz_sync_dagster.sync.timing import to_ns
from tests.conftest import NOW

PART = ("organizations/1", "storage.googleapis.com/Bucket", "RESOURCE")
OTHER = ("organizations/1", "storage.googleapis.com/Bucket", "IAM_POLICY")
DAY = timedelta(days=1)


def state_of(store: Store, part: tuple[str, str, str] = PART) -> PartState:
    with store.read() as connection:
        [state] = part_reads.states(connection, [part])
    return state


def write(store: Store, function: Any, *args: Any, **more: Any) -> None:
    with store.write() as connection:
        function(connection, *args, **more)


def apply(store: Store, *names: str, at: int = 1) -> None:
    with store.write(exclusive=assets.LOCK) as connection:
        seen = [
            observe(
                {"name": name, "assetType": PART[1], "resource": {"data": {"at": at}}},
                scope=PART[0],
                observed_ns=to_ns(NOW) + at,
                source=Source.SNAPSHOT,
            )
            for name in names
        ]
        assets.apply(connection, seen, layer=LayerId.API, now=NOW, evaluate=lambda *_: [])


def test_of_a_part_that_was_never_read_nothing_is_known(store: Store) -> None:
    assert state_of(store) == PartState(PART)


def test_a_full_read_leaves_its_cost_and_ends_failures_and_quarantine(store: Store) -> None:
    write(store, part_reads.record_failure, PART, Reason.TIMEOUT, now=NOW, quarantine=DAY)
    write(store, part_reads.record_failure, PART, Reason.UNKNOWN_TYPE, now=NOW, quarantine=DAY)
    mark = CoverageMark(*PART, CoverageStatus.COMPLETE, complete_read_ns=42, assets=7)
    write(store, coverage.mark, [mark], now=NOW)
    write(store, part_reads.record_full, PART, calls=3)
    assert state_of(store) == PartState(PART, complete_read_ns=42, full_calls=3, assets=7)


def test_failures_are_counted_and_keep_what_was_known(store: Store) -> None:
    write(store, part_reads.record_full, PART, calls=3)
    for hours in (1, 2):
        now = NOW + timedelta(hours=hours)
        write(store, part_reads.record_failure, PART, Reason.PERMISSION_DENIED, now=now, quarantine=DAY)
    assert state_of(store) == PartState(PART, full_calls=3, failures=2, failed_at=NOW + timedelta(hours=2))


def test_an_unknown_type_is_quarantined(store: Store) -> None:
    write(store, part_reads.record_failure, PART, Reason.UNKNOWN_TYPE, now=NOW, quarantine=DAY)
    assert state_of(store) == PartState(PART, failed_at=NOW, quarantined_until=NOW + DAY)


def test_a_delta_says_up_to_when_it_looked(store: Store) -> None:
    write(store, part_reads.record_delta, [PART, OTHER], until_ns=5)
    write(store, part_reads.record_delta, [PART], until_ns=9)
    assert (state_of(store).delta_read_ns, state_of(store, OTHER).delta_read_ns) == (9, 5)


def test_what_is_no_longer_asked_for_is_forgotten(store: Store) -> None:
    write(store, part_reads.record_delta, [PART, OTHER], until_ns=5)
    write(store, part_reads.forget, [PART])
    assert (state_of(store), state_of(store, OTHER).delta_read_ns) == (PartState(PART), 5)


def test_states_come_in_the_order_of_the_parts(store: Store) -> None:
    write(store, part_reads.record_delta, [PART], until_ns=5)
    with store.read() as connection:
        assert [item.part for item in part_reads.states(connection, [OTHER, PART])] == [OTHER, PART]


@pytest.mark.parametrize("times", [1, 2])
def test_an_asset_that_one_complete_read_lacks_asks_for_a_second(store: Store, times: int) -> None:
    apply(store, "//s/a", "//s/b")
    for read in range(1, times + 1):
        with store.read() as connection:
            base = reads.base_of(connection, PART)
        reads.finish_read(
            store,
            base,
            read_ns=to_ns(NOW) + 10 * read,
            names={"//s/a"},
            total=1,
            layer=LayerId.API,
            clock=lambda: NOW,
            breaker=Breaker(),
        )
    assert state_of(store).missing_once is (times == 1)
    assert state_of(store, OTHER).missing_once is False


def test_known_versions_are_told_of_many_names_deleted_ones_too(store: Store) -> None:
    names = [f"//s/{number}" for number in range(600)]
    apply(store, *names[:550])
    apply(store, names[0], at=7)
    with store.read() as connection:
        found = part_reads.known_versions(connection, names, "RESOURCE")
        assert part_reads.known_versions(connection, names, "IAM_POLICY") == {}
    assert found.keys() == set(names[:550])
    assert found[names[0]] == KnownVersion(to_ns(NOW) + 7, to_ns(NOW) + 7)
