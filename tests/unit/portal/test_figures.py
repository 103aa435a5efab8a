"""The figures of the Sync Status page: what was not read is unknown."""

from __future__ import annotations

from lz_sync_dagster.portal.pages.status import KINDS, count_shown
from lz_sync_dagster.sync.errors import Reason
from lz_sync_dagster.sync.inventory import types
from lz_sync_dagster.sync.inventory.views import infrastructure_state
from lz_sync_dagster.sync.models import Coverage, CoverageGap, CoverageStatus, LZInfrastructureState
from lz_sync_dagster.sync.store import Store
from tests.conftest import NOW

INSTANCES = next(kind for kind in KINDS if kind.key == "compute_instances")
VIOLATIONS = next(kind for kind in KINDS if kind.key == "policy_violations")

GAP = CoverageGap(
    scope="folders/1",
    asset_type=types.INSTANCE,
    content_type="RESOURCE",
    status=CoverageStatus.UNKNOWN,
    reason=Reason.PERMISSION_DENIED,
    detail="denied",
    remedy="grant roles/cloudasset.viewer on folders/1",
    since=NOW,
)


def state(store: Store, count: int | None, coverage: Coverage) -> LZInfrastructureState:
    with store.read() as connection:
        empty = infrastructure_state(connection, now=NOW)
    counts = {kind.key: count for kind in KINDS}
    return empty.model_copy(update={"counts": counts, "coverage": coverage})


def test_a_count_of_an_empty_store_is_unknown(sqlite_store: Store) -> None:
    with sqlite_store.read() as connection:
        empty = infrastructure_state(connection, now=NOW)
    assert {count_shown(kind, empty) for kind in KINDS} == {("unknown", "not read yet")}


def test_a_count_with_a_gap_says_so(sqlite_store: Store) -> None:
    partial = Coverage(status=CoverageStatus.PARTIAL, complete=1, unknown=1, gaps=[GAP])
    assert count_shown(INSTANCES, state(sqlite_store, 1234, partial)) == ("1,234", "incomplete: 1 gap")
    assert count_shown(VIOLATIONS, state(sqlite_store, None, partial)) == ("unknown", "incomplete: 1 gap")


def test_a_proven_zero_is_a_zero(sqlite_store: Store) -> None:
    complete = Coverage(status=CoverageStatus.COMPLETE, complete=2)
    assert count_shown(INSTANCES, state(sqlite_store, 0, complete)) == ("0", "complete")
