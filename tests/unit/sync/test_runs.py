"""The life of a sync: single-flight, four attempts, transient errors only, and the last good copy behind it."""

from __future__ import annotations

import socket
import subprocess
from datetime import timedelta

import pytest
import sqlalchemy as sa

from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.errors import LayerBusy, Reason, SyncError
from lz_sync_dagster.sync.models import CoverageStatus, EventType, Status
from lz_sync_dagster.sync.retry import RETRY_WAITS, next_wait
from lz_sync_dagster.sync.runs import LayerOutcome, LayerRun, RetryLater, attempt, new_holder, run_to_end
from lz_sync_dagster.sync.store import Store, event_log, layer_runs
from lz_sync_dagster.sync.store.schema import layer_runs as runs_table
from tests.conftest import NOW, SteppedClock


def unavailable(**options) -> SyncError:
    return SyncError("is down", where="there", remedy="wait", reason=Reason.UNAVAILABLE, **options)


DENIED = SyncError("is denied", where="there", remedy="grant it", reason=Reason.PERMISSION_DENIED)


class Work:
    """A layer's work that fails as told, then succeeds."""

    def __init__(self, *failures: BaseException, changed: int = 1) -> None:
        self.failures = list(failures)
        self.attempts: list[int] = []
        self.changed = changed

    def __call__(self, run) -> LayerOutcome:
        self.attempts.append(run.attempt)
        if self.failures:
            raise self.failures.pop(0)
        return LayerOutcome(items_synced=7, items_changed=self.changed, as_of=NOW)


def run(store: Store, work: Work, clock: SteppedClock, layer=LayerId.GIT) -> list[float]:
    """Run to the end; returns the waits."""
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        clock.advance(timedelta(seconds=seconds))

    try:
        run_to_end(store, layer, work, triggered_by="test", clock=clock, sleep=sleep)
    except SyncError as error:
        work.failures.append(error)
    return waits


def status(store: Store, clock: SteppedClock, layer=LayerId.GIT):
    with store.read() as connection:
        return next(item for item in layer_runs.statuses(connection, now=clock()) if item.layer is layer)


def test_the_waits_are_the_documents() -> None:
    assert RETRY_WAITS == (5.0, 30.0, 300.0)
    assert [next_wait(unavailable(), failures) for failures in (1, 2, 3, 4)] == [5.0, 30.0, 300.0, None]


@pytest.mark.parametrize(("asked", "waited"), [(1.0, 5.0), (12.0, 12.0), (9999.0, 300.0)])
def test_a_wait_that_the_other_side_asks_for_is_honoured(asked: float, waited: float) -> None:
    assert next_wait(unavailable(retry_after=asked), 1) == waited


def test_three_waits_are_four_attempts(store: Store, clock: SteppedClock) -> None:
    work = Work(*[unavailable()] * 9)
    assert run(store, work, clock) == [5.0, 30.0, 300.0]
    assert work.attempts == [1, 2, 3, 4]
    assert status(store, clock).status is Status.FAILED


def test_a_transient_error_that_passes_leaves_success(store: Store, clock: SteppedClock) -> None:
    work = Work(unavailable())
    assert run(store, work, clock) == [5.0]
    after = status(store, clock)
    assert (after.status, after.items_synced, after.errors, after.consecutive_failures) == (Status.SUCCESS, 7, [], 0)
    with store.read() as connection:
        (row,) = connection.execute(sa.select(runs_table))
    assert (row.status, row.attempts) == ("success", 2)


def test_an_error_that_is_not_transient_is_not_tried_again(store: Store, clock: SteppedClock) -> None:
    assert run(store, Work(DENIED), clock) == []
    assert status(store, clock).errors == ["there: is denied; grant it"]


def test_a_defect_is_recorded_and_raised(store: Store, clock: SteppedClock) -> None:
    with pytest.raises(ZeroDivisionError):
        run(store, Work(ZeroDivisionError("oops")), clock)
    assert "ZeroDivisionError: oops" in status(store, clock).errors[0]


def test_a_layer_is_single_flight_also_between_attempts(store: Store, clock: SteppedClock) -> None:
    def start(work: Work, holder: str) -> LayerOutcome:
        return attempt(store, LayerId.GIT, work, triggered_by="test", clock=clock, holder=holder)

    with pytest.raises(RetryLater):
        start(Work(unavailable()), "other-host:1:a")
    clock.advance(timedelta(seconds=5))
    with pytest.raises(LayerBusy):
        start(Work(), "other-host:2:b")
    start(Work(), "other-host:1:a")
    start(Work(), "other-host:2:b")


