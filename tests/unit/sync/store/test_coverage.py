"""The ledger's history: spans that follow one another, and of which the newest is what the ledger says."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise

import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lz_sync_dagster.sync.errors import Reason
from lz_sync_dagster.sync.models import CoverageStatus
from lz_sync_dagster.sync.store import Store, coverage, coverage_views
from lz_sync_dagster.sync.store.coverage import CoverageMark
from lz_sync_dagster.sync.store.schema import coverage as ledger
from lz_sync_dagster.sync.store.schema import coverage_history
from lz_sync_dagster.sync.timing import from_ns, to_ns
from tests.conftest import NOW

PART = ("organizations/1", "storage.googleapis.com/Bucket", "RESOURCE")
OTHER = ("organizations/1", "storage.googleapis.com/Bucket", "IAM_POLICY")
PARTS = (PART, OTHER)
MINUTE = timedelta(minutes=1)


def complete(at: datetime, part: tuple[str, str, str] = PART, found: int = 1) -> CoverageMark:
    return CoverageMark(*part, CoverageStatus.COMPLETE, complete_read_ns=to_ns(at), assets=found)


def denied(part: tuple[str, str, str] = PART, detail: str = "no") -> CoverageMark:
    return CoverageMark(*part, CoverageStatus.PARTIAL, Reason.PERMISSION_DENIED, detail, "grant a role")


def write(store: Store, now: datetime, *marks: CoverageMark) -> None:
    with store.write() as connection:
        coverage.mark(connection, marks, now=now)


def spans(store: Store, part: tuple[str, str, str] = PART) -> list[sa.Row]:
    with store.read() as connection:
        query = sa.select(coverage_history).order_by(coverage_history.c.since, coverage_history.c.id)
        return [row for row in connection.execute(query) if (row.scope, row.asset_type, row.content_type) == part]


def told(store: Store) -> list[tuple[str, str | None, datetime, datetime | None]]:
    return [(row.status, row.reason, row.since, row.until) for row in spans(store)]


def test_a_span_lasts_as_long_as_status_and_reason(store: Store) -> None:
    at = [NOW + MINUTE * step for step in range(5)]
    write(store, at[0], complete(at[0]))
    write(store, at[1], complete(at[1]))
    write(store, at[2], denied())
    write(store, at[3], denied(detail="still no"))
    write(store, at[4], complete(at[4]))
    assert told(store) == [
        ("complete", None, at[0], at[2]),
        ("partial", "permission_denied", at[2], at[4]),
        ("complete", None, at[4], None),
    ]
    assert [from_ns(row.complete_read_ns) for row in spans(store)] == [at[1], at[1], at[4]]
    assert [row.detail for row in spans(store)] == [None, "still no", None]


def test_what_was_too_old_for_a_while_was_stale_for_that_while(store: Store) -> None:
    write(store, NOW, complete(NOW))
    late = NOW + timedelta(hours=3)
    write(store, late, complete(late))
    expired = NOW + coverage.TTL
    assert told(store) == [
        ("complete", None, NOW, expired),
        ("stale", "timeout", expired, late),
        ("complete", None, late, None),
    ]
    write(store, late + MINUTE, denied())
    assert told(store)[-1] == ("partial", "permission_denied", late + MINUTE, None)


def test_what_is_too_old_now_is_stale_since_then_though_nobody_wrote_it_down(store: Store) -> None:
    write(store, NOW, complete(NOW))
    expired = NOW + coverage.TTL
    for late, stale in ((expired, False), (NOW + timedelta(hours=3), True)):
        with store.read() as connection:
            gaps = coverage.summary(connection, now=late, ttl=coverage.TTL).gaps
            (span,) = coverage_views.history(connection, now=late, ttl=coverage.TTL, limit=9)
            (row,) = coverage_views.ledger(connection, now=late, ttl=coverage.TTL)
        assert [gap.since for gap in gaps] == [expired] * stale
        assert all(gap.detail == f"not read completely since {NOW:%Y-%m-%d %H:%M:%S} UTC" for gap in gaps)
        assert span.until == (expired if stale else None)
        assert (row.status is CoverageStatus.STALE, row.since) == (stale, expired if stale else NOW)


def test_a_read_that_is_not_newer_moves_nothing_back(store: Store) -> None:
    write(store, NOW, complete(NOW, found=5))
    write(store, NOW + MINUTE, complete(NOW - MINUTE, found=3))
    with store.read() as connection:
        row = coverage.row_of(connection, PART)
    assert row is not None
    assert (from_ns(row.complete_read_ns), row.assets) == (NOW, 5)


def test_what_is_no_longer_asked_for_ends_and_its_history_stays(store: Store) -> None:
    write(store, NOW, complete(NOW), complete(NOW, OTHER))
    with store.write() as connection:
        coverage.forget(connection, [PART], now=NOW + MINUTE)
    assert told(store) == [("complete", None, NOW, NOW + MINUTE)]
    write(store, NOW + 2 * MINUTE, denied())
    assert told(store)[-1] == ("partial", "permission_denied", NOW + 2 * MINUTE, None)
    with store.write() as connection:
        coverage.forget(connection, [PART])
    assert told(store)[-1][3] == NOW + 2 * MINUTE, "when it was looked at last"
    assert spans(store, OTHER)[0].until is None


def test_writing_costs_a_handful_of_statements(sqlite_store: Store) -> None:
    parts = [(f"folders/{number}", "t", "RESOURCE") for number in range(100)]
    write(sqlite_store, NOW, *[complete(NOW, part) for part in parts])
    statements: list[str] = []
    sa.event.listen(sqlite_store.engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    write(sqlite_store, NOW + MINUTE, *[complete(NOW + MINUTE, part) for part in parts])
    assert len(statements) <= 5


# --- the rules, whatever happens --------------------------------------------------------------------------------------

Step = tuple[int, list[tuple[int, str, int]]]
steps = st.lists(
    st.tuples(
        st.integers(-1, 100),
        st.lists(
            st.tuples(
                st.sampled_from((0, 1)), st.sampled_from(("complete", "denied", "quota", "forget")), st.integers(0, 99)
            ),
            max_size=4,
        ),
    ),
    max_size=12,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps)
def test_spans_never_overlap_follow_one_another_and_end_in_what_the_ledger_says(
    store: Store, script: list[Step]
) -> None:
    now = NOW
    gone: set[tuple[str, str, str]] = set()
    with store.write() as connection:
        for table in (ledger, coverage_history):
            connection.execute(table.delete())
    for minutes, what in script:
        now += MINUTE * minutes
        marks: list[CoverageMark] = []
        for number, kind, age in what:
            part = PARTS[number]
            if kind == "forget":
                with store.write() as connection:
                    coverage.mark(connection, marks, now=now)
                    coverage.forget(connection, [part], now=now)
                gone.add(part)
                marks = []
            elif kind == "complete":
                marks.append(complete(now - MINUTE * age, part))
            elif kind == "denied":
                marks.append(denied(part))
            else:
                marks.append(CoverageMark(*part, CoverageStatus.PARTIAL, Reason.QUOTA, "used up", "wait"))
        with store.write() as connection:
            coverage.mark(connection, marks, now=now)

    with store.read() as connection:
        rows = {part: coverage.row_of(connection, part) for part in PARTS}
    for part in PARTS:
        told = spans(store, part)
        row = rows[part]
        assert [span.until is None for span in told] == [False] * (len(told) - bool(row)) + [True] * bool(row)
        for span, after in pairwise(told):
            assert span.since <= span.until <= after.since
            if part not in gone:
                assert span.until == after.since
                assert (span.status, span.reason) != (after.status, after.reason)
        if row is not None:
            newest = told[-1]
            assert (newest.status, newest.reason, newest.detail) == (row.status, row.reason, row.detail)
            assert (newest.since, newest.complete_read_ns) == (row.since, row.complete_read_ns)