def test_another_layer_is_not_held_up(store: Store, clock: SteppedClock) -> None:
    with pytest.raises(RetryLater):
        attempt(store, LayerId.GIT, Work(unavailable()), triggered_by="t", clock=clock, holder="h:1:a")
    attempt(store, LayerId.API, Work(), triggered_by="t", clock=clock, holder="h:2:b")


def test_the_lease_of_a_process_that_died_on_this_host_ends_at_once(store: Store, clock: SteppedClock) -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    dead = f"{socket.gethostname()}:{process.pid}:x"
    with pytest.raises(RetryLater):
        attempt(store, LayerId.GIT, Work(unavailable()), triggered_by="t", clock=clock, holder=dead)
    attempt(store, LayerId.GIT, Work(), triggered_by="t", clock=clock, holder=new_holder())
    with store.read() as connection:
        rows = connection.execute(sa.select(runs_table.c.status).order_by(runs_table.c.id)).scalars().all()
    assert rows == ["failed", "success"]


def test_a_sync_whose_process_is_gone_is_not_in_progress_for_ever(store: Store, clock: SteppedClock) -> None:
    with pytest.raises(RetryLater):
        attempt(store, LayerId.GIT, Work(unavailable()), triggered_by="t", clock=clock, holder="h:1:a")
    assert status(store, clock).status is Status.IN_PROGRESS
    clock.advance(timedelta(hours=1))
    after = status(store, clock)
    assert after.status is Status.FAILED
    assert "its process is gone" in after.errors[-1]


def test_steps_of_one_sync_share_its_run(store: Store, clock: SteppedClock) -> None:
    for last in (False, False, True):
        attempt(store, LayerId.BIGQUERY, Work(), triggered_by="t", clock=clock, holder="dagster:1", last=last)
        expected = Status.SUCCESS if last else Status.IN_PROGRESS
        assert status(store, clock, LayerId.BIGQUERY).status is expected
    with store.read() as connection:
        (row,) = connection.execute(sa.select(runs_table))
    assert (row.status, row.attempts) == ("success", 1)


def test_failures_are_counted_until_a_success(store: Store, clock: SteppedClock) -> None:
    for expected in (1, 2, 3):
        run(store, Work(DENIED), clock)
        assert status(store, clock).consecutive_failures == expected
    run(store, Work(), clock)
    assert status(store, clock).consecutive_failures == 0


@pytest.mark.parametrize(
    ("age", "expected"), [(timedelta(minutes=59), Status.FAILED), (timedelta(minutes=61), Status.STALE)]
)
def test_the_last_good_copy_stands_in_for_an_hour_and_is_stale_after(
    store: Store, clock: SteppedClock, age: timedelta, expected: Status
) -> None:
    run(store, Work(), clock)
    clock.advance(age)
    run(store, Work(DENIED), clock)
    after = status(store, clock)
    assert after.status is expected
    assert (after.items_synced, after.as_of) == (7, NOW), "figures are still served, with their age"
    assert after.errors == ["there: is denied; grant it"]


def test_a_layer_that_nobody_syncs_any_more_gets_stale(store: Store, clock: SteppedClock) -> None:
    run(store, Work(), clock)
    clock.advance(timedelta(hours=13))
    assert status(store, clock).status is Status.STALE


def test_what_was_never_synced_is_unknown(store: Store, clock: SteppedClock) -> None:
    before = status(store, clock)
    assert (before.status, before.last_sync, before.as_of) == (Status.UNKNOWN, None, None)


def test_only_news_is_announced(store: Store, clock: SteppedClock) -> None:
    def events() -> list[str]:
        with store.read() as connection:
            frames = event_log.after(connection, 0, limit=100)
        assert all(frame.event_type is EventType.SYNC_STATUS for frame in frames)
        return [frame.data["status"] for frame in frames]

    run(store, Work(changed=0), clock)
    run(store, Work(changed=0), clock)
    assert events() == ["success"]
    run(store, Work(changed=3), clock)
    run(store, Work(DENIED), clock)
    run(store, Work(DENIED), clock)
    run(store, Work(changed=0), clock)
    assert events() == ["success", "success", "failed", "success"]


def test_a_layer_whose_first_sync_failed_covers_nothing_and_counts_nothing(store: Store, clock: SteppedClock) -> None:
    run(store, Work(DENIED), clock)
    after = status(store, clock)
    assert (after.status, after.coverage.status) == (Status.FAILED, CoverageStatus.UNKNOWN)
    assert (after.items_synced, after.items_changed, after.as_of) == (None, None, None)


def test_a_sync_that_lost_its_lease_leaves_the_layer_to_its_successor(store: Store, clock: SteppedClock) -> None:
    def overtaken(run) -> LayerOutcome:
        clock.advance(timedelta(minutes=2))
        with pytest.raises(RetryLater):
            attempt(store, LayerId.GIT, Work(unavailable()), triggered_by="t", clock=clock, holder="other:2:b")
        return LayerOutcome(items_synced=99, items_changed=99, as_of=clock())

    attempt(store, LayerId.GIT, overtaken, triggered_by="t", clock=clock, holder="other:1:a")
    assert status(store, clock).status is Status.IN_PROGRESS
    with pytest.raises(LayerBusy):
        attempt(store, LayerId.GIT, Work(), triggered_by="t", clock=clock, holder="other:3:c")
    with store.read() as connection:
        first, second = connection.execute(sa.select(runs_table).order_by(runs_table.c.id))
    assert (first.status, second.status) == ("failed", "in_progress")


@pytest.mark.parametrize("failing", [False, True])
def test_a_sync_under_way_does_not_hide_the_age_of_what_is_served(
    store: Store, clock: SteppedClock, failing: bool
) -> None:
    run(store, Work(), clock)
    if failing:
        run(store, Work(DENIED), clock)
    clock.advance(timedelta(hours=2) if failing else timedelta(hours=13))
    with pytest.raises(RetryLater):
        attempt(store, LayerId.GIT, Work(unavailable()), triggered_by="t", clock=clock, holder="other:1:a")
    assert status(store, clock).status is Status.STALE


def test_a_sync_under_way_does_not_hide_what_was_missing(store: Store, clock: SteppedClock) -> None:
    partial = LayerOutcome(1, 1, NOW, status=Status.PARTIAL, errors=("a file is missing",))
    attempt(store, LayerId.GIT, lambda _: partial, triggered_by="t", clock=clock, holder="other:1:a")
    with pytest.raises(RetryLater):
        attempt(store, LayerId.GIT, Work(unavailable()), triggered_by="t", clock=clock, holder="other:1:a")
    after = status(store, clock)
    assert (after.status, after.coverage.status) == (Status.IN_PROGRESS, CoverageStatus.PARTIAL)


def test_a_sync_that_is_interrupted_while_it_waits_ends(store: Store, clock: SteppedClock) -> None:
    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_to_end(store, LayerId.GIT, Work(unavailable()), triggered_by="t", clock=clock, sleep=interrupted)
    after = status(store, clock)
    assert (after.status, after.errors) == (Status.FAILED, ["there: is down; wait"])


def test_a_sync_that_is_interrupted_at_work_is_no_defect(store: Store, clock: SteppedClock) -> None:
    def interrupted(_: LayerRun) -> LayerOutcome:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attempt(store, LayerId.GIT, interrupted, triggered_by="t", clock=clock, holder="a:1:a")
    assert status(store, clock).errors == ["layer git: was interrupted; the next sync begins anew"]


def test_a_store_that_is_away_for_a_moment_is_worth_another_attempt(store: Store, clock: SteppedClock) -> None:
    away = sa.exc.OperationalError("SELECT 1", {}, Exception("connection lost"))
    assert run(store, Work(away), clock) == [5.0]


def test_no_secret_and_no_strange_character_is_recorded(store: Store, clock: SteppedClock) -> None:
    leak = SyncError("failed\x00\nfor https://u:hunter2hunter2@host", where="git", remedy="r", reason=Reason.INTERNAL)
    run(store, Work(leak), clock)
    (error,) = status(store, clock).errors
    assert "hunter2hunter2" not in error
    assert error == error.replace("\x00", "").replace("\n", "")
    with store.read() as connection:
        assert "hunter2hunter2" not in str(event_log.after(connection, 0, limit=9))
